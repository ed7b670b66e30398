/* Datagrams: each packet in the pair starts with its addresses (struct cse_datagram), which are
 * taken off here; sending goes straight through the stack. Called by data.c.
 */
#include "data.h"

#include <limits.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
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
    if (message->msg_name != NULL) {
        socklen_t room = message->msg_namelen;
        socklen_t size =
            header->from.family == AF_INET6 ? sizeof header->from.in6 : sizeof header->from.in;
        memcpy(message->msg_name, &header->from, room < size ? room : size);
        message->msg_namelen = size;
    }
    size_t used = 0;
    if (message->msg_control != NULL && message->msg_controllen != 0) {
        if (option_on(s, IP_PKTINFO)) {
            struct in_pktinfo info = {.ipi_ifindex = header->interface};
            memcpy(&info.ipi_addr, &header->destination.s6_addr[12], sizeof info.ipi_addr);
            info.ipi_spec_dst = info.ipi_addr;
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

ssize_t datagram_receive(int fd, cse_socket s, struct msghdr *message, int flags)
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

/* ---- sending --------------------------------------------------------------------------------- */

ssize_t datagram_transmit(cse_socket s, const struct msghdr *message, int flags)
{
    const struct iovec *parts = message->msg_iov;
    size_t count = message->msg_iovlen;
    const void *to = message->msg_name;
    socklen_t length = message->msg_namelen;
    union cse_address address = {0};
    struct cse_sending how = {.ttl = -1, .tos = -1};
    if (flags & MSG_OOB) return net_fail(-EOPNOTSUPP);
    if (count > PARTS_MAX) return net_fail(-EMSGSIZE);
    if (to != NULL && length != 0) {
        how.to_length = length < sizeof address ? length : sizeof address;
        memcpy(&address, to, how.to_length);
        how.to = &address;
    }
    ssize_t sent = net_running()->send(s, parts, (int)count, &how);
    return sent < 0 ? net_fail((int)sent) : sent;
}
