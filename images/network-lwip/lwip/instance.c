/* The instance: made once per application, joined by every other process of it.
 *
 * Theory of operation. All state lies in the arena (arena.c) behind one robust lock. Whoever
 * holds the lock runs the stack: a program's thread in a control call, or a pump thread
 * (pump.c). One process is the leader: its pump reads the device and keeps the time. Each socket
 * has an owner, the process whose pump moves bytes between lwIP and the socket's pair; events for a
 * socket put it on its owner's list, and instance_unlock rings the owners' doorbells.
 *
 * The program's handlers are put off while a thread holds the lock, so that none of them finds it
 * taken. A process that is killed while it holds the lock leaves the state in doubt: the next
 * one to take it resets the instance (reset.c).
 */
#include "instance.h"
#include "core.h"
#include "pump.h"

#include "lwip/etharp.h"
#include "lwip/igmp.h"
#include "lwip/priv/tcp_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    SCRATCH_BYTES = 65536 + 128,
    LOCK_WAIT_MS = 50,
    GATE_WAIT_MS = 200,
    PAUSE_NS = 50000,
    PAUSES = 50,
    BROKER_WAIT_MS = 10000,
    ASK_TIMES = 5,
    ORDER_WAIT_MS = 1000
};

#ifndef PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP /* musl: the type is the first word */
#define PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP                                                     \
    {                                                                                              \
        {                                                                                          \
            {                                                                                      \
                PTHREAD_MUTEX_RECURSIVE                                                            \
            }                                                                                      \
        }                                                                                          \
    }
#endif

struct process_local me = {.tap = -1,
                           .arena = -1,
                           .broker = -1,
                           .epoll = -1,
                           .bell = -1,
                           .bells = {-1, -1},
                           .bell_holds = {-1, -1}};
const struct cse_host *host;

bool instance_running(void)
{
    return __atomic_load_n(&me.attached, __ATOMIC_ACQUIRE);
}

/* ---- lock ---------------------------------------------------------------------------------- */

