/* The pump: one thread per process that has sockets. It moves bytes between lwIP and the pairs,
 * answers the doorbell, and in the leader reads the device and keeps the time.
 *
 * All signals are blocked in it, it allocates nothing, and it sleeps in epoll_wait without the
 * lock. Stack ends are watched edge-triggered: what is known to be readable is kept in the socket
 * (tx_ready), so that a full send buffer costs no epoll_ctl calls.
 */
#include "pump.h"
#include "core.h"
#include "direct.h"
#include "keeper.h"
#include "notes.h"
#include "wire.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef EPOLLEXCLUSIVE
#define EPOLLEXCLUSIVE (1u << 28)
#endif

enum {
    EVENTS = 64,
    READS = 64,
    STACK_BYTES = 256 * 1024,
    TRIM_MS = 500,
    RECONNECT_MS = 1000,
    COUNTERS_MS = 1000
};

/* The device wakes one sleeper: a thread of the program that waits for it, else the pump. */
static void watch_device(bool wanted)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.u64 = PUMP_TAP};
    if (me.watches_device) syscall(SYS_epoll_ctl, me.epoll, EPOLL_CTL_DEL, me.tap, &event);
    if (wanted) syscall(SYS_epoll_ctl, me.epoll, EPOLL_CTL_ADD, me.tap, &event);
    me.watches_device = wanted;
}

/* A new sleeper has come after us in the device's queue: the pump goes to its end. */
void pump_requeue_device(void)
{
    if (me.watches_device && me.epoll >= 0) watch_device(true);
}

void pump_watch_fd(int fd, uint64_t tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag};
    syscall(SYS_epoll_ctl, me.epoll, EPOLL_CTL_ADD, fd, &event);
}

void pump_unwatch_fd(int fd)
{
    struct epoll_event event = {0};
    syscall(SYS_epoll_ctl, me.epoll, EPOLL_CTL_DEL, fd, &event);
    host->own_close(fd);
}

static void control(struct sock *s, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events | EPOLLIN | EPOLLRDHUP | EPOLLET,
                                .data.u64 = (uint64_t)s->generation << 32 | s->index};
    syscall(SYS_epoll_ctl, me.epoll, operation, me.ends[s->index].fd, &event);
}

/* This process pumps the socket from now on. Without a pump yet, pump_ensure catches up. */
void pump_watch(struct sock *s)
{
    struct end *end = &me.ends[s->index];
    if (me.epoll < 0 || end->watched || end->fd <= 0) return;
    buffers_fit_pair(s);
    fresh_over(s);
    end->watched = true;
    control(s, EPOLL_CTL_ADD, 0);
}

void pump_want_out(struct sock *s, bool wanted)
{
    struct end *end = &me.ends[s->index];
    s->rx_blocked = wanted;
    if (!end->watched || end->watching_out == wanted) return;
    end->watching_out = wanted;
    control(s, EPOLL_CTL_MOD, wanted ? EPOLLOUT : 0);
}

void pump_forget(struct sock *s)
{
    struct end *end = &me.ends[s->index];
    if (end->watched) control(s, EPOLL_CTL_DEL, 0);
    end->watched = end->watching_out = false;
}

void pump_serve(struct sock *s, uint32_t events)
{
    if (events & EPOLLOUT) pump_want_out(s, false);
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) s->tx_ready = true;
    if (events & EPOLLHUP) s->hang_up = true;
    sock_deliver(s);
}

/* ---- the broker ---------------------------------------------------------------------------- */

static void lose_broker(void)
{
    trace("the broker is gone");
    pump_unwatch_fd(me.broker);
    me.broker = -1;
}

