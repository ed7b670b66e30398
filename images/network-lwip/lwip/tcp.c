/* TCP connections: bytes between lwIP and the program's pair, and the states the program sees.
 *
 * The pair mirrors the connection truthfully. The peer's FIN shuts the stack end for writing, so
 * the program reads its end of file and poll shows RDHUP; a reset closes the stack end over an
 * unread byte, which AF_UNIX reports as ECONNRESET; the program's half-close is an end of file at
 * the stack end; its close is a hang-up there. Events of lwIP come in through lwip_tcp_event, under
 * the lock, and only mark what is to be done: sock_deliver does it later, in the owner.
 */
#include "direct.h"

#include "lwip/priv/tcp_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PARTS = 32, READ_BYTES = 65535 };

int errno_of(err_t error)
{
    switch (error) {
    case ERR_OK: return 0;
    case ERR_MEM:
    case ERR_BUF: return ENOBUFS;
    case ERR_TIMEOUT: return ETIMEDOUT;
    case ERR_RTE: return ENETUNREACH;
    case ERR_USE: return EADDRINUSE;
    case ERR_ALREADY: return EALREADY;
    case ERR_ISCONN: return EISCONN;
    case ERR_CONN: return ENOTCONN;
    case ERR_IF: return ENETDOWN;
    case ERR_ABRT: return ETIMEDOUT;
    case ERR_RST:
    case ERR_CLSD: return ECONNRESET;
    default: return EINVAL;
    }
}

int tcp_make_pcb(struct sock *s)
{
    if (s->tcp != NULL) return 0;
    ip_addr_t any;
    address_any(s, &any);
    s->tcp = tcp_new_ip_type(IP_GET_TYPE(&any));
    if (s->tcp == NULL) return -ENOBUFS;
    tcp_arg(s->tcp, s);
    /* Conflicts of ports are judged by sock_check_bind, with Linux's rules. */
    ip_set_option(s->tcp, SOF_REUSEADDR);
    tcp_apply_options(s);
    if (s->bound) { /* by the program, before a connect that failed */
        err_t error = tcp_bind(s->tcp, s->local_given ? &s->local.ip : &any, s->local.port);
        if (error != ERR_OK) return -errno_of(error);
    }
    return 0;
}

/* What a connection has of its own from its first segment on. */
void tcp_tune_pcb(struct tcp_pcb *pcb, const struct sock *s)
{
    pcb->user_mss = (u16_t)s->max_segment;
    pcb->user_timeout = (u32_t)s->user_timeout_ms;
    if (s->syn_retries != 0) pcb->syn_retries = (u8_t)s->syn_retries;
    if (s->fin_wait_s != 0)
        pcb->fin_wait_timeout = s->fin_wait_s < 0 ? 0 : (u32_t)s->fin_wait_s * 1000;
    if (s->congestion_given != 0 && pcb->congestion != s->congestion_given - 1) {
        pcb->congestion = (u8_t)(s->congestion_given - 1);
        pcb->cubic_epoch = 0;
    }
    if (s->quick_ack)
        tcp_set_flags(pcb, TF_QUICKACK);
    else
        tcp_clear_flags(pcb, TF_QUICKACK);
    buffers_fit(pcb, s);
    pcb->netif_idx = s->device == 0   ? NETIF_NO_INDEX
                     : s->device == 1 ? netif_get_index(instance->loop)
                                      : netif_get_index(instance->tap);
}

void tcp_apply_options(struct sock *s)
{
    struct tcp_pcb *pcb = s->tcp;
    if (pcb == NULL) return;
    pcb->ttl = s->ttl;
    pcb->tos = s->tos;
    if (s->keep_alive)
        ip_set_option(pcb, SOF_KEEPALIVE);
    else
        ip_reset_option(pcb, SOF_KEEPALIVE);
    if (pcb->state == LISTEN) return;
    pcb->keep_idle = (u32_t)s->keep_idle * 1000;
    pcb->keep_intvl = (u32_t)s->keep_interval * 1000;
    pcb->keep_cnt = (u32_t)s->keep_count;
    if (s->no_delay)
        tcp_nagle_disable(pcb);
    else
        tcp_nagle_enable(pcb);
    tcp_tune_pcb(pcb, s);
    tcp_push(s, s->cork);
}

/* Sends what was written; if more is to come, full segments only (the rest after 200 ms). */
void tcp_push(struct sock *s, bool more)
{
    if (more)
        tcp_set_flags(s->tcp, TF_CORK);
    else
        tcp_clear_flags(s->tcp, TF_CORK);
    tcp_output(s->tcp);
}

