/* The data calls on datagram sockets. Each packet in the pair starts with its addresses (struct
 * cse_datagram); these calls take it off, and send straight through the stack. Every other
 * descriptor passes through, at the cost of one load in programs without datagram sockets.
 */
#include "net.h"

#include <limits.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { PARTS_MAX = 1024 };

/* ---- receiving ------------------------------------------------------------------------------- */

static void add_control(struct msghdr *message, size_t *used, int type, const void *value,
                        size_t size)
{
    if (*used + CMSG_SPACE(size) > message->msg_controllen) {
        message->msg_flags |= MSG_CTRUNC;
        return;
    }
    struct cmsghdr *header = (struct cmsghdr *)((char *)message->msg_control + *used);
    header->cmsg_level = IPPROTO_IP;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(header), value, size);
    *used += CMSG_SPACE(size);
}

static bool option_on(cse_socket s, int name)
{
    int on = 0;
    socklen_t size = sizeof on;
    return net_running()->getoption(s, IPPROTO_IP, name, &on, &size) == 0 && on;
}

static void describe(cse_socket s, struct msghdr *message, const struct cse_datagram *header)
{
    struct sockaddr_in from = {
        .sin_family = AF_INET, .sin_port = header->port, .sin_addr.s_addr = header->address};
    if (message->msg_name != NULL) {
        socklen_t room = message->msg_namelen;
        memcpy(message->msg_name, &from, room < sizeof from ? room : sizeof from);
        message->msg_namelen = sizeof from;
    }
    size_t used = 0;
    if (message->msg_control != NULL && message->msg_controllen != 0) {
        if (option_on(s, IP_PKTINFO)) {
            struct in_pktinfo info = {.ipi_ifindex = 2,
                                      .ipi_spec_dst.s_addr = header->destination,
                                      .ipi_addr.s_addr = header->destination};
            if ((ntohl(header->destination) >> 24) == 127) info.ipi_ifindex = 1;
            add_control(message, &used, IP_PKTINFO, &info, sizeof info);
        }
        int ttl = header->ttl;
        if (option_on(s, IP_RECVTTL)) add_control(message, &used, IP_TTL, &ttl, sizeof ttl);
        if (option_on(s, IP_RECVTOS)) add_control(message, &used, IP_TOS, &header->tos, 1);
    }
    message->msg_controllen = used;
}

/* An error travels as a packet. True if it was told already (by SO_ERROR or a send), then it
 * is skipped; else errno is set. */
static bool stale_error(int fd, cse_socket s, int flags)
{
    int error = net_running()->take_error(s);
    char rest;
    if (flags & MSG_PEEK) libc(recv)(fd, &rest, 0, MSG_DONTWAIT);
    if (error != 0) errno = error;
    return error == 0;
}

static ssize_t receive(int fd, cse_socket s, struct msghdr *message, int flags)
{
    struct cse_datagram header;
    struct iovec parts[PARTS_MAX + 1];
    if (message->msg_iovlen > PARTS_MAX) return net_fail(-EMSGSIZE);
    if (flags & MSG_OOB) return net_fail(-EOPNOTSUPP);
    if (flags & MSG_ERRQUEUE) return net_fail(-EAGAIN);
    parts[0] = (struct iovec){&header, sizeof header};
    memcpy(parts + 1, message->msg_iov, message->msg_iovlen * sizeof *parts);
    for (;;) {
        struct msghdr inner = {.msg_iov = parts, .msg_iovlen = message->msg_iovlen + 1};
        ssize_t got = libc(recvmsg)(fd, &inner, flags);
        if (got < 0) return got;
        if (got < (ssize_t)sizeof header) { /* the socket was shut down */
            message->msg_namelen = 0;
            message->msg_controllen = 0;
            message->msg_flags = 0;
            return 0;
        }
        if (header.error != 0) {
            if (stale_error(fd, s, flags)) continue;
            return -1;
        }
        message->msg_flags = inner.msg_flags & (MSG_TRUNC | MSG_CMSG_CLOEXEC);
        describe(s, message, &header);
        return got - (ssize_t)sizeof header;
    }
}

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
    cse_socket s = net_find_datagram(fd);
    if (s == 0) return libc(recvfrom)(fd, buffer, size, flags, from, length);
    return receive_from(fd, s, buffer, size, flags, from, length);
}

