/* Loss recovery: what the acknowledgements say about segments in flight, and when to send which
 * again. Called by lwIP's tcp_receive and tcp_output, and by timers.c at a retransmission time-out.
 *
 * Segments in flight stay on pcb->unacked in the order of their numbers, with marks: SACKED, LOST,
 * RETRANS. pcb->sacked and pcb->lost count the bytes with the first two. A segment is held for lost
 * when three later ones have arrived (RFC 6675), and one that was sent again when something sent
 * after it has arrived (RFC 8985). Without SACK three duplicate ACKs say so of the first (RFC
 * 6582).
 */
#include "instance.h"

#include "lwip/priv/tcp_priv.h"

enum {
    DUPLICATES = 3,
    RTO_MOST_MS = 120000,
};

/* Of the acknowledgement that is being taken in; under the lock. */
static struct {
    uint32_t now_us, rtt_us;
    bool measured;
    bool limited; /* cwnd was what kept more from being in flight */
} ack;

uint32_t tcp_in_flight(const struct tcp_pcb *pcb)
{
    uint32_t sent = pcb->snd_nxt - pcb->lastack, gone = pcb->sacked + pcb->lost;
    return sent > gone ? sent - gone : 0;
}

/* ---- round-trip times, RFC 6298 -------------------------------------------------------------- */

uint32_t tcp_rto_of(const struct tcp_pcb *pcb)
{
    if (pcb->srtt == 0) return LWIP_TCP_RTO_TIME;
    uint32_t variance = LWIP_MAX(pcb->rttvar, cse_tcp_rto_least_us);
    uint32_t rto_ms = ((pcb->srtt >> 3) + variance) / 1000;
    return LWIP_MIN(rto_ms, RTO_MOST_MS);
}

void tcp_rtt_sample(struct tcp_pcb *pcb, u32_t us)
{
    if (us == 0) us = 1;
    if (us > RTO_MOST_MS * 1000u) return;
    if (pcb->srtt == 0) {
        pcb->srtt = us << 3;
        pcb->rttvar = us << 1;
    } else {
        int32_t delta = (int32_t)us - (int32_t)(pcb->srtt >> 3);
        pcb->srtt = (uint32_t)((int32_t)pcb->srtt + delta);
        if (pcb->srtt == 0) pcb->srtt = 1;
        if (delta < 0) delta = -delta;
        pcb->rttvar = (uint32_t)((int32_t)pcb->rttvar + delta - (int32_t)(pcb->rttvar >> 2));
    }
    if (pcb->min_rtt == 0 || us < pcb->min_rtt) pcb->min_rtt = us;
    pcb->rto = tcp_rto_of(pcb);
}

/* ---- acknowledgements ------------------------------------------------------------------------ */

void tcp_ack_begin(struct tcp_pcb *pcb)
{
    ack.now_us = cse_now_us();
    ack.measured = false;
    ack.limited = pcb->cwnd_limited;
}

/* This segment has arrived. Of one that was sent twice nobody knows which copy did, unless it must
 * have been the later one. */
static void arrived(struct tcp_pcb *pcb, const struct tcp_seg *seg)
{
    uint32_t past_us = ack.now_us - seg->sent_us;
    if (seg->flags & TF_SEG_RETRANS) {
        if (past_us < pcb->min_rtt) return;
    } else if (!ack.measured || past_us < ack.rtt_us) {
        ack.measured = true;
        ack.rtt_us = past_us;
    }
    if ((int32_t)(seg->sent_us - pcb->rack_sent) > 0 || pcb->rack_sent == 0)
        pcb->rack_sent = seg->sent_us;
}

void tcp_ack_segment(struct tcp_pcb *pcb, const struct tcp_seg *seg)
{
    uint32_t length = TCP_TCPLEN(seg);
    if (seg->flags & TF_SEG_LOST) pcb->lost -= LWIP_MIN(pcb->lost, length);
    if (seg->flags & TF_SEG_SACKED)
        pcb->sacked -= LWIP_MIN(pcb->sacked, length);
    else
        arrived(pcb, seg);
}

static uint32_t seq_of(const struct tcp_seg *seg)
{
    return lwip_ntohl(seg->tcphdr->seqno);
}

