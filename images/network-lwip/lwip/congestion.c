/* Congestion control: how cwnd grows with acknowledgements and shrinks at a loss. Called by
 * recovery.c; options.c sets a connection's algorithm, by its name in Linux (TCP_CONGESTION).
 */
#include "instance.h"

#include "lwip/priv/tcp_priv.h"

#include <string.h>

static const char *const names[] = {[CONGESTION_RENO] = "reno", [CONGESTION_CUBIC] = "cubic"};

/* CUBIC's factors, RFC 9438, 4.1 and 4.6: C in segments per second cubed, beta. */
static const double cubic_c = 0.4, cubic_beta = 0.7;

int congestion_find(const char *name)
{
    for (int i = 0; i < (int)LWIP_ARRAYSIZE(names); i++)
        if (strcmp(name, names[i]) == 0) return i;
    return -1;
}

const char *congestion_name(int algorithm)
{
    return names[algorithm];
}

static void grow(struct tcp_pcb *pcb, uint32_t bytes)
{
    if (pcb->cwnd + bytes > pcb->cwnd) pcb->cwnd += bytes;
}

/* One segment for each window that is acknowledged, RFC 5681. */
static void reno_acked(struct tcp_pcb *pcb, uint32_t acked)
{
    pcb->bytes_acked += acked;
    if (pcb->bytes_acked < pcb->cwnd) return;
    pcb->bytes_acked -= pcb->cwnd;
    grow(pcb, pcb->mss);
}

static double cube_root(double value)
{
    double root = value > 1 ? value / 2 : 1;
    if (value <= 0) return 0;
    for (int i = 0; i < 40; i++) {
        double next = (2 * root + value / (root * root)) / 3;
        if (next > root * 0.999999 && next < root * 1.000001) return next;
        root = next;
    }
    return root;
}

static void cubic_begin(struct tcp_pcb *pcb)
{
    double mss = pcb->mss;
    pcb->cubic_epoch = sys_now() | 1;
    pcb->cubic_reno = pcb->cwnd;
    if (pcb->cwnd < pcb->cubic_max) {
        double behind = (pcb->cubic_max - pcb->cwnd) / mss;
        pcb->cubic_k = (uint32_t)(cube_root(behind / cubic_c) * 1000);
        pcb->cubic_origin = pcb->cubic_max;
    } else {
        pcb->cubic_k = 0;
        pcb->cubic_origin = pcb->cwnd;
    }
}

static void cubic_acked(struct tcp_pcb *pcb, uint32_t acked)
{
    if (pcb->cubic_epoch == 0) cubic_begin(pcb);
    double mss = pcb->mss, cwnd = pcb->cwnd;
    double at_s = (sys_now() - pcb->cubic_epoch) / 1000.0 + (pcb->srtt >> 3) / 1e6;
    double from_k = at_s - pcb->cubic_k / 1000.0;
    double target = pcb->cubic_origin + cubic_c * from_k * from_k * from_k * mss;
    if (target < cwnd) target = cwnd;
    if (target > cwnd * 1.5) target = cwnd * 1.5;
    /* Where Reno would be by now (4.3): never slower than that. */
    double alpha =
        pcb->cubic_reno >= pcb->cubic_origin ? 1 : 3 * (1 - cubic_beta) / (1 + cubic_beta);
    pcb->cubic_reno += (uint32_t)(alpha * acked * mss / cwnd);
    if (target < pcb->cubic_reno) {
        if (pcb->cubic_reno > pcb->cwnd) pcb->cwnd = pcb->cubic_reno;
        return;
    }
    grow(pcb, (uint32_t)((target - cwnd) * acked / cwnd));
}

void congestion_acked(struct tcp_pcb *pcb, uint32_t acked)
{
    if (pcb->cwnd < pcb->ssthresh) { /* slow start */
        uint32_t room = pcb->ssthresh - pcb->cwnd;
        grow(pcb, LWIP_MIN(acked, room));
        if (acked <= room) return;
        acked -= room;
    }
    if (pcb->congestion == CONGESTION_CUBIC)
        cubic_acked(pcb, acked);
    else
        reno_acked(pcb, acked);
}

/* Sets ssthresh; the caller sets cwnd. */
void congestion_loss(struct tcp_pcb *pcb)
{
    uint32_t window = LWIP_MIN(pcb->cwnd, pcb->snd_nxt - pcb->lastack);
    uint32_t least = 2 * pcb->mss;
    if (pcb->congestion == CONGESTION_CUBIC) {
        /* Fast convergence, 4.7: give room to others if the last loss came at a larger window. */
        pcb->cubic_max =
            pcb->cwnd < pcb->cubic_max ? (uint32_t)(pcb->cwnd * (1 + cubic_beta) / 2) : pcb->cwnd;
        pcb->cubic_epoch = 0;
        pcb->ssthresh = (uint32_t)(window * cubic_beta);
    } else {
        pcb->ssthresh = window / 2;
    }
    if (pcb->ssthresh < least) pcb->ssthresh = least;
    pcb->bytes_acked = 0;
}