/* ---- from the network ----------------------------------------------------------------------- */

static err_t receive_event(struct sock *s, struct tcp_pcb *pcb, struct pbuf *p)
{
    if (p == NULL) {
        s->fin_received = true;
        /* With both directions closed lwIP frees the pcb in its own time, without a word. */
        if (s->tx_eof) {
            tcp_arg(pcb, NULL);
            s->tcp = NULL;
        }
    } else {
        struct chunk *chunk = heap_alloc(sizeof *chunk);
        if (chunk == NULL) return ERR_MEM; /* lwIP keeps the packet and asks again */
        *chunk = (struct chunk){.packet = p};
        if (s->rx_last != NULL)
            s->rx_last->next = chunk;
        else
            s->rx_first = chunk;
        s->rx_last = chunk;
        s->rx_bytes += p->tot_len;
        s->bytes_received += p->tot_len;
        s->rx_news = true;
    }
    sock_notify(s);
    return ERR_OK;
}

/* lwIP's one call-back for TCP (LWIP_EVENT_API). A NULL arg: the program has closed long ago. */
err_t lwip_tcp_event(void *arg, struct tcp_pcb *pcb, enum lwip_event event, struct pbuf *p,
                     u16_t size, err_t error)
{
    struct sock *s = arg;
    switch (event) {
    case LWIP_EVENT_ACCEPT: return s != NULL && pcb != NULL ? listen_accept_event(s, pcb) : ERR_VAL;
    case LWIP_EVENT_RECV:
        if (s != NULL) return receive_event(s, pcb, p);
        if (p == NULL) return ERR_OK;
        pbuf_free(p);
        tcp_abort(pcb); /* data after close, RFC 2525 2.17 */
        return ERR_ABRT;
    case LWIP_EVENT_SENT:
        if (s != NULL) {
            s->bytes_acked += size;
            buffers_acked(s);
        }
        if (s != NULL && (s->direct || s->tx_ready || s->stash != NULL || s->hang_up))
            sock_notify(s);
        return ERR_OK;
    case LWIP_EVENT_CONNECTED:
        if (s == NULL) return ERR_OK;
        s->error = 0;
        s->local.ip = pcb->local_ip;
        sock_set_state(s, CONNECTED);
        tcp_apply_options(s);
        buffers_established(pcb, s);
        if (!s->direct) direct_start(s);
        s->tx_ready = !(s->direct && s->fresh); /* the pump looks when it begins to watch */
        sock_notify(s);
        return ERR_OK;
    case LWIP_EVENT_ERR:
        if (s != NULL)
            tcp_error_event(s, error);
        else
            linger_news(true);
        return ERR_OK;
    case LWIP_EVENT_POLL:
        if (s != NULL && (s->tx_ready || s->stash != NULL)) sock_notify(s);
        return ERR_OK;
    }
    return ERR_OK;
}

/* lwIP has dropped the connection; the pcb is gone. */
void tcp_error_event(struct sock *s, err_t error)
{
    s->tcp = NULL;
    if (s->state == CONNECTING) {
        if (error == ERR_RST)
            s->error = ECONNREFUSED;
        else if (s->error == 0)
            s->error = ETIMEDOUT;
    } else if (error == ERR_CLSD) {
        s->fin_received = true; /* both sides are done */
        sock_notify(s);
        return;
    } else if (s->error == 0) {
        s->error = error == ERR_RST ? ECONNRESET : ETIMEDOUT;
    }
    bool again = s->waited_for; /* the pair is as it was: the program may connect once more */
    s->reset_wanted = !again;
    s->connect_failed = s->state == CONNECTING;
    if (again) renew_forget_names(s);
    sock_set_state(s, again ? FRESH : ENDED);
    direct_stop(s);
    sock_notify(s);
}

/* An ICMP message said so; final for a connect under way, as in Linux. */
void tcp_unreachable(struct tcp_pcb *pcb, int error)
{
    struct sock *s = pcb->callback_arg;
    if (s == NULL || s->kind != KIND_TCP || s->tcp != pcb || s->state != CONNECTING) return;
    s->error = error;
    tcp_abort(pcb);
}

/* ---- to the program -------------------------------------------------------------------------- */

