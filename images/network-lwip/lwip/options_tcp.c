/* Options of the level IPPROTO_TCP, as tcp(7) says them; called by options.c. What a connection has
 * of its own is in its pcb as well: tcp_apply_options brings it there.
 */
#include "direct.h"

#include "lwip/priv/tcp_priv.h"

#include <errno.h>
#include <linux/tcp.h>
#include <string.h>

enum {
    CA_NAME_MAX = 16,
    DEFAULT_MSS = 536,
    LEAST_MSS = 88,
    MOST_WINDOW = 32767,
    FIN_TIMEOUT_S = 60,
    FIN_TIMEOUT_MOST_S = 120,
    SYN_RETRIES_MOST = 127,
    TIMESTAMP_BYTES = 12,
};

static int put(void *value, socklen_t *length, const void *from, size_t size)
{
    if (*length > size) *length = (socklen_t)size;
    memcpy(value, from, *length);
    return 0;
}

static int put_int(void *value, socklen_t *length, int number)
{
    return put(value, length, &number, sizeof number);
}

/* ---- TCP_INFO ------------------------------------------------------------------------------- */

enum { STATE_CLOSE = 7 };

static uint8_t state_of(const struct sock *s)
{
    static const uint8_t linux_state[] = {[0] = STATE_CLOSE, [LISTEN] = 10,     [SYN_SENT] = 2,
                                          [SYN_RCVD] = 3,    [ESTABLISHED] = 1, [FIN_WAIT_1] = 4,
                                          [FIN_WAIT_2] = 5,  [CLOSE_WAIT] = 8,  [CLOSING] = 11,
                                          [LAST_ACK] = 9,    [TIME_WAIT] = 6};
    if (s->tcp != NULL) return linux_state[s->tcp->state];
    if (s->state != CONNECTED) return STATE_CLOSE;
    /* Both directions are shut, and lwIP goes on alone. */
    const struct tcp_pcb *pcb =
        tcp_find(&s->local.ip, s->local.port, &s->remote.ip, s->remote.port);
    return pcb != NULL ? linux_state[pcb->state] : STATE_CLOSE;
}

/* Linux counts the bytes of the timestamps out of it. */
static uint32_t usable_mss(const struct tcp_pcb *pcb)
{
    uint32_t options = pcb->flags & TF_TIMESTAMP ? TIMESTAMP_BYTES : 0;
    return pcb->mss > options ? pcb->mss - options : pcb->mss;
}

static void tell_segments(const struct tcp_pcb *pcb, struct tcp_info *info)
{
    for (const struct tcp_seg *seg = pcb->unacked; seg != NULL; seg = seg->next) {
        info->tcpi_unacked++;
        if (seg->flags & TF_SEG_SACKED) info->tcpi_sacked++;
        if (seg->flags & TF_SEG_LOST) info->tcpi_lost++;
        if ((seg->flags & TF_SEG_RETRANS) && !(seg->flags & TF_SEG_LOST)) info->tcpi_retrans++;
    }
}

static void tell_connection(const struct sock *s, struct tcp_info *info)
{
    enum { CA_OPEN = 0, CA_DISORDER = 1, CA_RECOVERY = 3, CA_LOSS = 4 };
    const struct tcp_pcb *pcb = s->tcp;
    uint32_t now = sys_now(), mss = pcb->mss > 0 ? pcb->mss : DEFAULT_MSS;
    info->tcpi_ca_state = (uint8_t)(pcb->flags & TF_RTO    ? CA_LOSS
                                    : pcb->flags & TF_INFR ? CA_RECOVERY
                                    : pcb->dupacks > 0     ? CA_DISORDER
                                                           : CA_OPEN);
    info->tcpi_retransmits = pcb->nrtx;
    info->tcpi_probes = pcb->persist_backoff > 0 ? pcb->persist_probe : pcb->keep_cnt_sent;
    info->tcpi_backoff = pcb->persist_backoff > 0 ? (uint8_t)(pcb->persist_backoff - 1) : pcb->nrtx;
    if (pcb->flags & TF_TIMESTAMP) info->tcpi_options |= TCPI_OPT_TIMESTAMPS;
    if (pcb->flags & TF_SACK) info->tcpi_options |= TCPI_OPT_SACK;
    if (pcb->flags & TF_WND_SCALE) info->tcpi_options |= TCPI_OPT_WSCALE;
    info->tcpi_snd_wscale = pcb->snd_scale & 15;
    info->tcpi_rcv_wscale = pcb->rcv_scale & 15;
    info->tcpi_rto = pcb->rto * 1000;
    info->tcpi_ato = cse_tcp_delayed_ack_ms * 1000;
    info->tcpi_snd_mss = usable_mss(pcb);
    info->tcpi_rcv_mss = pcb->longest_in > 0 ? pcb->longest_in : DEFAULT_MSS;
    info->tcpi_advmss =
        tcp_eff_send_mss((u16_t)LWIP_MIN(cse_tcp_mss, 0xffff), &pcb->local_ip, &pcb->remote_ip);
    if (pcb->user_mss != 0 && info->tcpi_advmss > pcb->user_mss) info->tcpi_advmss = pcb->user_mss;
    tell_segments(pcb, info);
    info->tcpi_last_data_sent = now - pcb->data_out;
    info->tcpi_last_data_recv = now - pcb->data_in;
    info->tcpi_last_ack_recv = now - pcb->ack_in;
    info->tcpi_pmtu = instance->mtu;
    info->tcpi_rcv_ssthresh = pcb->rcv_wnd;
    info->tcpi_rtt = pcb->srtt >> 3;
    info->tcpi_rttvar = pcb->rttvar >> 2;
    info->tcpi_snd_ssthresh = pcb->ssthresh / mss;
    info->tcpi_snd_cwnd = pcb->cwnd / mss;
    info->tcpi_reordering = 3;
    info->tcpi_rcv_rtt = pcb->srtt >> 3;
    info->tcpi_rcv_space = pcb->rcv_wnd;
    info->tcpi_total_retrans = pcb->retransmitted;
}

