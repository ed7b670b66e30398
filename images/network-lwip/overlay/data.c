/* The data calls in the program's place: the read, write, send and recv families and sendfile.
 *
 * Each finds out whether the descriptor is a private socket, at the cost of one load in programs
 * that have none, and brings the call into the form of recvmsg or sendmsg for datagram.c and
 * stream.c. Every other descriptor passes through.
 */
#include "data.h"
#include "netlink.h"

#include <sys/sendfile.h>
#include <time.h>
#include <unistd.h>

enum { FILE_PIECE = 65536 };

/* A private socket, or a routing socket. */
static cse_socket find(int fd)
{
    cse_socket s = net_find_data(fd);
    return s != 0 ? s : netlink_find(fd);
}

static ssize_t receive(int fd, cse_socket s, struct msghdr *message, int flags)
{
    if (IS_NETLINK(s)) return netlink_receive(fd, s, message, flags);
    return CSE_SOCKET_IS_DATAGRAM(s) ? datagram_receive(fd, s, message, flags)
                                     : stream_receive(fd, s, message, flags);
}

static ssize_t transmit(int fd, cse_socket s, const struct msghdr *message, int flags)
{
    if (IS_NETLINK(s)) return netlink_transmit(s, message, flags);
    return CSE_SOCKET_IS_DATAGRAM(s) ? datagram_transmit(s, message, flags)
                                     : stream_transmit(fd, s, message, flags);
}

/* ---- receiving ----------------------------------------------------------------------------- */

static ssize_t receive_from(int fd, cse_socket s, void *buffer, size_t size, int flags,
                            struct sockaddr *from, socklen_t *length)
{
    struct iovec part = {buffer, size};
    struct msghdr message = {.msg_name = length != NULL ? from : NULL,
                             .msg_namelen = from != NULL && length != NULL ? *length : 0,
                             .msg_iov = &part,
                             .msg_iovlen = 1};
    ssize_t got = receive(fd, s, &message, flags);
    if (got >= 0 && from != NULL && length != NULL) *length = message.msg_namelen;
    return got;
}

CSE_EXPORT ssize_t recvfrom(int fd, void *restrict buffer, size_t size, int flags,
                            struct sockaddr *restrict from, socklen_t *restrict length)
{
    cse_socket s = find(fd);
    if (s == 0) return libc(recvfrom)(fd, buffer, size, flags, from, length);
    return receive_from(fd, s, buffer, size, flags, from, length);
}

CSE_EXPORT ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    cse_socket s = find(fd);
    if (s == 0) return libc(recv)(fd, buffer, size, flags);
    return receive_from(fd, s, buffer, size, flags, NULL, NULL);
}

CSE_EXPORT ssize_t read(int fd, void *buffer, size_t size)
{
    cse_socket s = find(fd);
    if (s == 0) return libc(read)(fd, buffer, size);
    return receive_from(fd, s, buffer, size, 0, NULL, NULL);
}

CSE_EXPORT ssize_t readv(int fd, const struct iovec *parts, int count)
{
    cse_socket s = find(fd);
    if (s == 0) return libc(readv)(fd, parts, count);
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    return receive(fd, s, &message, 0);
}

CSE_EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    cse_socket s = find(fd);
    if (s == 0) return libc(recvmsg)(fd, message, flags);
    return receive(fd, s, message, flags);
}

#ifdef __GLIBC__
typedef int mmsg_flags_in; /* recvmmsg and sendmmsg differ between libcs in signedness only */
#else
typedef unsigned mmsg_flags_in;
#endif

