/* Time for lwIP: TCP's timers (timers.c), and the ticks of ARP, ND, multicast groups and
 * reassembly.
 *
 * The ticks stand still while nobody runs the stack, and are made up for in one go: an idle
 * instance never wakes up. Run by the leader's pump, which says how long it will sleep, so that
 * whoever makes an earlier time due can ring it.
 */
#include "instance.h"

#include "lwip/etharp.h"
#include "lwip/igmp.h"
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

/* The time is read once for each hold of the lock, however many segments that sends. */
static uint64_t read_us;

void clock_read_again(void)
{
    read_us = 0;
}

uint64_t clock_us(void)
{
    struct timespec now;
    if (read_us != 0) return read_us;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return read_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

u32_t sys_now(void)
{
    return (u32_t)(clock_us() / 1000);
}

u32_t cse_now_us(void)
{
    return (u32_t)clock_us();
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
    if (!mld6_ticks_wanted && !igmp_ticks_wanted) {
        instance->groups_ms = 0;
        return;
    }
    if (instance->groups_ms == 0) instance->groups_ms = now;
    while (now >= instance->groups_ms + MLD6_TMR_INTERVAL) {
        instance->groups_ms += MLD6_TMR_INTERVAL;
        if (mld6_ticks_wanted) mld6_tmr();
        if (igmp_ticks_wanted) igmp_tmr();
    }
}

/* How long the clock may sleep but for TCP; -1: for ever. */
static int quiet_time(uint64_t now)
{
    if (mld6_ticks_wanted || igmp_ticks_wanted) return MLD6_TMR_INTERVAL;
    /* A datagram that waits for an address is asked about once a second. */
    return nd6_ticks_wanted || instance->arp_until_ms > now ? SECOND_MS : -1;
}

void clock_run(void)
{
    uint64_t now = now_ms();
    run_groups(now);
    run_slow(now);
    tcp_timer_run();
}

int clock_timeout(void)
{
    int wait = tcp_timer_wait(), quiet = quiet_time(clock_us() / 1000);
    return quiet >= 0 && (wait < 0 || quiet < wait) ? quiet : wait;
}

void clock_sleeps(int timeout_ms)
{
    instance->leader_wakes_ms =
        timeout_ms < 0 ? UINT64_MAX : clock_us() / 1000 + (uint64_t)timeout_ms;
}

void clock_is_awake(void)
{
    instance->leader_wakes_ms = 0;
}

/* After work outside the leader's pump: it may sleep for longer than is right now. */
void clock_poke(void)
{
    if (instance->leader_wakes_ms == 0 || instance->leader == NO_PROCESS) return;
    int wait = clock_timeout();
    if (wait >= 0 && clock_us() / 1000 + (uint64_t)wait < instance->leader_wakes_ms)
        process_ring(instance->leader);
}

/* lwIP says so when a connection becomes active; clock_poke finds out by itself. */
void tcp_timer_needed(void) {}
