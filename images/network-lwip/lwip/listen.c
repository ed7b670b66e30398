/* Listening sockets. The pump writes one byte, a token, into the pair for each connection that is
 * ready; the program's accept reads a token (the kernel blocks, wakes one of several workers,
 * returns EAGAIN or EINTR) and then takes a connection from the queue. One token, one connection.
 */
#include "instance.h"

#include "lwip/priv/tcp_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TOKENS_AT_ONCE = 64 };

int listen_start(struct sock *s, int backlog)
{
    if (backlog < 0 || backlog > 4096) backlog = 4096;
    if (backlog == 0) backlog = 1;
    s->backlog = (uint32_t)backlog;
    if (s->state == LISTENING) return 0;
    for (uint32_t i = 0; i < instance->socket_top; i++) {
        struct sock *other = instance->sockets[i];
        if (other == NULL || other == s || other->kind != KIND_TCP || other->state != LISTENING ||
            other->local.sin_port != s->local.sin_port || !s->bound)
            continue;
        uint32_t a = s->local.sin_addr.s_addr, b = other->local.sin_addr.s_addr;
        if ((a == b || a == 0 || b == 0) && !(s->reuse_port && other->reuse_port) &&
            !sock_just_closed(other))
            return -EADDRINUSE;
    }
    int failed = tcp_make_pcb(s);
    if (failed != 0) return failed;
    if (s->tcp->local_port == 0) {
        err_t error = tcp_bind(s->tcp, IP4_ADDR_ANY, 0);
        if (error != ERR_OK) return -errno_of(error);
        s->local.sin_port = lwip_htons(s->tcp->local_port);
        s->bound = true;
    }
    err_t error;
    struct tcp_pcb *listening = tcp_listen_with_backlog_and_err(s->tcp, 255, &error);
    if (listening == NULL) return -errno_of(error);
    s->tcp = listening;
    sock_set_state(s, LISTENING);
    return 0;
}

/* Several listeners on one port (SO_REUSEPORT): by a hash of the peer, so that a SYN sent again
 * meets the same one. */
struct tcp_pcb_listen *cse_tcp_choose_listener(struct tcp_pcb_listen *found, u16_t remote_port)
{
    uint32_t count = 0;
    struct tcp_pcb_listen *l;
    for (l = tcp_listen_pcbs.listen_pcbs; l != NULL; l = l->next)
        if (l->local_port == found->local_port && l->local_ip.addr == found->local_ip.addr) count++;
    if (count <= 1) return found;
    uint32_t wanted = (ip4_current_src_addr()->addr ^ remote_port) * 2654435761u;
    wanted = (wanted >> 16) % count;
    /* In the order of their sockets: the list itself changes its order with each lookup. */
    struct tcp_pcb_listen *best = found;
    uint32_t least = 0;
    for (uint32_t i = 0; i <= wanted; i++) {
        best = NULL;
        for (l = tcp_listen_pcbs.listen_pcbs; l != NULL; l = l->next) {
            struct sock *s = l->callback_arg;
            if (l->local_port != found->local_port || l->local_ip.addr != found->local_ip.addr ||
                s == NULL || (i > 0 && s->index <= least))
                continue;
            if (best == NULL || s->index < ((struct sock *)best->callback_arg)->index) best = l;
        }
        if (best == NULL) return found;
        least = ((struct sock *)best->callback_arg)->index;
    }
    return best;
}

int cse_tcp_admit(struct tcp_pcb_listen *pcb)
{
    struct sock *s = pcb->callback_arg;
    if (s == NULL || s->queued > s->backlog) return 0; /* Linux: one more than the backlog */
    uint32_t half_open = 0;
    for (struct tcp_pcb *p = tcp_active_pcbs; p != NULL; p = p->next)
        if (p->state == SYN_RCVD && p->callback_arg == s) half_open++;
    return half_open <= (s->backlog > 128 ? s->backlog : 128);
}

static void set_names(struct sock *s, const struct tcp_pcb *pcb)
{
    s->local.sin_addr.s_addr = pcb->local_ip.addr;
    s->local.sin_port = lwip_htons(pcb->local_port);
    s->remote.sin_addr.s_addr = pcb->remote_ip.addr;
    s->remote.sin_port = lwip_htons(pcb->remote_port);
    s->bound = true;
}

/* A handshake is complete. The socket gets its pair when the program accepts it. */
err_t listen_accept_event(struct sock *listener, struct tcp_pcb *pcb)
{
    if (listener->state != LISTENING) return ERR_VAL;
    struct sock *s = sock_new(KIND_TCP);
    if (s == NULL) return ERR_MEM;
    s->tcp = pcb;
    s->listener = listener;
    set_names(s, pcb);
    s->no_delay = listener->no_delay;
    s->keep_alive = listener->keep_alive;
    s->keep_idle = listener->keep_idle;
    s->keep_interval = listener->keep_interval;
    s->keep_count = listener->keep_count;
    s->linger_on = listener->linger_on;
    s->linger_seconds = listener->linger_seconds;
    s->reuse_address = listener->reuse_address;
    s->reuse_port = listener->reuse_port;
    s->ttl = listener->ttl;
    s->tos = listener->tos;
    s->receive_buffer = listener->receive_buffer;
    s->send_buffer = listener->send_buffer;
    s->state = CONNECTED;
    s->tx_ready = true;
    tcp_arg(pcb, s);
    tcp_apply_options(s);
    if (listener->queue_last != NULL)
        listener->queue_last->queue_next = s;
    else
        listener->queue_first = s;
    listener->queue_last = s;
    listener->queued++;
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
    for (struct tcp_pcb *p = tcp_active_pcbs, *next; p != NULL; p = next) {
        next = p->next;
        if (p->callback_arg != s) continue;
        tcp_arg(p, NULL);
        tcp_abort(p);
        next = tcp_active_pcbs; /* the list has changed */
    }
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
