/* Time for lwIP: TCP, ARP, ND, multicast groups and reassembly ticks, without any while nothing
 * needs them.
 *
 * lwIP counts ticks. While no connection waits for anything the ticks stand still, and are
 * made up for in one go when something happens: an idle instance never wakes up. Run by the
 * leader's pump, and by whoever holds the lock when a tick is due.
 */
#include "instance.h"

#include "lwip/etharp.h"
#include "lwip/ip4_frag.h"
#include "lwip/ip6_frag.h"
#include "lwip/mld6.h"
#include "lwip/nd6.h"
#include "lwip/priv/tcp_priv.h"

#include <time.h>

enum { SECOND_MS = 1000, CATCH_UP_SECONDS = 310 };

uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* lwIP asks for the time in places; its own timers are not compiled. */
u32_t sys_now(void)
{
    return (u32_t)now_ms();
}

/* True if this connection waits for a tick within a second. */
static bool needs_ticks(const struct tcp_pcb *pcb)
{
    if (pcb->state != ESTABLISHED && pcb->state != CLOSE_WAIT) return true;
    return pcb->unacked != NULL || pcb->unsent != NULL || pcb->ooseq != NULL ||
           pcb->refused_data != NULL || pcb->persist_backoff != 0 ||
           (pcb->flags & (TF_ACK_DELAY | TF_CLOSEPEND | TF_RTO | TF_NAGLEMEMERR)) != 0;
}

/* How long TCP may sleep: TCP_TMR_INTERVAL, a second (TIME_WAIT, keepalive), or 0 for ever. */
static uint64_t tcp_pace(void)
{
    uint64_t pace = tcp_tw_pcbs != NULL ? SECOND_MS : 0;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next) {
        if (needs_ticks(pcb)) return TCP_TMR_INTERVAL;
        if (ip_get_option(pcb, SOF_KEEPALIVE)) pace = SECOND_MS;
    }
    return pace;
}

static void run_tcp(uint64_t now)
{
    uint64_t pace = tcp_pace();
    if (instance->tcp_ms == 0) { /* standing still: no connection cared about the time passed */
        if (pace != 0) instance->tcp_ms = now;
        return;
    }
    if (now < instance->tcp_ms + TCP_TMR_INTERVAL) return;
    uint64_t ticks = (now - instance->tcp_ms) / TCP_TMR_INTERVAL;
    instance->tcp_ms += ticks * TCP_TMR_INTERVAL;
    if (ticks > 64 && pace == TCP_TMR_INTERVAL) ticks = 64; /* stopped or suspended meanwhile */
    if (ticks > 20 * 120) ticks = 20 * 120;
    while (ticks-- > 0 && (tcp_active_pcbs != NULL || tcp_tw_pcbs != NULL)) tcp_tmr();
    if (tcp_pace() == 0) instance->tcp_ms = 0;
}

static void run_slow(uint64_t now)
{
    if (instance->slow_ms == 0) instance->slow_ms = now;
    uint64_t seconds = (now - instance->slow_ms) / SECOND_MS;
    instance->slow_ms += seconds * SECOND_MS;
    if (seconds > CATCH_UP_SECONDS) seconds = CATCH_UP_SECONDS;
    while (seconds-- > 0) {
        etharp_tmr();
        ip_reass_tmr();
        nd6_tmr();
        ip6_reass_tmr();
    }
}

/* Reports of multicast groups, which are due at a random time of theirs. */
static void run_groups(uint64_t now)
{
    if (!mld6_ticks_wanted) {
        instance->groups_ms = 0;
        return;
    }
    if (instance->groups_ms == 0) instance->groups_ms = now;
    while (now >= instance->groups_ms + MLD6_TMR_INTERVAL && mld6_ticks_wanted) {
        instance->groups_ms += MLD6_TMR_INTERVAL;
        mld6_tmr();
    }
}

/* How long the clock may sleep but for TCP; -1: for ever. */
static int quiet_time(uint64_t now)
{
    if (mld6_ticks_wanted) return MLD6_TMR_INTERVAL;
    /* A datagram that waits for an address is asked about once a second. */
    return nd6_ticks_wanted || instance->arp_until_ms > now ? SECOND_MS : -1;
}

void clock_run(void)
{
    uint64_t now = now_ms();
    run_groups(now);
    run_slow(now);
    run_tcp(now);
}

int clock_timeout(void)
{
    uint64_t pace = tcp_pace(), now = now_ms();
    int quiet = quiet_time(now);
    if (pace == 0) return quiet;
    if (instance->tcp_ms == 0) instance->tcp_ms = now;
    uint64_t due = instance->tcp_ms + pace;
    int left = due > now ? (int)(due - now) : 0;
    return quiet >= 0 && quiet < left ? quiet : left;
}

/* After work outside the leader's pump: it may sleep for longer than is right now. */
void clock_poke(void)
{
    if (instance->tcp_ms == 0 && tcp_pace() != 0) instance->tcp_ms = now_ms();
    if (instance->clock_runs || clock_timeout() < 0) return;
    if (instance->leader != NO_PROCESS) process_ring(instance->leader);
}

/* lwIP says so when a connection becomes active; clock_poke finds out by itself. */
void tcp_timer_needed(void) {}
