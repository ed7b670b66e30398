/* Socket options: what getsockopt and setsockopt say and do. Sizes and defaults are Linux's, since
 * programs test for them; an option of Linux that has no meaning here is taken quietly where a
 * program could not tell the difference, else refused with ENOPROTOOPT.
 */
#include "direct.h"

#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <string.h>

#ifndef SO_REUSEPORT
#define SO_REUSEPORT 15
#endif
enum { BUFFER_MOST = 4 << 20, PASS_TO_PAIR = 1 };

static int put(void *value, socklen_t *length, const void *from, size_t size)
{
    if (*length > size) *length = (socklen_t)size;
    memcpy(value, from, *length);
    return 0;
}

static int put_int(void *value, socklen_t *length, int number)
{
    return put(value, length, &number, sizeof number);
}

static int protocol_of(const struct sock *s)
{
    if (s->kind == KIND_PING) return s->family == AF_INET6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
    return s->kind == KIND_TCP ? IPPROTO_TCP : IPPROTO_UDP;
}

static int telling(const struct sock *s, void *value, socklen_t *length, int what)
{
    return put_int(value, length, (s->telling & what) != 0);
}

static void set_telling(struct sock *s, int what, int wanted)
{
    s->telling = (uint8_t)(wanted ? s->telling | what : s->telling & ~what);
}

static int get_device(const struct sock *s, void *value, socklen_t *length)
{
    const char *name = s->device == 0 ? "" : s->device == 1 ? "lo" : "eth0";
    if (*length < IFNAMSIZ) return -EINVAL;
    return put(value, length, name, s->device == 0 ? 0 : strlen(name) + 1);
}

/* As Linux shows it: grown by demand, and with what is spent beside the bytes. */
static int buffer_shown(const struct sock *s, bool receive)
{
    int own = receive ? s->receive_buffer : s->send_buffer;
    const struct tcp_pcb *pcb = s->kind == KIND_TCP && s->state == CONNECTED ? s->tcp : NULL;
    if (pcb == NULL || (receive ? s->receive_fixed : s->send_fixed)) return own;
    int grown = (int)(2 * (receive ? pcb->rcv_most : pcb->snd_most));
    return grown > own ? grown : own;
}

static int get_socket(struct sock *s, int name, void *value, socklen_t *length)
{
    struct linger linger = {s->linger_on, s->linger_seconds};
    int error;
    switch (name) {
    case SO_TYPE: return put_int(value, length, s->kind == KIND_TCP ? SOCK_STREAM : SOCK_DGRAM);
    case SO_DOMAIN: return put_int(value, length, s->family);
    case SO_PROTOCOL: return put_int(value, length, protocol_of(s));
    case SO_ACCEPTCONN: return put_int(value, length, s->state == LISTENING);
    case SO_ERROR:
        error = s->error;
        s->error = 0;
        return put_int(value, length, error);
    case SO_REUSEADDR: return put_int(value, length, s->reuse_address);
    case SO_REUSEPORT: return put_int(value, length, s->reuse_port);
    case SO_KEEPALIVE: return put_int(value, length, s->keep_alive);
    case SO_BROADCAST: return put_int(value, length, s->broadcast);
    case SO_LINGER: return put(value, length, &linger, sizeof linger);
    case SO_RCVBUF: return put_int(value, length, buffer_shown(s, true));
    case SO_SNDBUF: return put_int(value, length, buffer_shown(s, false));
    case SO_OOBINLINE: return put_int(value, length, s->oob_inline);
    case SO_PRIORITY: return put_int(value, length, s->priority);
    case SO_DONTROUTE:
    case SO_MARK:
    case SO_DEBUG:
    case SO_BUSY_POLL: return put_int(value, length, 0);
    case SO_TIMESTAMP: return telling(s, value, length, CSE_TELL_TIME);
    case SO_TIMESTAMPNS: return telling(s, value, length, CSE_TELL_TIME_NS);
    case SO_BINDTODEVICE: return get_device(s, value, length);
    /* Kept by the pair itself, which is what blocks. */
    case SO_RCVTIMEO:
    case SO_SNDTIMEO:
    case SO_RCVLOWAT: return PASS_TO_PAIR;
    case SO_SNDLOWAT: return put_int(value, length, 1);
    case SO_PEERCRED:
    case SO_PEERSEC: return -ENOPROTOOPT;
    default: return -ENOPROTOOPT;
    }
}

