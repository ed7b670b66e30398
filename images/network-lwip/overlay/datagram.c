/* Datagrams: each packet in the pair starts with its addresses (struct cse_datagram), which are
 * taken off here; sending goes straight through the stack. Called by data.c.
 */
#include "data.h"

#include <limits.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PARTS_MAX = 1024 };

/* ---- what is told beside the bytes -------------------------------------------------------- */

struct control {
    struct msghdr *message;
    size_t used;
};

static void add_control(struct control *control, int level, int type, const void *value,
                        size_t size)
{
    struct msghdr *message = control->message;
    if (control->used + CMSG_SPACE(size) > message->msg_controllen) {
        message->msg_flags |= MSG_CTRUNC;
        return;
    }
    struct cmsghdr *header = (struct cmsghdr *)((char *)message->msg_control + control->used);
    header->cmsg_level = level;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(header), value, size);
    control->used += CMSG_SPACE(size);
}

static void add_time(struct control *control, unsigned telling, int64_t time_ns)
{
    struct timespec exact = {(time_t)(time_ns / 1000000000), (long)(time_ns % 1000000000)};
    struct timeval coarse = {exact.tv_sec, exact.tv_nsec / 1000};
    if (time_ns == 0) return;
    if (telling & CSE_TELL_TIME)
        add_control(control, SOL_SOCKET, SCM_TIMESTAMP, &coarse, sizeof coarse);
    else if (telling & CSE_TELL_TIME_NS)
        add_control(control, SOL_SOCKET, SCM_TIMESTAMPNS, &exact, sizeof exact);
}