/* One message, if there is any within the time. */
bool pump_hear_broker(int timeout_ms)
{
    struct cse_message message;
    int got = me.broker >= 0 ? host->broker_receive(me.broker, &message, timeout_ms) : 0;
    if (got < 0) lose_broker();
    if (got <= 0) return false;
    if (instruments_hear(&message)) return true;
    if (wire_message(&message)) return true;
    for (int i = 0; i < message.fd_count; i++) host->own_close(message.fds[i]);
    if (strncmp(message.text, "set ", 4) == 0) tune_apply(message.text);
    return true;
}

/* The latest totals, at most once a second; what changes in between is told when that is over. */
static uint64_t counters_told_ms, counters_told;

static uint64_t counted(void)
{
    const struct wires *wires = &instance->wires;
    return instance->rx_packets + instance->tx_packets + wires->rx_packets + wires->tx_packets +
           wires->spoofed + wires->errors;
}

/* Milliseconds until the totals may be told; -1: nothing is new. */
static int counters_due(void)
{
    if (me.broker < 0 || counted() == counters_told) return -1;
    uint64_t due = counters_told_ms + COUNTERS_MS, now = now_ms();
    return due > now ? (int)(due - now) : 0;
}

static void tell_counters(void)
{
    struct pollfd ready = {me.broker, POLLOUT, 0};
    if (counters_due() != 0) return;
    counters_told_ms = now_ms(); /* a broker that does not read is asked again after a second */
    if (syscall(SYS_ppoll, &ready, 1, &(struct timespec){0, 0}, NULL, 0) != 1) return;
    counters_told = counted();
    char text[1024];
    report_counters(text, sizeof text);
    host->broker_send(me.broker, text, NULL, 0);
}

static void find_broker_again(void)
{
    static uint64_t last;
    uint64_t now = now_ms();
    if (now < last + RECONNECT_MS) return;
    last = now;
    char hello[1200];
    int fds[4] = {me.arena, me.tap, me.bells[0], me.bells[1]};
    me.broker = host->broker_connect(0);
    if (me.broker < 0) return;
    broker_hello(hello, sizeof hello, " reattach=1");
    if (host->broker_send(me.broker, hello, NULL, 0) &&
        host->broker_send(me.broker, "register", fds, 4)) {
        wire_lead();
        pump_watch_fd(me.broker, PUMP_BROKER);
        counters_told = UINT64_MAX; /* nothing was told to this one */
    } else {
        host->own_close(me.broker);
        me.broker = -1;
    }
}

/* ---- the loop ------------------------------------------------------------------------------ */

static void hear_bell(void)
{
    notes_hear();
    if (me.slot != NO_PROCESS) instance->processes[me.slot].rung = false;
    if (me.seen_stale != instance->stale_changes) sock_sweep_ends();
    me.seen_stale = instance->stale_changes;
}

static bool leading(void)
{
    return me.slot != NO_PROCESS && instance->leader == me.slot;
}

/* The device is in the leader's epoll only. */
static void follow_lead(void)
{
    if (me.epoll < 0 || leading() == me.reads_device) return;
    me.reads_device = leading();
    if (me.reads_device) {
        watch_device(true);
        if (me.bells[0] >= 0) pump_watch_fd(me.bells[0], PUMP_RINGS);
        if (me.broker >= 0) pump_watch_fd(me.broker, PUMP_BROKER);
        wire_watch(true);
        wire_lead();
    } else {
        struct epoll_event event = {0};
        watch_device(false);
        if (me.bells[0] >= 0) syscall(SYS_epoll_ctl, me.epoll, EPOLL_CTL_DEL, me.bells[0], &event);
        wire_watch(false);
        if (me.broker >= 0) syscall(SYS_epoll_ctl, me.epoll, EPOLL_CTL_DEL, me.broker, &event);
    }
}

