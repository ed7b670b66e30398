/* Young sockets in direct mode, whose stack ends the pump does not watch yet.
 *
 * A connection that lives for a moment needs no pump: its calls are served in the program's
 * threads, and the overlay tells of its close. So a stack end comes into the pump's epoll only when
 * it is relayed, or SETTLE_MS old: from then on a close that no overlay saw is noticed too. Until
 * then its pair does not show either that it is connecting, or that the peer has finished. Called
 * by pair.c, direct.c, the pump and, through stack.h, the overlay.
 */
#include "direct.h"

#include <sys/syscall.h>
#include <unistd.h>

enum { SETTLE_MS = 20 };

static struct process *self(void)
{
    return &instance->processes[me.slot];
}

static void unlist(struct sock *s)
{
    struct process *p = &instance->processes[s->fresh_of];
    if (s->fresh_next != NULL)
        s->fresh_next->fresh_before = s->fresh_before;
    else
        p->fresh_last = s->fresh_before;
    if (s->fresh_before != NULL)
        s->fresh_before->fresh_next = s->fresh_next;
    else
        p->fresh = s->fresh_next;
    s->fresh = false;
}

void fresh_forget(struct sock *s)
{
    if (s->fresh) unlist(s);
}

/* The pump will watch it later, and is woken if it may sleep for longer. */
void fresh_add(struct sock *s)
{
    struct process *p = self();
    s->fresh = true;
    s->fresh_of = me.slot;
    s->fresh_ms = clock_us() / 1000;
    s->fresh_next = NULL;
    s->fresh_before = p->fresh_last;
    if (p->fresh_last != NULL)
        p->fresh_last->fresh_next = s;
    else
        p->fresh = s;
    p->fresh_last = s;
    if (me.pump_wakes_ms > s->fresh_ms + SETTLE_MS) process_ring(me.slot);
}

/* The pump watches it from now on: what its end did not show for as long as nobody could have
 * looked is made up for. */
void fresh_over(struct sock *s)
{
    if (!s->fresh) return;
    unlist(s);
    if (s->state == CONNECTING && s->connect_open && s->junk == 0) pair_fill_own(s);
    if (s->direct) direct_mirror_end(s);
}

/* In this process's pump, before it sleeps: ms until there is something to do, -1: nothing. */
int fresh_settle(void)
{
    uint64_t now = clock_us() / 1000;
    struct sock *s;
    while ((s = self()->fresh) != NULL && now >= s->fresh_ms + SETTLE_MS) {
        pump_watch(s);
        fresh_forget(s);
    }
    return s != NULL ? (int)(s->fresh_ms + SETTLE_MS - now) : -1;
}

/* The program has closed a descriptor: if it was the last, the connection is finished here and now.
 * (A vfork child's close says nothing: the parent has the descriptor still.) */
void fresh_closed(cse_socket handle)
{
    sigset_t saved;
    if ((direct_readiness(handle) & CSE_READY_RELAYED) || getpid() != me.pid) return;
    instance_lock(&saved);
    struct sock *s = sock_get(handle);
    if (s != NULL && s->direct) sock_just_closed(s);
    instance_unlock(&saved);
}
