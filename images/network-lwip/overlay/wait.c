/* Threads that wait for private sockets in direct mode: their spinning, and their sleep.
 *
 * A waiter is a thread inside one call (wait_many), or one of the program's epoll sets (epoll.c).
 * Who waits runs the stack itself: it polls the wires for a short while, as long as that pays, then
 * sleeps in a kernel epoll that holds the stack's bells, so that the first packet wakes it without
 * a detour. What another thread finds for a sleeping waiter is told by its eventfd (watch.c).
 */
#include "wait.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SPIN_LEAST_NS = 4000,
    SPIN_FIRST_NS = 30000,
    SPIN_RETRY = 64,
    YIELDED_NS = 50000,
    CHECKS = 32,
};

char wait_marks[3];

static const struct cse_stack *stack_of_us(void)
{
    return net_running();
}

/* ---- a waiter's kernel side ------------------------------------------------------------------ */

static bool put_in(int kernel, int fd, int mark, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = &wait_marks[mark]};
    return libc(syscall)(SYS_epoll_ctl, kernel, EPOLL_CTL_ADD, fd, &event) == 0;
}

#ifndef EPOLLEXCLUSIVE
#define EPOLLEXCLUSIVE (1u << 28)
#endif

/* The bells are shared by all who wait: one sleeper is woken, or the pump if nobody sleeps. */
bool wait_prepare(struct waiter *w, int kernel)
{
    int bells[CSE_BELLS];
    memset(w, 0, sizeof *w);
    w->kernel = kernel;
    w->wake = cse_own_fd((int)libc(syscall)(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (w->wake < 0) return false;
    bool done = put_in(kernel, w->wake, MARK_WAKE, EPOLLIN);
    stack_of_us()->bells(bells);
    for (int i = 0; i < CSE_BELLS && done; i++)
        if (bells[i] >= 0) done = put_in(kernel, bells[i], MARK_BELL + i, EPOLLIN | EPOLLEXCLUSIVE);
    if (!done) cse_own_close(w->wake);
    return done;
}

void wait_without_bells(struct waiter *w)
{
    int bells[CSE_BELLS];
    struct epoll_event none = {0};
    stack_of_us()->bells(bells);
    libc(syscall)(SYS_epoll_ctl, w->kernel, EPOLL_CTL_DEL, w->wake, &none);
    for (int i = 0; i < CSE_BELLS; i++)
        if (bells[i] >= 0) libc(syscall)(SYS_epoll_ctl, w->kernel, EPOLL_CTL_DEL, bells[i], &none);
}

int wait_filter(struct waiter *w, struct epoll_event *events, int count)
{
    int kept = 0;
    uint64_t value;
    for (int i = 0; i < count; i++) {
        char *mark = events[i].data.ptr;
        if (mark < wait_marks || mark >= wait_marks + sizeof wait_marks) {
            events[kept++] = events[i];
        } else if (mark == &wait_marks[MARK_WAKE]) {
            libc(syscall)(SYS_read, w->wake, &value, sizeof value);
        } else {
            stack_of_us()->heard((int)(mark - wait_marks) - MARK_BELL);
        }
    }
    return kept;
}

/* ---- spinning and sleeping ------------------------------------------------------------------- */

uint64_t wait_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int wait_left_ms(uint64_t deadline_ns)
{
    if (deadline_ns == WAIT_FOREVER) return -1;
    uint64_t now = wait_now_ns();
    if (now >= deadline_ns) return 0;
    uint64_t left = (deadline_ns - now + 999999) / 1000000;
    return left > INT32_MAX ? INT32_MAX : (int)left;
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Spins for twice as long when that was of use, half as long when not, and tries again now and
 * then. Yields between looks: where that hands the core to somebody else, spinning costs more than
 * it gains, and is left for a while. */
bool wait_spin(const struct waiter *w, cse_socket s)
{
    static __thread uint32_t budget_ns = SPIN_FIRST_NS, idle;
    const struct cse_stack *stack = stack_of_us();
    uint32_t most_ns = stack->spin_us() * 1000;
    if (most_ns == 0) return false;
    if (budget_ns < SPIN_LEAST_NS) {
        if (++idle % SPIN_RETRY != 0) return false;
        budget_ns = SPIN_FIRST_NS;
    }
    if (budget_ns > most_ns) budget_ns = most_ns;
    uint64_t start = wait_now_ns();
    for (;;) {
        for (int i = 0; i < CHECKS; i++) {
            if (stack->pending() ||
                (w != NULL && __atomic_load_n(&w->ready_first, __ATOMIC_RELAXED)) ||
                (s != 0 && stack->readiness(s) & (EPOLLIN | CSE_READY_RELAYED))) {
                budget_ns = budget_ns * 2 < most_ns ? budget_ns * 2 : most_ns;
                return true;
            }
            relax();
        }
        uint64_t before = wait_now_ns();
        if (before - start >= budget_ns) break;
        sched_yield();
        if (wait_now_ns() - before > YIELDED_NS) {
            budget_ns = 0;
            return false;
        }
    }
    budget_ns /= 2;
    return false;
}

/* ---- a thread's own waiter ------------------------------------------------------------------- */

static uint32_t forks; /* of this process's line */
static pthread_key_t threads;
static pthread_once_t threads_once = PTHREAD_ONCE_INIT;

struct thread {
    struct waiter waiter;
    uint32_t forks;
    bool spinning;
    struct waiter *asleep; /* in which it sleeps */
    struct watch *watches; /* of the call under way: not on the stack, which longjmp may drop */
    int used, room;
};

/* What a call left behind that a signal handler's longjmp or a cancellation ended. */
static void repair(struct thread *t)
{
    sigset_t saved;
    const struct cse_stack *stack = stack_of_us();
    if (!t->spinning && t->asleep == NULL && t->used == 0) return;
    stack->enter(&saved);
    if (t->spinning) stack->spin(false);
    if (t->asleep != NULL) t->asleep->sleeping--, stack->sleep(false);
    while (t->used > 0) wait_remove(&t->watches[--t->used]);
    t->spinning = false;
    t->asleep = NULL;
    stack->leave(&saved);
}

static void close_own(struct thread *t)
{
    if (t->waiter.kernel <= 0) return;
    cse_own_close(t->waiter.wake);
    cse_own_close(t->waiter.kernel);
}

static void drop(void *memory)
{
    struct thread *t = memory;
    if (t->forks == forks) repair(t);
    close_own(t);
    if (t->watches != NULL) munmap(t->watches, (size_t)t->room * sizeof *t->watches);
    munmap(t, sizeof *t);
}

static void count_fork(void)
{
    forks++;
}

static void make_key(void)
{
    pthread_key_create(&threads, drop);
    pthread_atfork(NULL, NULL, count_fork);
}

static void *take_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* What this thread needs to wait, made at its first wait; a forked child starts afresh. */
static struct thread *this_thread(void)
{
    pthread_once(&threads_once, make_key);
    struct thread *t = pthread_getspecific(threads);
    if (t != NULL && t->forks == forks) return t;
    if (t == NULL) {
        t = take_memory(sizeof *t);
        if (t == NULL || pthread_setspecific(threads, t) != 0) return NULL;
    } else {
        close_own(t);
        memset(&t->waiter, 0, sizeof t->waiter);
        t->spinning = false;
        t->asleep = NULL;
        t->used = 0;
    }
    t->forks = forks;
    return t;
}

static struct waiter *own_waiter(struct thread *t)
{
    if (t->waiter.kernel > 0) return &t->waiter;
    int kernel = cse_own_fd((int)libc(syscall)(SYS_epoll_create1, EPOLL_CLOEXEC));
    if (kernel < 0) return NULL;
    if (wait_prepare(&t->waiter, kernel)) return &t->waiter;
    cse_own_close(kernel);
    t->waiter.kernel = 0;
    return NULL;
}

static bool make_room(struct thread *t, int count)
{
    if (count <= t->room) return true;
    int room = count < 64 ? 64 : count * 2;
    struct watch *watches = take_memory((size_t)room * sizeof *watches);
    if (watches == NULL) return false;
    if (t->watches != NULL) munmap(t->watches, (size_t)t->room * sizeof *t->watches);
    t->watches = watches;
    t->room = room;
    return true;
}

bool wait_begin(void)
{
    struct thread *t = this_thread();
    if (t != NULL) repair(t);
    return t != NULL;
}

void wait_spinning(bool on)
{
    struct thread *t = this_thread();
    if (t->spinning == on) return;
    t->spinning = on;
    stack_of_us()->spin(on);
}

void wait_counted_as_spinning(bool on)
{
    struct thread *t = this_thread();
    if (t != NULL) t->spinning = on;
}

/* Inside the lock, and nothing is ready. False if something came just now: what comes after the
 * announcement rings a bell. */
bool wait_lie_down(struct waiter *w)
{
    wait_spinning(false);
    w->sleeping++;
    this_thread()->asleep = w;
    stack_of_us()->sleep(true);
    if (!stack_of_us()->pending()) return true;
    wait_get_up(w);
    return false;
}

void wait_get_up(struct waiter *w)
{
    w->sleeping--;
    this_thread()->asleep = NULL;
    stack_of_us()->sleep(false);
}

/* ---- waiting in one call ----------------------------------------------------------------------
 */

static bool any_ready(const struct watch *watches, int count)
{
    for (int i = 0; i < count; i++) {
        uint32_t mask = stack_of_us()->readiness(watches[i].socket);
        if (mask & (watches[i].events | EPOLLERR | EPOLLHUP | CSE_READY_RELAYED)) return true;
    }
    return false;
}

/* Sleeps until a bell, a descriptor of the program, a signal or the deadline. */
static int sleep_in(struct waiter *w, struct pollfd *kernel, int kernel_count, uint64_t deadline_ns,
                    const sigset_t *mask)
{
    struct epoll_event heard[4];
    int result;
    if (kernel_count == 0) {
        result = libc(epoll_pwait)(w->kernel, heard, 4, wait_left_ms(deadline_ns), mask);
    } else {
        struct timespec limit, *until = NULL;
        if (deadline_ns != WAIT_FOREVER) {
            uint64_t now = wait_now_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
            limit = (struct timespec){(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
            until = &limit;
        }
        kernel[kernel_count] = (struct pollfd){w->kernel, POLLIN, 0};
        result = libc(ppoll)(kernel, (nfds_t)kernel_count + 1, until, mask);
        bool bell = result > 0 && kernel[kernel_count].revents != 0;
        result = result < 0 ? result : result - bell > 0;
        if (!bell) return result;
        int got = libc(epoll_wait)(w->kernel, heard, 4, 0);
        wait_filter(w, heard, got);
        return result;
    }
    if (result > 0) wait_filter(w, heard, result);
    return result < 0 ? -1 : 0;
}

/* Without the lock, which this thread has before and after. */
static int sleep_outside(struct waiter *w, struct pollfd *kernel, int kernel_count,
                         uint64_t deadline_ns, const sigset_t *mask, sigset_t *saved)
{
    stack_of_us()->leave(saved);
    int result = sleep_in(w, kernel, kernel_count, deadline_ns, mask);
    int saved_errno = errno;
    stack_of_us()->enter(saved);
    errno = saved_errno;
    return result;
}

/* Inside the lock, which is let go of to spin and to sleep. */
static int wait_with(struct waiter *w, struct thread *t, struct pollfd *kernel, int kernel_count,
                     uint64_t deadline_ns, const sigset_t *mask, sigset_t *saved)
{
    const struct cse_stack *stack = stack_of_us();
    bool asked_kernel = kernel_count == 0, spun = false;
    for (;;) {
        stack->turn();
        bool ready = any_ready(t->watches, t->used);
        while (wait_pop(w) != NULL) {}
        if (ready) return 1;
        bool late = deadline_ns != WAIT_FOREVER && wait_now_ns() >= deadline_ns;
        if (!late && !spun && asked_kernel && stack->polls() && stack->spin_us() != 0) {
            wait_spinning(true);
            stack->leave(saved);
            spun = !wait_spin(w, 0);
            stack->enter(saved);
            continue;
        }
        spun = false;
        if (!wait_lie_down(w)) continue;
        int result =
            sleep_outside(w, kernel, kernel_count, asked_kernel ? deadline_ns : 1, mask, saved);
        asked_kernel = true;
        wait_get_up(w);
        if (result != 0) return result;
        if (late && !stack->pending() && !any_ready(t->watches, t->used)) return 0;
    }
}

int wait_many(const struct wish *wishes, int count, struct pollfd *kernel, int kernel_count,
              uint64_t deadline_ns, const sigset_t *mask)
{
    const struct cse_stack *stack = stack_of_us();
    if (!wait_begin()) return net_fail(-ENOMEM);
    struct thread *t = this_thread();
    struct waiter *w = own_waiter(t);
    sigset_t saved;
    if (w == NULL || !make_room(t, count)) return net_fail(-ENOMEM);
    stack->enter(&saved);
    for (t->used = 0; t->used < count; t->used++) {
        t->watches[t->used] = (struct watch){.socket = wishes[t->used].socket,
                                             .events = wishes[t->used].events,
                                             .waiter = w,
                                             .fd = -1};
        wait_add(&t->watches[t->used]);
    }
    int result = wait_with(w, t, kernel, kernel_count, deadline_ns, mask, &saved);
    int saved_errno = errno;
    wait_spinning(false);
    while (t->used > 0) wait_remove(&t->watches[--t->used]);
    stack->leave(&saved);
    errno = saved_errno;
    return result;
}

int wait_one(cse_socket s, uint32_t events, uint64_t deadline_ns)
{
    struct wish wish = {s, events};
    struct pollfd none[1];
    return wait_many(&wish, 1, none, 0, deadline_ns, NULL);
}
