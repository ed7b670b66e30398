/* The reset: a process died inside the stack, so nothing in the arena can be relied on.
 *
 * lwIP and the heap start anew, and all connections are gone: their programs read ECONNRESET,
 * their peers are sent a reset (farewell.c). Listeners, datagram sockets and sockets that are not
 * connected yet keep their descriptors and are made again from what is known of them, so that the
 * other processes of a server go on serving. Each is checked before it is believed; what does
 * not look right is treated like a connection.
 *
 * Called by instance_lock: `reset_instance` in whichever process finds the lock's owner dead,
 * `reset_ends` then in each of them.
 */
#include "direct.h"
#include "farewell.h"

#include "lwip/priv/tcp_priv.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>

/* What survives, in the arena: a process that dies while it resets leaves it to the next one. */
struct kept {
    uint32_t complete, top, count;
    uint32_t mss, initial_window, delayed_ack_ms, congestion, rto_least_us;
    struct farewell farewell;
    struct sock socks[SOCKETS_MAX];
};
_Static_assert(sizeof(struct kept) <= ARENA_BASE + ARENA_HEAP_MAX - ARENA_KEPT, "room for it");
#define KEPT ((struct kept *)ARENA_KEPT)

static bool sound(const struct sock *s, uint32_t index)
{
    uintptr_t at = (uintptr_t)s, first = ARENA_BASE + sizeof *instance;
    return at >= first && at <= ARENA_KEPT - sizeof *s && at % 8 == 0 && s->index == index &&
           s->generation == instance->generations[index] && s->inode != 0 && s->kind >= KIND_TCP &&
           s->kind <= KIND_PING && s->state < ENDED;
}

/* The sound sockets, copied out of the heap; who waits for one of them to connect is woken. */
static void keep(void)
{
    KEPT->top = instance->socket_top < SOCKETS_MAX ? instance->socket_top : SOCKETS_MAX;
    KEPT->count = 0;
    for (uint32_t i = 0; i < KEPT->top; i++) {
        struct sock *s = instance->sockets[i];
        if (sound(s, i)) KEPT->socks[KEPT->count++] = *s;
    }
    KEPT->mss = cse_tcp_mss;
    KEPT->initial_window = cse_tcp_initial_window;
    KEPT->delayed_ack_ms = cse_tcp_delayed_ack_ms;
    KEPT->congestion = cse_tcp_congestion;
    KEPT->rto_least_us = cse_tcp_rto_least_us;
    farewell_prepare(&KEPT->farewell);
    __atomic_store_n(&KEPT->complete, 1, __ATOMIC_RELEASE);
}

/* Who waits for a socket to connect waits on a word of the old heap. */
static void wake_waiting(void)
{
    for (uint32_t i = 0; i < KEPT->top; i++) {
        struct sock *s = instance->sockets[i];
        if (sound(s, i) && s->state == CONNECTING) sock_set_state(s, ENDED);
    }
}

/* Processes that died halfway through another's farewell leave bits behind. */
static bool has_holder(struct sock *s)
{
    uint16_t holder = NO_PROCESS;
    for (uint16_t i = 0; i < PROCESSES_MAX; i++) {
        uint64_t bit = UINT64_C(1) << (i % 64);
        if (!(s->holders[i / 64] & bit)) continue;
        if (instance->processes[i].used == 0)
            s->holders[i / 64] &= ~bit;
        else if (holder == NO_PROCESS || s->owner == i)
            holder = i;
    }
    s->owner = holder;
    return holder != NO_PROCESS;
}

/* In its old place, so that handles and stack ends that processes have of it are good. */
static struct sock *put_back(const struct sock *old)
{
    struct sock *s = heap_alloc(sizeof *s);
    if (s == NULL) return NULL;
    memset(s, 0, sizeof *s);
    s->index = old->index;
    s->generation = old->generation;
    s->kind = old->kind;
    s->family = old->family;
    s->inode = old->inode;
    address_any(s, &s->local.ip);
    address_any(s, &s->remote.ip);
    s->owner = old->owner;
    memcpy(s->holders, old->holders, sizeof s->holders);
    sock_copy_options(s, old);
    sock_know(s);
    instance->sockets[s->index] = s;
    direct_publish(s);
    return s;
}

static bool bind_again(struct sock *s, const struct sock *old)
{
    struct endpoint name = old->local;
    if (!old->bound) return true;
    if (!old->local_given) address_any(s, &name.ip);
    return bind_pcb(s, &name) == 0;
}

