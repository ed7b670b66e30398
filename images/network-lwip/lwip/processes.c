/* The processes of one instance: their table, leadership, and what happens at fork, exec and exit.
 *
 * Each process with a hold on the instance has a slot: its pid, its doorbell (an abstract datagram
 * socket) and the list of its sockets with work. The leader watches the others by pidfd and
 * they watch it. A child gets its slot before fork returns in the parent, so that a parent which
 * leaves at once (daemon(3)) finds its sockets held by somebody.
 */
#include "direct.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "keeper.h"
#include "pump.h"

#include "lwip/etharp.h"
#include "lwip/nd6.h"

enum { CLAIM_MS = 5000, EXIT_WAIT_MS = 8000, EXIT_STALL_MS = 2500 };

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* The fork under way: who forks, with what mask, and the slot reserved for the child. */
static pthread_t forking;
static bool fork_locked;
static sigset_t fork_mask;
static uint16_t child_slot = NO_PROCESS;
static uint64_t child_reserved_ms;
static int exec_pid; /* this process has left for an exec that may fail */

static uint16_t take_slot(uint32_t use, int pid)
{
    uint64_t now = now_ms();
    for (uint16_t i = 0; i < PROCESSES_MAX; i++) {
        struct process *p = &instance->processes[i];
        if (p->used == 1 && now > p->reserved_ms + CLAIM_MS) process_gone(i); /* its fork failed */
        if (p->used != 0) continue;
        memset(p, 0, sizeof *p);
        p->pid = pid;
        p->reserved_ms = now;
        p->used = use;
        keeper_mark(i, false);
        if (i >= instance->process_top) instance->process_top = (uint16_t)(i + 1);
        return i;
    }
    return NO_PROCESS;
}

/* Before the lock is let go; true if there is new work. */
bool process_bury(void)
{
    if (!instance->deaths) return false;
    instance->deaths = false;
    for (uint16_t i = 0; i < PROCESSES_MAX; i++)
        if (instance->processes[i].dead && instance->processes[i].used == 2) process_gone(i);
    return true;
}

/* ---- joining and leaving ------------------------------------------------------------------- */

bool process_join(void)
{
    uint16_t slot = take_slot(2, me.pid);
    if (slot == NO_PROCESS) return false;
    me.slot = slot;
    instance->process_changes++;
    return true;
}

/* A process may die with a token in its hands, after it read it and before it took the connection
 * that the token stands for. Without the program's end to count what is unread, all are written
 * again: one too many wakes a program for nothing, one too few leaves a connection waiting. */
static void recount_tokens(struct sock *s)
{
    const struct end *end = &me.ends[s->index];
    struct stat status;
    int bytes = 0;
    if (sock_end(s) < 0 || fstat(end->program_fd, &status) != 0 || status.st_ino != s->inode ||
        syscall(SYS_ioctl, end->program_fd, FIONREAD, &bytes) != 0)
        bytes = 0;
    if ((uint32_t)bytes < s->tokens) s->tokens = (uint32_t)bytes;
}

/* Of those that have its stack end; a keeper if there is nobody else. */
uint16_t process_next_owner(const struct sock *s)
{
    uint16_t keeper = NO_PROCESS;
    for (int word = 0; word < HOLDER_WORDS; word++) {
        uint64_t kept = s->holders[word] & instance->keepers[word],
                 others = s->holders[word] & ~kept;
        if (others != 0) return (uint16_t)(word * 64 + __builtin_ctzll(others));
        if (kept != 0 && keeper == NO_PROCESS)
            keeper = (uint16_t)(word * 64 + __builtin_ctzll(kept));
    }
    return keeper;
}