static void serve(const struct epoll_event *event)
{
    uint64_t tag = event->data.u64;
    if (tag == PUMP_BELL) {
        hear_bell();
    } else if (tag == PUMP_TAP) {
        device_read(READS);
    } else if (tag == PUMP_BROKER) {
        pump_hear_broker(0);
    } else if (tag >= PUMP_CAPTURE && tag < PUMP_CAPTURE + CAPTURES_MAX) {
        if (event->events & (EPOLLHUP | EPOLLERR)) capture_hung_up((int)(tag - PUMP_CAPTURE));
    } else if (tag == PUMP_RINGS) {
        wire_hush();
    } else if (tag >= PUMP_WIRE) {
        wire_hang_up((uint32_t)(tag - PUMP_WIRE));
    } else if (tag >= PUMP_PROCESS) {
        process_heard((uint16_t)(tag - PUMP_PROCESS));
    } else {
        uint32_t index = (uint32_t)tag, generation = (uint32_t)(tag >> 32);
        struct sock *s = index < SOCKETS_MAX ? instance->sockets[index] : NULL;
        if (s != NULL && s->generation == generation && s->owner == me.slot)
            pump_serve(s, event->events);
    }
}

/* Memory that traffic has left goes back to the kernel, in the second look after it at the latest,
 * also of a program that comes by all the time and finds nothing.
 * Looks come every TRIM_MS until one found nothing to have happened since the one before. */
static uint64_t trimmed_ms;
static bool busy_now, busy_before; /* since the last look; between it and the one before */

static void trim(bool busy)
{
    busy_now |= busy;
    if (!(busy_now || busy_before) || now_ms() < trimmed_ms + TRIM_MS) return;
    wire_trim(!busy_now);
    heap_trim();
    busy_before = busy_now;
    busy_now = false;
    trimmed_ms = now_ms();
}

/* Sleeps at most `timeout_ms` (-1: as long as nothing is due), takes the lock, serves, and keeps
 * the lock. */
static void serve_round(int timeout_ms)
{
    struct epoll_event events[EVENTS];
    long got = syscall(SYS_epoll_pwait, me.epoll, events, EVENTS, timeout_ms, NULL, 0);
    instance_lock_patiently();
    me.pump_wakes_ms = 0;
    if (me.slot == NO_PROCESS || instance->processes[me.slot].used != 2) return;
    if (leading()) clock_is_awake(); /* no need to ring us while we are here */
    process_watch();
    follow_lead();
    for (long i = 0; i < got; i++) serve(&events[i]);
    wire_serve();
    if (!leading()) return;
    if (direct_leaves_to_pump()) wire_read(READS);
    if (!me.watches_device && direct_leaves_device()) device_read(READS);
    clock_run();
    tell_counters();
    instruments_tell();
    if (me.broker < 0 && host->setting("tap") == NULL) find_broker_again();
    trim(got > 0 || instance->visits != me.seen_visits);
}

void pump_once(int timeout_ms)
{
    serve_round(timeout_ms);
    instance_unlock(NULL);
    spawned_serve();
}

/* How long the pump may sleep; the leader says so in the arena, so that others can wake it. */
static int sleep_time(void)
{
    int timeout = -1;
    clock_read_again();
    process_watch();
    follow_lead();
    instance_settle();
    bool tick = me.slot != NO_PROCESS && direct_tick(leading());
    if (leading()) {
        timeout = instruments_timeout(clock_timeout());
        if ((busy_now || busy_before) && (timeout < 0 || timeout > TRIM_MS)) timeout = TRIM_MS;
        if (me.broker < 0 && host->setting("tap") == NULL && (timeout < 0 || timeout > 1000))
            timeout = RECONNECT_MS;
        const int due[] = {wire_timeout(), counters_due()};
        for (int i = 0; i < 2; i++)
            if (due[i] >= 0 && (timeout < 0 || due[i] < timeout)) timeout = due[i];
    }
    if (leading() && me.reads_device && direct_finds() == me.watches_device)
        watch_device(!me.watches_device);
    tick |= me.reads_device && !me.watches_device;
    if (tick && (timeout < 0 || timeout > TICK_MS)) timeout = TICK_MS;
    int settling = me.slot != NO_PROCESS ? fresh_settle() : -1;
    if (settling >= 0 && (timeout < 0 || timeout > settling)) timeout = settling;
    me.pump_wakes_ms = timeout < 0 ? UINT64_MAX : now_ms() + (uint64_t)timeout;
    if (leading() && wire_pending() && direct_leaves_to_pump()) timeout = 0;
    if (leading()) clock_sleeps(timeout);
    return timeout;
}

