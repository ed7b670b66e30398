/* Datagram sockets. A datagram from the network becomes one packet in the socket's pair, with its
 * addresses in front (struct cse_datagram); the overlay takes them apart again. Sending goes
 * straight through lwIP in the caller's thread. What arrives at the stack end bare, written
 * by a call that the overlay does not cover, is sent to the connected peer.
 */
#include "instance.h"

#include "lwip/icmp.h"
#include "lwip/ip.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/icmp.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"
#include "lwip/prot/udp.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAYLOAD_MAX = 65507, RECORD_OVERHEAD = 768 };

int udp_make_pcb(struct sock *s)
{
    if (s->udp != NULL) return 0;
    ip_addr_t any;
    address_any(s, &any);
    s->udp = udp_new_ip_type(IP_GET_TYPE(&any));
    if (s->udp == NULL) return -ENOBUFS;
    udp_recv(s->udp, NULL, s);
    ip_set_option(s->udp, SOF_REUSEADDR);
    return 0;
}

static void queue(struct sock *s, struct chunk *chunk)
{
    if (s->rx_last != NULL)
        s->rx_last->next = chunk;
    else
        s->rx_first = chunk;
    s->rx_last = chunk;
    s->rx_bytes += chunk->length + RECORD_OVERHEAD;
    sock_notify(s);
}

static struct chunk *new_record(const struct cse_datagram *header, struct pbuf *payload)
{
    uint16_t bytes = payload != NULL ? payload->tot_len : 0;
    struct chunk *chunk = heap_alloc(sizeof *chunk + sizeof *header + bytes);
    if (chunk == NULL) return NULL;
    *chunk = (struct chunk){.length = (uint32_t)(sizeof *header + bytes)};
    memcpy(chunk + 1, header, sizeof *header);
    if (payload != NULL) pbuf_copy_partial(payload, (char *)(chunk + 1) + sizeof *header, bytes, 0);
    return chunk;
}

void cse_udp_recv(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *address,
                  u16_t port)
{
    struct sock *s = arg;
    struct endpoint from = {*address, port};
    struct cse_datagram header = {.interface = ip_current_input_netif() == instance->loop ? 1 : 2};
    address_give(s, &from, &header.from);
    address_to_in6(ip_current_dest_addr(), &header.destination);
    if (ip_current_is_v6()) {
        header.ttl = IP6H_HOPLIM(ip6_current_header());
        header.tos = (uint8_t)IP6H_TC(ip6_current_header());
    } else {
        header.ttl = IPH_TTL(ip4_current_header());
        header.tos = IPH_TOS(ip4_current_header());
    }
    /* The program's receive buffer is counted as Linux does, overhead included. */
    if (s->rx_bytes < (size_t)s->receive_buffer) {
        struct chunk *chunk = new_record(&header, p);
        if (chunk != NULL) queue(s, chunk);
    } else {
        instance->rx_dropped++;
    }
    pbuf_free(p);
}

/* An error as a record: it wakes the program, which finds it instead of a datagram. */
void udp_push_error(struct sock *s, int error, const struct endpoint *peer)
{
    struct cse_datagram header = {.error = (uint16_t)error};
    address_give(s, peer, &header.from);
    struct chunk *chunk = new_record(&header, NULL);
    if (chunk != NULL) queue(s, chunk);
}

static int error_of_code(u8_t code)
{
    switch (code) {
    case 0: return ENETUNREACH;
    case 1: return EHOSTUNREACH;
    case 2: return ENOPROTOOPT;
    case 3: return ECONNREFUSED;
    case 4: return EMSGSIZE;
    case 9:
    case 10:
    case 13: return EACCES;
    default: return EHOSTUNREACH;
    }
}

/* lwIP got a destination-unreachable message: `p` starts with its ICMP header. */
void cse_icmp_unreachable(struct pbuf *p, u8_t code)
{
    char bytes[sizeof(struct icmp_echo_hdr) + 60 + 8];
    u16_t got = pbuf_copy_partial(p, bytes, sizeof bytes, 0);
    const struct ip_hdr *ip = (const struct ip_hdr *)(bytes + sizeof(struct icmp_echo_hdr));
    if (got < sizeof(struct icmp_echo_hdr) + IP_HLEN + 8) return;
    u16_t header = IPH_HL_BYTES(ip);
    if (header < IP_HLEN || got < sizeof(struct icmp_echo_hdr) + header + 8) return;
    const u16_t *ports = (const u16_t *)((const char *)ip + header); /* source, destination */
    u16_t local = lwip_ntohs(ports[0]), remote = lwip_ntohs(ports[1]);
    int error = error_of_code(code);
    struct endpoint peer = {.port = remote};
    ip_addr_copy_from_ip4(peer.ip, ip->dest);
    if (IPH_PROTO(ip) == IP_PROTO_UDP) {
        for (struct udp_pcb *u = UDP_PCBS(local); u != NULL; u = u->next) {
            struct sock *s = u->recv_arg;
            if (s == NULL || u->local_port != local || !(u->flags & UDP_FLAGS_CONNECTED) ||
                u->remote_port != remote || !ip_addr_eq(&u->remote_ip, &peer.ip))
                continue;
            s->error = error;
            udp_push_error(s, error, &peer);
            return;
        }
    } else if (IPH_PROTO(ip) == IP_PROTO_TCP && code != 4) {
        ip_addr_t local_ip;
        ip_addr_copy_from_ip4(local_ip, ip->src);
        struct tcp_pcb *t = tcp_find(&local_ip, local, &peer.ip, remote);
        if (t != NULL && t->state != TIME_WAIT) tcp_unreachable(t, error);
    }
}

