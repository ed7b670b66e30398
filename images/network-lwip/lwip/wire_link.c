/* How wires come and go: the broker's messages, and each process's hold on a wire.
 *
 * The leader's pump talks to the broker: it asks for wires and hears of those that peers asked
 * for, maps them, and tells what it lets go. Another process of the instance that needs a wire
 * asks the leader over its doorbell and is sent the descriptors; a forked child inherits them.
 * Until a process has the wire mapped it leaves its packets in the arena and rings the leader.
 *
 * A bell is a pipe of this instance whose write ends peers have: unlike an eventfd it cannot be
 * emptied by who rings it, each writer has an open file of its own, so that none can make another
 * block, and a peer notices by it that the last process of this instance is gone, also while no
 * broker lives.
 */
#include "core.h"
#include "instance.h"
#include "pump.h"
#include "wire.h"

#include "lwip/priv/tcp_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { NONE_MS = 5000, BELL_BYTES = 4096 };

#define wires (&instance->wires)

struct wire_map wire_maps[WIRES_MAX];

/* ---- this process's hold ------------------------------------------------------------------- */

/* The control pages have a place for good: wire_pending and wire_want look at them without the
 * lock while another thread takes a wire away, and see an empty page then. */
static char *control_place(uint32_t index)
{
    static char *places;
    size_t all = (size_t)WIRES_MAX * WIRE_CONTROL_BYTES;
    if (places == NULL) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        char *got = mmap(NULL, all, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (got == MAP_FAILED) return NULL;
        places = got;
    }
    return places + (size_t)index * WIRE_CONTROL_BYTES;
}

static void watch(uint32_t index, int operation)
{
    struct epoll_event event = {.data.u64 = PUMP_WIRE + index}; /* only that nobody reads it */
    if (me.epoll >= 0)
        syscall(SYS_epoll_ctl, me.epoll, operation, wire_maps[index].bells[0], &event);
}

