/* poll, select and their kin, as far as private sockets in direct mode are asked about. Those are
 * answered from memory; every other descriptor by the kernel. Calls without any pass through.
 */
#include "wait.h"

#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

enum { ON_STACK = 64 };

/* A socket whose readiness the stack knows, or 0: ask the kernel. */
static cse_socket direct_socket(int fd)
{
    cse_socket s = fd >= 0 ? net_find_data(fd) : 0;
    if (s == 0) epoll_nest(fd);
    if (s == 0 || CSE_SOCKET_IS_DATAGRAM(s)) return 0;
    uint32_t mask = net_running()->readiness(s);
    return mask & CSE_READY_RELAYED && !(mask & EPOLLHUP) ? 0 : s;
}

static bool any_direct(const struct pollfd *fds, nfds_t count)
{
    if (net_running() == NULL) return false;
    for (nfds_t i = 0; i < count; i++)
        if (direct_socket(fds[i].fd) != 0) return true;
    return false;
}

struct question {
    struct pollfd *fds;
    nfds_t count;
    cse_socket *sockets;   /* one for each of fds, 0 where the kernel is asked */
    struct wish *wishes;   /* for those that are not 0 */
    struct pollfd *kernel; /* for those that are, and one more */
    int wished, asked;
};

/* Sorts the descriptors into the stack's and the kernel's, which changes as sockets change mode. */
static void sort(struct question *q)
{
    q->wished = q->asked = 0;
    for (nfds_t i = 0; i < q->count; i++) {
        q->sockets[i] = direct_socket(q->fds[i].fd);
        if (q->sockets[i] != 0)
            q->wishes[q->wished++] =
                (struct wish){q->sockets[i], (uint32_t)(unsigned short)q->fds[i].events};
        else
            q->kernel[q->asked++] = q->fds[i];
    }
}

static int answer(struct question *q)
{
    int ready = 0;
    for (nfds_t i = 0, at = 0; i < q->count; i++) {
        struct pollfd *fd = &q->fds[i];
        if (q->sockets[i] == 0) {
            fd->revents = q->kernel[at++].revents;
        } else {
            uint32_t mask = net_running()->readiness(q->sockets[i]) & ~CSE_READY_RELAYED;
            fd->revents =
                (short)(mask & ((uint32_t)(unsigned short)fd->events | POLLERR | POLLHUP));
        }
        if (fd->revents != 0) ready++;
    }
    return ready;
}

static int ask(struct question *q, bool at_once, uint64_t deadline_ns, const sigset_t *mask)
{
    const struct cse_stack *stack = net_running();
    for (bool late = at_once;;) {
        sigset_t saved;
        stack->enter(&saved);
        stack->turn();
        stack->leave(&saved);
        sort(q);
        struct timespec now = {0, 0};
        if (q->asked > 0 && libc(ppoll)(q->kernel, (nfds_t)q->asked, &now, mask) < 0) return -1;
        int ready = answer(q);
        if (ready > 0 || late) return ready;
        int woken = wait_many(q->wishes, q->wished, q->kernel, q->asked, deadline_ns, mask);
        if (woken < 0) return -1;
        late = woken == 0;
    }
}

static int poll_direct(struct pollfd *fds, nfds_t count, bool at_once, uint64_t deadline_ns,
                       const sigset_t *mask)
{
    cse_socket sockets[ON_STACK];
    struct wish wishes[ON_STACK];
    struct pollfd kernel[ON_STACK + 1];
    struct question q = {fds, count, sockets, wishes, kernel, 0, 0};
    if (count > ON_STACK) {
        q.sockets = malloc(count * sizeof *q.sockets);
        q.wishes = malloc(count * sizeof *q.wishes);
        q.kernel = malloc((count + 1) * sizeof *q.kernel);
    }
    int result = -1;
    if (q.sockets == NULL || q.wishes == NULL || q.kernel == NULL)
        errno = ENOMEM;
    else
        result = ask(&q, at_once, deadline_ns, mask);
    if (count > ON_STACK) {
        int saved_errno = errno;
        free(q.sockets);
        free(q.wishes);
        free(q.kernel);
        errno = saved_errno;
    }
    return result;
}

/* An error of a datagram socket wakes as something to read; whoever asks is told which it is. */
static int tell_errors(struct pollfd *fds, nfds_t count, int ready)
{
    const struct cse_stack *stack = net_running();
    for (nfds_t i = 0; stack != NULL && ready > 0 && i < count; i++) {
        if (!(fds[i].revents & POLLIN)) continue;
        cse_socket s = net_find_data(fds[i].fd);
        if (CSE_SOCKET_IS_DATAGRAM(s) && stack->has_problem(s)) fds[i].revents |= POLLERR;
    }
    return ready;
}

CSE_EXPORT int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    if (!any_direct(fds, count)) return tell_errors(fds, count, libc(poll)(fds, count, timeout));
    uint64_t deadline =
        timeout < 0 ? WAIT_FOREVER : wait_now_ns() + (uint64_t)timeout * UINT64_C(1000000);
    return poll_direct(fds, count, timeout == 0, deadline, NULL);
}