/* What struct tcp_info got later; a build's headers may be older than the program's. */
struct more_info {
    struct tcp_info base;
    uint64_t pacing_rate, max_pacing_rate, bytes_acked, bytes_received;
    uint32_t segs_out, segs_in, notsent_bytes, min_rtt, data_segs_in, data_segs_out;
    uint64_t delivery_rate, busy_time, rwnd_limited, sndbuf_limited;
    uint32_t delivered, delivered_ce;
    uint64_t bytes_sent, bytes_retrans;
    uint32_t dsack_dups, reord_seen, rcv_ooopack, snd_wnd, rcv_wnd, rehash;
};

static int get_info(const struct sock *s, void *value, socklen_t *length)
{
    enum { BASE = offsetof(struct tcp_info, tcpi_total_retrans) + sizeof(uint32_t) };
    struct more_info more = {.pacing_rate = UINT64_MAX, .max_pacing_rate = UINT64_MAX};
    struct tcp_info info = {.tcpi_state = state_of(s)};
    const struct tcp_pcb *pcb = s->tcp;
    if (pcb != NULL && pcb->state != LISTEN && s->state != FRESH) {
        tell_connection(s, &info);
        more.bytes_acked = s->bytes_acked + 1; /* the SYN, as Linux counts */
        more.bytes_received = s->bytes_received;
        more.segs_out = pcb->segs_out;
        more.segs_in = pcb->segs_in;
        more.notsent_bytes = pcb->snd_lbb - pcb->snd_nxt;
        more.min_rtt = pcb->min_rtt;
        more.data_segs_in = pcb->data_segs_in;
        more.data_segs_out = pcb->data_segs_out;
        more.bytes_sent = pcb->bytes_sent;
        more.bytes_retrans = pcb->bytes_retransmitted;
        more.snd_wnd = pcb->snd_wnd;
        more.rcv_wnd = pcb->rcv_ann_wnd;
    } else if (s->state == LISTENING) {
        info.tcpi_unacked = s->queued;
        info.tcpi_sacked = s->backlog;
    }
    char all[BASE + sizeof more - sizeof more.base];
    memcpy(all, &info, BASE);
    memcpy(all + BASE, (char *)&more + sizeof more.base, sizeof all - BASE);
    return put(value, length, all, sizeof all);
}

/* ---- getting -------------------------------------------------------------------------------- */

/* Linux keeps the time of TCP_DEFER_ACCEPT as a number of SYN-ACKs. */
static int retries_of(int seconds)
{
    int retries = 0, timeout = 1, past = 1;
    if (seconds <= 0) return 0;
    for (retries = 1; seconds > past && retries < 255; retries++) {
        timeout = timeout * 2 > 120 ? 120 : timeout * 2;
        past += timeout;
    }
    return retries;
}

static int seconds_of(int retries)
{
    int timeout = 1, past = retries > 0 ? 1 : 0;
    while (--retries > 0) {
        timeout = timeout * 2 > 120 ? 120 : timeout * 2;
        past += timeout;
    }
    return past;
}

static int get_mss(const struct sock *s)
{
    bool connection = s->tcp != NULL && s->state != FRESH && s->state != LISTENING;
    if (connection) return (int)usable_mss(s->tcp);
    return s->max_segment != 0 ? s->max_segment : DEFAULT_MSS;
}

static int get_congestion(const struct sock *s, void *value, socklen_t *length)
{
    char name[CA_NAME_MAX] = {0};
    int algorithm = s->tcp != NULL && s->tcp->state != LISTEN ? s->tcp->congestion
                    : s->congestion_given != 0                ? s->congestion_given - 1
                                                              : (int)cse_tcp_congestion;
    strcpy(name, congestion_name(algorithm));
    return put(value, length, name, sizeof name);
}

