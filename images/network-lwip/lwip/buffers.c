/* How much a TCP connection may hold: its receive window, and its unsent and unacknowledged bytes.
 *
 * Both begin small and grow by demand up to the settings receive_buffer and send_buffer, as Linux's
 * do: the window where the program has read more than half of it within a round trip (so that it is
 * what limits the peer), the send buffer with the congestion window. SO_RCVBUF and SO_SNDBUF fix
 * them. Called by tcp.c, listen.c, options.c and tune.c, under the lock.
 */
#include "instance.h"

#include "lwip/priv/tcp_priv.h"

#include <sys/syscall.h>
#include <unistd.h>

enum {
    SEGMENTS = 16, /* Linux's allowance for a window that just follows the reader */
    LEAST_BYTES = 2048,
    /* More in flight than this within so short a time is only queued. */
    SHORT_WAY_US = 1000,
    SHORT_WAY_BYTES = 1 << 20,
};

/* What was announced is not taken back: the window closes as it fills. */
void buffers_receive_most(struct tcp_pcb *pcb, uint32_t bytes)
{
    uint32_t former = TCP_WND_MAX(pcb);
    if (bytes == pcb->rcv_most) return;
    pcb->rcv_most = bytes;
    if (pcb->state == SYN_SENT) return; /* its SYN said so much; the rest with the answer */
    if (pcb->state == CLOSED || pcb->state == SYN_RCVD) {
        pcb->rcv_wnd = pcb->rcv_ann_wnd = TCPWND_MIN16(bytes);
        return;
    }
    uint32_t now = TCP_WND_MAX(pcb), unread = former > pcb->rcv_wnd ? former - pcb->rcv_wnd : 0;
    pcb->rcv_wnd = now > unread ? now - unread : 0;
    if (tcp_update_rcv_ann_wnd(pcb) >= TCP_WND_UPDATE_THRESHOLD) {
        tcp_ack_now(pcb);
        tcp_output(pcb);
    }
}

void buffers_send_most(struct tcp_pcb *pcb, uint32_t bytes)
{
    int64_t room = (int64_t)pcb->snd_buf + bytes - pcb->snd_most;
    pcb->snd_most = bytes;
    pcb->snd_buf = room > 0 ? (tcpwnd_size_t)room : 0;
}

/* A number that the program gave counts once: Linux doubles it for what it spends beside the bytes.
 */
static uint32_t fixed(int number)
{
    return number / 2 > LEAST_BYTES ? (uint32_t)number / 2 : LEAST_BYTES;
}

static uint32_t clamped(const struct sock *s, uint32_t bytes)
{
    uint32_t clamp = (uint32_t)s->window_clamp;
    return clamp != 0 && bytes > clamp ? clamp : bytes;
}

void buffers_fit(struct tcp_pcb *pcb, const struct sock *s)
{
    uint32_t most = s->receive_fixed ? fixed(s->receive_buffer) : pcb->rcv_most;
    buffers_receive_most(pcb, clamped(s, most));
    if (s->send_fixed) buffers_send_most(pcb, fixed(s->send_buffer));
}

/* A relayed socket's pair holds bytes that the peer was told are gone: with SO_RCVBUF, half as many
 * as the window, so that the two together stay below what Linux would hold. */
void buffers_fit_pair(const struct sock *s)
{
    int end = sock_end(s), bytes = PAIR_BUFFER;
    if (s->kind == KIND_TCP && s->receive_fixed)
        bytes = (int)LWIP_MIN(fixed(s->receive_buffer) / 4, (uint32_t)bytes);
    if (end >= 0)
        syscall(SYS_setsockopt, end, SOL_SOCKET, SO_SNDBUF, &bytes, (socklen_t)sizeof bytes);
}

static void grow_receive(struct tcp_pcb *pcb, const struct sock *s, uint64_t wanted)
{
    uint32_t most = (uint32_t)LWIP_MIN(wanted, cse_tcp_window);
    if (s->receive_fixed) return;
    if (clamped(s, most) > pcb->rcv_most) buffers_receive_most(pcb, clamped(s, most));
}

static void grow_send(struct tcp_pcb *pcb, const struct sock *s, uint64_t wanted)
{
    uint64_t most = LWIP_MIN(wanted, cse_tcp_send_buffer);
    if (s->send_fixed) return;
    if (pcb->srtt >> 3 < SHORT_WAY_US) most = LWIP_MIN(most, SHORT_WAY_BYTES);
    if (most > pcb->snd_most) buffers_send_most(pcb, (uint32_t)most);
}

/* The size of segments is known now. */
void buffers_established(struct tcp_pcb *pcb, const struct sock *s)
{
    grow_receive(pcb, s, (uint64_t)SEGMENTS * pcb->mss);
    grow_send(pcb, s, (uint64_t)2 * cse_tcp_initial_window * pcb->mss);
}

/* Dynamic right-sizing: the program takes what comes as fast as it comes. */
void buffers_read(struct sock *s, size_t bytes)
{
    struct tcp_pcb *pcb = s->tcp;
    if (pcb == NULL || s->receive_fixed) return;
    uint64_t now = clock_us(), round_us = LWIP_MAX(pcb->srtt >> 3, 1000);
    s->read_bytes += bytes;
    if (now - s->read_since_us < round_us) return;
    if (2 * s->read_bytes > pcb->rcv_most)
        grow_receive(pcb, s, 2 * s->read_bytes + (uint64_t)SEGMENTS * pcb->mss);
    s->read_since_us = now;
    s->read_bytes = 0;
}

void buffers_acked(struct sock *s)
{
    if (s->tcp != NULL && s->tcp->state != LISTEN) grow_send(s->tcp, s, (uint64_t)2 * s->tcp->cwnd);
}