/* The holders' bits of one process are dropped; who loses the owner gets another or dies. */
void process_gone(uint16_t slot)
{
    struct process *p = &instance->processes[slot];
    if (p->used == 0) return;
    trace("process %d (slot %u) is gone", p->pid, slot);
    p->used = 0;
    p->bell_length = 0;
    keeper_mark(slot, false);
    p->pending = p->pending_last = NULL;
    while (p->fresh != NULL) fresh_forget(p->fresh);
    direct_forget_process(p);
    instance->process_changes++;
    if (instance->leader == slot) instance->leader = NO_PROCESS;
    for (uint32_t i = 0; i < instance->socket_top; i++) {
        struct sock *s = instance->sockets[i];
        if (s == NULL || s->state == ENDED) continue;
        uint64_t bit = UINT64_C(1) << (slot % 64);
        bool held = (s->holders[slot / 64] & bit) != 0;
        s->holders[slot / 64] &= ~bit;
        if (held && slot != me.slot && s->state == LISTENING) recount_tokens(s);
        if (s->owner != slot) {
            if (s->state == LISTENING) sock_notify(s);
            continue;
        }
        s->pending = false;
        s->owner = process_next_owner(s);
        if (s->owner != NO_PROCESS) {
            s->adopt = true;
            direct_stop(s);
            sock_notify(s);
        } else {
            sock_orphaned(s);
        }
    }
    if (instance->leader == NO_PROCESS)
        for (uint16_t i = 0; i < PROCESSES_MAX; i++)
            if (instance->processes[i].used == 2 && i != me.slot) process_ring(i);
}

void process_leave(void)
{
    if (me.slot != NO_PROCESS) process_gone(me.slot);
    me.slot = NO_PROCESS;
}

/* A socket that lives and has a stack end in this process, or NULL. What has ended keeps its place
 * for a while, and stack ends of it stay here until they are swept. */
static struct sock *held_here(uint32_t index)
{
    struct sock *s = instance->sockets[index];
    bool here = s != NULL && me.ends[index].fd > 0 && me.ends[index].generation == s->generation;
    return here && s->state != ENDED ? s : NULL;
}

/* Joins with the stack ends that this process has and that live. */
static void take_part(void)
{
    if (!process_join()) return;
    for (uint32_t i = 0; i < me.top; i++) {
        struct sock *s = held_here(i);
        if (s == NULL) continue;
        s->holders[me.slot / 64] |= UINT64_C(1) << (me.slot % 64);
        if (s->owner == NO_PROCESS) s->owner = me.slot;
    }
}

static int open_pidfd(int pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -1 : host->own_fd(fd);
}

static bool alive(int pid)
{
    return syscall(SYS_kill, pid, 0) == 0 || errno == EPERM;
}

bool process_claim_leader(void)
{
    uint16_t leader = instance->leader;
    if (leader == me.slot) return true;
    if (leader != NO_PROCESS) {
        struct process *p = &instance->processes[leader];
        if (p->used == 2 && alive(p->pid)) return false;
        process_gone(leader);
    }
    trace("leads now");
    instance->leader = me.slot;
    instance->process_changes++;
    return true;
}

/* The leader watches all others, the others watch the leader. Who is found dead changes the table
 * again. */
static void watch_others(void)
{
    bool leads = process_claim_leader();
    for (uint16_t i = 0; i < PROCESSES_MAX; i++) {
        struct process *p = &instance->processes[i];
        bool wanted = p->used == 2 && i != me.slot && (leads || i == instance->leader);
        if (me.watched_pid[i] != 0 && (!wanted || me.watched_pid[i] != p->pid)) {
            if (me.watched[i] > 0) pump_unwatch_fd(me.watched[i]);
            me.watched[i] = me.watched_pid[i] = 0;
        }
        if (!wanted || me.watched_pid[i] != 0) continue;
        int fd = open_pidfd(p->pid);
        if (fd < 0 && errno == ESRCH) {
            process_gone(i);
            continue;
        }
        if (fd < 0 && errno == EMFILE) continue; /* with the next change (room.c) */
        me.watched[i] = fd;
        me.watched_pid[i] = p->pid;
        if (fd >= 0) pump_watch_fd(fd, PUMP_PROCESS + i);
    }
}

/* A pidfd was readable: perhaps that of another process, which had the slot when the pump went
 * to sleep. The slot may be a child's by now that is not watched yet, or has no pid. */
