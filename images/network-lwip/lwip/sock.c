/* Sockets: their table, their identity, their pairs, and the hand-over between processes.
 *
 * A socket is known by the inode of the program's end of its pair, so that dup, fork, exec and
 * descriptor passing need no bookkeeping. It lives until the stack end hangs up, and its names a
 * while longer (zombies), because the stack end hangs up as well when both directions are shut.
 */
#include "direct.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct sock *sock_new(enum sock_kind kind, int family)
{
    uint32_t index;
    if (instance->socket_free != 0)
        index = instance->socket_free - 1;
    else if (instance->socket_top < SOCKETS_MAX)
        index = instance->socket_top;
    else
        return NULL;
    struct sock *s = heap_alloc(sizeof *s);
    if (s == NULL) return NULL;
    if (instance->socket_free != 0)
        instance->socket_free = instance->free_next[index];
    else
        instance->socket_top++;
    memset(s, 0, sizeof *s);
    s->index = index;
    s->generation = instance->generations[index] = (instance->generations[index] + 1) & INT_MAX;
    if (s->generation == 0) s->generation = instance->generations[index] = 1;
    s->kind = (uint8_t)kind;
    s->owner = NO_PROCESS;
    s->family = (uint8_t)family;
    address_any(s, &s->local.ip);
    address_any(s, &s->remote.ip);
    s->ttl = s->hops = (uint8_t)instance->default_ttl;
    s->multicast_ttl = s->multicast_hops = 1;
    s->keep_idle = instance->keep_idle;
    s->keep_interval = instance->keep_interval;
    s->keep_count = instance->keep_count;
    s->receive_buffer = kind == KIND_TCP ? 131072 : PAIR_BUFFER;
    s->send_buffer = kind == KIND_TCP ? 16384 : PAIR_BUFFER;
    s->receive_low = 1;
    instance->sockets[index] = s;
    instance->sockets_live++;
    direct_publish(s);
    return s;
}

/* What a program has set for one socket, for another that stands for it. */
void sock_copy_options(struct sock *s, const struct sock *from)
{
#define COPY(field) s->field = from->field
    COPY(v6_only), COPY(reuse_address), COPY(reuse_port), COPY(keep_alive), COPY(broadcast);
    COPY(no_delay), COPY(cork), COPY(linger_on), COPY(linger_seconds), COPY(telling);
    COPY(receive_error), COPY(receive_error6), COPY(oob_inline), COPY(priority), COPY(device);
    COPY(multicast_ttl), COPY(multicast_hops), COPY(no_multicast_loop), COPY(no_multicast_loop6);
    COPY(multicast_interface), COPY(multicast_interface6);
    COPY(receive_buffer), COPY(send_buffer), COPY(receive_low), COPY(notsent_low);
    COPY(user_timeout_ms), COPY(keep_idle), COPY(keep_interval), COPY(keep_count);
    COPY(max_segment), COPY(defer_accept), COPY(syn_retries), COPY(fin_wait_s);
    COPY(window_clamp), COPY(fast_open), COPY(congestion_given), COPY(quick_ack), COPY(slow_ack);
    COPY(receive_fixed), COPY(send_fixed);
    COPY(ttl), COPY(hops), COPY(tos), COPY(traffic_class), COPY(port_given);
#undef COPY
}

static struct sock **hash_place(uint64_t inode)
{
    return &instance->hash[(inode * UINT64_C(0x9e3779b97f4a7c15)) >> 52];
}

void sock_know(struct sock *s)
{
    s->hash_next = *hash_place(s->inode);
    *hash_place(s->inode) = s;
}

static void hash_remove(struct sock *s)
{
    for (struct sock **at = hash_place(s->inode); *at != NULL; at = &(*at)->hash_next)
        if (*at == s) {
            *at = s->hash_next;
            break;
        }
    s->inode = 0;
}

void sock_drop_rx(struct sock *s)
{
    while (s->rx_first != NULL) {
        struct chunk *chunk = s->rx_first;
        s->rx_first = chunk->next;
        if (chunk->packet != NULL) pbuf_free(chunk->packet);
        heap_free(chunk);
    }
    s->rx_last = NULL;
    s->rx_bytes = s->rx_offset = 0;
}

void sock_unlist(struct sock *s)
{
    if (!s->pending || s->owner == NO_PROCESS) return;
    struct process *p = &instance->processes[s->owner];
    struct sock **at = &p->pending, *before = NULL;
    while (*at != NULL && *at != s) before = *at, at = &(*at)->pending_next;
    if (*at == s) *at = s->pending_next;
    if (p->pending_last == s) p->pending_last = before;
    s->pending = false;
}

/* Everything but the name goes. Other processes close their copies of the stack end. */
static void dismantle(struct sock *s)
{
    direct_forget(s);
    fresh_forget(s);
    if (s->direct) host->ready(sock_handle(s), CSE_READY_RELAYED);
    s->direct = false;
    instance->readiness[s->index] = 0;
    filter_ports_changed(false);
    sock_drop_rx(s);
    heap_free(s->stash);
    s->stash = NULL;
    sock_unlist(s);
    if (me.ends[s->index].generation == s->generation) sock_close_end(s->index);
    instance->generations[s->index]++;
    instance->stale_changes++; /* copies elsewhere are stale from here on */
    for (int word = 0; word < HOLDER_WORDS; word++) {
        uint64_t bits = s->holders[word];
        s->holders[word] = 0;
        for (; bits != 0; bits &= bits - 1) {
            uint16_t slot = (uint16_t)(word * 64 + __builtin_ctzll(bits));
            if (slot != me.slot) process_ring(slot);
        }
    }
    s->owner = NO_PROCESS;
    instance->sockets_live--;
}