/* False: it cannot be, or was a connection. */
static bool make_again(struct sock *s, const struct sock *old)
{
    if (s->kind != KIND_TCP) {
        if (!bind_again(s, old)) return false;
        if (old->state != CONNECTED) return true;
        return (s->kind == KIND_UDP ? udp_connect_to : udp_set_peer)(s, &old->remote) == 0;
    }
    if (old->state == CONNECTING && old->waited_for) { /* connect fails, the socket stays */
        s->error = ECONNRESET;
        return true;
    }
    if (old->state != FRESH && old->state != LISTENING) return false;
    if (!bind_again(s, old)) return false;
    return old->state == FRESH || listen_start(s, (int)old->backlog) == 0;
}

static void revive(struct sock *old)
{
    if (!has_holder(old)) return;
    struct sock *s = put_back(old);
    if (s == NULL) return;
    instance->generations[s->index] = s->generation;
    instance->sockets_live++;
    if (make_again(s, old)) {
        s->adopt = s->relay_news = true;
        sock_notify(s);
        return;
    }
    struct tcp_pcb *pcb = s->tcp;
    s->tcp = NULL;
    if (pcb != NULL) {
        tcp_arg(pcb, NULL);
        tcp_abort(pcb);
    }
    udp_close(s);
    s->local = old->local; /* for getsockname and getpeername */
    s->remote = old->remote;
    s->error = ECONNRESET;
    tcp_reset_program(s, s->error);
}

static void forget_all(void)
{
    arena_restore_sections();
    heap_init();
    memset(instance->hash, 0, sizeof instance->hash);
    memset(instance->ports, 0, sizeof instance->ports);
    memset(instance->zombies, 0, sizeof instance->zombies);
    memset(instance->sockets, 0, KEPT->top * sizeof *instance->sockets);
    for (uint32_t i = 0; i < KEPT->top; i++)
        instance->generations[i] = (instance->generations[i] + 1) & INT_MAX;
    memset(instance->readiness, 0, KEPT->top * sizeof *instance->readiness);
    for (int i = 0; i < PROCESSES_MAX; i++)
        instance->processes[i].pending = instance->processes[i].pending_last =
            instance->processes[i].unread = instance->processes[i].fresh =
                instance->processes[i].fresh_last = NULL;
    if (instance->leader < PROCESSES_MAX && instance->processes[instance->leader].used != 2)
        instance->leader = NO_PROCESS;
    instance->process_changes++;
    instance->sockets_live = 0;
    instruments_reset();
    wire_reset();
}

/* Those that lwIP has in variables of its own, as they were set last (tune.c). */
static void restore_settings(void)
{
    cse_tcp_mss = KEPT->mss;
    cse_tcp_initial_window = KEPT->initial_window;
    cse_tcp_delayed_ack_ms = KEPT->delayed_ack_ms;
    cse_tcp_congestion = KEPT->congestion;
    cse_tcp_rto_least_us = KEPT->rto_least_us;
}

static void list_free_places(void)
{
    instance->socket_top = KEPT->top;
    instance->socket_free = 0;
    for (uint32_t i = 0; i < KEPT->top; i++) {
        if (instance->sockets[i] != NULL) continue;
        instance->free_next[i] = instance->socket_free;
        instance->socket_free = i + 1;
    }
}

void reset_instance(void)
{
    trace("a process died inside the stack: the instance starts anew");
    if (!KEPT->complete) {
        keep();
        wake_waiting();
    }
    forget_all();
    instance_fill_in();
    restore_settings();
    farewell_send(&KEPT->farewell);
    for (uint32_t i = 0; i < KEPT->count; i++) revive(&KEPT->socks[i]);
    list_free_places();
    instance->epoch++;
    for (uint16_t i = 0; i < PROCESSES_MAX; i++)
        if (instance->processes[i].used == 2) process_ring(i);
    KEPT->complete = 0;
    madvise(KEPT, ARENA_BASE + ARENA_HEAP_MAX - ARENA_KEPT, MADV_REMOVE);
}

/* This process's stack ends of connections that are gone. */
void reset_ends(void)
{
    me.epoch = instance->epoch;
    for (uint32_t i = 0; i < me.top; i++) {
        if (me.ends[i].fd <= 0 || me.ends[i].generation == instance->generations[i]) continue;
        pair_spoil(&me.ends[i]);
        sock_close_end(i);
    }
}
