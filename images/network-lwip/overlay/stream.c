/* Data calls on TCP sockets, called by data.c. In direct mode the bytes go between program and
 * stack at once and this file does the waiting; a relayed socket's descriptor carries them itself.
 */
#include "data.h"
#include "patience.h"
#include "wait.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>

enum { PARTS_MAX = 1024, DISCARD_BYTES = 16384 };

static bool nonblocking(int fd, cse_socket s, int flags)
{
    return (flags & MSG_DONTWAIT) || patience_nonblocking(fd, s);
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

/* ---- what the pair cannot say -------------------------------------------------------------- */

static ssize_t broken_pipe(int flags)
{
    if (!(flags & MSG_NOSIGNAL)) pthread_kill(pthread_self(), SIGPIPE);
    return net_fail(-EPIPE);
}

/* The connection's own error in the place of what AF_UNIX made of it; told once. */
static int true_error(int fd, cse_socket s, int otherwise)
{
    int error = net_running()->take_error(s), ignored;
    socklen_t size = sizeof ignored;
    if (error <= 0) return otherwise;
    libc(getsockopt)(fd, SOL_SOCKET, SO_ERROR, &ignored, &size);
    return error;
}

static ssize_t receive_relayed(int fd, cse_socket s, struct msghdr *message, int flags)
{
    ssize_t got = libc(recvmsg)(fd, message, flags);
    if (got < 0 && errno == ECONNRESET) errno = true_error(fd, s, ECONNRESET);
    return got;
}

/* MSG_TRUNC of TCP: bytes are thrown away, not copied (tcp(7)); AF_UNIX knows no such thing. */
static ssize_t discard_relayed(int fd, cse_socket s, size_t wanted, int flags)
{
    char piece[DISCARD_BYTES];
    size_t done = 0;
    if (flags & MSG_PEEK) { /* how many there are */
        struct iovec one = {piece, wanted > 0};
        struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1};
        ssize_t got = receive_relayed(fd, s, &message, flags & ~MSG_TRUNC);
        int waiting = 0;
        if (got <= 0 || libc(ioctl)(fd, FIONREAD, &waiting) != 0) return got;
        return (size_t)waiting < wanted ? waiting : (ssize_t)wanted;
    }
    do {
        struct iovec part = {piece, wanted - done < sizeof piece ? wanted - done : sizeof piece};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        int how = flags & ~MSG_TRUNC;
        ssize_t got = receive_relayed(fd, s, &message,
                                      how & MSG_WAITALL || done == 0 ? how : how | MSG_DONTWAIT);
        if (got < 0) return done > 0 ? (ssize_t)done : -1;
        if (got == 0) break;
        done += (size_t)got;
    } while (done < wanted);
    return (ssize_t)done;
}

/* ---- receiving ----------------------------------------------------------------------------- */

int stream_wait(int fd, cse_socket s, uint32_t events, int flags, int option, uint64_t *deadline,
                bool *asked)
{
    uint64_t limit;
    if (flags & MSG_DONTWAIT || !patience_of(fd, s, option, &limit)) return net_fail(-EAGAIN);
    if (!*asked) *deadline = limit;
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
            got = receive_relayed(fd, s, &message, flags);
            if (got < 0) got = -errno;
        } else if ((got == -EAGAIN || got == CSE_FEW) &&
                   stream_wait(fd, s, CSE_READY_ENOUGH, flags, SO_RCVTIMEO, &deadline, &asked) ==
                       0) {
            continue;
        } else if (got == -EAGAIN || got == CSE_FEW) {
            got = -errno;
        }
        if (got < 0 && done == 0) return net_fail((int)got);
        if (got <= 0) break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static ssize_t receive_some(int fd, cse_socket s, struct msghdr *message, int flags)
{
    const struct cse_stack *stack = net_running();
    uint64_t deadline = WAIT_FOREVER;
    bool asked = false;
    int count = (int)message->msg_iovlen;
    int spin = flags & MSG_DONTWAIT || !patience_is_known(s) ? 0 : CSE_SPIN_NEXT;
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
        if (got == CSE_RELAYED) return receive_relayed(fd, s, message, flags);
        if (got >= 0) return got;
        if (got != -EAGAIN && got != CSE_FEW) return net_fail((int)got);
        if (stream_wait(fd, s, CSE_READY_ENOUGH, flags, SO_RCVTIMEO, &deadline, &asked) != 0) {
            if (got != CSE_FEW) return -1;
            flags |= MSG_DONTWAIT; /* what there is, below SO_RCVLOWAT */
        }
        spin = 0;
    }
}

ssize_t stream_receive(int fd, cse_socket s, struct msghdr *message, int flags)
{
    int count = (int)message->msg_iovlen;
    uint32_t ready = net_running()->readiness(s);
    if (flags & MSG_OOB) return net_fail(-EINVAL); /* no urgent data is ever kept apart */
    if (flags & MSG_ERRQUEUE) return net_fail(-EAGAIN);
    if (message->msg_iovlen > PARTS_MAX) return net_fail(-EMSGSIZE);
    if (ready & CSE_NOT_CONNECTED) {
        int refusal = net_running()->refusal(s, false);
        if (refusal <= 0) return refusal == 0 ? 0 : net_fail(refusal);
    }
    size_t wanted = length_of(message->msg_iov, count);
    if (ready & CSE_READY_RELAYED && flags & MSG_TRUNC)
        return discard_relayed(fd, s, wanted, flags);
    if (ready & CSE_READY_RELAYED && flags != 0) return receive_relayed(fd, s, message, flags);
    bool all = (flags & MSG_WAITALL) && !(flags & MSG_PEEK) && !nonblocking(fd, s, flags);
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

static ssize_t send_relayed(int fd, cse_socket s, const struct iovec *parts, int count, int flags)
{
    /* A connected stream ignores the address in the kernel's TCP; AF_UNIX would refuse it. */
    struct msghdr plain = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    ssize_t sent = libc(sendmsg)(fd, &plain, flags | MSG_NOSIGNAL);
    if (sent >= 0 || (errno != EPIPE && errno != ECONNRESET)) return sent;
    int error = true_error(fd, s, errno);
    return error == EPIPE ? broken_pipe(flags) : net_fail(-error);
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
    if (flags & MSG_OOB) {
        net_escape("send MSG_OOB");
        return net_fail(-EOPNOTSUPP);
    }
    if (stack->readiness(s) & CSE_NOT_CONNECTED) {
        int refusal = stack->refusal(s, true);
        if (refusal <= 0) return refusal == -EPIPE ? broken_pipe(flags) : net_fail(refusal);
    }
    size_t wanted = length_of(parts, count);
    for (;;) {
        ssize_t sent = stack->transmit(s, fd, parts, count, flags);
        if (sent == CSE_RELAYED) {
            sent = send_relayed(fd, s, parts, count, flags);
            return sent >= 0 ? (ssize_t)done + sent : done > 0 ? (ssize_t)done : -1;
        }
        if (sent >= 0) done += (size_t)sent;
        if (sent >= 0 && (done >= wanted || nonblocking(fd, s, flags))) return (ssize_t)done;
        if (sent < 0 && sent != -EAGAIN) {
            if (done > 0) return (ssize_t)done;
            return sent == -EPIPE ? broken_pipe(flags) : net_fail((int)sent);
        }
        if (stream_wait(fd, s, EPOLLOUT, flags, SO_SNDTIMEO, &deadline, &asked) != 0)
            return done > 0 ? (ssize_t)done : -1;
        count = rest_of(message->msg_iov, (int)message->msg_iovlen, done, rest);
        parts = rest;
    }
}
