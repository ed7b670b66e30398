/* The program's epoll sets, as far as private sockets are in them.
 *
 * A set stays the kernel's own. A socket in direct mode is registered there for nothing but
 * hang-up, and what it becomes is kept in a list here, which epoll_wait takes first; a relayed
 * socket is registered there as the program asked, and every change of mode changes that
 * (epoll_changed). The stack's bells are members of the set as well, so that a sleeping thread
 * hears of packets. A set without private sockets costs one look into a table.
 */
#include "wait.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SETS = 1 << 20, KERNEL_DUE_NS = 50000 };

struct set {
    struct waiter waiter; /* first: its `kernel` is the set's descriptor */
    uint32_t generation;  /* of that descriptor's slot */
    uint64_t kernel_ns;   /* when the kernel was asked last */
    bool nested;          /* waited for through another descriptor: the kernel must know all */
    struct watch *watches;
    struct set *next;
};

static struct set **sets; /* by descriptor; SETS of them, touched lazily */
static struct set *all_sets;

static struct set *find_set(int epfd)
{
    struct set **table = __atomic_load_n(&sets, __ATOMIC_ACQUIRE);
    if (table == NULL || epfd < 0 || epfd >= SETS) return NULL;
    struct set *set = __atomic_load_n(&table[epfd], __ATOMIC_ACQUIRE);
    return set != NULL && set->generation == cse_fd_generation(epfd) ? set : NULL;
}

/* ---- making and leaving ------------------------------------------------------------------------
 */

/* In a forked child every socket it shares with its parent is relayed. */
static void after_fork(void)
{
    for (struct set *set = all_sets; set != NULL; set = set->next) {
        set->waiter.sleeping = 0;
        for (struct watch *w = set->watches; w != NULL; w = w->set_next) w->relayed = true;
    }
}

