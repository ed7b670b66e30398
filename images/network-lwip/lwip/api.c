/* The implementation's table of functions (stack.h), as the overlay calls them: each takes the
 * lock, finds the socket, and lets the part of the stack concerned do the work.
 */
#include "api.h"
#include "core.h"
#include "direct.h"
#include "keeper.h"
#include "wire.h"

#include "lwip/ip.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { RESOLVE_MS = 2000 };

static enum sock_kind kind_of(int type, int protocol)
{
    if (type == SOCK_STREAM) return KIND_TCP;
    return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 ? KIND_PING : KIND_UDP;
}

static int make_socket(int family, int type, int protocol, int flags, cse_socket *made)
{
    sigset_t saved;
    instance_lock(&saved);
    struct sock *s = sock_new(kind_of(type, protocol), family);
    int fd = -ENOBUFS;
    if (s != NULL) {
        fd = sock_make_pair(s, flags);
        if (fd < 0)
            sock_free(s);
        else
            *made = sock_handle(s);
    }
    instance_unlock(&saved);
    return fd;
}

static int api_socket(int family, int type, int protocol, int flags, cse_socket *made)
{
    int failed = pump_ensure();
    if (failed != 0) return failed;
    int fd = make_socket(family, type, protocol, flags, made);
    return room_after(fd) ? make_socket(family, type, protocol, flags, made) : fd;
}

/* Without the lock: of a socket that the caller has made just now. */
static uint64_t api_inode(cse_socket handle)
{
    const struct sock *s = sock_get(handle);
    return s != NULL ? s->inode : 0;
}

static cse_socket api_find(uint64_t inode)
{
    if (!instance_running()) return 0;
    sigset_t saved;
    instance_lock(&saved);
    struct sock *s = sock_by_inode(inode);
    cse_socket handle = s != NULL ? sock_handle(s) : 0;
    instance_unlock(&saved);
    return handle;
}

/* Under a name that nobody else has. */
int bind_pcb(struct sock *s, const struct endpoint *to)
{
    s->local_given = !address_is_any(&to->ip);
    s->port_given = to->port != 0;
    if (s->kind == KIND_PING) return ping_bind(s, to);
    int failed = s->kind == KIND_TCP ? tcp_make_pcb(s) : udp_make_pcb(s);
    if (failed != 0) return failed;
    err_t error = s->kind == KIND_TCP ? tcp_bind(s->tcp, &to->ip, to->port)
                                      : udp_bind(s->udp, &to->ip, to->port);
    if (error != ERR_OK) return -errno_of(error);
    s->local.ip = to->ip;
    s->local.port = s->kind == KIND_TCP ? s->tcp->local_port : s->udp->local_port;
    sock_bound(s);
    return 0;
}

static int start_bind(struct sock *s, const union cse_address *address, socklen_t length)
{
    struct endpoint to;
    int failed = address_take(s, address, length, &to);
    /* Linux takes AF_UNSPEC for AF_INET if the address is 0. */
    if (failed == -EAFNOSUPPORT && s->family == AF_INET && address->family == AF_UNSPEC &&
        address->in.sin_addr.s_addr == 0) {
        union cse_address any = *address;
        any.family = AF_INET;
        failed = address_take(s, &any, length, &to);
    }
    if (failed == -ENETUNREACH) failed = -EINVAL; /* a mapped address where only IPv6 is wanted */
    if (failed != 0) return failed;
    bool group =
        s->kind == KIND_UDP && (address_is_broadcast(&to.ip) || ip_addr_ismulticast(&to.ip));
    if (s->bound || s->state != FRESH) return -EINVAL;
    if (IP_IS_V6(&to.ip) && ip6_addr_lacks_zone(ip_2_ip6(&to.ip), IP6_UNKNOWN)) return -EINVAL;
    if (!address_is_own(&to.ip) && !group) return -EADDRNOTAVAIL;
    failed = s->kind != KIND_PING ? sock_check_bind(s, &to) : 0;
    return failed != 0 ? failed : bind_pcb(s, &to);
}