static void mark_lost(struct tcp_pcb *pcb, struct tcp_seg *seg)
{
    if (seg->flags & (TF_SEG_LOST | TF_SEG_SACKED)) return;
    seg->flags |= TF_SEG_LOST;
    pcb->lost += TCP_TCPLEN(seg);
}

/* Blocks that make no sense are left out: below what is acknowledged (RFC 2883), or never sent. */
static int useful_blocks(const struct tcp_pcb *pcb, struct tcp_sack_range *out)
{
    int count = 0;
    for (int i = 0; i < tcp_options_in.sack_count; i++) {
        struct tcp_sack_range block = tcp_options_in.sacks[i];
        if (TCP_SEQ_LT(block.left, block.right) && TCP_SEQ_GT(block.right, pcb->lastack) &&
            TCP_SEQ_LEQ(block.right, pcb->snd_nxt) && TCP_SEQ_GEQ(block.left, pcb->lastack))
            out[count++] = block;
    }
    return count;
}

/* Marks what is selectively acknowledged; bytes that are so for the first time. */
static uint32_t take_sacks(struct tcp_pcb *pcb)
{
    struct tcp_sack_range blocks[LWIP_ARRAYSIZE(tcp_options_in.sacks)];
    int count = useful_blocks(pcb, blocks);
    uint32_t before = pcb->sacked;
    if (count == 0) return 0;
    for (struct tcp_seg *seg = pcb->unacked; seg != NULL; seg = seg->next) {
        if (seg->flags & TF_SEG_SACKED) continue;
        uint32_t begin = seq_of(seg), length = TCP_TCPLEN(seg);
        for (int i = 0; i < count; i++) {
            if (TCP_SEQ_LT(begin, blocks[i].left) || TCP_SEQ_GT(begin + length, blocks[i].right))
                continue;
            arrived(pcb, seg);
            if (seg->flags & TF_SEG_LOST) pcb->lost -= LWIP_MIN(pcb->lost, length);
            seg->flags = (u8_t)((seg->flags & ~TF_SEG_LOST) | TF_SEG_SACKED);
            pcb->sacked += length;
            break;
        }
    }
    return pcb->sacked - before;
}

static void find_lost(struct tcp_pcb *pcb)
{
    uint32_t later = 0;
    for (struct tcp_seg *seg = pcb->unacked; seg != NULL; seg = seg->next)
        if (seg->flags & TF_SEG_SACKED) later++;
    for (struct tcp_seg *seg = pcb->unacked; seg != NULL && later > 0; seg = seg->next) {
        if (seg->flags & TF_SEG_SACKED) {
            later--;
        } else if (!(seg->flags & TF_SEG_RETRANS)) {
            if (later >= DUPLICATES) mark_lost(pcb, seg);
        } else if ((int32_t)(pcb->rack_sent - seg->sent_us) > (int32_t)(pcb->min_rtt / 4)) {
            mark_lost(pcb, seg);
        }
    }
}

static void begin_recovery(struct tcp_pcb *pcb)
{
    pcb->recover = pcb->snd_nxt;
    congestion_loss(pcb);
    pcb->cwnd = pcb->ssthresh;
    if (!(pcb->flags & TF_SACK)) pcb->cwnd += DUPLICATES * pcb->mss;
    tcp_set_flags(pcb, TF_INFR);
    tcp_resend_first(pcb);
}

/* New data is acknowledged. */
static void advance(struct tcp_pcb *pcb, uint32_t acked)
{
    bool recovering = (pcb->flags & TF_INFR) != 0;
    pcb->dupacks = 0;
    if ((pcb->flags & (TF_INFR | TF_RTO)) && TCP_SEQ_GEQ(pcb->lastack, pcb->recover)) {
        tcp_clear_flags(pcb, TF_INFR | TF_RTO);
        if (recovering) pcb->cwnd = pcb->ssthresh;
    } else if (recovering && !(pcb->flags & TF_SACK)) { /* the next hole, RFC 6582 */
        pcb->cwnd = (pcb->cwnd > acked ? pcb->cwnd - acked : 0) + pcb->mss;
        tcp_resend_first(pcb);
    }
    if (!recovering && ack.limited) congestion_acked(pcb, acked);
    pcb->cwnd_limited = 0;
}