void process_heard(uint16_t slot)
{
    if (slot >= PROCESSES_MAX || me.watched_pid[slot] == 0) return;
    if (me.watched_pid[slot] != instance->processes[slot].pid) return;
    struct pollfd ended = {me.watched[slot], POLLIN, 0};
    struct timespec now = {0, 0};
    if (syscall(SYS_ppoll, &ended, 1, &now, NULL, 0) == 1 && (ended.revents & POLLIN))
        process_gone(slot);
}

/* After the table changed, until it changes no more: a pump must not go to sleep without a leader.
 */
void process_watch(void)
{
    while (me.slot != NO_PROCESS &&
           (me.seen_changes != instance->process_changes || instance->leader == NO_PROCESS)) {
        me.seen_changes = instance->process_changes;
        watch_others();
    }
}

/* ---- fork ---------------------------------------------------------------------------------- */

/* The slot and the holds of the child that is about to be. */
static void reserve_child(void)
{
    child_slot = NO_PROCESS;
    if (instance->sockets_live == 0) return;
    child_slot = take_slot(1, 0);
    if (child_slot == NO_PROCESS) return;
    child_reserved_ms = instance->processes[child_slot].reserved_ms;
    keeper_mark(child_slot, keeper_is_made() && keeper_next);
    for (uint32_t i = 0; i < me.top; i++) {
        struct sock *s = held_here(i);
        if (s == NULL) continue;
        s->holders[child_slot / 64] |= UINT64_C(1) << (child_slot % 64);
        /* Parent and child may both wait for it; not a keeper. */
        if (!keeper_is_made()) direct_stop(s);
        direct_publish(s);
    }
}

static void before_fork(void)
{
    if (!instance_running() || getpid() != me.pid) return;
    sigset_t all, saved;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved);
    pump_before_fork();
    instance_lock(NULL);
    forking = pthread_self();
    fork_locked = true;
    fork_mask = saved;
    reserve_child();
}

/* Another thread may have started the instance since before_fork: then there is nothing to undo. */
static bool fork_is_ours(void)
{
    return fork_locked && pthread_equal(forking, pthread_self());
}

static void after_fork_parent(void)
{
    if (!instance_running() || !fork_is_ours()) return;
    sigset_t saved = fork_mask;
    fork_locked = false;
    instance_unlock(NULL);
    pump_after_fork();
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
}