static int api_bind(cse_socket handle, const union cse_address *address, socklen_t length)
{
    return WITH_SOCKET(handle, { result = start_bind(s, address, length); });
}

static int api_listen(cse_socket handle, int fd, int backlog)
{
    return WITH_SOCKET(handle, {
        if (s->kind != KIND_TCP)
            result = -EOPNOTSUPP;
        else if (s->state != FRESH && s->state != LISTENING)
            result = -EINVAL;
        else
            result = listen_start(s, backlog);
        if (result == 0 && s->junk == 0) pair_fill(s, fd);
        if (result == 0 && !s->direct) direct_start(s);
    });
}

/* Takes the oldest connection of a listener's queue; the program's end, or why not. */
static int take_connection(struct sock *s, int flags, union cse_address *peer, cse_socket *made)
{
    struct sock *taken = listen_take(s);
    if (taken == NULL) return -EAGAIN;
    address_give(taken, &taken->remote, peer);
    int fd = sock_make_pair(taken, flags);
    if (fd >= 0) {
        *made = sock_handle(taken);
        direct_start(taken);
        if (taken->direct) taken->tx_ready = false; /* nobody can have written yet */
        sock_notify(taken);
        if (s->direct) sock_notify(s); /* what it now says to poll */
    } else { /* no descriptor free: it stays first in the queue, with a new token */
        taken->listener = s;
        taken->queue_next = s->queue_first;
        s->queue_first = taken;
        if (s->queue_last == NULL) s->queue_last = taken;
        s->queued++;
        sock_notify(s);
    }
    return fd;
}

static int accept_one(cse_socket handle, int fd, bool token, int flags, union cse_address *peer,
                      cse_socket *made)
{
    return WITH_SOCKET(handle, {
        if (s->state != LISTENING)
            result = -EINVAL;
        else if (!token && !direct_listens(s, fd))
            result = CSE_RELAYED;
        else
            result = take_connection(s, flags, peer, made);
    });
}

static int api_accept(cse_socket handle, int fd, bool token, int flags, union cse_address *peer,
                      cse_socket *made)
{
    int failed = pump_ensure();
    if (failed != 0) return failed;
    int taken = accept_one(handle, fd, token, flags, peer, made);
    if (!room_after(taken)) return taken;
    /* What could not be taken has a new token. */
    return token ? CSE_RELAYED : accept_one(handle, fd, false, flags, peer, made);
}

/* Above 0: it is connected meanwhile, or was. */
static int api_refusal(cse_socket handle, bool sending)
{
    return WITH_SOCKET(handle, {
        bool failed = s->state == ENDED && s->connect_failed;
        int error = s->error;
        if (s->state != FRESH && s->state != LISTENING && !failed)
            result = 1;
        else if (error != 0)
            s->error = 0, result = -error;
        else if (sending)
            result = -EPIPE;
        else
            result = failed ? 0 : -ENOTCONN;
    });
}

/* ---- names, options, the rest
 * --------------------------------------------------------------------- */

static int api_name(cse_socket handle, bool peer, union cse_address *address)
{
    return WITH_SOCKET(handle, {
        bool connected = s->state == CONNECTED || (s->state == ENDED && s->tcp != NULL);
        if (s->kind == KIND_PING && s->remote.port == 0) connected = false; /* as in Linux */
        if (peer && !connected) {
            result = -ENOTCONN;
        } else {
            address_give(s, peer ? &s->remote : &s->local, address);
            result = 0;
        }
    });
}

static int api_getoption(cse_socket handle, int level, int name, void *value, socklen_t *length)
{
    return WITH_SOCKET(handle, { result = option_get(s, level, name, value, length); });
}

static int api_setoption(cse_socket handle, int level, int name, const void *value,
                         socklen_t length)
{
    return WITH_SOCKET(handle, { result = option_set(s, level, name, value, length); });
}

/* SHUT_RD is the stack end shut for writing; only SHUT_WR is left for the program's own end, as
 * both on that side would look like a close. */