/* ---- to and from the program ------------------------------------------------------------------
 */

void udp_close(struct sock *s)
{
    struct udp_pcb *pcb = s->udp;
    s->udp = NULL;
    if (pcb != NULL) udp_remove(pcb);
}

void udp_take(struct sock *s)
{
    int fd = sock_end(s);
    while (s->tx_ready && fd >= 0) {
        long got =
            syscall(SYS_recvfrom, fd, me.scratch, (long)PAYLOAD_MAX, MSG_DONTWAIT, NULL, NULL);
        if (got < 0 || (got == 0 && s->hang_up)) {
            s->tx_ready = false;
            break;
        }
        if (got == 0) { /* SEQPACKET: an empty packet, or the program shut its end */
            s->tx_ready = false;
            break;
        }
        struct iovec part = {me.scratch, (size_t)got};
        udp_send_parts(s, &part, 1, &(struct cse_sending){.ttl = -1, .tos = -1});
    }
}

void udp_deliver(struct sock *s)
{
    int fd = sock_end(s);
    if (s->hang_up) {
        udp_close(s);
        sock_free(s);
        return;
    }
    while (fd >= 0 && s->rx_first != NULL && !s->rx_blocked) {
        struct chunk *chunk = s->rx_first;
        long sent = syscall(SYS_sendto, fd, chunk + 1, (long)chunk->length,
                            MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
        if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)) {
            pump_want_out(s, true);
            break;
        }
        s->rx_first = chunk->next;
        if (s->rx_first == NULL) s->rx_last = NULL;
        s->rx_bytes -= chunk->length + RECORD_OVERHEAD;
        heap_free(chunk);
    }
    udp_take(s);
}

/* ---- sending ----------------------------------------------------------------------------------
 */

static struct netif *route_to(const struct sock *s, const ip_addr_t *to)
{
    if (IP_IS_V4(to)) return ip4_route(ip_2_ip4(to));
    static const ip6_addr_t any;
    return ip6_route(IP_IS_V6(&s->local.ip) ? ip_2_ip6(&s->local.ip) : &any, ip_2_ip6(to));
}

int udp_connect_to(struct sock *s, const struct endpoint *to)
{
    int failed = udp_make_pcb(s);
    if (failed != 0) return failed;
    if (to == NULL) { /* AF_UNSPEC */
        udp_disconnect(s->udp);
        s->remote.port = 0;
        address_any(s, &s->remote.ip);
        sock_set_state(s, FRESH);
        return 0;
    }
    struct netif *out = route_to(s, &to->ip);
    if (out == NULL) return -ENETUNREACH;
    if (ip_addr_isbroadcast(&to->ip, out) && !s->broadcast) return -EACCES;
    const ip_addr_t *source = ip_netif_get_local_ip(out, &to->ip);
    if (source == NULL) return IP_IS_V6(&to->ip) ? -EADDRNOTAVAIL : -ENETUNREACH;
    err_t error = udp_connect(s->udp, &to->ip, to->port);
    if (error != ERR_OK) return -errno_of(error);
    s->remote = *to;
    s->local.port = s->udp->local_port;
    if (address_is_any(&s->local.ip)) s->local.ip = *source;
    sock_bound(s);
    sock_set_state(s, CONNECTED);
    return 0;
}

static struct pbuf *payload_of(const struct iovec *parts, int count, size_t length)
{
    struct pbuf *p = pbuf_alloc(PBUF_TRANSPORT, (u16_t)length, PBUF_RAM);
    char *at = p != NULL ? p->payload : NULL;
    for (int i = 0; p != NULL && i < count; i++) {
        if (parts[i].iov_len == 0) continue;
        memcpy(at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
    return p;
}

/* The address and port a datagram goes to, and the interface it leaves by. */
static int aim(struct sock *s, const struct cse_sending *how, struct endpoint *to,
               struct netif **out)
{
    if (how->to == NULL) {
        if (s->state != CONNECTED) return -EDESTADDRREQ;
        *to = s->remote;
    } else {
        int failed = address_destination(s, how->to, how->to_length, to);
        if (failed != 0) return failed;
        if (to->port == 0) return -EINVAL;
    }
    *out = route_to(s, &to->ip);
    if (*out == NULL) return -ENETUNREACH;
    return ip_addr_isbroadcast(&to->ip, *out) && !s->broadcast ? -EACCES : 0;
}

ssize_t udp_send_parts(struct sock *s, const struct iovec *parts, int count,
                       const struct cse_sending *how)
{
    size_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    if (length > PAYLOAD_MAX) return -EMSGSIZE;
    if (s->error != 0) {
        int error = s->error;
        s->error = 0;
        return -error;
    }
    struct endpoint to;
    struct netif *out;
    int failed = aim(s, how, &to, &out);
    if (failed == 0) failed = udp_make_pcb(s);
    if (failed != 0) return failed;
    if (s->broadcast)
        ip_set_option(s->udp, SOF_BROADCAST);
    else
        ip_reset_option(s->udp, SOF_BROADCAST);
    s->udp->ttl = s->ttl;
    s->udp->tos = s->tos;
    struct pbuf *p = payload_of(parts, count, length);
    if (p == NULL) return -ENOBUFS;
    err_t error = udp_sendto(s->udp, p, &to.ip, to.port);
    pbuf_free(p);
    s->local.port = s->udp->local_port;
    sock_bound(s);
    if (error == ERR_RTE) return -ENETUNREACH;
    if (error == ERR_MEM || error == ERR_BUF) return -ENOBUFS;
    return error == ERR_OK ? (ssize_t)length : -errno_of(error);
}
