/* The control calls of sockets, in the program's place: socket, bind, listen, accept, connect,
 * names, options, shutdown. Data calls of TCP are not taken: the descriptor is a real one.
 */
#include "data.h"
#include "netlink.h"
#include "patience.h"
#include "wait.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static int private_socket(int family, int type, int protocol)
{
    int kind = type & 0xf, wanted = kind == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
    int echo = family == AF_INET6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
    bool ping = kind == SOCK_DGRAM && protocol == echo;
    if (protocol != 0 && protocol != wanted && !ping) return net_fail(-EPROTONOSUPPORT);
    const struct cse_stack *stack = net_start();
    if (stack == NULL) return -1;
    cse_socket made;
    int fd = stack->socket(family, kind, protocol, type & (SOCK_CLOEXEC | SOCK_NONBLOCK), &made);
    if (fd < 0) return net_fail(fd);
    net_remember(fd, made);
    return fd;
}

CSE_EXPORT int socket(int domain, int type, int protocol)
{
    int kind = type & 0xf;
    bool internet = domain == AF_INET || domain == AF_INET6;
    if (internet && (kind == SOCK_STREAM || kind == SOCK_DGRAM))
        return private_socket(domain, type, protocol);
    if (internet && kind == SOCK_RAW) { /* as for a program without CAP_NET_RAW */
        net_escape("socket SOCK_RAW");
        return net_fail(-EPERM);
    }
    if (domain == AF_NETLINK && protocol == NETLINK_ROUTE) return netlink_socket(type, protocol);
    if (internet)
        net_escape("socket AF_INET other");
    else if (domain == AF_NETLINK)
        net_escape("socket AF_NETLINK");
    else if (domain == AF_PACKET)
        net_escape("socket AF_PACKET");
    else if (domain != AF_UNIX)
        net_escape("socket of another family");
    int fd = libc(socket)(domain, type, protocol);
    if (fd >= 0) cse_fd_forget(fd);
    return fd;
}

/* A copy of what the program passed; the stack judges it by the socket's family. */
static int take_address(const struct sockaddr *given, socklen_t *length, union cse_address *taken)
{
    memset(taken, 0, sizeof *taken);
    if (given == NULL) return -EFAULT;
    if (*length > sizeof *taken) *length = sizeof *taken;
    memcpy(taken, given, *length);
    return 0;
}

CSE_EXPORT int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    cse_socket s = net_find(fd);
    union cse_address taken;
    if (s == 0) return netlink_bind(fd, address, length);
    int failed = take_address(address, &length, &taken);
    if (failed == 0) failed = net_running()->bind(s, &taken, length);
    return failed == 0 ? 0 : net_fail(failed);
}

CSE_EXPORT int listen(int fd, int backlog)
{
    cse_socket s = net_find(fd);
    if (s == 0) return netlink_listen(fd, backlog);
    int failed = net_running()->listen(s, fd, backlog);
    return failed == 0 ? 0 : net_fail(failed);
}

static void give_address(const union cse_address *from, struct sockaddr *to, socklen_t *length)
{
    if (to == NULL || length == NULL) return;
    socklen_t size = from->family == AF_INET6 ? sizeof from->in6 : sizeof from->in;
    memcpy(to, from, *length < size ? *length : size);
    *length = size;
}

/* One byte, the token of a connection, is read like any byte, so that the kernel blocks, wakes one
 * of several, and is interrupted as accept(2) would be. 0, or -1 with errno. */
static int read_token(int fd)
{
    char token;
    ssize_t got = libc(recv)(fd, &token, 1, 0);
    if (got == 0) return net_fail(-EINVAL); /* no longer listening */
    return got < 0 ? -1 : 0;
}

static int accept_private(int fd, cse_socket s, struct sockaddr *address, socklen_t *length,
                          int flags)
{
    const struct cse_stack *stack = net_running();
    union cse_address peer;
    cse_socket made;
    uint64_t deadline = WAIT_FOREVER;
    bool asked = false, token = false;
    if (flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) return net_fail(-EINVAL);
    if (CSE_SOCKET_IS_DATAGRAM(s)) return net_fail(-EOPNOTSUPP);
    for (;;) {
        int accepted = stack->accept(s, fd, token, flags, &peer, &made);
        if (accepted == CSE_RELAYED) {
            if (read_token(fd) != 0) return -1;
            token = true;
        } else if (accepted == -EAGAIN && token) {
            token = false; /* its connection is gone with a reset */
        } else if (accepted == -EAGAIN) {
            if (stream_wait(fd, s, EPOLLIN, 0, SO_RCVTIMEO, &deadline, &asked) != 0) return -1;
        } else if (accepted < 0) {
            return net_fail(accepted);
        } else {
            net_remember(accepted, made);
            give_address(&peer, address, length);
            return accepted;
        }
    }
}

CSE_EXPORT int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    cse_socket s = net_find(fd);
    if (s != 0) return accept_private(fd, s, address, length, flags);
    int accepted = libc(accept4)(fd, address, length, flags);
    if (accepted >= 0) cse_fd_forget(accepted);
    return accepted;
}

CSE_EXPORT int accept(int fd, struct sockaddr *address, socklen_t *length)
{
    cse_socket s = net_find(fd);
    if (s != 0) return accept_private(fd, s, address, length, 0);
    int accepted = libc(accept)(fd, address, length);
    if (accepted >= 0) cse_fd_forget(accepted);
    return accepted;
}

/* ---- connect -----------------------------------------------------------------------------------
 */

static int send_timeout_ms(int fd)
{
    struct timeval limit = {0, 0};
    socklen_t size = sizeof limit;
    if (libc(getsockopt)(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &size) != 0) return -1;
    if (limit.tv_sec == 0 && limit.tv_usec == 0) return -1;
    return (int)(limit.tv_sec * 1000 + limit.tv_usec / 1000);
}