static int get_multicast_interface(const struct sock *s, void *value, socklen_t *length)
{
    uint32_t address = s->multicast_interface == 1   ? lwip_htonl(INADDR_LOOPBACK)
                       : s->multicast_interface == 2 ? instance->address
                                                     : INADDR_ANY;
    return put(value, length, &address, sizeof address);
}

static int get_ip(struct sock *s, int name, void *value, socklen_t *length)
{
    switch (name) {
    case IP_TTL: return put_int(value, length, s->ttl);
    case IP_TOS: return put_int(value, length, s->tos);
    case IP_PKTINFO: return telling(s, value, length, CSE_TELL_PKTINFO);
    case IP_RECVTTL: return telling(s, value, length, CSE_TELL_TTL);
    case IP_RECVTOS: return telling(s, value, length, CSE_TELL_TOS);
    case IP_RECVERR: return put_int(value, length, s->receive_error);
    case IP_MTU_DISCOVER: return put_int(value, length, IP_PMTUDISC_WANT);
    case IP_MTU:
        if (s->state != CONNECTED) return -ENOTCONN;
        return put_int(value, length, instance->mtu);
    case IP_MULTICAST_TTL: return put_int(value, length, s->multicast_ttl);
    case IP_MULTICAST_LOOP: return put_int(value, length, !s->no_multicast_loop);
    case IP_MULTICAST_ALL: return put_int(value, length, 1);
    case IP_MULTICAST_IF: return get_multicast_interface(s, value, length);
    case IP_FREEBIND:
    case IP_TRANSPARENT:
    case IP_BIND_ADDRESS_NO_PORT: return put_int(value, length, 0);
    case IP_OPTIONS: *length = 0; return 0;
    default: return -ENOPROTOOPT;
    }
}

int option_get(struct sock *s, int level, int name, void *value, socklen_t *length)
{
    switch (level) {
    case SOL_SOCKET: return get_socket(s, name, value, length);
    case IPPROTO_TCP: return option_tcp_get(s, name, value, length);
    case IPPROTO_IP: return get_ip(s, name, value, length);
    case IPPROTO_IPV6: return option6_get(s, name, value, length);
    default: return -EOPNOTSUPP;
    }
}

/* ---- setting -----------------------------------------------------------------------------------
 */

static int buffer_size(int number)
{
    if (number < 0 || number > BUFFER_MOST / 2) number = BUFFER_MOST / 2;
    return number * 2 < 2304 ? 2304 : number * 2;
}

static int set_receive_low(struct sock *s, int number)
{
    if (number < 0 || number > s->receive_buffer / 2) number = s->receive_buffer / 2;
    s->receive_low = number == 0 ? 1 : (uint32_t)number;
    direct_wish(s);
    direct_publish(s);
    return PASS_TO_PAIR;
}

static int set_device(struct sock *s, const void *value, socklen_t length)
{
    char name[IFNAMSIZ] = {0};
    memcpy(name, value, length < IFNAMSIZ - 1 ? length : IFNAMSIZ - 1);
    if (name[0] == '\0')
        s->device = 0;
    else if (strcmp(name, "lo") == 0)
        s->device = 1;
    else if (strcmp(name, "eth0") == 0)
        s->device = 2;
    else
        return -ENODEV;
    struct netif *netif = s->device == 0 ? NULL : s->device == 1 ? instance->loop : instance->tap;
    if (s->udp != NULL) udp_bind_netif(s->udp, netif);
    tcp_apply_options(s);
    return 0;
}