static void measure(struct tcp_pcb *pcb, uint32_t acked)
{
    if (ack.measured)
        tcp_rtt_sample(pcb, ack.rtt_us);
    else if (acked > 0 && (pcb->flags & TF_TIMESTAMP) && tcp_options_in.has_ts)
        tcp_rtt_sample(pcb, (sys_now() - tcp_options_in.ts_echo) * 1000);
    if (acked > 0) pcb->rto = tcp_rto_of(pcb); /* no longer backed off */
}

void tcp_ack_end(struct tcp_pcb *pcb, u32_t acked, int duplicate)
{
    uint32_t sacked = pcb->flags & TF_SACK ? take_sacks(pcb) : 0;
    if (acked > 0 || sacked > 0) measure(pcb, acked);
    if (acked > 0)
        advance(pcb, acked);
    else if ((duplicate || sacked > 0) && pcb->dupacks < 255)
        pcb->dupacks++;
    if (pcb->unacked == NULL) return;
    if (pcb->sacked > 0) find_lost(pcb);
    if (!(pcb->flags & (TF_INFR | TF_RTO))) {
        if (pcb->lost > 0 || pcb->dupacks >= DUPLICATES) begin_recovery(pcb);
    } else if ((pcb->flags & TF_INFR) && duplicate && !(pcb->flags & TF_SACK)) {
        pcb->cwnd += pcb->mss;
    }
}

/* ---- sending again --------------------------------------------------------------------------- */

/* The first segment in flight goes out with the next output, whatever the window says. */
void tcp_resend_first(struct tcp_pcb *pcb)
{
    struct tcp_seg *seg = pcb->unacked;
    while (seg != NULL && (seg->flags & TF_SEG_SACKED)) seg = seg->next;
    if (seg == NULL) return;
    mark_lost(pcb, seg);
    pcb->rexmit_now = 1;
    tcp_rto_restart(pcb);
}

err_t tcp_output_lost(struct tcp_pcb *pcb, struct netif *netif)
{
    for (struct tcp_seg *seg = pcb->unacked; seg != NULL && pcb->lost > 0; seg = seg->next) {
        if (!(seg->flags & TF_SEG_LOST)) continue;
        uint32_t in_flight = tcp_in_flight(pcb);
        if (!pcb->rexmit_now && in_flight > 0 && in_flight + seg->len > pcb->cwnd) {
            pcb->cwnd_limited = 1;
            break;
        }
        err_t error = tcp_resend(pcb, seg, netif);
        if (error == ERR_INPROGRESS) continue; /* its first copy has not left yet */
        if (error != ERR_OK) return error;
        pcb->rexmit_now = 0;
    }
    pcb->rexmit_now = 0;
    return ERR_OK;
}

/* The retransmission timer has run out: all in flight is held for lost. */
void recovery_timeout(struct tcp_pcb *pcb)
{
    bool first = pcb->nrtx == 0;
    if (pcb->nrtx < 0xff) pcb->nrtx++;
    pcb->rto = LWIP_MIN(pcb->rto * 2, RTO_MOST_MS);
    if (pcb->unacked == NULL) { /* it could not be sent at all */
        tcp_rto_restart(pcb);
        tcp_output(pcb);
        return;
    }
    if (pcb->unacked->flags &
        TF_SEG_SACKED) { /* the peer has thrown away what it had: RFC 2018, 8 */
        for (struct tcp_seg *seg = pcb->unacked; seg != NULL; seg = seg->next)
            seg->flags &= (u8_t)~TF_SEG_SACKED;
        pcb->sacked = 0;
    }
    if (pcb->state >= ESTABLISHED && first) congestion_loss(pcb);
    pcb->cwnd = pcb->mss;
    pcb->bytes_acked = 0;
    pcb->dupacks = 0;
    pcb->recover = pcb->snd_nxt;
    tcp_clear_flags(pcb, TF_INFR);
    tcp_set_flags(pcb, TF_RTO);
    for (struct tcp_seg *seg = pcb->unacked; seg != NULL; seg = seg->next) mark_lost(pcb, seg);
    pcb->rexmit_now = 1;
    tcp_rto_restart(pcb);
    tcp_output(pcb);
}
