/* Routing sockets (AF_NETLINK, NETLINK_ROUTE) in the program's place.
 *
 * The kernel would speak of the application's empty namespace; programs that ask there for
 * interfaces, addresses and routes (iproute2, dnsmasq, nmap) are to hear of the private stack. The
 * program's descriptor is one end of a pair of packets: what it sends is answered at once, in the
 * sending thread, by writing the answer into the other end, so that waiting and reading are the
 * kernel's. No news are ever sent to groups: an interface of an instance does not change.
 */
#include "netlink.h"
#include "core.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SLOTS = 64, REQUEST_MAX = 16384, OPTION_STRICT = 12, OPTION_BRIEF = 10, OPTIONS = 13 };

struct end {
    int fd; /* the other end, 0: the slot is free, -1: being filled */
    uint32_t type, port, groups;
    uint32_t options; /* bits of NETLINK_* */
};

static struct end ends[SLOTS];
static bool any;

static struct end *end_of(cse_socket s)
{
    return &ends[s >> 32];
}

/* Ends whose last descriptor is closed, in whatever process. */
static void sweep(void)
{
    for (int i = 0; i < SLOTS; i++) {
        int fd = __atomic_load_n(&ends[i].fd, __ATOMIC_ACQUIRE);
        struct pollfd other = {fd, 0, 0};
        if (fd <= 0 || libc(poll)(&other, 1, 0) != 1 || !(other.revents & POLLHUP)) continue;
        if (__atomic_compare_exchange_n(&ends[i].fd, &fd, -1, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED)) {
            cse_own_close(other.fd);
            __atomic_store_n(&ends[i].fd, 0, __ATOMIC_RELEASE);
        }
    }
}

static int take_slot(void)
{
    for (int i = 0; i < SLOTS; i++) {
        int free = 0;
        if (__atomic_compare_exchange_n(&ends[i].fd, &free, -1, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED))
            return i;
    }
    return -1;
}

int netlink_socket(int type, int protocol)
{
    int pair[2], kind = type & 0xf;
    if (kind != SOCK_RAW && kind != SOCK_DGRAM) return net_fail(-ESOCKTNOSUPPORT);
    if (protocol != NETLINK_ROUTE) return net_fail(-EPROTONOSUPPORT);
    sweep();
    int slot = take_slot();
    if (slot < 0) return net_fail(-ENFILE);
    int flags = type & (SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (libc(socketpair)(AF_UNIX, SOCK_SEQPACKET | flags, 0, pair) != 0) pair[1] = -1;
    int own = pair[1] >= 0 ? cse_own_fd(pair[1]) : -1;
    if (own < 0) {
        if (pair[1] >= 0) libc(close)(pair[0]);
        __atomic_store_n(&ends[slot].fd, 0, __ATOMIC_RELEASE);
        return -1;
    }
    ends[slot] = (struct end){.fd = -1, .type = (uint32_t)kind};
    __atomic_store_n(&ends[slot].fd, own, __ATOMIC_RELEASE);
    __atomic_store_n(&any, true, __ATOMIC_RELEASE);
    net_remember(pair[0], NETLINK_HANDLE(slot));
    return pair[0];
}

cse_socket netlink_find(int fd)
{
    uintptr_t known;
    if (!__atomic_load_n(&any, __ATOMIC_ACQUIRE)) return 0;
    return cse_fd_lookup(fd, &known, NULL) && IS_NETLINK(known) ? known : 0;
}

void netlink_closed(void)
{
    sweep();
}

/* ---- names ----------------------------------------------------------------------------------- */

/* The first socket of a process has its number, as in the kernel; the others have some. */
static void bind_end(struct end *end, uint32_t port)
{
    uint32_t wanted = port != 0 ? port : (uint32_t)getpid();
    for (int i = 0; i < SLOTS && port == 0; i++)
        if (ends[i].fd > 0 && ends[i].port == wanted) wanted = (uint32_t)(-4097 - (end - ends));
    end->port = wanted;
}

static int take_name(const struct sockaddr *address, socklen_t length, struct sockaddr_nl *name)
{
    if (address == NULL) return -EFAULT;
    if (length < sizeof *name) return -EINVAL;
    memcpy(name, address, sizeof *name);
    return name->nl_family == AF_NETLINK ? 0 : -EINVAL;
}

int netlink_bind(int fd, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_nl name;
    cse_socket s = netlink_find(fd);
    if (s == 0) return libc(bind)(fd, address, length);
    struct end *end = end_of(s);
    int failed = take_name(address, length, &name);
    if (failed == 0 && end->port != 0 && name.nl_pid != end->port) failed = -EINVAL;
    for (int i = 0; i < SLOTS && failed == 0 && name.nl_pid != 0; i++)
        if (&ends[i] != end && ends[i].fd > 0 && ends[i].port == name.nl_pid) failed = -EADDRINUSE;
    if (failed != 0) return net_fail(failed);
    if (end->port == 0) bind_end(end, name.nl_pid);
    end->groups = name.nl_groups;
    return 0;
}

/* To the kernel it is connected anyway; to others, as one who may not. */
int netlink_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_nl name;
    cse_socket s = netlink_find(fd);
    if (s == 0) return libc(connect)(fd, address, length);
    int failed = take_name(address, length, &name);
    if (failed == 0 && (name.nl_pid != 0 || name.nl_groups != 0)) failed = -EPERM;
    if (failed != 0) return net_fail(failed);
    if (end_of(s)->port == 0) bind_end(end_of(s), 0);
    return 0;
}