void tcp_consume(struct sock *s, size_t bytes)
{
    size_t credit = bytes;
    s->rx_bytes -= bytes;
    while (bytes > 0 && s->rx_first != NULL) {
        struct chunk *chunk = s->rx_first;
        size_t left = chunk->packet->tot_len - s->rx_offset;
        if (bytes < left) {
            s->rx_offset += (uint32_t)bytes;
            break;
        }
        bytes -= left;
        s->rx_offset = 0;
        s->rx_first = chunk->next;
        if (s->rx_first == NULL) s->rx_last = NULL;
        pbuf_free(chunk->packet);
        heap_free(chunk);
    }
    buffers_read(s, credit);
    while (credit > 0 && s->tcp != NULL) {
        u16_t part = credit > 0xffff ? 0xffff : (u16_t)credit;
        tcp_recved(s->tcp, part);
        credit -= part;
    }
}

static int gather(struct sock *s, struct iovec *parts)
{
    int count = 0;
    uint32_t skip = s->rx_offset;
    for (struct chunk *chunk = s->rx_first; chunk != NULL && count < PARTS; chunk = chunk->next)
        for (struct pbuf *p = chunk->packet; p != NULL && count < PARTS; p = p->next) {
            if (skip >= p->len) {
                skip -= p->len;
                continue;
            }
            parts[count++] = (struct iovec){(char *)p->payload + skip, p->len - skip};
            skip = 0;
        }
    return count;
}

/* False when the pair is full or the program gone. */
static bool write_to_program(struct sock *s, int fd)
{
    while (s->rx_first != NULL) {
        struct iovec parts[PARTS];
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)gather(s, parts)};
        long sent = syscall(SYS_sendmsg, fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            tcp_consume(s, (size_t)sent);
        } else if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM) {
            pump_want_out(s, true);
            return false;
        } else {
            return false; /* EPIPE: the hang-up follows, with our data unread */
        }
    }
    return true;
}

void tcp_reset_program(struct sock *s, int error)
{
    if (sock_end(s) >= 0 && error != 0) pair_spoil(&me.ends[s->index]);
    sock_retire(s);
}

void tcp_deliver(struct sock *s)
{
    int fd = sock_end(s);
    if (fd < 0) return;
    if (s->reset_wanted) direct_stop(s);
    direct_tell_relayed(s);
    if (s->state == CONNECTING || s->state == FRESH) {
        if (s->hang_up) tcp_finish(s);
        return;
    }
    if (s->junk != 0 && s->state == CONNECTED) pair_skip_junk(s, fd);
    if (s->direct) {
        direct_deliver(s);
        tcp_take(s); /* what was written past us, and the hang-up */
        return;
    }
    bool drained = s->rx_blocked ? false : write_to_program(s, fd);
    if (drained && s->fin_received && !s->fin_delivered) {
        s->fin_delivered = true;
        syscall(SYS_shutdown, fd, SHUT_WR);
    }
    if (s->reset_wanted) {
        if (drained || s->hang_up) tcp_reset_program(s, s->error);
        return;
    }
    tcp_take(s);
}

/* ---- from the program ------------------------------------------------------------------------ */

/* What was read from the pair and did not fit. True when none is left. */
static bool write_stash(struct sock *s)
{
    while (s->stash != NULL) {
        uint32_t left = s->stash_length - s->stash_offset;
        u16_t part = (u16_t)LWIP_MIN(left, LWIP_MIN(s->tcp->snd_buf, 0xffff));
        if (part == 0 ||
            tcp_write(s->tcp, s->stash + s->stash_offset, part, TCP_WRITE_FLAG_COPY) != ERR_OK)
            return false;
        s->stash_offset += part;
        if (s->stash_offset == s->stash_length) {
            heap_free(s->stash);
            s->stash = NULL;
        }
    }
    return true;
}

static bool write_bytes(struct sock *s, const char *bytes, uint32_t length)
{
    if (tcp_write(s->tcp, bytes, (u16_t)length, TCP_WRITE_FLAG_COPY) == ERR_OK) return true;
    s->stash = heap_alloc(length);
    if (s->stash == NULL) { /* the arena is full: better no connection than a gap */
        struct tcp_pcb *pcb = s->tcp;
        s->error = ENOBUFS;
        tcp_abort(pcb);
        return false;
    }
    memcpy(s->stash, bytes, length);
    s->stash_length = length;
    s->stash_offset = 0;
    return false;
}

void tcp_half_close(struct sock *s)
{
    s->tx_eof = true;
    s->tx_ready = false;
    if (s->tcp == NULL) return;
    struct tcp_pcb *pcb = s->tcp;
    if (s->fin_received) { /* the last direction: lwIP goes on alone */
        tcp_arg(pcb, NULL);
        s->tcp = NULL;
    }
    tcp_shutdown(pcb, 0, 1);
}