static int set_socket(struct sock *s, int name, const void *value, socklen_t length, int number)
{
    switch (name) {
    case SO_REUSEADDR: s->reuse_address = number != 0; return 0;
    case SO_REUSEPORT: s->reuse_port = number != 0; return 0;
    case SO_KEEPALIVE:
        s->keep_alive = number != 0;
        tcp_apply_options(s);
        return 0;
    case SO_BROADCAST: s->broadcast = number != 0; return 0;
    case SO_TIMESTAMP:
    case SO_TIMESTAMPNS:
        set_telling(s, CSE_TELL_TIME | CSE_TELL_TIME_NS, 0);
        set_telling(s, name == SO_TIMESTAMP ? CSE_TELL_TIME : CSE_TELL_TIME_NS, number);
        return 0;
    case SO_LINGER: {
        struct linger linger;
        if (length < sizeof linger) return -EINVAL;
        memcpy(&linger, value, sizeof linger);
        s->linger_on = linger.l_onoff != 0;
        if (s->linger_on)
            s->linger_seconds =
                (unsigned)linger.l_linger > INT_MAX / 1000 ? INT_MAX / 1000 : linger.l_linger;
        direct_publish(s); /* close has to know */
        return 0;
    }
    case SO_RCVBUF:
        s->receive_buffer = buffer_size(number);
        s->receive_fixed = true;
        tcp_apply_options(s);
        buffers_fit_pair(s);
        return 0;
    case SO_SNDBUF:
        s->send_buffer = buffer_size(number);
        s->send_fixed = true;
        tcp_apply_options(s);
        return s->kind == KIND_TCP ? PASS_TO_PAIR : 0;
    case SO_RCVTIMEO:
    case SO_SNDTIMEO: return PASS_TO_PAIR;
    case SO_RCVLOWAT: return set_receive_low(s, number);
    case SO_OOBINLINE: s->oob_inline = number != 0; return 0;
    /* What has no effect here, or is for the privileged only, as to a program that is not. */
    case SO_PRIORITY:
        if (number < 0 || number > 6) return -EPERM;
        s->priority = (uint8_t)number;
        return 0;
    case SO_MARK: return number == 0 ? 0 : -EPERM;
    case SO_BUSY_POLL: return number < 0 ? -EINVAL : number == 0 ? 0 : -EPERM;
    case SO_DEBUG: return number == 0 ? 0 : -EACCES;
    case SO_DONTROUTE: return number == 0 ? 0 : -ENOPROTOOPT;
    case SO_NO_CHECK: return 0;
    case SO_TYPE:
    case SO_DOMAIN:
    case SO_PROTOCOL:
    case SO_ERROR:
    case SO_ACCEPTCONN: return -ENOPROTOOPT;
    default: return -ENOPROTOOPT;
    }
}

static int set_ip(struct sock *s, int name, int number)
{
    switch (name) {
    case IP_TTL:
        if (number != -1 && (number < 1 || number > 255)) return -EINVAL;
        s->ttl = (uint8_t)(number == -1 ? instance->default_ttl : number);
        break;
    case IP_TOS: s->tos = (uint8_t)number; break;
    case IP_PKTINFO: set_telling(s, CSE_TELL_PKTINFO, number); break;
    case IP_RECVTTL: set_telling(s, CSE_TELL_TTL, number); break;
    case IP_RECVTOS: set_telling(s, CSE_TELL_TOS, number); break;
    case IP_RECVERR:
        s->receive_error = number != 0;
        if (!s->receive_error) problem_drop(s);
        break;
    case IP_MTU_DISCOVER:
    case IP_FREEBIND:
    case IP_BIND_ADDRESS_NO_PORT:
    case IP_MULTICAST_ALL:
    case IP_RETOPTS: break;
    default: return -ENOPROTOOPT;
    }
    tcp_apply_options(s);
    return 0;
}

int option_set(struct sock *s, int level, int name, const void *value, socklen_t length)
{
    int number = 0;
    if (level == IPPROTO_TCP && name == TCP_CONGESTION)
        return option_congestion_set(s, value, length);
    if (level == SOL_SOCKET && name == SO_BINDTODEVICE) return set_device(s, value, length);
    if (level == IPPROTO_IP || level == IPPROTO_IPV6) {
        int done = group_option(s, level, name, value, length);
        if (done <= 0) return done;
    }
    if (level == IPPROTO_IP && length == 1)
        number = *(const unsigned char *)value;
    else if (length >= sizeof number)
        memcpy(&number, value, sizeof number);
    else
        return -EINVAL;
    switch (level) {
    case SOL_SOCKET: return set_socket(s, name, value, length, number);
    case IPPROTO_TCP: return option_tcp_set(s, name, number);
    case IPPROTO_IP: return set_ip(s, name, number);
    case IPPROTO_IPV6: return option6_set(s, name, value, length, number);
    default: return -ENOPROTOOPT;
    }
}
