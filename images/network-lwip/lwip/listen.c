/* Listening sockets. In direct mode accept takes from the queue (direct.c). Else the pump writes
 * one byte, a token, into the pair for each connection that is ready; the program's accept reads a
 * token (the kernel blocks, wakes one of several workers, returns EAGAIN or EINTR) and then takes a
 * connection from the queue. One token, one connection.
 */
#include "direct.h"

#include "lwip/priv/tcp_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TOKENS_AT_ONCE = 64, HALF_OPEN_MAX = 1024 };

int listen_start(struct sock *s, int backlog)
{
    if (backlog < 0 || backlog > 4096) backlog = 4096;
    if (backlog == 0) backlog = 1;
    s->backlog = (uint32_t)backlog;
    if (s->state == LISTENING) return 0;
    struct tcp_pcb_listen *next, *l = s->bound ? TCP_LISTENERS(s->local.port) : NULL;
    for (; l != NULL; l = next) {
        struct sock *other = l->callback_arg;
        next = l->hash_next;
        if (other == NULL || other->local.port != s->local.port) continue;
        if (address_overlaps(&s->local.ip, &other->local.ip) &&
            !(s->reuse_port && other->reuse_port) && !sock_just_closed(other))
            return -EADDRINUSE;
    }
    int failed = tcp_make_pcb(s);
    if (failed != 0) return failed;
    if (s->tcp->local_port == 0) {
        ip_addr_t any;
        address_any(s, &any);
        err_t error = tcp_bind(s->tcp, &any, 0);
        if (error != ERR_OK) return -errno_of(error);
        s->local.port = s->tcp->local_port;
        sock_bound(s);
    }
    err_t error;
    struct tcp_pcb *listening = tcp_listen_with_backlog_and_err(s->tcp, 255, &error);
    if (listening == NULL) return -errno_of(error);
    s->tcp = listening;
    sock_set_state(s, LISTENING);
    filter_ports_changed(true);
    return 0;
}

static bool same_place(const struct tcp_pcb_listen *a, const struct tcp_pcb_listen *b)
{
    return a->local_port == b->local_port && ip_addr_eq(&a->local_ip, &b->local_ip);
}

/* Several listeners on one port (SO_REUSEPORT): by a hash of the peer, so that a SYN sent again
 * meets the same one. */
struct tcp_pcb_listen *cse_tcp_choose_listener(struct tcp_pcb_listen *found, u16_t remote_port)
{
    uint32_t count = 0;
    struct tcp_pcb_listen *l;
    for (l = TCP_LISTENERS(found->local_port); l != NULL; l = l->hash_next)
        if (same_place(l, found)) count++;
    if (count <= 1) return found;
    struct in6_addr peer;
    address_to_in6(ip_current_src_addr(), &peer);
    uint32_t wanted = remote_port;
    for (int i = 0; i < 16; i++) wanted = (wanted ^ peer.s6_addr[i]) * 2654435761u;
    wanted = (wanted >> 16) % count;
    /* In the order of their sockets: the list's own changes as listeners come and go. */
    struct tcp_pcb_listen *best = found;
    uint32_t least = 0;
    for (uint32_t i = 0; i <= wanted; i++) {
        best = NULL;
        for (l = TCP_LISTENERS(found->local_port); l != NULL; l = l->hash_next) {
            struct sock *s = l->callback_arg;
            if (!same_place(l, found) || s == NULL || (i > 0 && s->index <= least)) continue;
            if (best == NULL || s->index < ((struct sock *)best->callback_arg)->index) best = l;
        }
        if (best == NULL) return found;
        least = ((struct sock *)best->callback_arg)->index;
    }
    return best;
}

/* Linux: one more than the backlog. */
static bool queue_is_full(const struct sock *s)
{
    return s->queued > s->backlog;
}

/* A flood of SYNs pushes out half-open connections, the oldest first: one that completes its
 * handshake within the time it takes to send HALF_OPEN_MAX more is let in. */
int cse_tcp_admit(struct tcp_pcb_listen *pcb)
{
    struct sock *s = pcb->callback_arg;
    if (s == NULL || queue_is_full(s)) return 0;
    if (s->half_open >= HALF_OPEN_MAX) tcp_abandon(s->half_first, 0);
    return 1;
}