/* The lock is the parent's thread's: this thread never took it, and waits for it if need be. */
static void after_fork_child(void)
{
    if (!instance_running()) return;
    bool ours = fork_is_ours();
    sigset_t mask = fork_mask;
    uint16_t slot = ours ? child_slot : NO_PROCESS;
    fork_locked = false;
    instance_new_gate();
    me.pid = getpid();
    me.slot = NO_PROCESS;
    me.seen_changes = 0;
    pump_drop();
    for (int i = 0; i < PROCESSES_MAX; i++) {
        if (me.watched_pid[i] != 0 && me.watched[i] > 0) host->own_close(me.watched[i]);
        me.watched[i] = me.watched_pid[i] = 0;
    }
    for (uint32_t i = 0; i < me.top; i++) me.ends[i].watched = me.ends[i].watching_out = false;
    bool holds = false;
    instance_lock(NULL);
    for (uint32_t i = 0; i < me.top && !holds; i++) holds = me.ends[i].fd > 0;
    struct process *p = slot != NO_PROCESS ? &instance->processes[slot] : NULL;
    if (p != NULL && p->used == 1 && p->reserved_ms == child_reserved_ms) {
        p->used = 2;
        p->pid = me.pid;
        me.slot = slot;
        instance->process_changes++;
    } else if (holds) { /* it took so long that the slot was given away */
        take_part();
    }
    instance_unlock(NULL);
    if (holds && (!keeper_is_made() || keeper_next)) pump_ensure();
    if (ours) pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

void process_register_fork_handlers(void)
{
    static bool done;
    if (!done) pthread_atfork(before_fork, after_fork_parent, after_fork_child);
    done = true;
}

/* ---- exec and exit ------------------------------------------------------------------------- */

static bool others_hold(const struct sock *s)
{
    for (int word = 0; word < HOLDER_WORDS; word++) {
        uint64_t bits = s->holders[word];
        if (me.slot / 64 == word) bits &= ~(UINT64_C(1) << (me.slot % 64));
        if (bits != 0) return true;
    }
    return false;
}

void process_quit(int status)
{
    instance_lock(NULL);
    process_leave();
    instance_unlock(NULL);
    instance_close_gate(); /* other threads must not end inside */
    syscall(SYS_exit_group, status);
    __builtin_unreachable();
}

void process_before_exec(void)
{
    if (!instance_running() || me.slot == NO_PROCESS) return;
    if (getpid() != me.pid) {
        spawned_before_exec();
        return;
    }
    sigset_t saved;
    keeper_before_exec();
    instance_close_gate();
    instance_lock(&saved);
    for (uint32_t i = 0; i < me.top; i++) {
        struct sock *s = held_here(i);
        if (s != NULL) direct_stop(s);
    }
    process_leave();
    instance_unlock(&saved);
    exec_pid = me.pid;
}

/* The program stays what it was: it takes part again, with the stack ends that live. */
void process_exec_failed(void)
{
    if (!instance_running() || exec_pid != getpid()) return;
    exec_pid = 0;
    sigset_t saved;
    instance_lock(&saved);
    take_part();
    if (me.slot != NO_PROCESS) process_publish_bell();
    me.seen_changes = 0;
    instance_unlock(&saved);
    instance_open_gate();
}

void process_confined(void)
{
    sigset_t saved;
    if (!instance_running() || getpid() != me.pid) return;
    instance_lock(&saved);
    me.confined = true;
    for (uint32_t i = 0; i < me.top; i++) {
        struct sock *s = held_here(i);
        if (s != NULL) direct_stop(s);
    }
    instance_unlock(&saved);
}

/* What the program wrote leaves this process before it does, as from a kernel's socket. */
void process_before_exit(void)
{
    if (instance_running() && me.confined) { /* others see that it is gone */
        instance_close_gate_unseen();
        return;
    }
    if (!instance_running() || getpid() != me.pid || me.slot == NO_PROCESS) return;
    sigset_t saved;
    uint64_t end = now_ms() + EXIT_WAIT_MS, progress = now_ms();
    uint64_t sent_before = 0;
    bool closed = false;
    for (;;) {
        bool busy = false, last = true;
        instance_lock(&saved);
        for (uint32_t i = 0; i < me.top; i++) {
            struct sock *s = held_here(i);
            if (s == NULL) continue;
            if (s->owner != me.slot || s->kind != KIND_TCP || s->state != CONNECTED) continue;
            s->tx_ready = true;
            tcp_take(s);
            if (s->generation != instance->generations[i] || instance->sockets[i] != s) continue;
            if (s->tcp != NULL && (s->tx_ready || s->stash != NULL))
                busy = true;
            else if (!others_hold(s) && s->tcp != NULL)
                tcp_finish(s);
        }
        for (uint16_t i = 0; i < PROCESSES_MAX; i++)
            if (i != me.slot && instance->processes[i].used != 0) last = false;
        bool waiting = etharp_waiting() || nd6_waiting() || wire_waiting();
        if (last && (tcp_unfinished() || waiting)) busy = true;
        uint64_t sent = instance->rx_packets + instance->wires.rx_packets;
        if (!busy) {
            process_leave();
            closed = true;
        }
        instance_unlock(&saved);
        uint64_t now = now_ms();
        if (sent != sent_before) progress = now;
        sent_before = sent;
        if (closed || now > end || now > progress + EXIT_STALL_MS) {
            instance_close_gate();
            return;
        }
        if (me.pump_runs) {
            struct timespec pause = {0, 500000};
            syscall(SYS_nanosleep, &pause, NULL);
        } else {
            pump_once(5);
        }
    }
}