static void release(struct sock *s)
{
    uint32_t index = s->index;
    if (s->inode != 0) hash_remove(s);
    sock_unbound(s);
    instance->sockets[index] = NULL;
    instance->free_next[index] = instance->socket_free;
    instance->socket_free = index + 1;
    heap_free(s);
}

void sock_free(struct sock *s)
{
    dismantle(s);
    release(s);
}

void sock_retire(struct sock *s)
{
    dismantle(s);
    sock_set_state(s, ENDED);
    struct sock **place = &instance->zombies[instance->zombie_at++ % ZOMBIES_MAX];
    if (*place != NULL) release(*place);
    *place = s;
}

/* ---- handles ------------------------------------------------------------------------------- */

cse_socket sock_handle(const struct sock *s)
{
    return (uint64_t)s->generation << 32 | (uint64_t)(s->index + 1) << 1 | (s->kind != KIND_TCP);
}

struct sock *sock_get(cse_socket handle)
{
    uint32_t index = ((uint32_t)handle >> 1) - 1;
    struct sock *s = index < SOCKETS_MAX ? instance->sockets[index] : NULL;
    return s != NULL && s->generation == handle >> 32 ? s : NULL;
}

struct sock *sock_by_inode(uint64_t inode)
{
    struct sock *s = *hash_place(inode);
    while (s != NULL && s->inode != inode) s = s->hash_next;
    return s;
}

/* ---- events -------------------------------------------------------------------------------- */

void sock_notify(struct sock *s)
{
    if (s->pending || s->owner == NO_PROCESS) return;
    s->pending = true;
    struct process *p = &instance->processes[s->owner];
    s->pending_next = NULL;
    if (p->pending_last != NULL)
        p->pending_last->pending_next = s;
    else
        p->pending = s;
    p->pending_last = s;
}

void sock_set_state(struct sock *s, enum sock_state state)
{
    __atomic_store_n(&s->state, (uint32_t)state, __ATOMIC_RELEASE);
    direct_publish(s);
    if (s->waited_for) syscall(SYS_futex, &s->state, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void sock_deliver(struct sock *s)
{
    if (s->adopt) {
        s->adopt = s->rx_blocked = false;
        s->tx_ready = true;
        pump_watch(s);
    }
    if (s->kind != KIND_TCP)
        udp_deliver(s);
    else if (s->state == LISTENING)
        listen_deliver(s);
    else
        tcp_deliver(s);
}

/* The last process with its stack end died without a word. */
void sock_orphaned(struct sock *s)
{
    if (s->state == LISTENING) listen_close(s);
    if (s->listener != NULL) return; /* not accepted yet: its listener's */
    if (s->kind != KIND_TCP) udp_close(s);
    if (s->tcp != NULL) {
        struct tcp_pcb *pcb = s->tcp;
        s->tcp = NULL;
        tcp_arg(pcb, NULL);
        tcp_abort(pcb);
    }
    sock_retire(s);
}

/* ---- binding: Linux's rules for conflicts --------------------------------------------------- */

static struct sock **port_place(uint16_t port)
{
    return &instance->ports[port % PORT_SLOTS];
}

/* The bound sockets of a kind and port, one after the other. */
struct sock *sock_of_port(enum sock_kind kind, uint16_t port, struct sock *after)
{
    struct sock *s = after != NULL ? after->port_next : *port_place(port);
    while (s != NULL && (s->kind != kind || s->local.port != port)) s = s->port_next;
    return s;
}

void sock_bound(struct sock *s)
{
    filter_ports_changed(true);
    if (s->bound) return;
    struct sock **place = port_place(s->local.port);
    s->bound = true;
    s->port_prev = NULL;
    s->port_next = *place;
    if (*place != NULL) (*place)->port_prev = s;
    *place = s;
}

void sock_unbound(struct sock *s)
{
    if (!s->bound) return;
    s->bound = false;
    if (s->port_next != NULL) s->port_next->port_prev = s->port_prev;
    if (s->port_prev != NULL)
        s->port_prev->port_next = s->port_next;
    else
        *port_place(s->local.port) = s->port_next;
}

int sock_check_bind(struct sock *s, const struct endpoint *wanted)
{
    if (wanted->port == 0) return 0;
    for (struct sock *other = *port_place(wanted->port), *next; other != NULL; other = next) {
        next = other->port_next;
        if (other == s || other->kind != s->kind || other->state == ENDED ||
            other->local.port != wanted->port)
            continue;
        if (!address_overlaps(&wanted->ip, &other->local.ip)) continue;
        if (s->reuse_port && other->reuse_port) continue;
        if (s->reuse_address && other->reuse_address &&
            (s->kind != KIND_TCP || other->state != LISTENING))
            continue;
        if (sock_just_closed(other)) continue;
        return -EADDRINUSE;
    }
    return 0;
}
