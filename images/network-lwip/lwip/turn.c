/* Threads of the program that run the stack: their turns, how they are counted while they spin and
 * sleep, and what wakes them.
 *
 * A peer that puts a packet into a ring rings what the ring's reader wants: nothing while somebody
 * polls, the threads' bell while one sleeps, else the pump's. The pump leaves the wires and the
 * device to threads that come by all the time. Called by direct.c, the pump and, through stack.h,
 * the overlay's waiters.
 */
#include "direct.h"
#include "pump.h"
#include "wire.h"

#include <sys/syscall.h>
#include <unistd.h>

enum { WIRE_READS = 256 };

static struct process *self(void)
{
    return &instance->processes[me.slot];
}

/* ---- waiting -------------------------------------------------------------------------------- */

/* What wakes the instance's peers must give; under the lock. */
static void decide_wake(void)
{
    enum wake wanted = WAKE_PUMP;
    if (instance->sleepers > 0) wanted = WAKE_THREAD;
    if (instance->spinners > 0 || (instance->ticking && instance->sleepers == 0))
        wanted = WAKE_NONE;
    bool same = wanted == instance->wake_wanted;
    /* A peer that has rung has taken the wish: others who sleep still have it. */
    if (same && wanted == WAKE_NONE && instance->wake_changes == instance->wires.changes) return;
    instance->wake_wanted = wanted;
    instance->wake_changes = instance->wires.changes;
    wire_want(wanted);
}

/* Runs the stack once: what lies in the rings, and what follows from it. Under the lock. */
bool direct_turn(void)
{
    bool any = false;
    instance->visits++;
    wire_follow();
    if (wire_pending()) any = wire_read(WIRE_READS);
    if (me.device_ready) {
        me.device_ready = false;
        any |= device_read(WIRE_READS);
    }
    instance_settle();
    return any;
}

static void count(uint32_t *all, uint32_t *mine, int by)
{
    *all += (uint32_t)by;
    *mine += (uint32_t)by;
}

/* The three states of a thread that waits, entered under the lock. Before it sleeps the caller
 * looks once more whether something came. */
bool direct_polls(void)
{
    return instance->wires.up > 0;
}

uint32_t direct_spin_us(void)
{
    return __atomic_load_n(&instance->spin_us, __ATOMIC_RELAXED);
}

void direct_spin(bool on)
{
    if (me.slot == NO_PROCESS) return;
    count(&instance->spinners, &self()->spinners, on ? 1 : -1);
    decide_wake();
}

void direct_sleep(bool on)
{
    if (me.slot == NO_PROCESS) return;
    if (on && me.bells_given) {
        me.bells_given = false;
        pump_requeue_device();
    }
    count(&instance->sleepers, &self()->sleepers, on ? 1 : -1);
    decide_wake();
}

/* In process_gone: a dead process neither spins nor sleeps. */
void direct_forget_process(struct process *p)
{
    instance->sleepers -= p->sleepers;
    instance->spinners -= p->spinners;
    p->sleepers = p->spinners = 0;
    for (struct sock *s = p->unread; s != NULL; s = s->unread_next) s->unread = false;
    p->unread = NULL;
    decide_wake();
}

/* ---- the pump's part ------------------------------------------------------------------------- */

/* True while the pump must look every millisecond: the program's threads use the library and may
 * be computing just now, or data lies unread. Called by the leader's pump before it sleeps. */
bool direct_tick(bool leads)
{
    if (self()->unread != NULL) direct_look_for_neglect();
    bool unread = self()->unread != NULL;
    if (!leads) return unread;
    bool active = instance->visits != me.seen_visits;
    me.seen_visits = instance->visits;
    instance->ticking = active;
    instance->wake_changes--; /* a wire may have been mapped here just now: all are told */
    decide_wake();
    return active || unread;
}

/* While threads of the program come and go they read the rings themselves. */
bool direct_leaves_to_pump(void)
{
    return !instance->ticking || instance->visits == me.seen_visits;
}

/* True if threads have found packets at the device since the pump last asked: it does not wait for
 * the device then, and looks every millisecond as for the wires. */
bool direct_finds(void)
{
    bool found = instance->device_finds != me.seen_finds;
    me.seen_finds = instance->device_finds;
    return found;
}

bool direct_leaves_device(void)
{
    return instance->device_finds == me.seen_finds;
}

/* What wakes a sleeping thread: the thread bell, and the device. */
void direct_bells(int fds[CSE_BELLS])
{
    me.bells_given = true;
    fds[0] = me.bells[1];
    fds[1] = me.tap;
}

/* The eventfd is cleared; the device is looked at in the next turn. */
void direct_heard(int bell)
{
    uint64_t count;
    if (bell == 0)
        syscall(SYS_read, me.bells[1], &count, sizeof count);
    else
        me.device_ready = true;
}
