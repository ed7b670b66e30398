/* Socket options: what getsockopt and setsockopt say and do. Sizes and defaults are Linux's, since
 * programs test for them; an option of Linux that has no meaning here is taken quietly where a
 * program could not tell the difference, else refused with ENOPROTOOPT.
 */
#include "instance.h"

#include "lwip/priv/tcp_priv.h"

#include <errno.h>
#include <linux/tcp.h>
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

static int tcp_state_of(const struct sock *s)
{
    static const uint8_t linux_state[] = {[0] = 7,          [LISTEN] = 10,     [SYN_SENT] = 2,
                                          [SYN_RCVD] = 3,   [ESTABLISHED] = 1, [FIN_WAIT_1] = 4,
                                          [FIN_WAIT_2] = 5, [CLOSE_WAIT] = 8,  [CLOSING] = 11,
                                          [LAST_ACK] = 9,   [TIME_WAIT] = 6};
    return s->tcp == NULL ? 7 : linux_state[s->tcp->state];
}

static int get_tcp_info(const struct sock *s, void *value, socklen_t *length)
{
    struct tcp_info info = {.tcpi_state = (uint8_t)tcp_state_of(s)};
    const struct tcp_pcb *pcb = s->tcp;
    if (pcb != NULL && pcb->state != LISTEN) {
        info.tcpi_rto = pcb->rto * 1000;
        info.tcpi_rtt = pcb->srtt >> 3;
        info.tcpi_rttvar = pcb->rttvar >> 2;
        info.tcpi_snd_mss = info.tcpi_rcv_mss = info.tcpi_advmss = pcb->mss;
        info.tcpi_pmtu = instance->mtu;
        info.tcpi_snd_cwnd = pcb->cwnd / (pcb->mss ? pcb->mss : 1);
        info.tcpi_snd_ssthresh = pcb->ssthresh / (pcb->mss ? pcb->mss : 1);
        info.tcpi_rcv_space = pcb->rcv_wnd;
        info.tcpi_unacked = pcb->snd_queuelen;
        info.tcpi_retransmits = pcb->nrtx;
    } else if (s->state == LISTENING) {
        info.tcpi_unacked = s->queued;
        info.tcpi_sacked = s->backlog;
    }
    return put(value, length, &info, sizeof info);
}

static int get_tcp(struct sock *s, int name, void *value, socklen_t *length)
{
    if (s->kind != KIND_TCP) return -EOPNOTSUPP;
    int mss = s->tcp != NULL && s->tcp->state != LISTEN && s->state != FRESH ? s->tcp->mss : 536;
    switch (name) {
    case TCP_NODELAY: return put_int(value, length, s->no_delay);
    case TCP_CORK: return put_int(value, length, s->cork);
    case TCP_KEEPIDLE: return put_int(value, length, s->keep_idle);
    case TCP_KEEPINTVL: return put_int(value, length, s->keep_interval);
    case TCP_KEEPCNT: return put_int(value, length, s->keep_count);
    case TCP_USER_TIMEOUT: return put_int(value, length, s->user_timeout_ms);
    case TCP_MAXSEG: return put_int(value, length, s->max_segment ? s->max_segment : mss);
    case TCP_DEFER_ACCEPT: return put_int(value, length, s->defer_accept);
    case TCP_QUICKACK: return put_int(value, length, 1);
    case TCP_SYNCNT: return put_int(value, length, TCP_SYNMAXRTX);
    case TCP_LINGER2: return put_int(value, length, 60);
    case TCP_WINDOW_CLAMP: return put_int(value, length, 0);
    case TCP_FASTOPEN: return put_int(value, length, 0);
    case TCP_NOTSENT_LOWAT: return put_int(value, length, 0);
    case TCP_INFO: return get_tcp_info(s, value, length);
    case TCP_CONGESTION: return put(value, length, "reno\0\0\0\0\0\0\0\0\0\0\0", 16);
    default: return -ENOPROTOOPT;
    }
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
    case SO_RCVBUF: return put_int(value, length, s->receive_buffer);
    case SO_SNDBUF: return put_int(value, length, s->send_buffer);
    case SO_OOBINLINE:
    case SO_DONTROUTE:
    case SO_PRIORITY:
    case SO_MARK:
    case SO_DEBUG:
    case SO_BUSY_POLL: return put_int(value, length, 0);
    case SO_TIMESTAMP: return telling(s, value, length, CSE_TELL_TIME);
    case SO_TIMESTAMPNS: return telling(s, value, length, CSE_TELL_TIME_NS);
    case SO_BINDTODEVICE: *length = 0; return 0;
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
    case IPPROTO_TCP: return get_tcp(s, name, value, length);
    case IPPROTO_IP: return get_ip(s, name, value, length);
    case IPPROTO_IPV6: return option6_get(s, name, value, length);
    default: return -EOPNOTSUPP;
    }
}

/* ---- setting -----------------------------------------------------------------------------------
 */

static int between(int *place, int number, int least, int most)
{
    if (number < least || number > most) return -EINVAL;
    *place = number;
    return 0;
}

static int set_tcp(struct sock *s, int name, int number)
{
    int failed = 0;
    if (s->kind != KIND_TCP) return -ENOPROTOOPT;
    switch (name) {
    case TCP_NODELAY: s->no_delay = number != 0; break;
    case TCP_CORK: s->cork = number != 0; break;
    case TCP_KEEPIDLE: failed = between(&s->keep_idle, number, 1, 32767); break;
    case TCP_KEEPINTVL: failed = between(&s->keep_interval, number, 1, 32767); break;
    case TCP_KEEPCNT: failed = between(&s->keep_count, number, 1, 127); break;
    case TCP_USER_TIMEOUT:
        failed = number < 0 ? -EINVAL : 0;
        s->user_timeout_ms = number;
        break;
    case TCP_MAXSEG: failed = between(&s->max_segment, number, 88, 32767); break;
    case TCP_DEFER_ACCEPT: s->defer_accept = number; break;
    case TCP_QUICKACK:
    case TCP_SYNCNT:
    case TCP_LINGER2:
    case TCP_WINDOW_CLAMP:
    case TCP_NOTSENT_LOWAT:
    case TCP_FASTOPEN: break;
    default: return -ENOPROTOOPT;
    }
    if (failed == 0) tcp_apply_options(s);
    return failed;
}

static int buffer_size(int number)
{
    if (number < 0 || number > BUFFER_MOST / 2) number = BUFFER_MOST / 2;
    return number * 2 < 2304 ? 2304 : number * 2;
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
        s->linger_seconds = linger.l_linger;
        return 0;
    }
    case SO_RCVBUF: s->receive_buffer = buffer_size(number); return 0;
    case SO_SNDBUF: s->send_buffer = buffer_size(number); return 0;
    case SO_RCVTIMEO:
    case SO_SNDTIMEO:
    case SO_RCVLOWAT: return PASS_TO_PAIR;
    case SO_BINDTODEVICE:
    case SO_OOBINLINE:
    case SO_DONTROUTE:
    case SO_PRIORITY:
    case SO_MARK:
    case SO_DEBUG:
    case SO_BUSY_POLL:
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
    if (level == IPPROTO_TCP && name == TCP_CONGESTION) return 0;
    if (level == SOL_SOCKET && name == SO_BINDTODEVICE) return 0;
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
    case IPPROTO_TCP: return set_tcp(s, name, number);
    case IPPROTO_IP: return set_ip(s, name, number);
    case IPPROTO_IPV6: return option6_set(s, name, value, length, number);
    default: return -ENOPROTOOPT;
    }
}