/* What the pair itself keeps for the program goes with the descriptor. */
static void copy_pair_options(int from, int to)
{
    static const int names[] = {SO_RCVTIMEO, SO_SNDTIMEO, SO_RCVLOWAT};
    char value[sizeof(struct timeval)];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        socklen_t size = sizeof value;
        if (libc(getsockopt)(from, SOL_SOCKET, names[i], value, &size) == 0)
            libc(setsockopt)(to, SOL_SOCKET, names[i], value, size);
    }
    libc(fcntl)(to, F_SETFL, libc(fcntl)(from, F_GETFL));
}

/* The descriptor becomes that of a socket that can connect anew, if it was not one. */
static int renew(int fd, cse_socket s, bool disconnect)
{
    cse_socket made;
    int flags = libc(fcntl)(fd, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0;
    int other = net_running()->renew(s, fd, disconnect, &made);
    if (other <= 0) return other;
    copy_pair_options(fd, other);
    int replaced = libc(dup3)(other, fd, flags);
    libc(close)(other);
    if (replaced < 0) return -errno;
    net_remember(fd, made);
    epoll_renewed(fd, s, made);
    return 0;
}

/* As connect_wait (stack.h); in direct mode this thread runs the stack meanwhile. */
static int await_connection(int fd, cse_socket s)
{
    const struct cse_stack *stack = net_running();
    uint64_t deadline = WAIT_FOREVER;
    bool asked = false;
    while (!(stack->readiness(s) & (EPOLLOUT | CSE_READY_RELAYED)))
        if (stream_wait(fd, s, EPOLLOUT, 0, SO_SNDTIMEO, &deadline, &asked) != 0)
            return errno == EAGAIN ? -EINPROGRESS : -errno;
    return stack->connect_wait(s, fd, send_timeout_ms(fd));
}

static int connect_private(int fd, cse_socket s, const struct sockaddr *address, socklen_t length)
{
    const struct cse_stack *stack = net_running();
    union cse_address to;
    const union cse_address *wanted = &to;
    if (address != NULL && length >= sizeof(sa_family_t) && address->sa_family == AF_UNSPEC) {
        if (!CSE_SOCKET_IS_DATAGRAM(s)) {
            int failed = renew(fd, s, true);
            return failed == 0 ? 0 : net_fail(failed);
        }
        wanted = NULL;
    } else {
        int failed = take_address(address, &length, &to);
        if (failed != 0) return net_fail(failed);
    }
    bool nonblocking = (libc(fcntl)(fd, F_GETFL) & O_NONBLOCK) != 0;
    int result = stack->connect(s, fd, wanted, length, nonblocking);
    int under_way = result;
    if (!nonblocking && (result == -EINPROGRESS || result == -EALREADY))
        result = await_connection(fd, s);
    if (result == -EINPROGRESS) result = under_way;
    if (result < 0 && result != -EINPROGRESS && result != -EALREADY && result != -EISCONN)
        renew(fd, s, false);
    return result == 0 ? 0 : net_fail(result);
}

CSE_EXPORT int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    cse_socket s = net_find(fd);
    return s != 0 ? connect_private(fd, s, address, length) : netlink_connect(fd, address, length);
}

/* ---- names -------------------------------------------------------------------------------------
 */

static int private_name(cse_socket s, bool peer, struct sockaddr *address, socklen_t *length)
{
    union cse_address name;
    if (address == NULL || length == NULL) return net_fail(-EFAULT);
    int failed = net_running()->name(s, peer, &name);
    if (failed != 0) return net_fail(failed);
    give_address(&name, address, length);
    return 0;
}

CSE_EXPORT int getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
    cse_socket s = net_find(fd);
    return s != 0 ? private_name(s, false, address, length)
                  : netlink_name(fd, false, address, length);
}

CSE_EXPORT int getpeername(int fd, struct sockaddr *address, socklen_t *length)
{
    cse_socket s = net_find(fd);
    return s != 0 ? private_name(s, true, address, length)
                  : netlink_name(fd, true, address, length);
}

/* ---- options -----------------------------------------------------------------------------------
 */

CSE_EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
    cse_socket s = net_find(fd);
    if (s == 0) return netlink_getoption(fd, level, name, value, length);
    if (value == NULL || length == NULL) return net_fail(-EFAULT);
    int result = net_running()->getoption(s, level, name, value, length);
    if (result > 0) return libc(getsockopt)(fd, level, name, value, length);
    if (level == SOL_SOCKET && name == SO_ERROR) { /* the pair's own error has been told as well */
        int ignored;
        socklen_t size = sizeof ignored;
        libc(getsockopt)(fd, level, name, &ignored, &size);
    }
    return result == 0 ? 0 : net_fail(result);
}

CSE_EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
    cse_socket s = net_find(fd);
    if (s == 0) return netlink_setoption(fd, level, name, value, length);
    if (value == NULL && length != 0) return net_fail(-EFAULT);
    int result = net_running()->setoption(s, level, name, value, length);
    if (result > 0) {
        result = libc(setsockopt)(fd, level, name, value, length);
        patience_forget(s);
        return result;
    }
    return result == 0 ? 0 : net_fail(result);
}

CSE_EXPORT int shutdown(int fd, int how)
{
    cse_socket s = net_find(fd);
    if (s == 0) return libc(shutdown)(fd, how);
    if (how < SHUT_RD || how > SHUT_RDWR) return net_fail(-EINVAL);
    int left = net_running()->shutdown(s, how);
    if (left == -EALREADY) return 0; /* nothing is left to do at this end */
    return left >= 0 ? libc(shutdown)(fd, left) : net_fail(left);
}