/* A new thread runs code that is not ours first, and that may allocate: a child forked just then
 * would find the allocator's locks taken for good. So a fork waits until the thread is here. */
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static uint32_t on_its_way; /* a futex word */

void pump_before_fork(void)
{
    pthread_mutex_lock(&starting);
    while (__atomic_load_n(&on_its_way, __ATOMIC_ACQUIRE) != 0)
        syscall(SYS_futex, &on_its_way, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
}

void pump_after_fork(void)
{
    pthread_mutex_unlock(&starting);
}

static void arrived(void)
{
    __atomic_store_n(&on_its_way, 0, __ATOMIC_RELEASE);
    syscall(SYS_futex, &on_its_way, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void *run(void *unused)
{
    arrived();
    prctl(PR_SET_NAME, "cse-net");
    for (int timeout = 0;;) {
        serve_round(timeout);
        timeout = sleep_time();
        instance_unlock(NULL);
        spawned_serve();
    }
    return unused;
}

void pump_drop(void)
{
    starting = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    on_its_way = 0;
    me.pump_runs = false;
    if (me.epoll >= 0) host->own_close(me.epoll);
    if (me.bell >= 0) host->own_close(me.bell);
    me.epoll = me.bell = -1;
    me.reads_device = me.watches_device = false;
}

static int make_epoll(void)
{
    int fd = (int)syscall(SYS_epoll_create1, EPOLL_CLOEXEC);
    if (fd < 0) return -errno;
    me.epoll = host->own_fd(fd);
    if (me.epoll < 0) return -errno;
    process_open_bell();
    if (me.bell >= 0) pump_watch_fd(me.bell, PUMP_BELL);
    process_watch();
    follow_lead();
    for (uint32_t i = 0; i < me.top; i++) {
        struct sock *s = instance->sockets[i];
        if (s != NULL && s->owner == me.slot && me.ends[i].generation == s->generation)
            pump_watch(s);
    }
    return 0;
}

static int create_thread(size_t stack)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (stack != 0) pthread_attr_setstacksize(&attributes, stack);
    int failed = pthread_create(&thread, &attributes, run, NULL);
    pthread_attr_destroy(&attributes);
    return failed;
}

static int start_thread(void)
{
    on_its_way = 1;
    int failed = create_thread(STACK_BYTES);
    /* A program with much thread-local data: glibc takes that from the stack. */
    if (failed == EINVAL) failed = create_thread(0);
    if (failed != 0) arrived();
    return -failed;
}

/* With all signals blocked: the thread inherits that, and no handler forks halfway. */
static int start(void)
{
    int failed = 0;
    instance_lock(NULL);
    if (me.slot == NO_PROCESS && !process_join()) failed = -ENFILE;
    if (failed == 0 && me.epoll < 0) failed = make_epoll();
    instance_unlock(NULL);
    if (failed == 0) failed = start_thread();
    if (failed == 0) __atomic_store_n(&me.pump_runs, true, __ATOMIC_RELEASE);
    return failed;
}

int pump_ensure(void)
{
    if (__atomic_load_n(&me.pump_runs, __ATOMIC_ACQUIRE)) return 0;
    sigset_t all, saved;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved);
    pthread_mutex_lock(&starting);
    int failed = me.pump_runs ? 0 : start();
    pthread_mutex_unlock(&starting);
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    return failed;
}

int pump_threads(void)
{
    return __atomic_load_n(&me.pump_runs, __ATOMIC_ACQUIRE) ? 1 : 0;
}