int netlink_listen(int fd, int backlog)
{
    return netlink_find(fd) != 0 ? net_fail(-EOPNOTSUPP) : libc(listen)(fd, backlog);
}

int netlink_name(int fd, bool peer, struct sockaddr *address, socklen_t *length)
{
    struct sockaddr_nl name = {.nl_family = AF_NETLINK};
    cse_socket s = netlink_find(fd);
    if (s == 0)
        return peer ? libc(getpeername)(fd, address, length)
                    : libc(getsockname)(fd, address, length);
    if (address == NULL || length == NULL) return net_fail(-EFAULT);
    if (!peer) {
        name.nl_pid = end_of(s)->port;
        name.nl_groups = end_of(s)->groups;
    }
    memcpy(address, &name, *length < sizeof name ? *length : sizeof name);
    *length = sizeof name;
    return 0;
}

/* ---- options --------------------------------------------------------------------------------- */

static int give_number(int number, void *value, socklen_t *length)
{
    if (value == NULL || length == NULL) return net_fail(-EFAULT);
    if (*length > sizeof number) *length = sizeof number;
    memcpy(value, &number, *length);
    return 0;
}

int netlink_getoption(int fd, int level, int name, void *value, socklen_t *length)
{
    cse_socket s = netlink_find(fd);
    if (s == 0) return libc(getsockopt)(fd, level, name, value, length);
    if (level == SOL_SOCKET && name == SO_TYPE)
        return give_number((int)end_of(s)->type, value, length);
    if (level == SOL_SOCKET && name == SO_DOMAIN) return give_number(AF_NETLINK, value, length);
    if (level == SOL_SOCKET && name == SO_PROTOCOL)
        return give_number(NETLINK_ROUTE, value, length);
    if (level != SOL_NETLINK) return libc(getsockopt)(fd, level, name, value, length);
    if (name < 0 || name >= OPTIONS) return net_fail(-ENOPROTOOPT);
    return give_number((int)(end_of(s)->options >> name & 1), value, length);
}

int netlink_setoption(int fd, int level, int name, const void *value, socklen_t length)
{
    int number = 0;
    cse_socket s = netlink_find(fd);
    if (s == 0 || level != SOL_NETLINK) return libc(setsockopt)(fd, level, name, value, length);
    if (name <= 0 || name >= OPTIONS) return net_fail(-ENOPROTOOPT);
    if (value == NULL) return net_fail(-EFAULT);
    if (length < sizeof number) return net_fail(-EINVAL);
    memcpy(&number, value, sizeof number);
    /* Groups are numbers here: they are taken, and nothing is ever sent to them. */
    if (name == NETLINK_ADD_MEMBERSHIP || name == NETLINK_DROP_MEMBERSHIP) {
        uint32_t bit = number >= 1 && number <= 32 ? UINT32_C(1) << (number - 1) : 0;
        struct end *end = end_of(s);
        end->groups = name == NETLINK_ADD_MEMBERSHIP ? end->groups | bit : end->groups & ~bit;
        return 0;
    }
    uint32_t bit = UINT32_C(1) << name;
    end_of(s)->options = number != 0 ? end_of(s)->options | bit : end_of(s)->options & ~bit;
    return 0;
}

/* ---- data ------------------------------------------------------------------------------------ */

ssize_t netlink_receive(int fd, cse_socket s, struct msghdr *message, int flags)
{
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    void *name = message->msg_name;
    socklen_t room = message->msg_namelen;
    if (flags & MSG_OOB) return net_fail(-EOPNOTSUPP);
    ssize_t got = libc(recvmsg)(fd, message, flags);
    if (got < 0 || name == NULL) return got;
    memcpy(name, &kernel, room < sizeof kernel ? room : sizeof kernel);
    message->msg_namelen = sizeof kernel;
    return got;
}

static ssize_t gather(const struct msghdr *message, char *out)
{
    size_t size = 0;
    for (size_t i = 0; i < message->msg_iovlen; i++) {
        const struct iovec *part = &message->msg_iov[i];
        if (part->iov_len > REQUEST_MAX - size) return -EMSGSIZE;
        if (part->iov_len != 0) memcpy(out + size, part->iov_base, part->iov_len);
        size += part->iov_len;
    }
    return (ssize_t)size;
}

ssize_t netlink_transmit(cse_socket s, const struct msghdr *message, int flags)
{
    char bytes[REQUEST_MAX] __attribute__((aligned(NLMSG_ALIGNTO)));
    struct end *end = end_of(s);
    struct sockaddr_nl to = {.nl_family = AF_NETLINK};
    if (flags & MSG_OOB) return net_fail(-EOPNOTSUPP);
    int failed = message->msg_name != NULL && message->msg_namelen != 0
                     ? take_name(message->msg_name, message->msg_namelen, &to)
                     : 0;
    if (failed == 0 && (to.nl_pid != 0 || to.nl_groups != 0)) failed = -EPERM;
    ssize_t size = failed == 0 ? gather(message, bytes) : failed;
    if (size < 0) return net_fail((int)size);
    if (end->port == 0) bind_end(end, 0);
    struct answer answer;
    answer.fd = end->fd;
    answer.port = end->port;
    answer.strict = end->options >> OPTION_STRICT & 1;
    answer.brief = end->options >> OPTION_BRIEF & 1;
    int saved_errno = errno;
    routing_answer(&answer, bytes, (size_t)size);
    errno = saved_errno;
    return answer.overrun ? net_fail(-ENOBUFS) : size;
}