static uint64_t deadline_in(const struct timespec *timeout)
{
    if (timeout == NULL) return WAIT_FOREVER;
    return wait_now_ns() + (uint64_t)timeout->tv_sec * UINT64_C(1000000000) +
           (uint64_t)timeout->tv_nsec;
}

static bool is_zero(const struct timespec *timeout)
{
    return timeout != NULL && timeout->tv_sec == 0 && timeout->tv_nsec == 0;
}

CSE_EXPORT int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                     const sigset_t *mask)
{
    if (!any_direct(fds, count))
        return tell_errors(fds, count, libc(ppoll)(fds, count, timeout, mask));
    return poll_direct(fds, count, is_zero(timeout), deadline_in(timeout), mask);
}

#ifdef __GLIBC__
void __chk_fail(void) __attribute__((noreturn));

CSE_EXPORT int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t room)
{
    if (room / sizeof *fds < count) __chk_fail();
    return poll(fds, count, timeout);
}

CSE_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                           const sigset_t *mask, size_t room)
{
    if (room / sizeof *fds < count) __chk_fail();
    return ppoll(fds, count, timeout, mask);
}
#endif

/* ---- select --------------------------------------------------------------------------------- */

static bool in_set(const fd_set *set, int fd)
{
    return set != NULL && FD_ISSET(fd, set);
}

/* As poll's list; the number of descriptors. */
static int list_of(int top, const fd_set *in, const fd_set *out, const fd_set *except,
                   struct pollfd *list)
{
    int count = 0;
    for (int fd = 0; fd < top; fd++) {
        short events = 0;
        if (in_set(in, fd)) events |= POLLIN | POLLRDNORM | POLLRDBAND;
        if (in_set(out, fd)) events |= POLLOUT | POLLWRNORM | POLLWRBAND;
        if (in_set(except, fd)) events |= POLLPRI;
        if (events != 0) list[count++] = (struct pollfd){fd, events, 0};
    }
    return count;
}

static int put_back(const struct pollfd *list, int count, fd_set *in, fd_set *out, fd_set *except)
{
    int bits = 0;
    for (int i = 0; i < count; i++) {
        short got = list[i].revents;
        bool readable = got & (POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR);
        bool writable = got & (POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR);
        if (got & POLLNVAL) return net_fail(-EBADF);
        if (in_set(in, list[i].fd) && !readable) FD_CLR(list[i].fd, in);
        if (in_set(out, list[i].fd) && !writable) FD_CLR(list[i].fd, out);
        if (in_set(except, list[i].fd) && !(got & POLLPRI)) FD_CLR(list[i].fd, except);
        bits += in_set(in, list[i].fd) + in_set(out, list[i].fd) + in_set(except, list[i].fd);
    }
    return bits;
}

static int select_direct(int top, fd_set *in, fd_set *out, fd_set *except,
                         const struct timespec *timeout, const sigset_t *mask, bool *taken)
{
    struct pollfd list[FD_SETSIZE];
    if (top < 0 || top > FD_SETSIZE || net_running() == NULL) return 0;
    int count = list_of(top, in, out, except, list);
    *taken = any_direct(list, (nfds_t)count);
    if (!*taken) return 0;
    int ready = poll_direct(list, (nfds_t)count, is_zero(timeout), deadline_in(timeout), mask);
    return ready < 0 ? -1 : put_back(list, count, in, out, except);
}

CSE_EXPORT int select(int top, fd_set *restrict in, fd_set *restrict out, fd_set *restrict except,
                      struct timeval *restrict timeout)
{
    bool taken = false;
    struct timespec limit;
    uint64_t start = 0;
    if (timeout != NULL) {
        limit = (struct timespec){timeout->tv_sec, timeout->tv_usec * 1000};
        start = wait_now_ns();
    }
    int result = select_direct(top, in, out, except, timeout != NULL ? &limit : NULL, NULL, &taken);
    if (!taken) return libc(select)(top, in, out, except, timeout);
    if (timeout != NULL) { /* Linux says how much time was left */
        uint64_t whole = (uint64_t)limit.tv_sec * 1000000u + (uint64_t)limit.tv_nsec / 1000;
        uint64_t past = (wait_now_ns() - start) / 1000, left = past < whole ? whole - past : 0;
        *timeout = (struct timeval){(time_t)(left / 1000000u), (suseconds_t)(left % 1000000u)};
    }
    return result;
}

CSE_EXPORT int pselect(int top, fd_set *restrict in, fd_set *restrict out, fd_set *restrict except,
                       const struct timespec *restrict timeout, const sigset_t *restrict mask)
{
    bool taken = false;
    int result = select_direct(top, in, out, except, timeout, mask, &taken);
    return taken ? result : libc(pselect)(top, in, out, except, timeout, mask);
}