static int api_shutdown(cse_socket handle, int how)
{
    return WITH_SOCKET(handle, {
        result = how;
        bool direct = s->direct;
        if (s->kind == KIND_TCP && s->state != CONNECTED && s->state != LISTENING) {
            result = -ENOTCONN;
        } else if (s->state == LISTENING) {
            if (how != SHUT_WR) { /* Linux: stops listening; accept returns EINVAL */
                direct_stop(s);
                listen_close(s);
                sock_set_state(s, FRESH);
                sock_unbound(s);
                result = SHUT_RD;
            }
        } else if (s->kind == KIND_TCP && how != SHUT_WR) {
            s->read_shut = true;
            int fd = sock_end(s);
            if (fd >= 0) syscall(SYS_shutdown, fd, SHUT_WR);
            s->fin_delivered = true;
            result = how == SHUT_RD ? -EALREADY : SHUT_WR;
        }
        if (direct && s->direct && how != SHUT_RD) direct_half_close(s);
    });
}

static void api_closed(cse_socket handle)
{
    if (direct_readiness(handle) & CSE_LINGERS)
        linger_close(handle);
    else
        fresh_closed(handle);
}

static ssize_t api_send(cse_socket handle, const struct iovec *parts, int count,
                        const struct cse_sending *how)
{
    sigset_t saved;
    ssize_t result = -EBADF;
    instance_lock(&saved);
    struct sock *s = sock_get(handle);
    if (s != NULL)
        result = s->kind == KIND_PING ? ping_send(s, parts, count, how)
                                      : udp_send_parts(s, parts, count, how);
    instance_unlock(&saved);
    return result;
}

static int api_take_error(cse_socket handle)
{
    return WITH_SOCKET(handle, {
        result = s->error;
        s->error = 0;
    });
}

static bool api_take_problem(cse_socket handle, struct cse_problem *problem)
{
    return WITH_SOCKET(handle, { result = problem_take(s, problem); }) == 1;
}

/* Without the lock, as poll asks often: the arena stays mapped, whatever happens to the socket. */
static bool api_has_problem(cse_socket handle)
{
    const struct sock *s = sock_get(handle);
    return s != NULL && s->kind != KIND_TCP &&
           (__atomic_load_n(&s->problems, __ATOMIC_RELAXED) != NULL || s->error != 0);
}

static unsigned api_telling(cse_socket handle)
{
    int result = WITH_SOCKET(handle, { result = s->telling; });
    return result < 0 ? 0 : (unsigned)result;
}

void broker_hello(char *out, size_t size, const char *more);

static int resolved(const char *answer, union cse_address *list, int room)
{
    char value[64];
    int count = 0;
    memset(list, 0, (size_t)room * sizeof *list);
    if (count < room && host->message_field(answer, "address6", value, sizeof value) &&
        inet_pton(AF_INET6, value, &list[count].in6.sin6_addr) == 1)
        list[count++].family = AF_INET6;
    if (count < room && host->message_field(answer, "address", value, sizeof value) &&
        inet_pton(AF_INET, value, &list[count].in.sin_addr) == 1)
        list[count++].family = AF_INET;
    return count;
}

/* On a connection of its own: the instance's belongs to the leader's pump. */
static int api_resolve(const char *name, union cse_address *list, int room)
{
    char text[1400];
    struct cse_message answer;
    if (host->setting("tap") != NULL) return -ENOENT;
    int broker = host->broker_connect(0), result = -ENOENT;
    if (broker < 0) return result;
    broker_hello(text, sizeof text, " attach=1");
    if (!host->broker_send(broker, text, NULL, 0) ||
        host->broker_receive(broker, &answer, RESOLVE_MS) != 1)
        goto done;
    for (int i = 0; i < answer.fd_count; i++) host->own_close(answer.fds[i]);
    size_t used = (size_t)snprintf(text, sizeof text, "resolve id=1 name=");
    for (const char *c = name; *c != '\0' && used + 4 < sizeof text; c++) {
        if (*c <= ' ' || *c == '%')
            used += (size_t)snprintf(text + used, 4, "%%%02X", *c & 0xff);
        else
            text[used++] = *c;
    }
    text[used] = '\0';
    if (!host->broker_send(broker, text, NULL, 0)) goto done;
    while (host->broker_receive(broker, &answer, RESOLVE_MS) == 1) {
        if (strncmp(answer.text, "resolved ", 9) != 0) continue;
        result = resolved(answer.text, list, room);
        break;
    }
done:
    host->own_close(broker);
    return result;
}