static void make_lock(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&instance->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

/* A thread that exit or exec ends must not hold the lock just then: the others would find its
 * owner dead and the state in doubt. So threads of this process go through a gate of their own
 * first, and the one that leaves closes it for good. */
static pthread_mutex_t gate = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

void instance_close_gate(void)
{
    pthread_mutex_lock(&gate);
}

/* Without a system call: a filter may forbid it. */
void instance_close_gate_unseen(void)
{
    uint64_t end = now_ms() + GATE_WAIT_MS;
    while (pthread_mutex_trylock(&gate) != 0 && now_ms() < end) continue;
}

void instance_open_gate(void)
{
    pthread_mutex_unlock(&gate);
}

void instance_new_gate(void)
{
    gate = (pthread_mutex_t)PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
}

/* A process that is killed just when it is woken takes the wake with it, and the kernel passes it
 * on only if nobody has the lock. So nobody sleeps for longer than this without looking. */
static int lock_arena(void)
{
    int result = pthread_mutex_trylock(&instance->lock);
    while (result == EBUSY || result == ETIMEDOUT) {
        struct timespec until;
        syscall(SYS_clock_gettime, CLOCK_REALTIME, &until);
        until.tv_nsec += LOCK_WAIT_MS * 1000000L;
        if (until.tv_nsec >= 1000000000L) until.tv_sec++, until.tv_nsec -= 1000000000L;
        result = pthread_mutex_timedlock(&instance->lock, &until);
    }
    return result;
}

/* The lock is taken; `result` says how. */
static void enter(int result)
{
    clock_read_again();
    if (result == EOWNERDEAD) {
        pthread_mutex_consistent(&instance->lock);
        reset_instance();
    }
    if (me.epoch != instance->epoch) reset_ends();
}

void instance_lock(sigset_t *saved)
{
    if (saved != NULL) host->hold_signals();
    pthread_mutex_lock(&gate);
    enter(lock_arena());
}

static bool try_lock(void)
{
    if (pthread_mutex_trylock(&gate) != 0) return false;
    int result = pthread_mutex_trylock(&instance->lock);
    if (result != EBUSY) {
        enter(result);
        return true;
    }
    pthread_mutex_unlock(&gate);
    return false;
}

/* For the pump, who is in no hurry where a thread of the program runs the stack: whoever lets go of
 * a lock that is waited for has to wake somebody, who then mostly finds it taken again. */
void instance_lock_patiently(void)
{
    static uint32_t never; /* a filter that lets us wait for locks lets us pause so, too */
    struct timespec pause = {0, PAUSE_NS};
    for (int i = 0; i < PAUSES; i++) {
        if (try_lock()) return;
        syscall(SYS_futex, &never, FUTEX_WAIT_PRIVATE, 0, &pause, NULL, 0);
    }
    instance_lock(NULL);
}

/* Runs until no process-local work is left: looped-back packets, deliveries of our sockets. */
void instance_settle(void)
{
    for (int rounds = 0; rounds < 1000; rounds++) {
        struct process *mine = me.slot != NO_PROCESS ? &instance->processes[me.slot] : NULL;
        bool busy = instance->packet_hooks != 0 && instruments_settle();
        if (instance->loop->loop_first != NULL) netif_poll(instance->loop), busy = true;
        if (instance->tap->loop_first != NULL) netif_poll(instance->tap), busy = true;
        while (mine != NULL && mine->pending != NULL) {
            struct sock *s = mine->pending;
            mine->pending = s->pending_next;
            if (mine->pending == NULL) mine->pending_last = NULL;
            s->pending = false;
            sock_deliver(s);
            busy = true;
        }
        if (!busy) return;
    }
}

void instance_unlock(sigset_t *saved)
{
    int saved_errno = errno;
    do {
        instance_settle();
        if (__builtin_expect(instance->lingerers, 0)) linger_news(false);
        device_flush();
        for (uint16_t i = 0; i < instance->process_top; i++)
            if (instance->processes[i].pending != NULL && !instance->processes[i].rung)
                process_ring(i);
        clock_poke();
        if (__builtin_expect(instance->packet_hooks, 0)) instruments_poke();
    } while (process_bury());
    pthread_mutex_unlock(&instance->lock);
    pthread_mutex_unlock(&gate);
    errno = saved_errno;
    if (saved != NULL) host->release_signals();
}

/* ---- making one ---------------------------------------------------------------------------- */

void cse_lwip_assertion(const char *message)
{
    trace("assertion: %s", message);
    host->escape("assertion in the stack");
}

uint32_t cse_lwip_random(void)
{
    uint64_t a = instance->random[0], b = instance->random[1]; /* xorshift128+ */
    instance->random[0] = b;
    a ^= a << 23;
    instance->random[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
    return (uint32_t)((instance->random[1] + b) >> 32);
}

/* The limit for all ways; what the MTU of each allows is looked at for each connection. */
void instance_set_mss(long mss)
{
    long largest = (instance->mtu > WIRE_MTU ? instance->mtu : WIRE_MTU) - 40;
    cse_tcp_mss = (uint32_t)(mss < 536 ? 536 : mss > largest ? largest : mss);
}

/* What lwIP keeps in its own variables, after load and after a reset. */
void instance_fill_in(void)
{
    instance_set_mss(host->setting_number("mss", UINT16_MAX));
    cse_tcp_window = (uint32_t)instance->receive_buffer;
    cse_tcp_send_buffer = (uint32_t)instance->send_buffer;
    cse_tcp_initial_window = (uint32_t)setting_bounded("initial_window", 10);
    cse_tcp_delayed_ack_ms = (uint32_t)setting_bounded("delayed_ack", 40);
    cse_tcp_rto_least_us = (uint32_t)setting_bounded("rto_min", 200) * 1000;
    const char *congestion = host->setting("congestion");
    int algorithm = congestion != NULL ? congestion_find(congestion) : -1;
    cse_tcp_congestion = (uint32_t)(algorithm >= 0 ? algorithm : CONGESTION_CUBIC);
    netif_init();
    etharp_init();
    igmp_init();
    udp_init();
    tcp_init();
    device_add_interfaces();
}

static int set_up_instance(void)
{
    if (!settings_good()) return -ENETDOWN;
    instance->layout = INSTANCE_LAYOUT;
    instance->shared_size = arena_size();
    if (syscall(SYS_getrandom, instance->random, sizeof instance->random, 0) < 0 ||
        syscall(SYS_getrandom, instance->isn_key, sizeof instance->isn_key, 0) < 0)
        return -errno;
    make_lock();
    instance_read_settings();
    if (instance->address == 0) return -EADDRNOTAVAIL;
    for (int i = 0; i < PROCESSES_MAX; i++) instance->processes[i].used = 0;
    instance->leader = NO_PROCESS;
    int failed = device_setup();
    if (failed != 0) return failed;
    instance_fill_in();
    instance->epoch = 1;
    __atomic_store_n(&instance->magic, INSTANCE_MAGIC, __ATOMIC_RELEASE);
    return 0;
}

static int make_instance(int tap)
{
    me.tap = tap;
    int fd = arena_create();
    if (fd < 0) return fd;
    me.arena = host->own_fd(fd);
    if (me.arena < 0) return -errno;
    return set_up_instance();
}

/* ---- the broker ---------------------------------------------------------------------------- */

static void program_path(char *out, size_t size)
{
    char path[1024];
    long length = syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", path, sizeof path - 1);
    path[length > 0 ? length : 0] = '\0';
    size_t used = 0;
    for (const char *c = path; *c != '\0' && used + 4 < size; c++) {
        if (*c <= ' ' || *c == '%')
            used += (size_t)snprintf(out + used, size - used, "%%%02X", *c);
        else
            out[used++] = *c;
    }
    out[used] = '\0';
}

void broker_hello(char *out, size_t size, const char *more)
{
    char program[1024];
    program_path(program, sizeof program);
    snprintf(out, size, "hello version=1 kind=network pid=%d program=%s vnet_hdr=1%s",
             (int)getpid(), program, more);
}

/* Commands that follow `create`. */
static int orders;

/* Says hello and takes the answer. A broker that is killed in between is asked again when its
 * successor is there: the program has been started, and must not fail for that. */
static bool ask_broker(bool attach_only, struct cse_message *answer)
{
    char hello[1200];
    broker_hello(hello, sizeof hello, attach_only ? " attach=1" : "");
    for (int left = attach_only ? 1 : ASK_TIMES; left > 0; left--) {
        me.broker = host->broker_connect(attach_only ? 0 : BROKER_WAIT_MS);
        if (me.broker < 0) return false;
        bool sent = host->broker_send(me.broker, hello, NULL, 0);
        int got = sent ? host->broker_receive(me.broker, answer, BROKER_WAIT_MS) : -1;
        if (got == 1) return true;
        host->own_close(me.broker);
        me.broker = -1;
        if (got == 0) return false; /* it is there, and does not answer */
    }
    return false;
}

static int start_with_broker(bool attach_only)
{
    struct cse_message answer;
    if (!ask_broker(attach_only, &answer)) return -ENETDOWN;
    trace("broker: %s, %d descriptors", answer.text, answer.fd_count);
    int failed = -ENETDOWN;
    if (strncmp(answer.text, "attach", 6) == 0 && answer.fd_count == 4) {
        me.arena = answer.fds[0];
        me.tap = answer.fds[1];
        me.bells[0] = answer.fds[2];
        me.bells[1] = answer.fds[3];
        failed = arena_attach(me.arena);
        if (failed == 0) failed = device_attach();
    } else if (strncmp(answer.text, "create", 6) == 0 && answer.fd_count == 1 && !attach_only) {
        char count[8];
        if (host->message_field(answer.text, "orders", count, sizeof count)) orders = atoi(count);
        failed = make_instance(answer.fds[0]);
        if (failed == 0) failed = wire_make_bells();
        if (failed == 0) instance->wires.wanted = true;
    } else {
        for (int i = 0; i < answer.fd_count; i++) host->own_close(answer.fds[i]);
    }
    if (failed != 0) return failed;
    int fds[4] = {me.arena, me.tap, me.bells[0], me.bells[1]};
    return host->broker_send(me.broker, "register", fds, 4) ? 0 : -ENETDOWN;
}

/* ---- start --------------------------------------------------------------------------------- */

static int map_local(void)
{
    if (me.ends != NULL) return 0;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *ends = mmap(NULL, SOCKETS_MAX * sizeof *me.ends, PROT_READ | PROT_WRITE, flags, -1, 0);
    void *scratch = mmap(NULL, SCRATCH_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (ends == MAP_FAILED || scratch == MAP_FAILED) return -ENOMEM;
    me.ends = ends;
    me.scratch = scratch;
    return 0;
}

static int start(bool attach_only)
{
    int failed = map_local();
    if (failed != 0) return failed;
    const char *tap = host->setting("tap");
    if (tap != NULL) {
        if (attach_only) return -ENOENT;
        int fd = device_open(tap);
        if (fd >= 0) fd = host->own_fd(fd);
        failed = fd < 0 ? fd : make_instance(fd);
    } else {
        failed = start_with_broker(attach_only);
    }
    if (failed != 0) {
        if (me.broker >= 0) host->own_close(me.broker);
        me.broker = -1;
        return failed;
    }
    me.pid = getpid();
    me.slot = NO_PROCESS;
    me.epoch = instance->epoch;
    process_register_fork_handlers();
    __atomic_store_n(&me.attached, true, __ATOMIC_RELEASE);
    sigset_t saved;
    instance_lock(&saved);
    bool joined = process_join();
    /* What is to hold from the first packet on. */
    for (; orders > 0 && pump_hear_broker(ORDER_WAIT_MS); orders--) {}
    instance_unlock(&saved);
    return joined ? 0 : -ENFILE;
}

int instance_start(bool attach_only)
{
    static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
    if (instance_running()) return 0;
    pthread_mutex_lock(&starting);
    int failed = instance_running() ? 0 : start(attach_only);
    pthread_mutex_unlock(&starting);
    return failed;
}