CSE_EXPORT ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    cse_socket s = net_find_datagram(fd);
    if (s == 0) return libc(recv)(fd, buffer, size, flags);
    return receive_from(fd, s, buffer, size, flags, NULL, NULL);
}

CSE_EXPORT ssize_t read(int fd, void *buffer, size_t size)
{
    cse_socket s = net_find_datagram(fd);
    if (s == 0) return libc(read)(fd, buffer, size);
    return receive_from(fd, s, buffer, size, 0, NULL, NULL);
}

CSE_EXPORT ssize_t readv(int fd, const struct iovec *parts, int count)
{
    cse_socket s = net_find_datagram(fd);
    if (s == 0) return libc(readv)(fd, parts, count);
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    return receive(fd, s, &message, 0);
}

CSE_EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    cse_socket s = net_find_datagram(fd);
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
    cse_socket s = net_find_datagram(fd);
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

/* ---- sending --------------------------------------------------------------------------------- */

static ssize_t transmit(cse_socket s, const struct iovec *parts, size_t count, const void *to,
                        socklen_t length, int flags)
{
    struct sockaddr_in address;
    if (flags & MSG_OOB) return net_fail(-EOPNOTSUPP);
    if (count > PARTS_MAX) return net_fail(-EMSGSIZE);
    if (to != NULL && length != 0) {
        if (length < sizeof address) return net_fail(-EINVAL);
        memcpy(&address, to, sizeof address);
        if (address.sin_family != AF_INET && address.sin_family != AF_UNSPEC)
            return net_fail(-EAFNOSUPPORT);
    } else {
        to = NULL;
    }
    ssize_t sent = net_running()->send(s, parts, (int)count, to != NULL ? &address : NULL);
    return sent < 0 ? net_fail((int)sent) : sent;
}

CSE_EXPORT ssize_t sendto(int fd, const void *buffer, size_t size, int flags,
                          const struct sockaddr *to, socklen_t length)
{
    cse_socket s = net_find_datagram(fd);
    struct iovec part = {(void *)buffer, size};
    if (s != 0) return transmit(s, &part, 1, to, length, flags);
    /* A connected stream ignores the address in the kernel's TCP; AF_UNIX would refuse it. */
    if (to != NULL && net_running() != NULL && to->sa_family == AF_INET && net_find(fd) != 0)
        return libc(send)(fd, buffer, size, flags);
    return libc(sendto)(fd, buffer, size, flags, to, length);
}

CSE_EXPORT ssize_t send(int fd, const void *buffer, size_t size, int flags)
{
    cse_socket s = net_find_datagram(fd);
    struct iovec part = {(void *)buffer, size};
    if (s == 0) return libc(send)(fd, buffer, size, flags);
    return transmit(s, &part, 1, NULL, 0, flags);
}

CSE_EXPORT ssize_t write(int fd, const void *buffer, size_t size)
{
    cse_socket s = net_find_datagram(fd);
    struct iovec part = {(void *)buffer, size};
    if (s == 0) return libc(write)(fd, buffer, size);
    return transmit(s, &part, 1, NULL, 0, 0);
}

CSE_EXPORT ssize_t writev(int fd, const struct iovec *parts, int count)
{
    cse_socket s = net_find_datagram(fd);
    if (s == 0) return libc(writev)(fd, parts, count);
    return transmit(s, parts, (size_t)count, NULL, 0, 0);
}

CSE_EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    cse_socket s = net_find_datagram(fd);
    if (s == 0) return libc(sendmsg)(fd, message, flags);
    return transmit(s, message->msg_iov, message->msg_iovlen, message->msg_name,
                    message->msg_namelen, flags);
}

CSE_EXPORT int sendmmsg(int fd, struct mmsghdr *list, unsigned count, mmsg_flags_in flags)
{
    cse_socket s = net_find_datagram(fd);
    if (s == 0) return libc(sendmmsg)(fd, list, count, flags);
    for (unsigned i = 0; i < count; i++) {
        const struct msghdr *message = &list[i].msg_hdr;
        ssize_t sent = transmit(s, message->msg_iov, message->msg_iovlen, message->msg_name,
                                message->msg_namelen, (int)flags);
        if (sent < 0) return i > 0 ? (int)i : -1;
        list[i].msg_len = (unsigned)sent;
    }
    return (int)count;
}