static int receive_many(int fd, cse_socket s, struct mmsghdr *list, unsigned count, int flags,
                        struct timespec *timeout)
{
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (unsigned i = 0; i < count; i++) {
        int how = flags & ~MSG_WAITFORONE;
        if (i > 0 && (flags & MSG_WAITFORONE)) how |= MSG_DONTWAIT;
        ssize_t got = receive(fd, s, &list[i].msg_hdr, how);
        if (got < 0) return i > 0 ? (int)i : -1;
        list[i].msg_len = (unsigned)got;
        if (timeout == NULL) continue;
        clock_gettime(CLOCK_MONOTONIC, &now);
        long past_ms = (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
        if (past_ms >= timeout->tv_sec * 1000 + timeout->tv_nsec / 1000000) return (int)i + 1;
    }
    return (int)count;
}

CSE_EXPORT int recvmmsg(int fd, struct mmsghdr *list, unsigned count, mmsg_flags_in flags,
                        struct timespec *timeout)
{
    cse_socket s = find(fd);
    if (s == 0) return libc(recvmmsg)(fd, list, count, flags, timeout);
    return receive_many(fd, s, list, count, (int)flags, timeout);
}

#ifdef __GLIBC__
/* What -D_FORTIFY_SOURCE makes of read, recv and recvfrom. */
void __chk_fail(void) __attribute__((noreturn));

CSE_EXPORT ssize_t __read_chk(int fd, void *buffer, size_t size, size_t room)
{
    if (size > room) __chk_fail();
    return read(fd, buffer, size);
}

CSE_EXPORT ssize_t __recv_chk(int fd, void *buffer, size_t size, size_t room, int flags)
{
    if (size > room) __chk_fail();
    return recv(fd, buffer, size, flags);
}

CSE_EXPORT ssize_t __recvfrom_chk(int fd, void *buffer, size_t size, size_t room, int flags,
                                  struct sockaddr *from, socklen_t *length)
{
    if (size > room) __chk_fail();
    return recvfrom(fd, buffer, size, flags, from, length);
}
#endif

/* ---- sending ------------------------------------------------------------------------------- */

static ssize_t send_to(int fd, cse_socket s, const void *buffer, size_t size, int flags,
                       const struct sockaddr *to, socklen_t length)
{
    struct iovec part = {(void *)buffer, size};
    struct msghdr message = {
        .msg_name = (void *)to, .msg_namelen = length, .msg_iov = &part, .msg_iovlen = 1};
    return transmit(fd, s, &message, flags);
}

CSE_EXPORT ssize_t sendto(int fd, const void *buffer, size_t size, int flags,
                          const struct sockaddr *to, socklen_t length)
{
    cse_socket s = find(fd);
    if (s == 0) return libc(sendto)(fd, buffer, size, flags, to, length);
    return send_to(fd, s, buffer, size, flags, to, length);
}

CSE_EXPORT ssize_t send(int fd, const void *buffer, size_t size, int flags)
{
    cse_socket s = find(fd);
    if (s == 0) return libc(send)(fd, buffer, size, flags);
    return send_to(fd, s, buffer, size, flags, NULL, 0);
}

CSE_EXPORT ssize_t write(int fd, const void *buffer, size_t size)
{
    cse_socket s = find(fd);
    if (s == 0) return libc(write)(fd, buffer, size);
    return send_to(fd, s, buffer, size, 0, NULL, 0);
}

CSE_EXPORT ssize_t writev(int fd, const struct iovec *parts, int count)
{
    cse_socket s = find(fd);
    if (s == 0) return libc(writev)(fd, parts, count);
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    return transmit(fd, s, &message, 0);
}

enum { PASSED_MAX = 253 }; /* SCM_MAX_FD of the kernel */

/* Private sockets that go to another process outlive this one. */
static void entrust_passed(const struct msghdr *message)
{
    const struct cse_stack *stack = message->msg_controllen != 0 ? net_running() : NULL;
    cse_socket list[PASSED_MAX];
    size_t count = 0;
    if (stack == NULL) return;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL;
         header = CMSG_NXTHDR((struct msghdr *)message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        const int *fds = (const int *)CMSG_DATA(header);
        for (size_t i = 0; CMSG_LEN((i + 1) * sizeof *fds) <= header->cmsg_len; i++) {
            cse_socket s = net_find(fds[i]);
            if (s != 0 && count < PASSED_MAX) list[count++] = s;
        }
    }
    int saved_errno = errno;
    if (count > 0) stack->entrust(list, count);
    errno = saved_errno;
}

CSE_EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    cse_socket s = find(fd);
    if (s == 0) entrust_passed(message);
    if (s == 0) return libc(sendmsg)(fd, message, flags);
    return transmit(fd, s, message, flags);
}

CSE_EXPORT int sendmmsg(int fd, struct mmsghdr *list, unsigned count, mmsg_flags_in flags)
{
    cse_socket s = find(fd);
    for (unsigned i = 0; s == 0 && i < count; i++) entrust_passed(&list[i].msg_hdr);
    if (s == 0) return libc(sendmmsg)(fd, list, count, flags);
    for (unsigned i = 0; i < count; i++) {
        ssize_t sent = transmit(fd, s, &list[i].msg_hdr, (int)flags);
        if (sent < 0) return i > 0 ? (int)i : -1;
        list[i].msg_len = (unsigned)sent;
    }
    return (int)count;
}

/* ---- files to sockets ---------------------------------------------------------------------- */

/* Pieces read from the file and sent; what a full socket does not take is given back. */
static ssize_t send_file(int out, cse_socket s, int in, off_t *offset, size_t count)
{
    char piece[FILE_PIECE];
    size_t done = 0;
    while (done < count) {
        size_t wanted = count - done < sizeof piece ? count - done : sizeof piece;
        ssize_t got = offset != NULL ? libc(pread)(in, piece, wanted, *offset)
                                     : libc(read)(in, piece, wanted);
        if (got <= 0) return done > 0 || got == 0 ? (ssize_t)done : -1;
        ssize_t sent = send_to(out, s, piece, (size_t)got, 0, NULL, 0);
        ssize_t taken = sent > 0 ? sent : 0;
        if (offset != NULL)
            *offset += taken;
        else if (taken < got)
            libc(lseek)(in, taken - got, SEEK_CUR);
        done += (size_t)taken;
        if (sent < got) return done > 0 || sent >= 0 ? (ssize_t)done : -1;
    }
    return (ssize_t)done;
}

CSE_EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t count)
{
    cse_socket s = net_find_data(out);
    if (s == 0 || CSE_SOCKET_IS_DATAGRAM(s)) return libc(sendfile)(out, in, offset, count);
    return send_file(out, s, in, offset, count);
}

#ifdef __GLIBC__
CSE_EXPORT ssize_t sendfile64(int out, int in, off64_t *offset, size_t count)
{
    _Static_assert(sizeof(off_t) == sizeof(off64_t), "64-bit offsets only");
    return sendfile(out, in, (off_t *)offset, count);
}
#endif