static void describe(struct cse_interface *out, const char *name, const struct netif *netif,
                     int index)
{
    memset(out, 0, sizeof *out);
    strcpy(out->name, name);
    out->address = netif_ip4_addr(netif)->addr;
    out->netmask = netif_ip4_netmask(netif)->addr;
    out->broadcast = out->address | ~out->netmask;
    /* The link-local address is lwIP's first, and shown last. */
    for (int i = LWIP_IPV6_NUM_ADDRESSES - 1; i >= 0 && out->count6 < CSE_ADDRESSES6_MAX; i--) {
        const ip6_addr_t *address = netif_ip6_addr(netif, i);
        if (!ip6_addr_isvalid(netif_ip6_addr_state(netif, i))) continue;
        memcpy(&out->address6[out->count6], address->addr, sizeof address->addr);
        out->prefix6[out->count6++] = ip6_addr_isloopback(address)    ? 128
                                      : ip6_addr_islinklocal(address) ? 64
                                                                      : instance->prefix6;
    }
    memcpy(out->mac, netif->hwaddr, 6);
    out->mtu = netif->mtu;
    out->index = index;
    out->up = true;
    out->loopback = netif == instance->loop;
}

static int api_interfaces(struct cse_interface *list, int room)
{
    if (room < 2) return -EINVAL;
    sigset_t saved;
    instance_lock(&saved);
    describe(&list[0], "lo", instance->loop, 1);
    describe(&list[1], "eth0", instance->tap, 2);
    list[1].rx_packets = instance->rx_packets;
    list[1].tx_packets = instance->tx_packets;
    list[1].rx_bytes = instance->rx_bytes;
    list[1].tx_bytes = instance->tx_bytes;
    list[1].gateway = instance->gateway;
    memcpy(&list[1].gateway6, instance->gateway6.addr, sizeof list[1].gateway6);
    instance_unlock(&saved);
    return 2;
}

static const struct cse_stack stack = {
    .version = CSE_STACK_VERSION,
    .start = instance_start,
    .running = instance_running,
    .socket = api_socket,
    .find = api_find,
    .inode = api_inode,
    .bind = api_bind,
    .listen = api_listen,
    .accept = api_accept,
    .connect = api_connect,
    .connect_wait = api_connect_wait,
    .renew = renew_socket,
    .refusal = api_refusal,
    .closed = api_closed,
    .name = api_name,
    .getoption = api_getoption,
    .setoption = api_setoption,
    .shutdown = api_shutdown,
    .send = api_send,
    .receive = direct_receive,
    .transmit = direct_transmit,
    .readiness = direct_readiness,
    .relay = direct_relay,
    .enter = instance_lock,
    .leave = instance_unlock,
    .turn = direct_turn,
    .pending = wire_pending,
    .polls = direct_polls,
    .spin_us = direct_spin_us,
    .spin = direct_spin,
    .sleep = direct_sleep,
    .bells = direct_bells,
    .heard = direct_heard,
    .take_error = api_take_error,
    .take_problem = api_take_problem,
    .has_problem = api_has_problem,
    .telling = api_telling,
    .resolve = api_resolve,
    .interfaces = api_interfaces,
    .entrust = keeper_entrust,
    .before_spawn = spawned_before,
    .before_exec = process_before_exec,
    .exec_failed = process_exec_failed,
    .before_exit = process_before_exit,
    .confined = process_confined,
    .threads = pump_threads,
};

CSE_EXPORT const struct cse_stack *cse_stack_open(const struct cse_host *lent)
{
    host = lent;
    return &stack;
}
