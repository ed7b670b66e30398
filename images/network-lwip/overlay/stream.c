/* Data calls on TCP sockets, called by data.c. In direct mode the bytes go between program and
 * stack at once and this file does the waiting; a relayed socket's descriptor carries them itself.
 */
#include "data.h"
#include "wait.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

enum { PARTS_MAX = 1024, SOCKETS = 65536 };

static bool nonblocking(int fd, int flags)
{
    return (flags & MSG_DONTWAIT) || (libc(fcntl)(fd, F_GETFL) & O_NONBLOCK);
}

/* When SO_RCVTIMEO or SO_SNDTIMEO says to give up. */
static uint64_t deadline_of(int fd, int option)
{
    struct timeval limit = {0, 0};
    socklen_t size = sizeof limit;
    if (libc(getsockopt)(fd, SOL_SOCKET, option, &limit, &size) != 0) return WAIT_FOREVER;
    if (limit.tv_sec == 0 && limit.tv_usec == 0) return WAIT_FOREVER;
    return wait_now_ns() + (uint64_t)limit.tv_sec * 1000000000u + (uint64_t)limit.tv_usec * 1000u;
}

/* What is left of a vector after `done` bytes; the number of parts. */
static int rest_of(const struct iovec *parts, int count, size_t done, struct iovec *rest)
{
    int kept = 0;
    for (int i = 0; i < count; i++) {
        if (done >= parts[i].iov_len) {
            done -= parts[i].iov_len;
            continue;
        }
        rest[kept++] = (struct iovec){(char *)parts[i].iov_base + done, parts[i].iov_len - done};
        done = 0;
    }
    return kept;
}

static size_t length_of(const struct iovec *parts, int count)
{
    size_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    return length;
}

/* ---- receiving ----------------------------------------------------------------------------- */

/* Waits for readiness; 0, or -1 with errno. */
static int wait_for(int fd, cse_socket s, uint32_t events, int flags, int option,
                    uint64_t *deadline, bool *asked)
{
    if (nonblocking(fd, flags)) return net_fail(-EAGAIN);
    if (!*asked) *deadline = deadline_of(fd, option);
    *asked = true;
    int woken = wait_one(s, events, *deadline);
    if (woken < 0 && errno == EINTR && *deadline == WAIT_FOREVER && net_signal_restarts()) return 0;
    return woken > 0 ? 0 : woken == 0 ? net_fail(-EAGAIN) : -1;
}