static bool make_table(void)
{
    if (sets != NULL) return true;
    void *table = mmap(NULL, SETS * sizeof *sets, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (table == MAP_FAILED) return false;
    struct set **none = NULL;
    if (!__atomic_compare_exchange_n(&sets, &none, table, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        munmap(table, SETS * sizeof *sets);
    else
        pthread_atfork(NULL, NULL, after_fork);
    return true;
}

/* Memory of watches: none is given back, since what the stack says may end one inside its lock,
 * where the program's allocator has no place. Guarded by that lock. */
static struct watch *spare;

static struct watch *take_watch(void)
{
    enum { BATCH = 256 };
    if (spare == NULL) {
        struct watch *batch = mmap(NULL, BATCH * sizeof *batch, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (batch == MAP_FAILED) return NULL;
        for (int i = 0; i < BATCH; i++) batch[i].set_next = spare, spare = &batch[i];
    }
    struct watch *watch = spare;
    spare = watch->set_next;
    return watch;
}

static struct set *set_of(const struct watch *watch)
{
    return (struct set *)(void *)watch->waiter;
}

/* Inside the lock, like all that follows up to epoll_ctl. */
static void forget(struct watch *watch)
{
    struct set *set = set_of(watch);
    if (watch->set_next != NULL) watch->set_next->set_before = watch->set_before;
    if (watch->set_before != NULL)
        watch->set_before->set_next = watch->set_next;
    else
        set->watches = watch->set_next;
    wait_remove(watch);
    watch->set_next = spare;
    spare = watch;
}

/* The kernel's set says from now on what the descriptor becomes, as long as the program has it; it
 * may become another socket's (epoll_renewed). */
void epoll_gone(struct watch *watch)
{
    if (cse_fd_generation(watch->fd) != watch->generation) forget(watch);
}

/* A set whose descriptor the program has closed. */
static void empty(struct set *set)
{
    while (set->watches != NULL) forget(set->watches);
    cse_own_close(set->waiter.wake);
}

/* Outside the lock. */
static struct set *make_set(int epfd)
{
    struct set *set = find_set(epfd), *made;
    const struct cse_stack *stack = net_running();
    sigset_t saved;
    if (set != NULL || epfd < 0 || epfd >= SETS || !make_table()) return set;
    made = calloc(1, sizeof *made);
    if (made == NULL) return NULL;
    stack->enter(&saved);
    set = find_set(epfd); /* another thread may have been faster */
    if (set == NULL) {
        cse_fd_remember(epfd, 0, cse_identity_of(epfd), 0); /* so that its close is noticed */
        made->generation = cse_fd_generation(epfd);
        if (wait_prepare(&made->waiter, epfd)) {
            set = sets[epfd];
            if (set != NULL) { /* of a descriptor closed since: its memory stays, a thread may */
                empty(set);    /* still hold it */
                made->next = set->next;
                *set = *made;
            } else {
                set = made;
                made = NULL;
                set->next = all_sets;
                all_sets = set;
            }
            __atomic_store_n(&sets[epfd], set, __ATOMIC_RELEASE);
            /* Who sleeps in the kernel's set already is to wait for private sockets as well. */
            uint64_t one = 1;
            libc(syscall)(SYS_write, set->waiter.wake, &one, sizeof one);
        }
    }
    stack->leave(&saved);
    free(made);
    return set;
}

/* ---- epoll_ctl
 * ----------------------------------------------------------------------------------- */

/* As which events the kernel's set holds a socket. */
static int tell_kernel(int operation, const struct watch *watch)
{
    uint32_t kept = EPOLLET | EPOLLONESHOT | EPOLLWAKEUP;
    struct epoll_event event = {.events = watch->relayed ? watch->events : watch->events & kept,
                                .data.u64 = watch->data};
    return libc(epoll_ctl)(watch->waiter->kernel, operation, watch->fd, &event);
}

/* The set is itself asked about, by poll or by another set: its sockets are relayed for good. */
void epoll_nest(int epfd)
{
    struct set *set = find_set(epfd);
    if (set == NULL || set->nested) return;
    const struct cse_stack *stack = net_running();
    wait_without_bells(&set->waiter);
    for (;;) {
        sigset_t saved;
        cse_socket s = 0;
        stack->enter(&saved);
        set->nested = true;
        for (struct watch *w = set->watches; w != NULL && s == 0; w = w->set_next)
            if (!w->relayed) s = w->socket, w->relayed = true, tell_kernel(EPOLL_CTL_MOD, w);
        stack->leave(&saved);
        if (s == 0) return;
        stack->relay(s);
    }
}

void epoll_changed(struct watch *watch, uint32_t mask)
{
    bool relayed = (mask & (CSE_READY_RELAYED | CSE_READY_GONE)) != 0;
    if (relayed == watch->relayed || cse_fd_generation(watch->fd) != watch->generation ||
        cse_fd_generation(watch->waiter->kernel) != set_of(watch)->generation)
        return;
    int saved_errno = errno;
    watch->relayed = relayed;
    tell_kernel(EPOLL_CTL_MOD, watch);
    errno = saved_errno;
}

static void renew_watch(struct watch *watch, cse_socket s)
{
    wait_remove(watch);
    watch->socket = s;
    watch->generation = cse_fd_generation(watch->fd);
    watch->relayed = true;
    wait_add(watch);
    tell_kernel(EPOLL_CTL_ADD, watch);
}

void epoll_renewed(int fd, cse_socket former, cse_socket s)
{
    const struct cse_stack *stack = net_running();
    sigset_t saved;
    stack->enter(&saved);
    for (struct set *set = all_sets; set != NULL; set = set->next)
        for (struct watch *w = set->watches; w != NULL; w = w->set_next)
            if (w->fd == fd && w->socket == former) renew_watch(w, s);
    stack->leave(&saved);
}

static void look_now(struct watch *watch)
{
    uint32_t mask = net_running()->readiness(watch->socket);
    epoll_changed(watch, mask);
    if (mask & EPOLLHUP && mask & CSE_READY_RELAYED)
        wait_rouse(watch);
    else if (!(mask & CSE_READY_RELAYED) && (mask & (watch->events | EPOLLHUP | EPOLLERR)))
        wait_ready(watch->socket, mask);
}

/* These return as epoll_ctl does. */
static int add(struct set *set, int fd, cse_socket s, const struct epoll_event *event)
{
    struct watch *watch = take_watch();
    if (watch == NULL) return net_fail(-ENOMEM);
    *watch = (struct watch){.socket = s,
                            .waiter = &set->waiter,
                            .events = event->events,
                            .in_set = true,
                            .relayed = (net_running()->readiness(s) & CSE_READY_RELAYED) != 0,
                            .fd = fd,
                            .generation = cse_fd_generation(fd),
                            .data = event->data.u64,
                            .set_next = set->watches};
    if (set->watches != NULL) set->watches->set_before = watch;
    set->watches = watch;
    wait_add(watch);
    if (tell_kernel(EPOLL_CTL_ADD, watch) != 0) {
        forget(watch);
        return -1;
    }
    look_now(watch);
    return 0;
}

static int change(struct watch *watch, int operation, const struct epoll_event *event)
{
    int result;
    if (operation == EPOLL_CTL_DEL) {
        result = libc(epoll_ctl)(watch->waiter->kernel, operation, watch->fd, NULL);
        forget(watch);
    } else {
        watch->events = event->events;
        watch->data = event->data.u64;
        result = tell_kernel(operation, watch);
        look_now(watch);
    }
    return result;
}

static int control(struct set *set, int operation, int fd, cse_socket s, struct epoll_event *event)
{
    struct watch *watch = wait_find(&set->waiter, s, fd);
    if (watch != NULL && watch->generation != cse_fd_generation(fd)) {
        forget(watch);
        watch = NULL;
    }
    if (operation == EPOLL_CTL_ADD && watch == NULL) return add(set, fd, s, event);
    if (operation != EPOLL_CTL_ADD && watch != NULL) return change(watch, operation, event);
    return libc(epoll_ctl)(set->waiter.kernel, operation, fd, event);
}

CSE_EXPORT int epoll_ctl(int epfd, int operation, int fd, struct epoll_event *event)
{
    cse_socket s = net_find_data(fd);
    if (s == 0 && operation == EPOLL_CTL_ADD) epoll_nest(fd);
    if (s == 0 || CSE_SOCKET_IS_DATAGRAM(s)) return libc(epoll_ctl)(epfd, operation, fd, event);
    struct set *set = operation == EPOLL_CTL_ADD ? make_set(epfd) : find_set(epfd);
    if (set == NULL) return libc(epoll_ctl)(epfd, operation, fd, event);
    if (event == NULL && operation != EPOLL_CTL_DEL) return net_fail(-EFAULT);
    const struct cse_stack *stack = net_running();
    sigset_t saved;
    if (set->nested && operation == EPOLL_CTL_ADD) stack->relay(s);
    stack->enter(&saved);
    int result = control(set, operation, fd, s, event);
    stack->leave(&saved);
    return result;
}

/* ---- epoll_wait
 * ---------------------------------------------------------------------------------- */

/* Takes from the list of the ready what is still so; level-triggered watches go to its end. Inside
 * the lock. */
static int harvest(struct set *set, struct epoll_event *events, int max)
{
    int count = 0;
    struct watch *last = set->waiter.ready_last, *watch;
    while (count < max && (watch = wait_pop(&set->waiter)) != NULL) {
        bool was_last = watch == last;
        uint32_t mask = net_running()->readiness(watch->socket);
        if (cse_fd_generation(watch->fd) != watch->generation) {
            forget(watch); /* closed by the program */
        } else if (!(mask & CSE_READY_RELAYED) || mask & EPOLLHUP) {
            mask &= watch->events | EPOLLHUP | EPOLLERR;
            if (mask != 0 && (watch->events & ~(EPOLLET | EPOLLONESHOT)) != 0) {
                events[count++] = (struct epoll_event){.events = mask, .data.u64 = watch->data};
                if (watch->events & EPOLLONESHOT)
                    watch->events &= EPOLLET | EPOLLONESHOT;
                else if (!(watch->events & EPOLLET))
                    wait_push(watch);
            }
        }
        if (was_last) break;
    }
    return count;
}

/* Adds what the kernel reports to `have` events; an event that is there already is completed. */
static int ask_kernel(struct set *set, struct epoll_event *events, int have, int max,
                      int timeout_ms, const sigset_t *mask)
{
    int got = libc(epoll_pwait)(set->waiter.kernel, events + have, max - have, timeout_ms, mask);
    set->kernel_ns = wait_now_ns();
    if (got <= 0) return have > 0 ? have : got;
    got = wait_filter(&set->waiter, events + have, got);
    int count = have;
    for (int i = 0; i < got; i++) {
        struct epoll_event event = events[have + i];
        int same = 0;
        while (same < have && events[same].data.u64 != event.data.u64) same++;
        if (same < have)
            events[same].events |= event.events;
        else
            events[count++] = event;
    }
    return count;
}

static int wait_in(struct set *set, struct epoll_event *events, int max, bool at_once,
                   uint64_t deadline_ns, const sigset_t *mask)
{
    const struct cse_stack *stack = net_running();
    sigset_t saved;
    bool spun = false; /* in vain */
    stack->enter(&saved);
    for (;;) {
        stack->turn();
        bool late = at_once || (deadline_ns != WAIT_FOREVER && wait_now_ns() >= deadline_ns);
        int count = harvest(set, events, max);
        bool spins = count == 0 && !late && !spun && stack->polls() && stack->spin_us() != 0;
        /* The kernel's part is asked now and then while there is enough to do here. */
        bool ask =
            late || ((spins || count > 0) && wait_now_ns() >= set->kernel_ns + KERNEL_DUE_NS);
        bool sleeps = count == 0 && !spins && !ask;
        if (sleeps && !wait_lie_down(&set->waiter)) continue;
        wait_spinning(spins);
        stack->leave(&saved);
        int left_ms = sleeps ? wait_left_ms(deadline_ns) : 0;
        if ((ask || sleeps) && count < max)
            count = ask_kernel(set, events, count, max, left_ms, mask);
        if (count == 0 && spins) spun = !wait_spin(&set->waiter, 0);
        if (count != 0 && !spins && !sleeps) return count;
        if (late) return count;
        int saved_errno = errno;
        stack->enter(&saved);
        if (sleeps) wait_get_up(&set->waiter), spun = false;
        if (count != 0) {
            wait_spinning(false);
            stack->leave(&saved);
            errno = saved_errno;
            return count;
        }
    }
}

static uint64_t deadline_ms(int timeout_ms)
{
    return timeout_ms < 0 ? WAIT_FOREVER : wait_now_ns() + (uint64_t)timeout_ms * UINT64_C(1000000);
}

static bool has_mark(const struct epoll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        const char *data = events[i].data.ptr;
        if (data >= wait_marks && data < wait_marks + sizeof wait_marks) return true;
    }
    return false;
}

/* A thread slept in the kernel's set, and a private socket may have come into it meanwhile: the
 * bells that came with it are not the program's, and it goes on to wait as one should. */
static int wait_anew(int epfd, struct epoll_event *events, int got, int max, uint64_t deadline_ns,
                     const sigset_t *mask)
{
    struct set *set = got > 0 ? find_set(epfd) : NULL;
    if (set == NULL && has_mark(events, got)) { /* it is just being made */
        sigset_t saved;
        net_running()->enter(&saved);
        set = find_set(epfd);
        net_running()->leave(&saved);
    }
    if (set == NULL || !wait_begin()) return got;
    got = wait_filter(&set->waiter, events, got);
    return got > 0 ? got : wait_in(set, events, max, false, deadline_ns, mask);
}

CSE_EXPORT int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout)
{
    struct set *set = find_set(epfd);
    if (set == NULL || max <= 0 || !wait_begin()) {
        uint64_t deadline = timeout > 0 ? deadline_ms(timeout) : WAIT_FOREVER;
        int got = libc(epoll_wait)(epfd, events, max, timeout);
        return timeout == 0 ? got : wait_anew(epfd, events, got, max, deadline, NULL);
    }
    return wait_in(set, events, max, timeout == 0, deadline_ms(timeout), NULL);
}

CSE_EXPORT int epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout,
                           const sigset_t *mask)
{
    struct set *set = find_set(epfd);
    if (set == NULL || max <= 0 || !wait_begin()) {
        uint64_t deadline = timeout > 0 ? deadline_ms(timeout) : WAIT_FOREVER;
        int got = libc(epoll_pwait)(epfd, events, max, timeout, mask);
        return timeout == 0 ? got : wait_anew(epfd, events, got, max, deadline, mask);
    }
    return wait_in(set, events, max, timeout == 0, deadline_ms(timeout), mask);
}

typedef int pwait2_call(int, struct epoll_event *, int, const struct timespec *, const sigset_t *);

CSE_EXPORT int epoll_pwait2(int epfd, struct epoll_event *events, int max,
                            const struct timespec *timeout, const sigset_t *mask)
{
    struct set *set = find_set(epfd);
    pwait2_call *next = libc_as(pwait2_call *, "epoll_pwait2");
    uint64_t deadline = WAIT_FOREVER;
    bool at_once = timeout != NULL && timeout->tv_sec == 0 && timeout->tv_nsec == 0;
    if (timeout != NULL)
        deadline = wait_now_ns() + (uint64_t)timeout->tv_sec * UINT64_C(1000000000) +
                   (uint64_t)timeout->tv_nsec;
    if (set == NULL || max <= 0 || !wait_begin()) {
        if (next == NULL) return net_fail(-ENOSYS);
        int got = next(epfd, events, max, timeout, mask);
        return at_once ? got : wait_anew(epfd, events, got, max, deadline, mask);
    }
    return wait_in(set, events, max, at_once, deadline, mask);
}