static void add_packet_info(struct control *control, unsigned telling,
                            const struct cse_datagram *header)
{
    int ttl = header->ttl, tos = header->tos;
    bool v4 = IN6_IS_ADDR_V4MAPPED(&header->destination);
    if (telling & CSE_TELL_PKTINFO6) {
        struct in6_pktinfo info = {header->destination, header->interface};
        add_control(control, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
    if (v4 && (telling & CSE_TELL_PKTINFO)) {
        struct in_pktinfo info = {.ipi_ifindex = header->interface};
        memcpy(&info.ipi_addr, &header->destination.s6_addr[12], sizeof info.ipi_addr);
        info.ipi_spec_dst = info.ipi_addr;
        add_control(control, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    }
    if (v4 && (telling & CSE_TELL_TTL)) add_control(control, IPPROTO_IP, IP_TTL, &ttl, sizeof ttl);
    if (v4 && (telling & CSE_TELL_TOS)) add_control(control, IPPROTO_IP, IP_TOS, &header->tos, 1);
    if (!v4 && (telling & CSE_TELL_HOPLIMIT))
        add_control(control, IPPROTO_IPV6, IPV6_HOPLIMIT, &ttl, sizeof ttl);
    if (!v4 && (telling & CSE_TELL_TCLASS))
        add_control(control, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof tos);
}

static void give_name(struct msghdr *message, const union cse_address *name)
{
    if (message->msg_name == NULL) return;
    socklen_t room = message->msg_namelen;
    socklen_t size = name->family == AF_INET6 ? sizeof name->in6 : sizeof name->in;
    memcpy(message->msg_name, name, room < size ? room : size);
    message->msg_namelen = size;
}

static void describe(cse_socket s, struct msghdr *message, const struct cse_datagram *header)
{
    struct control control = {message, 0};
    give_name(message, &header->from);
    if (message->msg_control != NULL && message->msg_controllen != 0) {
        unsigned telling = net_running()->telling(s);
        add_time(&control, telling, header->time_ns);
        add_packet_info(&control, telling, header);
    }
    message->msg_controllen = control.used;
}

/* ---- the queue of errors ------------------------------------------------------------------- */

static ssize_t scatter(const struct msghdr *message, const char *bytes, size_t length)
{
    size_t done = 0;
    for (size_t i = 0; i < message->msg_iovlen && done < length; i++) {
        size_t part = message->msg_iov[i].iov_len;
        if (part > length - done) part = length - done;
        if (part != 0) memcpy(message->msg_iov[i].iov_base, bytes + done, part);
        done += part;
    }
    return (ssize_t)done;
}

/* As ip(7) has it under IP_RECVERR: the packet's bytes, where it went, and who said what of it. */
static ssize_t receive_error(cse_socket s, struct msghdr *message)
{
    struct cse_problem problem;
    struct control control = {message, 0};
    struct {
        struct sock_extended_err error;
        union cse_address offender;
    } told;
    if (!net_running()->take_problem(s, &problem)) return net_fail(-EAGAIN);
    bool v6 = problem.to.family == AF_INET6;
    memset(&told, 0, sizeof told);
    told.error = (struct sock_extended_err){.ee_errno = problem.error,
                                            .ee_origin = problem.origin,
                                            .ee_type = problem.type,
                                            .ee_code = problem.code,
                                            .ee_info = problem.info};
    told.offender = problem.offender;
    if (v6 && IN6_IS_ADDR_LINKLOCAL(&told.offender.in6.sin6_addr))
        told.offender.in6.sin6_scope_id = problem.interface;
    ssize_t got = scatter(message, problem.sent, problem.length);
    message->msg_flags = MSG_ERRQUEUE | ((size_t)got < problem.length ? MSG_TRUNC : 0);
    give_name(message, &problem.to);
    if (message->msg_control != NULL)
        add_control(&control, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_RECVERR : IP_RECVERR, &told,
                    sizeof told.error + (v6 ? sizeof told.offender.in6 : sizeof told.offender.in));
    message->msg_controllen = control.used;
    return got;
}

/* ---- receiving ----------------------------------------------------------------------------- */

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
    if (flags & MSG_ERRQUEUE) return receive_error(s, message);
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

static void take_source(struct cse_sending *how, const struct in6_addr *source, int interface)
{
    how->source = *source;
    how->has_source = true;
    if (interface != 0) how->interface = interface;
}

static int read_ip_control(const struct cmsghdr *header, struct cse_sending *how)
{
    size_t size = header->cmsg_len - CMSG_LEN(0);
    const void *data = CMSG_DATA(header);
    struct in_pktinfo info;
    int number = 0;
    if (header->cmsg_type == IP_PKTINFO) {
        if (size != sizeof info) return -EINVAL;
        memcpy(&info, data, sizeof info);
        struct in6_addr source = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
        memcpy(&source.s6_addr[12], &info.ipi_spec_dst, sizeof info.ipi_spec_dst);
        take_source(how, &source, info.ipi_ifindex);
        return 0;
    }
    if (size == sizeof number)
        memcpy(&number, data, sizeof number);
    else if (size == 1)
        number = *(const unsigned char *)data;
    else
        return -EINVAL;
    if (header->cmsg_type == IP_TTL) {
        if (number < 1 || number > 255) return -EINVAL;
        how->ttl = number;
    } else if (header->cmsg_type == IP_TOS) {
        if (number < 0 || number > 255) return -EINVAL;
        how->tos = number;
    } else {
        return -EINVAL;
    }
    return 0;
}

static int read_ipv6_control(const struct cmsghdr *header, struct cse_sending *how)
{
    size_t size = header->cmsg_len - CMSG_LEN(0);
    struct in6_pktinfo info;
    int number;
    if (header->cmsg_type == IPV6_PKTINFO) {
        if (size < sizeof info) return -EINVAL;
        memcpy(&info, CMSG_DATA(header), sizeof info);
        take_source(how, &info.ipi6_addr, (int)info.ipi6_ifindex);
        return 0;
    }
    if (size != sizeof number) return -EINVAL;
    memcpy(&number, CMSG_DATA(header), sizeof number);
    if (number < -1 || number > 255) return -EINVAL;
    if (header->cmsg_type == IPV6_HOPLIMIT)
        how->ttl = number;
    else if (header->cmsg_type == IPV6_TCLASS)
        how->tos = number;
    else
        return -EINVAL;
    return 0;
}

/* What the program says of one datagram; segmentation offload (UDP_SEGMENT) is refused. */
static int read_control(const struct msghdr *message, struct cse_sending *how)
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL;
         header = CMSG_NXTHDR((struct msghdr *)message, header)) {
        int failed = -EINVAL;
        if (header->cmsg_len < CMSG_LEN(0)) return -EINVAL;
        if (header->cmsg_level == IPPROTO_IP)
            failed = read_ip_control(header, how);
        else if (header->cmsg_level == IPPROTO_IPV6)
            failed = read_ipv6_control(header, how);
        else if (header->cmsg_level == SOL_SOCKET &&
                 (header->cmsg_type == SCM_RIGHTS || header->cmsg_type == SCM_CREDENTIALS))
            failed = 0; /* the kernel takes these without a word */
        if (failed != 0) return failed;
    }
    return 0;
}

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
    if (message->msg_control != NULL && message->msg_controllen != 0) {
        int failed = read_control(message, &how);
        if (failed != 0) return net_fail(failed);
    }
    if (to != NULL && length != 0) {
        how.to_length = length < sizeof address ? length : sizeof address;
        memcpy(&address, to, how.to_length);
        how.to = &address;
    }
    ssize_t sent = net_running()->send(s, parts, (int)count, &how);
    return sent < 0 ? net_fail((int)sent) : sent;
}