/* MSG_WAITALL: the parts that are still empty. */
static ssize_t receive_all(int fd, cse_socket s, struct iovec *parts, int count, size_t wanted,
                           int flags)
{
    const struct cse_stack *stack = net_running();
    struct iovec rest[PARTS_MAX];
    uint64_t deadline = WAIT_FOREVER;
    bool asked = false;
    size_t done = 0;
    while (done < wanted) {
        int left = rest_of(parts, count, done, rest);
        ssize_t got = stack->receive(s, fd, rest, left, flags);
        if (got == CSE_RELAYED) {
            struct msghdr message = {.msg_iov = rest, .msg_iovlen = (size_t)left};
            got = libc(recvmsg)(fd, &message, flags);
            if (got < 0) got = -errno;
        } else if (got == -EAGAIN &&
                   wait_for(fd, s, EPOLLIN, flags, SO_RCVTIMEO, &deadline, &asked) == 0) {
            continue;
        } else if (got == -EAGAIN) {
            got = -errno;
        }
        if (got < 0 && done == 0) return net_fail((int)got);
        if (got <= 0) break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

/* Sockets that were found blocking when last asked, by index: the generation. A thread may spin on
 * one before it asks again. */
static uint32_t *blocking;

static uint32_t *blocking_place(cse_socket s)
{
    if (blocking == NULL) {
        void *table = mmap(NULL, SOCKETS * sizeof *blocking, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (table == MAP_FAILED) return NULL;
        blocking = table;
    }
    return &blocking[(((uint32_t)s >> 1) - 1) % SOCKETS];
}

static ssize_t receive_some(int fd, cse_socket s, struct msghdr *message, int flags)
{
    const struct cse_stack *stack = net_running();
    uint32_t *known = blocking_place(s), generation = (uint32_t)(s >> 32);
    uint64_t deadline = WAIT_FOREVER;
    bool asked = false;
    int count = (int)message->msg_iovlen;
    int spin = flags & MSG_DONTWAIT || known == NULL || *known != generation ? 0 : CSE_SPIN_NEXT;
    for (;;) {
        ssize_t got = stack->receive(s, fd, message->msg_iov, count, flags | spin);
        if (got == -EAGAIN && (spin & CSE_SPIN_NEXT)) {
            wait_counted_as_spinning(true);
            bool came = wait_spin(NULL, s);
            spin = CSE_SPUN | (came ? CSE_SPIN_NEXT : 0);
            continue;
        }
        if (spin & CSE_SPUN) wait_counted_as_spinning(false);
        if (got == CSE_SLEEP) got = -EAGAIN;
        if (got == CSE_RELAYED) return libc(recvmsg)(fd, message, flags);
        if (got >= 0) return got;
        if (got != -EAGAIN) return net_fail((int)got);
        if (known != NULL) *known = 0;
        if (wait_for(fd, s, EPOLLIN, flags, SO_RCVTIMEO, &deadline, &asked) != 0) return -1;
        if (known != NULL) *known = generation;
        spin = 0;
    }
}

ssize_t stream_receive(int fd, cse_socket s, struct msghdr *message, int flags)
{
    int count = (int)message->msg_iovlen;
    uint32_t ready = net_running()->readiness(s);
    if ((ready & CSE_READY_RELAYED && flags != 0) || message->msg_iovlen > PARTS_MAX ||
        (flags & (MSG_OOB | MSG_ERRQUEUE)))
        return libc(recvmsg)(fd, message, flags);
    size_t wanted = length_of(message->msg_iov, count);
    bool all = (flags & MSG_WAITALL) && !(flags & MSG_PEEK) && !nonblocking(fd, flags);
    ssize_t got = all ? receive_all(fd, s, message->msg_iov, count, wanted, flags)
                      : receive_some(fd, s, message, flags);
    if (got >= 0) {
        message->msg_namelen = 0;
        message->msg_controllen = 0;
        message->msg_flags = 0;
    }
    return got;
}

/* ---- sending ------------------------------------------------------------------------------- */

static ssize_t send_relayed(int fd, const struct iovec *parts, int count, int flags)
{
    /* A connected stream ignores the address in the kernel's TCP; AF_UNIX would refuse it. */
    struct msghdr plain = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    return libc(sendmsg)(fd, &plain, flags);
}

static ssize_t broken_pipe(int flags)
{
    if (!(flags & MSG_NOSIGNAL)) pthread_kill(pthread_self(), SIGPIPE);
    return net_fail(-EPIPE);
}

ssize_t stream_transmit(int fd, cse_socket s, const struct msghdr *message, int flags)
{
    const struct cse_stack *stack = net_running();
    const struct iovec *parts = message->msg_iov;
    struct iovec rest[PARTS_MAX];
    int count = (int)message->msg_iovlen;
    uint64_t deadline = WAIT_FOREVER;
    bool asked = false;
    size_t done = 0;
    if (message->msg_iovlen > PARTS_MAX) return net_fail(-EMSGSIZE);
    if (flags & MSG_OOB) return send_relayed(fd, parts, count, flags);
    size_t wanted = length_of(parts, count);
    for (;;) {
        ssize_t sent = stack->transmit(s, fd, parts, count, flags);
        if (sent == CSE_RELAYED) {
            sent = send_relayed(fd, parts, count, flags);
            return sent >= 0 ? (ssize_t)done + sent : done > 0 ? (ssize_t)done : -1;
        }
        if (sent >= 0) done += (size_t)sent;
        if (sent >= 0 && (done >= wanted || nonblocking(fd, flags))) return (ssize_t)done;
        if (sent < 0 && sent != -EAGAIN) {
            if (done > 0) return (ssize_t)done;
            return sent == -EPIPE ? broken_pipe(flags) : net_fail((int)sent);
        }
        if (wait_for(fd, s, EPOLLOUT, flags, SO_SNDTIMEO, &deadline, &asked) != 0)
            return done > 0 ? (ssize_t)done : -1;
        count = rest_of(message->msg_iov, (int)message->msg_iovlen, done, rest);
        parts = rest;
    }
}
