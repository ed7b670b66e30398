/* Ping sockets: datagram sockets of IPPROTO_ICMP and IPPROTO_ICMPV6, as icmp(7) has them. The
 * program writes echo requests, header included; their identifier is the socket's "port" and their
 * checksum is made here, and it gets the replies with that identifier. iputils asks for these
 * first.
 */
#include "instance.h"

#include "lwip/icmp.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip.h"
#include "lwip/ip6.h"
#include "lwip/prot/icmp6.h"

#include <errno.h>
#include <string.h>

enum { ECHO_HEADER = 8, PAYLOAD_MAX = 65535 - 40 };

struct sock *ping_find(int family, uint16_t ident)
{
    struct sock *s = NULL;
    while ((s = sock_of_port(KIND_PING, ident, s)) != NULL)
        if (s->family == family) return s;
    return NULL;
}

/* Two sockets may share an identifier that they ask for, as in Linux. */
int ping_bind(struct sock *s, const struct endpoint *wanted)
{
    uint16_t ident = wanted->port;
    for (int i = 0; wanted->port == 0 && i < 65536; i++) {
        ident = ++instance->ping_ident;
        if (ident != 0 && ping_find(s->family, ident) == NULL) break;
    }
    s->local = *wanted;
    s->local.port = ident;
    sock_bound(s);
    return 0;
}

/* An echo with our identifier and its checksum, or an errno. */
static int complete(struct sock *s, struct pbuf *p, const ip_addr_t *source, const ip_addr_t *to)
{
    struct icmp_echo_hdr *echo = p->payload;
    bool v6 = s->family == AF_INET6;
    if (echo->type != (v6 ? ICMP6_TYPE_EREQ : ICMP_ECHO) || echo->code != 0) return -EINVAL;
    echo->id = lwip_htons(s->local.port);
    echo->chksum = 0;
    echo->chksum =
        v6 ? ip6_chksum_pseudo(p, IP6_NEXTH_ICMP6, p->tot_len, ip_2_ip6(source), ip_2_ip6(to))
           : inet_chksum_pbuf(p);
    return 0;
}

ssize_t ping_send(struct sock *s, const struct iovec *parts, int count,
                  const struct cse_sending *how)
{
    size_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    if (length > PAYLOAD_MAX) return -EMSGSIZE;
    if (length < ECHO_HEADER) return -EINVAL;
    struct endpoint to;
    struct netif *out;
    ip_addr_t source;
    int failed = udp_aim(s, how, &to, &out, &source);
    if (failed == 0 && (s->family == AF_INET6) != IP_IS_V6(&to.ip)) failed = -EINVAL;
    if (failed == 0 && !s->bound) failed = ping_bind(s, &s->local);
    if (failed != 0) return failed;
    struct pbuf *p = udp_payload(parts, count, length);
    if (p == NULL) return -ENOBUFS;
    failed = complete(s, p, &source, &to.ip);
    err_t error = ERR_OK;
    if (failed == 0 && s->family == AF_INET6) {
        u8_t hops = (u8_t)(how->ttl >= 0 ? how->ttl : s->hops);
        u8_t tclass = (u8_t)(how->tos >= 0 ? how->tos : s->traffic_class);
        error = ip6_output_if(p, ip_2_ip6(&source), ip_2_ip6(&to.ip), hops, tclass, IP6_NEXTH_ICMP6,
                              out);
    } else if (failed == 0) {
        u8_t ttl = (u8_t)(how->ttl >= 0 ? how->ttl : s->ttl);
        u8_t tos = (u8_t)(how->tos >= 0 ? how->tos : s->tos);
        error = ip4_output_if(p, ip_2_ip4(&source), ip_2_ip4(&to.ip), ttl, tos, IP_PROTO_ICMP, out);
    }
    pbuf_free(p);
    if (failed != 0) return failed;
    if (error == ERR_MEM || error == ERR_BUF) return -ENOBUFS;
    return error == ERR_OK ? (ssize_t)length : -errno_of(error);
}

/* lwIP got an echo reply: `p` starts with its ICMP header. */
void cse_icmp_reply(struct pbuf *p)
{
    struct icmp_echo_hdr echo;
    bool v6 = ip_current_is_v6();
    if (pbuf_copy_partial(p, &echo, sizeof echo, 0) < ECHO_HEADER) return;
    if (!v6 && inet_chksum_pbuf(p) != 0) {
        instance->checksum_errors++;
        return;
    }
    struct sock *s = ping_find(v6 ? AF_INET6 : AF_INET, lwip_ntohs(echo.id));
    struct endpoint from = {.ip = *ip_current_src_addr()};
    if (s == NULL) return;
    if (!address_is_any(&s->local.ip) && !ip_addr_eq(&s->local.ip, ip_current_dest_addr())) return;
    udp_push_datagram(s, p, &from);
}