/* Takes what the program has written, as far as lwIP has room. May free the socket. */
void tcp_take(struct sock *s)
{
    int fd = sock_end(s);
    uint32_t generation = s->generation;
    bool wrote = s->stash != NULL;
    if (fd < 0) return;
    while (s->tx_ready && s->state == CONNECTED) {
        struct tcp_pcb *pcb = s->tcp;
        if (pcb != NULL && !s->tx_eof) {
            if (!write_stash(s)) break;
            if (pcb->snd_buf == 0 || pcb->snd_queuelen >= TCP_SND_QUEUELEN - 64) break;
        }
        size_t room = pcb == NULL || s->tx_eof ? READ_BYTES : LWIP_MIN(pcb->snd_buf, READ_BYTES);
        long got = syscall(SYS_recvfrom, fd, me.scratch, room, MSG_DONTWAIT, NULL, NULL);
        if (got > 0) {
            if (pcb == NULL || s->tx_eof) continue; /* nobody to send it to */
            wrote = true;
            if (!write_bytes(s, me.scratch, (uint32_t)got)) break;
        } else if (got == 0) {
            if (s->hang_up) {
                tcp_finish(s);
                return;
            }
            if (!s->tx_eof) tcp_half_close(s);
            s->tx_ready = false;
        } else if (errno == ECONNRESET) {
            /* The program closed without reading everything: RFC 2525 2.17. */
            s->linger_on = true;
            s->linger_seconds = 0;
            s->hang_up = true;
            tcp_finish(s);
            return;
        } else {
            s->tx_ready = false;
        }
    }
    if (instance->generations[s->index] != generation) return;
    if (wrote && s->tcp != NULL) tcp_push(s, s->cork);
}

/* The program is done with the connection: FIN, or RST where data was left unread. */
void tcp_finish(struct sock *s)
{
    struct tcp_pcb *pcb = s->tcp;
    bool unread = s->rx_first != NULL;
    bool connected = s->state == CONNECTED;
    s->tcp = NULL;
    if (pcb != NULL) {
        tcp_arg(pcb, NULL);
        if (connected && (unread || (s->linger_on && s->linger_seconds == 0))) {
            tcp_abort(pcb);
        } else {
            sock_drop_rx(s);
            if (tcp_close(pcb) != ERR_OK) tcp_abort(pcb);
        }
    }
    if (connected)
        sock_retire(s);
    else
        sock_free(s);
}

/* ---- connecting ------------------------------------------------------------------------------ */

int tcp_start_connect(struct sock *s, const struct endpoint *to)
{
    int failed = tcp_make_pcb(s);
    if (failed != 0) return failed;
    s->remote = *to;
    address_any(s, &s->tcp->remote_ip); /* a failed attempt may have left another type there */
    err_t error = tcp_connect(s->tcp, &to->ip, to->port, NULL);
    if (error != ERR_OK) return -errno_of(error);
    s->local.ip = s->tcp->local_ip;
    s->local.port = s->tcp->local_port;
    sock_bound(s);
    s->error = 0;
    sock_set_state(s, CONNECTING);
    return 0;
}

/* For the exit of the last process: something is unsent, unacknowledged or not yet closed. */
bool tcp_unfinished(void)
{
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        if (pcb->callback_arg == NULL && pcb->state != FIN_WAIT_2 && pcb->state != SYN_SENT)
            return true;
    return false;
}

u32_t cse_tcp_isn(const ip_addr_t *local_ip, u16_t local_port, const ip_addr_t *remote_ip,
                  u16_t remote_port)
{
    /* RFC 6528: a keyed mix of the connection's names, plus a clock of 4 microseconds. */
    uint64_t key[2], names[4], mix;
    struct in6_addr local, remote;
    address_to_in6(local_ip, &local);
    address_to_in6(remote_ip, &remote);
    memcpy(names, &local, sizeof local);
    memcpy(names + 2, &remote, sizeof remote);
    memcpy(key, instance->isn_key, sizeof key);
    mix = key[0];
    for (int i = 0; i < 4; i++) {
        mix ^= names[i];
        mix *= UINT64_C(0xff51afd7ed558ccd);
        mix ^= mix >> 29;
    }
    for (int i = 0; i < 4; i++) {
        mix ^= ((uint64_t)local_port << 16 | remote_port) + key[1];
        mix *= UINT64_C(0xff51afd7ed558ccd);
        mix ^= mix >> 29;
    }
    return (u32_t)(mix + now_ms() * 250);
}