void wire_let_go(uint32_t index)
{
    struct wire_map *map = &wire_maps[index];
    if (map->generation == 0) return;
    watch(index, EPOLL_CTL_DEL);
    map->generation = 0;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    if (mmap(map->control, WIRE_CONTROL_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
        trace("the control page of a wire stays mapped"); /* harmless: nobody looks at it */
    munmap(map->rings[0], 2 * (size_t)WIRE_RING_BYTES);
    host->own_close(map->memory);
    host->own_close(map->bells[0]);
    host->own_close(map->bells[1]);
}

/* The memory must be what the broker makes: whole, and sealed against shrinking. */
static bool good_memory(int fd)
{
    struct stat status;
    long seals = syscall(SYS_fcntl, fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) && fstat(fd, &status) == 0 &&
           status.st_size >= WIRE_BYTES;
}

/* Takes the three descriptors, also where it fails. */
bool wire_hold(uint32_t index, const int *fds)
{
    struct wire *wire = &wires->table[index];
    struct wire_map *map = &wire_maps[index];
    wire_let_go(index);
    char *control = control_place(index), *rings = MAP_FAILED;
    if (control != NULL && good_memory(fds[0]))
        rings = mmap(NULL, 2 * (size_t)WIRE_RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0],
                     WIRE_CONTROL_BYTES);
    if (rings == MAP_FAILED || mmap(control, WIRE_CONTROL_BYTES, PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_FIXED, fds[0], 0) == MAP_FAILED) {
        if (rings != MAP_FAILED) munmap(rings, 2 * (size_t)WIRE_RING_BYTES);
        for (int i = 0; i < 3; i++) host->own_close(fds[i]);
        return false;
    }
    map->side = wire->side;
    map->control = (struct ring_control *)(void *)control;
    map->rings[0] = rings;
    map->rings[1] = rings + WIRE_RING_BYTES;
    map->memory = fds[0];
    map->bells[0] = fds[1];
    map->bells[1] = fds[2];
    __atomic_store_n(&map->generation, wire->generation, __ATOMIC_RELEASE);
    if (me.reads_device) watch(index, EPOLL_CTL_ADD);
    return true;
}

/* The ends as the shared words say, after a reset; false where they say nothing sensible. */
static bool find_ends(struct wire *wire, struct wire_map *map)
{
    struct ring_words *out = &map->control->direction[wire->side];
    struct ring_words *in = &map->control->direction[1 - wire->side];
    wire->end.tail = __atomic_load_n(&out->tail, __ATOMIC_ACQUIRE) & ~7U;
    wire->end.peer_head = __atomic_load_n(&out->head, __ATOMIC_ACQUIRE) & ~7U;
    wire->end.head = __atomic_load_n(&in->tail, __ATOMIC_ACQUIRE) & ~7U;
    ring_release(&wire->end, in);
    wire->resync = false;
    return wire->end.tail - wire->end.peer_head <= WIRE_RING_BYTES;
}

struct wire_map *wire_map_of(const struct wire *wire)
{
    struct wire_map *map = &wire_maps[wire - wires->table];
    if (wire->state != WIRE_UP || map->generation != wire->generation) return NULL;
    if (wire->resync) {
        struct wire *found = &wires->table[wire - wires->table];
        if (!find_ends(found, map)) {
            wire_break(found);
            return NULL;
        }
    }
    return map;
}

/* The leader watches for the end of its peers. */
void wire_watch(bool wanted)
{
    for (uint32_t i = 0; i < wires->top; i++)
        if (wire_maps[i].generation != 0) watch(i, wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL);
}

int wire_make_bells(void)
{
    for (int i = 0; i < 2; i++) {
        int ends[2];
        if (syscall(SYS_pipe2, ends, O_CLOEXEC | O_NONBLOCK) != 0) return -errno;
        syscall(SYS_fcntl, ends[0], F_SETPIPE_SZ, (long)BELL_BYTES);
        me.bells[i] = host->own_fd(ends[0]);
        me.bell_holds[i] = host->own_fd(ends[1]);
        if (me.bells[i] < 0 || me.bell_holds[i] < 0) return -EMFILE;
    }
    return 0;
}

void wire_hush(void)
{
    char rings[256];
    while (syscall(SYS_read, me.bells[0], rings, sizeof rings) == sizeof rings) {}
}

/* ---- the end of a wire --------------------------------------------------------------------- */

/* Connections to a peer whose instance is gone: it would have reset them. */
static void reset_connections(const struct wire *wire)
{
    struct tcp_pcb *pcb = tcp_active_pcbs;
    while (pcb != NULL) {
        const ip_addr_t *address = &wire->address[IP_IS_V6(&pcb->remote_ip) ? 1 : 0];
        if (pcb->state == SYN_SENT || !ip_addr_eq(&pcb->remote_ip, address)) {
            pcb = pcb->next;
            continue;
        }
        struct sock *s = pcb->state == SYN_RCVD ? NULL : pcb->callback_arg;
        if (s != NULL && s->error == 0) s->error = ECONNRESET;
        tcp_clear_flags(pcb, TF_ACK_DELAY); /* nobody is there to acknowledge to */
        tcp_abandon(pcb, 0);
        pcb = tcp_active_pcbs;
    }
}

static void take_down(struct wire *wire)
{
    if (wire->state == WIRE_UP) wires->up--;
    wire->state = WIRE_NONE;
    wire->until_ms = now_ms();
    wire->blocked = false;
    wires->changes++;
    wire_let_go((uint32_t)(wire - wires->table));
    wire_flush(wire); /* by the tap */
}

static bool tell_broker(const char *verb, const struct wire *wire)
{
    char text[120], address[48];
    bool named = wire->id[0] != '\0' && strcmp(verb, "unwire") == 0;
    const ip_addr_t *known = &wire->address[ip_addr_isany(&wire->address[0]) ? 1 : 0];
    struct pollfd ready = {me.broker, POLLOUT, 0};
    if (me.broker < 0) return false;
    if (syscall(SYS_ppoll, &ready, 1, &(struct timespec){0, 0}, NULL, (size_t)8) != 1) return false;
    if (ipaddr_ntoa_r(known, address, sizeof address) == NULL) return false;
    snprintf(text, sizeof text, "%s address=%s%s%s", verb, address, named ? " id=" : "",
             named ? wire->id : "");
    return host->broker_send(me.broker, text, NULL, 0);
}

/* Given up on both sides; the tap takes over, and another wire may come after a while. */
void wire_give_up(struct wire *wire)
{
    tell_broker("unwire", wire);
    take_down(wire);
    wire->until_ms = now_ms() + NONE_MS;
    reset_connections(wire);
}

void wire_break(struct wire *wire)
{
    trace("the wire to %s is broken", wire->name);
    wires->errors++;
    wire_give_up(wire);
}

void wire_hang_up(uint32_t index)
{
    if (index >= wires->top || wires->table[index].state != WIRE_UP) return;
    struct wire *wire = &wires->table[index];
    /* The event may be of the bell of an earlier wire at this place. */
    struct pollfd bell = {wire_maps[index].bells[0], 0, 0};
    if (wire_maps[index].generation != wire->generation ||
        syscall(SYS_ppoll, &bell, 1, &(struct timespec){0, 0}, NULL, (size_t)8) != 1)
        return;
    trace("%s is gone", wire->name);
    tell_broker("unwire", wire);
    wire_drain(wire);
    take_down(wire);
    reset_connections(wire);
}

/* ---- the broker ---------------------------------------------------------------------------- */

static bool leading(void)
{
    return me.slot != NO_PROCESS && instance->leader == me.slot;
}

static void refuse(struct wire *wire)
{
    wire->state = WIRE_NONE;
    wire->until_ms = now_ms() + NONE_MS;
    wire_flush(wire);
}

/* The question is the leader's to ask. Without a broker the answer is no. */
void wire_ask(struct wire *wire)
{
    wire->to_ask = !leading();
    wires->work = true;
    if (leading()) {
        if (!tell_broker("wire", wire)) refuse(wire);
    } else if (instance->leader != NO_PROCESS) {
        process_ring(instance->leader);
    }
}

/* After the lead has come to this process, or a new broker: what wires the instance has. */
void wire_lead(void)
{
    static char text[CSE_BROKER_MESSAGE_MAX];
    size_t used = (size_t)snprintf(text, sizeof text, "lead wires=");
    if (me.broker < 0) return;
    for (uint16_t i = 0; i < wires->top; i++) {
        char address[16];
        const struct wire *wire = &wires->table[i];
        if (wire->state != WIRE_UP || used + 17 >= sizeof text) continue;
        ip4addr_ntoa_r(ip_2_ip4(&wire->address[0]), address, sizeof address);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s,", address);
    }
    host->broker_send(me.broker, text, NULL, 0);
}

/* False where the message has no such address. */
static bool read_address(const char *text, const char *key, ip_addr_t *out)
{
    char value[64];
    return host->message_field(text, key, value, sizeof value) && ipaddr_aton(value, out);
}

static void granted(const char *text, const ip_addr_t *address, const int *fds)
{
    char side[4];
    ip_addr_t address6 = IPADDR6_INIT(0, 0, 0, 0);
    read_address(text, "address6", &address6);
    struct wire *wire =
        IP_IS_V4(address) && IP_IS_V6(&address6) ? wire_peer(address, &address6) : NULL;
    if (wire == NULL || !host->message_field(text, "side", side, sizeof side)) {
        for (int i = 0; i < 3; i++) host->own_close(fds[i]);
        return;
    }
    if (wire->state != WIRE_UP) wires->up++;
    wire->state = WIRE_UP;
    wire->side = side[0] == '1';
    wire->end = (struct ring_end){0};
    wire->blocked = wire->resync = wire->to_ask = false;
    wire->until_ms = 0;
    wire->generation = ++wires->last_generation;
    wires->changes++;
    host->message_field(text, "name", wire->name, sizeof wire->name);
    if (!host->message_field(text, "id", wire->id, sizeof wire->id)) wire->id[0] = '\0';
    trace("a wire to %s", wire->name);
    if (wire_hold((uint32_t)(wire - wires->table), fds)) {
        wire_flush(wire);
    } else {
        tell_broker("unwire", wire);
        take_down(wire);
        wire->until_ms = now_ms() + NONE_MS;
    }
}

/* An `unwire` is about one wire, not about what may be at its address by now. */
static bool is_meant(const char *text, const struct wire *wire)
{
    char id[sizeof wire->id];
    return wire->id[0] == '\0' || !host->message_field(text, "id", id, sizeof id) ||
           strcmp(id, wire->id) == 0;
}

bool wire_message(struct cse_message *message)
{
    ip_addr_t address;
    bool made = strncmp(message->text, "wire ", 5) == 0;
    if (!made && strncmp(message->text, "unwire ", 7) != 0) return false;
    struct wire *wire = NULL;
    if (read_address(message->text, "address", &address)) {
        wire = wire_find(&address);
        if (made && message->fd_count == 3) {
            message->fd_count = 0;
            granted(message->text, &address, message->fds);
        } else if (made && wire != NULL && wire->state == WIRE_ASKED) {
            refuse(wire);
        } else if (!made && wire != NULL && wire->state == WIRE_UP &&
                   is_meant(message->text, wire)) {
            wire_drain(wire);
            take_down(wire);
            reset_connections(wire);
        }
    }
    for (int i = 0; i < message->fd_count; i++) host->own_close(message->fds[i]);
    message->fd_count = 0;
    return true;
}
