/* Room among the numbers of descriptors.
 *
 * A connection takes two: the program's end and the stack's. So a program that may open N files
 * would have half as many connections; where its numbers run out, the stack ends of connections
 * that are idle go to the keeper, which pumps them in a process with numbers of its own: slower
 * than direct mode, and as good as what the program was promised. Called by api.c after each
 * descriptor it makes or cannot make.
 */
#include "direct.h"
#include "keeper.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { AT_LEAST = 16, AT_ONCE = 128, KEEPER_SPARE = 256, IDLE_MS = 1000, AGAIN_MS = 1000 };

/* How many the keeper takes: what it has no number for would be lost on the way. */
static size_t keepers_room(void)
{
    struct rlimit limit;
    rlim_t kept = 0;
    if (syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) != 0) return 0;
    for (uint32_t i = 0; i < instance->socket_top; i++)
        if (instance->sockets[i] != NULL && keeper_has(instance->sockets[i])) kept++;
    kept += LWIP_MIN(KEEPER_SPARE, limit.rlim_max / 8);
    return limit.rlim_max > kept ? (size_t)LWIP_MIN(limit.rlim_max - kept, AT_ONCE) : 0;
}

/* A connection that no other process waits for, and that does not depend on direct mode. */
static bool can_go(const struct sock *s, uint64_t idle_before_ms)
{
    return s != NULL && s->kind == KIND_TCP && s->state == CONNECTED && s->listener == NULL &&
           !s->hang_up && !s->reset_wanted && s->receive_low <= 1 && s->notsent_low == 0 &&
           s->unread_ms < idle_before_ms && direct_held_here_alone(s);
}

/* From where the last search ended, so that all have their turn. */
static size_t choose(cse_socket *list, size_t most, uint64_t idle_before_ms)
{
    static uint32_t next;
    size_t count = 0;
    for (uint32_t looked = 0; looked < me.top && count < most; looked++) {
        if (++next >= me.top) next = 0;
        if (can_go(instance->sockets[next], idle_before_ms))
            list[count++] = sock_handle(instance->sockets[next]);
    }
    return count;
}

/* Ours no more: the keeper relays it from now on. */
static bool let_go(cse_socket handle)
{
    struct sock *s = sock_get(handle);
    if (s == NULL || !keeper_has(s) || !can_go(s, UINT64_MAX)) return false;
    direct_stop(s);
    host->ready(handle, CSE_READY_RELAYED);
    sock_hand_over(s);
    return true;
}

/* Without the lock. True if there is room now. */
bool room_make(void)
{
    static uint64_t failed_ms;
    cse_socket list[AT_ONCE];
    sigset_t saved;
    size_t count = 0, gone = 0;
    uint64_t now = now_ms();
    if (me.confined || (failed_ms != 0 && now < failed_ms + AGAIN_MS)) return false;
    instance_lock(&saved);
    size_t most = keepers_room();
    count = choose(list, most, now - IDLE_MS);
    if (count < AT_LEAST) count = choose(list, most, UINT64_MAX);
    instance_unlock(&saved);
    keeper_entrust(list, count);
    instance_lock(&saved);
    for (size_t i = 0; i < count; i++) gone += let_go(list[i]);
    instance->process_changes++; /* a new process may not have been watched for want of a number */
    instance_unlock(&saved);
    failed_ms = gone > 0 ? 0 : now;
    trace("%zu of %zu stack ends went to the keeper", gone, count);
    return gone > 0;
}

/* After a call that made `fd`, or failed: true if it is worth another try. */
bool room_after(int fd)
{
    if (fd >= 0) {
        if (host->crowded(fd)) room_make();
        return false;
    }
    return fd == -EMFILE && room_make();
}
