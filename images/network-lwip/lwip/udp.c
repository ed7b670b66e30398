/* Datagram sockets. A datagram from the network becomes one packet in the socket's pair, with its
 * addresses in front (struct cse_datagram); the overlay takes them apart again. Sending goes
 * straight through lwIP in the caller's thread. What arrives at the stack end bare, written
 * by a call that the overlay does not cover, is sent to the connected peer.
 */
#include "instance.h"

#include "lwip/ip.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"
#include "lwip/prot/udp.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAYLOAD_MAX = 65507, PAYLOAD6_MAX = 65535 - 40 - 8, RECORD_OVERHEAD = 768 };

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

static int64_t arrival(const struct sock *s)
{
    struct timespec now;
    if (!(s->telling & (CSE_TELL_TIME | CSE_TELL_TIME_NS))) return 0;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The datagram that lwIP is just passing up, for the program to read. */
void udp_push_datagram(struct sock *s, struct pbuf *p, const struct endpoint *from)
{
    struct cse_datagram header = {.interface = ip_current_input_netif() == instance->loop ? 1 : 2,
                                  .time_ns = arrival(s)};
    address_give(s, from, &header.from);
    address_to_in6(ip_current_dest_addr(), &header.destination);
    if (ip_current_is_v6()) {
        header.ttl = IP6H_HOPLIM(ip6_current_header());
        header.tos = (uint8_t)IP6H_TC(ip6_current_header());
    } else {
        header.ttl = IPH_TTL(ip4_current_header());
        header.tos = IPH_TOS(ip4_current_header());
    }
    /* The program's receive buffer is counted as Linux does, overhead included. */
    struct chunk *chunk = NULL;
    if (s->rx_bytes < (size_t)s->receive_buffer) chunk = new_record(&header, p);
    if (chunk != NULL)
        queue(s, chunk);
    else
        instance->rx_dropped++;
}

void cse_udp_recv(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *address,
                  u16_t port)
{
    struct endpoint from = {*address, port};
    udp_push_datagram(arg, p, &from);
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

/* ---- to and from the program ------------------------------------------------------------------
 */

void udp_close(struct sock *s)
{
    struct udp_pcb *pcb = s->udp;
    s->udp = NULL;
    group_leave_all(s);
    problem_drop(s);
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
        struct cse_sending how = {.ttl = -1, .tos = -1};
        if (s->kind == KIND_PING)
            ping_send(s, &part, 1, &how);
        else
            udp_send_parts(s, &part, 1, &how);
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

static struct netif *interface_of(int index)
{
    return index == 1 ? instance->loop : index == 2 ? instance->tap : NULL;
}

/* The interface that a datagram to `to` leaves by: the sender's choice, else the socket's for
 * groups, else the route's. */
static struct netif *route_to(const struct sock *s, const ip_addr_t *to, int wanted)
{
    static const ip6_addr_t any;
    if (wanted == 0 && ip_addr_ismulticast(to))
        wanted = IP_IS_V6(to) ? s->multicast_interface6 : s->multicast_interface;
    if (wanted != 0) return interface_of(wanted);
    if (IP_IS_V4(to)) return ip4_route(ip_2_ip4(to));
    bool scoped = IP_IS_V6(&s->local.ip) && !ip6_addr_isany(ip_2_ip6(&s->local.ip));
    return ip6_route(scoped ? ip_2_ip6(&s->local.ip) : &any, ip_2_ip6(to));
}

/* As whom it is sent: what the sender says (if ours), what the socket is bound to, what fits. */
static int choose_source(const struct sock *s, const struct cse_sending *how, const ip_addr_t *to,
                         struct netif *out, ip_addr_t *source)
{
    if (how->has_source) {
        struct sock any = {.family = AF_INET6, .kind = KIND_UDP};
        struct endpoint given;
        union cse_address address = {.in6 = {.sin6_family = AF_INET6, .sin6_addr = how->source}};
        address.in6.sin6_scope_id = IN6_IS_ADDR_LINKLOCAL(&how->source) ? 2 : 0;
        if (address_take(&any, &address, sizeof address.in6, &given) != 0) return -EINVAL;
        if (!address_is_any(&given.ip)) {
            if (IP_IS_V6(&given.ip) != IP_IS_V6(to) || !address_is_own(&given.ip)) return -EINVAL;
            *source = given.ip;
            return 0;
        }
    }
    bool bound = !address_is_any(&s->local.ip) && !ip_addr_ismulticast(&s->local.ip) &&
                 !address_is_broadcast(&s->local.ip) && IP_IS_V6(&s->local.ip) == IP_IS_V6(to);
    const ip_addr_t *fitting = bound ? &s->local.ip : ip_netif_get_local_ip(out, to);
    if (fitting == NULL) return IP_IS_V6(to) ? -EADDRNOTAVAIL : -ENETUNREACH;
    *source = *fitting;
    return 0;
}

/* Where a datagram goes: address and port, interface, source. */
int udp_aim(struct sock *s, const struct cse_sending *how, struct endpoint *to, struct netif **out,
            ip_addr_t *source)
{
    if (s->error != 0) {
        int error = s->error;
        s->error = 0;
        return -error;
    }
    if (how->to == NULL) {
        if (s->state != CONNECTED) return -EDESTADDRREQ;
        *to = s->remote;
    } else {
        int failed = address_destination(s, how->to, how->to_length, false, to);
        if (failed != 0) return failed;
        if (to->port == 0 && s->kind == KIND_UDP) return -EINVAL;
    }
    if (how->interface > 2) return -ENODEV;
    *out = route_to(s, &to->ip, how->interface);
    if (*out == NULL) return -ENETUNREACH;
    if (ip_addr_isbroadcast(&to->ip, *out) && !s->broadcast) return -EACCES;
    return choose_source(s, how, &to->ip, *out, source);
}

/* From now on its datagrams go to `to` and come from there; NULL dissolves that. */
int udp_set_peer(struct sock *s, const struct endpoint *to)
{
    static const struct cse_sending plain;
    if (to == NULL) { /* AF_UNSPEC */
        if (s->udp != NULL) udp_disconnect(s->udp);
        s->remote.port = 0;
        address_any(s, &s->remote.ip);
        if (!s->local_given) address_any(s, &s->local.ip);
        sock_set_state(s, FRESH);
        return 0;
    }
    struct netif *out = route_to(s, &to->ip, 0);
    ip_addr_t source;
    if (out == NULL) return -ENETUNREACH;
    if (ip_addr_isbroadcast(&to->ip, out) && !s->broadcast) return -EACCES;
    int failed = choose_source(s, &plain, &to->ip, out, &source);
    if (failed == 0 && s->udp != NULL) failed = -errno_of(udp_connect(s->udp, &to->ip, to->port));
    if (failed != 0) return failed;
    s->remote = *to;
    if (address_is_any(&s->local.ip)) s->local.ip = source;
    sock_set_state(s, CONNECTED);
    return 0;
}

int udp_connect_to(struct sock *s, const struct endpoint *to)
{
    int failed = udp_make_pcb(s);
    if (failed == 0) failed = udp_set_peer(s, to);
    if (failed != 0 || to == NULL) return failed;
    s->local.port = s->udp->local_port;
    sock_bound(s);
    return 0;
}

struct pbuf *udp_payload(const struct iovec *parts, int count, size_t length)
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

/* Time to live, class, and whether this instance hears what it sends to a group. */
static void mark(struct sock *s, const struct cse_sending *how, const struct endpoint *to,
                 const struct netif *out, struct pbuf *p)
{
    bool v6 = IP_IS_V6(&to->ip), group = ip_addr_ismulticast(&to->ip);
    bool broadcast = ip_addr_isbroadcast(&to->ip, out);
    uint8_t ttl = v6 ? (group ? s->multicast_hops : s->hops) : group ? s->multicast_ttl : s->ttl;
    s->udp->ttl = how->ttl >= 0 ? (u8_t)how->ttl : ttl;
    udp_set_multicast_ttl(s->udp, s->udp->ttl);
    s->udp->tos = how->tos >= 0 ? (u8_t)how->tos : v6 ? s->traffic_class : s->tos;
    if (s->broadcast)
        ip_set_option(s->udp, SOF_BROADCAST);
    else
        ip_reset_option(s->udp, SOF_BROADCAST);
    bool loop = broadcast || (group && !(v6 ? s->no_multicast_loop6 : s->no_multicast_loop));
    if (loop && out != instance->loop) p->flags |= PBUF_FLAG_MCASTLOOP;
}

ssize_t udp_send_parts(struct sock *s, const struct iovec *parts, int count,
                       const struct cse_sending *how)
{
    size_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    if (length > PAYLOAD_MAX) return -EMSGSIZE;
    struct endpoint to;
    struct netif *out;
    ip_addr_t source;
    int failed = udp_aim(s, how, &to, &out, &source);
    /* lwIP counts a packet's bytes, header and all, in 16 bits. */
    if (failed == 0 && IP_IS_V6(&to.ip) && length > PAYLOAD6_MAX) failed = -EMSGSIZE;
    if (failed == 0) failed = udp_make_pcb(s);
    if (failed != 0) return failed;
    struct pbuf *p = udp_payload(parts, count, length);
    if (p == NULL) return -ENOBUFS;
    mark(s, how, &to, out, p);
    err_t error = udp_sendto_if_src(s->udp, p, &to.ip, to.port, out, &source);
    pbuf_free(p);
    s->local.port = s->udp->local_port;
    sock_bound(s);
    if (error == ERR_RTE) return -ENETUNREACH;
    if (error == ERR_MEM || error == ERR_BUF) return -ENOBUFS;
    return error == ERR_OK ? (ssize_t)length : -errno_of(error);
}