int option_tcp_get(struct sock *s, int name, void *value, socklen_t *length)
{
    if (s->kind != KIND_TCP) return -EOPNOTSUPP;
    switch (name) {
    case TCP_NODELAY: return put_int(value, length, s->no_delay);
    case TCP_CORK: return put_int(value, length, s->cork);
    case TCP_KEEPIDLE: return put_int(value, length, s->keep_idle);
    case TCP_KEEPINTVL: return put_int(value, length, s->keep_interval);
    case TCP_KEEPCNT: return put_int(value, length, s->keep_count);
    case TCP_USER_TIMEOUT: return put_int(value, length, s->user_timeout_ms);
    case TCP_MAXSEG: return put_int(value, length, get_mss(s));
    case TCP_DEFER_ACCEPT: return put_int(value, length, seconds_of(s->defer_accept));
    case TCP_QUICKACK: return put_int(value, length, !s->slow_ack);
    case TCP_SYNCNT: return put_int(value, length, s->syn_retries ? s->syn_retries : TCP_SYNMAXRTX);
    case TCP_LINGER2:
        return put_int(value, length, s->fin_wait_s == 0 ? FIN_TIMEOUT_S : s->fin_wait_s);
    case TCP_WINDOW_CLAMP: return put_int(value, length, s->window_clamp);
    case TCP_FASTOPEN: return put_int(value, length, s->fast_open);
    case TCP_NOTSENT_LOWAT: return put_int(value, length, (int)s->notsent_low);
    case TCP_INFO: return get_info(s, value, length);
    case TCP_CONGESTION: return get_congestion(s, value, length);
    default: return -ENOPROTOOPT;
    }
}

/* ---- setting -------------------------------------------------------------------------------- */

static int between(int *place, int number, int least, int most)
{
    if (number < least || number > most) return -EINVAL;
    *place = number;
    return 0;
}

static int set_fin_wait(struct sock *s, int seconds)
{
    s->fin_wait_s = seconds < 0 ? -1 : seconds > FIN_TIMEOUT_MOST_S ? FIN_TIMEOUT_MOST_S : seconds;
    return 0;
}

/* The least that Linux takes is half of the least receive buffer. */
static int set_window_clamp(struct sock *s, int bytes)
{
    enum { LEAST = 1152 };
    if (bytes == 0 && s->state != FRESH) return -EINVAL;
    s->window_clamp = bytes == 0 ? 0 : bytes < LEAST ? LEAST : bytes;
    return 0;
}

int option_tcp_set(struct sock *s, int name, int number)
{
    int failed = 0;
    if (s->kind != KIND_TCP) return -ENOPROTOOPT;
    switch (name) {
    case TCP_NODELAY: s->no_delay = number != 0; break;
    case TCP_CORK: s->cork = number != 0; break;
    case TCP_KEEPIDLE: failed = between(&s->keep_idle, number, 1, 32767); break;
    case TCP_KEEPINTVL: failed = between(&s->keep_interval, number, 1, 32767); break;
    case TCP_KEEPCNT: failed = between(&s->keep_count, number, 1, 127); break;
    case TCP_USER_TIMEOUT: failed = between(&s->user_timeout_ms, number, 0, INT32_MAX); break;
    case TCP_MAXSEG:
        failed = number == 0 ? 0 : between(&s->max_segment, number, LEAST_MSS, MOST_WINDOW);
        if (number == 0) s->max_segment = 0;
        break;
    case TCP_DEFER_ACCEPT: s->defer_accept = retries_of(number); break;
    case TCP_QUICKACK: s->slow_ack = !(number & 1), s->quick_ack = number & 1; break;
    case TCP_SYNCNT: failed = between(&s->syn_retries, number, 1, SYN_RETRIES_MOST); break;
    case TCP_LINGER2: failed = set_fin_wait(s, number); break;
    case TCP_WINDOW_CLAMP: failed = set_window_clamp(s, number); break;
    case TCP_NOTSENT_LOWAT:
        s->notsent_low = (uint32_t)number;
        direct_wish(s);
        break;
    /* A server's queue of half-open data: remembered, as by a kernel whose net.ipv4.tcp_fastopen
     * has not the server's bit. */
    case TCP_FASTOPEN:
        if (number < 0 || (s->state != FRESH && s->state != LISTENING)) return -EINVAL;
        s->fast_open = number;
        break;
    default: return -ENOPROTOOPT;
    }
    if (failed == 0) tcp_apply_options(s);
    return failed;
}

int option_congestion_set(struct sock *s, const void *value, socklen_t length)
{
    char name[CA_NAME_MAX] = {0};
    if (length < 1) return -EINVAL;
    memcpy(name, value, length < CA_NAME_MAX - 1 ? length : CA_NAME_MAX - 1);
    int found = congestion_find(name);
    if (s->kind != KIND_TCP) return -ENOPROTOOPT;
    if (found < 0) return -ENOENT;
    s->congestion_given = (uint8_t)(found + 1);
    tcp_apply_options(s);
    return 0;
}
