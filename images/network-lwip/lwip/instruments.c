/* Instruments, the common part: commands from the broker, the pump's alarm, the test bit that
 * makes them free while none is in use. Called by pump.c (the leader's) and instance.c. */
#include "instruments.h"
#include "core.h"
#include "instance.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ALL (&instance->instruments)

void instruments_update_hooks(void)
{
    uint32_t hooks = ALL->held_count > 0 ? HOOK_FAULTS : 0;
    for (int i = 0; i < FAULTS_MAX; i++)
        if (ALL->faults[i].id[0] != '\0' && !ALL->faults[i].ended) hooks |= HOOK_FAULTS;
    for (int i = 0; i < CAPTURES_MAX; i++)
        if (ALL->captures[i].number != 0) hooks |= HOOK_CAPTURE;
    instance->packet_hooks = hooks;
}

/* What was in the heap is gone; the faults themselves hold. */
void instruments_reset(void)
{
    ALL->held = NULL;
    ALL->held_count = ALL->held_room = 0;
    ALL->held_bytes = 0;
    for (int i = 0; i < FAULTS_MAX; i++) ALL->faults[i].parked[0] = ALL->faults[i].parked[1] = NULL;
    memset(ALL->captures, 0, sizeof ALL->captures);
    instruments_update_hooks();
}

/* Held packets and deadlines that are due; true if anything happened. */
bool instruments_settle(void)
{
    bool any = false;
    if (instance->packet_hooks & HOOK_FAULTS) {
        any = fault_expire();
        if (fault_run()) any = true;
    }
    if (any) instruments_update_hooks();
    return any;
}

bool instruments_hear(struct cse_message *message)
{
    char value[32];
    const char *text = message->text;
    int fd = message->fd_count > 0 ? message->fds[0] : -1;
    if (!host->message_field(text, "serial", value, sizeof value)) return false;
    uint64_t serial = strtoull(value, NULL, 10);
    bool fresh = serial > ALL->serial; /* a new leader meets what an old one has done */
    if (fresh) ALL->serial = serial;
    if (!fresh)
        ;
    else if (strncmp(text, "fault ", 6) == 0)
        fault_hear(text);
    else if (strncmp(text, "faults ", 7) == 0)
        fault_keep_only(text);
    else if (strncmp(text, "capture ", 8) == 0)
        capture_hear(text, fd), fd = -1;
    else if (strncmp(text, "uncapture ", 10) == 0)
        capture_end(text);
    else if (strncmp(text, "report ", 7) == 0 && fd >= 0)
        report_hear(text, fd);
    if (fd >= 0) host->own_close(fd);
    for (int i = 1; i < message->fd_count; i++) host->own_close(message->fds[i]);
    instruments_update_hooks();
    return true;
}

/* ---- the leader's pump ---------------------------------------------------------------------- */

/* After a round: what waits for the agent. */
void instruments_tell(void)
{
    ALL->alarm_us = 0;
    if (instance->packet_hooks & HOOK_CAPTURE) capture_drain();
    struct pollfd ready = {me.broker, POLLOUT, 0};
    if (fault_to_tell() && me.broker >= 0 &&
        syscall(SYS_ppoll, &ready, 1, &(struct timespec){0, 0}, NULL, 0) == 1)
        fault_tell();
}

/* The pump may sleep so long at most. */
int instruments_timeout(int timeout_ms)
{
    uint64_t next = instance->packet_hooks & HOOK_FAULTS ? fault_next_us() : 0, now = now_us();
    ALL->alarm_us = timeout_ms < 0 ? UINT64_MAX : now + (uint64_t)timeout_ms * 1000;
    if (next == 0 || next >= ALL->alarm_us) return timeout_ms;
    ALL->alarm_us = next;
    uint64_t wait_ms = next > now ? (next - now + 999) / 1000 : 0;
    return wait_ms > INT32_MAX ? INT32_MAX : (int)wait_ms;
}

/* At unlock: the leader may have to wake earlier than it thinks. */
void instruments_poke(void)
{
    if (instance->leader == NO_PROCESS) return;
    uint64_t next = fault_next_us();
    if ((next != 0 && next < ALL->alarm_us) || capture_waiting()) process_ring(instance->leader);
}