/* Each second that a listener defers (TCP_DEFER_ACCEPT) is counted in SYN-ACKs, as Linux does. */
int cse_tcp_may_complete(struct tcp_pcb *pcb, int has_data)
{
    const struct sock *s = pcb->callback_arg;
    if (s == NULL || queue_is_full(s)) return 0;
    pcb->deferred = !has_data && pcb->nrtx < s->defer_accept;
    return !pcb->deferred;
}

void cse_tcp_half_open(struct tcp_pcb *pcb)
{
    struct sock *s = pcb->callback_arg;
    pcb->half_prev = s->half_last;
    pcb->half_next = NULL;
    if (s->half_last != NULL)
        s->half_last->half_next = pcb;
    else
        s->half_first = pcb;
    s->half_last = pcb;
    s->half_open++;
    tcp_tune_pcb(pcb, s);
}

void cse_tcp_half_done(struct tcp_pcb *pcb)
{
    struct sock *s = pcb->callback_arg;
    if (pcb->half_next != NULL)
        pcb->half_next->half_prev = pcb->half_prev;
    else
        s->half_last = pcb->half_prev;
    if (pcb->half_prev != NULL)
        pcb->half_prev->half_next = pcb->half_next;
    else
        s->half_first = pcb->half_next;
    s->half_open--;
}

static void set_names(struct sock *s, const struct tcp_pcb *pcb)
{
    s->local = (struct endpoint){pcb->local_ip, pcb->local_port};
    s->remote = (struct endpoint){pcb->remote_ip, pcb->remote_port};
    sock_bound(s);
}

/* A handshake is complete. The socket gets its pair when the program accepts it. */
err_t listen_accept_event(struct sock *listener, struct tcp_pcb *pcb)
{
    if (listener->state != LISTENING) return ERR_VAL;
    struct sock *s = sock_new(KIND_TCP, listener->family);
    if (s == NULL) return ERR_MEM;
    s->tcp = pcb;
    s->listener = listener;
    set_names(s, pcb);
    sock_copy_options(s, listener);
    s->cork = false;
    s->state = CONNECTED;
    direct_publish(s);
    s->tx_ready = true;
    tcp_arg(pcb, s);
    tcp_apply_options(s);
    buffers_established(pcb, s);
    if (listener->queue_last != NULL)
        listener->queue_last->queue_next = s;
    else
        listener->queue_first = s;
    listener->queue_last = s;
    listener->queued++;
    listener->rx_news = true;
    sock_notify(listener);
    return ERR_OK;
}

/* Tokens for all that wait and have none yet. */
void listen_deliver(struct sock *s)
{
    static const char tokens[TOKENS_AT_ONCE];
    int fd = sock_end(s);
    if (s->hang_up) {
        listen_close(s);
        sock_free(s);
        return;
    }
    if (fd < 0) return;
    direct_tell_relayed(s);
    if (s->direct) {
        direct_deliver(s);
        return;
    }
    while (s->tokens < s->queued && !s->rx_blocked) {
        uint32_t count = s->queued - s->tokens;
        if (count > TOKENS_AT_ONCE) count = TOKENS_AT_ONCE;
        long sent =
            syscall(SYS_sendto, fd, tokens, (long)count, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
        if (sent > 0) {
            s->tokens += (uint32_t)sent;
        } else if (errno == EAGAIN || errno == ENOBUFS) {
            pump_want_out(s, true);
        } else {
            return;
        }
    }
}

/* The oldest connection of the queue; NULL if none (a token was read by other means). */
struct sock *listen_take(struct sock *s)
{
    struct sock *taken = s->queue_first;
    if (s->tokens > 0) s->tokens--;
    if (taken == NULL) return NULL;
    s->queue_first = taken->queue_next;
    if (s->queue_first == NULL) s->queue_last = NULL;
    s->queued--;
    taken->listener = NULL;
    taken->queue_next = NULL;
    return taken;
}

/* No more connections, and those nobody accepted are reset. */
void listen_close(struct sock *s)
{
    struct tcp_pcb *pcb = s->tcp;
    s->tcp = NULL;
    if (pcb != NULL) {
        tcp_arg(pcb, NULL);
        tcp_close(pcb);
    }
    while (s->half_first != NULL) tcp_abort(s->half_first);
    while (s->queue_first != NULL) {
        struct sock *waiting = listen_take(s);
        if (waiting->tcp != NULL) {
            struct tcp_pcb *p = waiting->tcp;
            waiting->tcp = NULL;
            tcp_arg(p, NULL);
            tcp_abort(p);
        }
        sock_free(waiting);
    }
}
