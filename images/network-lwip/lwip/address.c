/* Addresses: between what programs pass (sockaddr_in, sockaddr_in6) and what lwIP keeps.
 *
 * A socket of AF_INET6 without IPV6_V6ONLY is a dual one: it takes IPv4 addresses as
 * ::ffff:a.b.c.d, and what it shows of IPv4 has that form. In lwIP such an address is of type V4,
 * and the unspecified address of a dual socket of type ANY. Called by api.c, udp.c, tcp.c,
 * listen.c.
 */
#include "instance.h"

#include <errno.h>
#include <string.h>

enum { SIN6_LENGTH_RFC2133 = 24 }; /* without the scope, which Linux still takes */

static int take4(const struct sockaddr_in *in, struct endpoint *taken)
{
    ip_addr_set_ip4_u32_val(taken->ip, in->sin_addr.s_addr);
    taken->port = lwip_ntohs(in->sin_port);
    return 0;
}

/* A link-local address needs its interface: the scope it came with. */
static int take6(const struct sock *s, const struct sockaddr_in6 *in6, socklen_t length,
                 struct endpoint *taken)
{
    const struct in6_addr *bytes = &in6->sin6_addr;
    taken->port = lwip_ntohs(in6->sin6_port);
    if (IN6_IS_ADDR_V4MAPPED(bytes)) {
        uint32_t v4;
        memcpy(&v4, &bytes->s6_addr[12], sizeof v4);
        if (s->v6_only) return -ENETUNREACH;
        ip_addr_set_ip4_u32_val(taken->ip, v4);
        return 0;
    }
    if (IN6_IS_ADDR_UNSPECIFIED(bytes)) {
        address_any(s, &taken->ip);
        return 0;
    }
    ip6_addr_t ip6;
    memcpy(ip6.addr, bytes, sizeof ip6.addr);
    ip6_addr_clear_zone(&ip6);
    uint32_t scope = length >= sizeof *in6 ? in6->sin6_scope_id : 0;
    if (ip6_addr_has_scope(&ip6, IP6_UNKNOWN)) {
        if (scope > 2) return -ENODEV;
        ip6_addr_set_zone(&ip6, (u8_t)scope);
    }
    ip_addr_copy_from_ip6(taken->ip, ip6);
    return 0;
}

/* 0, or what the kernel says of an address that does not fit the socket. */
int address_take(const struct sock *s, const union cse_address *given, socklen_t length,
                 struct endpoint *taken)
{
    memset(taken, 0, sizeof *taken);
    if (s->family == AF_INET6) {
        bool v4_datagram = s->kind != KIND_TCP && length >= sizeof given->in &&
                           given->family == AF_INET && !s->v6_only;
        if (v4_datagram) return take4(&given->in, taken);
        if (length < SIN6_LENGTH_RFC2133) return -EINVAL;
        if (given->family != AF_INET6) return -EAFNOSUPPORT;
        return take6(s, &given->in6, length, taken);
    }
    if (length < sizeof given->in) return -EINVAL;
    if (given->family != AF_INET) return -EAFNOSUPPORT;
    return take4(&given->in, taken);
}

/* IPv4 as ::ffff:a.b.c.d. */
void address_to_in6(const ip_addr_t *ip, struct in6_addr *out)
{
    memset(out, 0, sizeof *out);
    if (IP_IS_V4(ip)) {
        out->s6_addr[10] = out->s6_addr[11] = 0xff;
        memcpy(&out->s6_addr[12], ip_2_ip4(ip), 4);
    } else {
        memcpy(out, ip_2_ip6(ip)->addr, sizeof *out);
    }
}

void address_give(const struct sock *s, const struct endpoint *from, union cse_address *to)
{
    memset(to, 0, sizeof *to);
    if (s->family == AF_INET) {
        to->in.sin_family = AF_INET;
        to->in.sin_port = lwip_htons(from->port);
        to->in.sin_addr.s_addr = ip_addr_get_ip4_u32(&from->ip);
        return;
    }
    to->in6.sin6_family = AF_INET6;
    to->in6.sin6_port = lwip_htons(from->port);
    address_to_in6(&from->ip, &to->in6.sin6_addr);
    if (IP_IS_V6(&from->ip) && ip6_addr_has_scope(ip_2_ip6(&from->ip), IP6_UNKNOWN))
        to->in6.sin6_scope_id = ip6_addr_zone(ip_2_ip6(&from->ip));
}

/* The unspecified address as this socket has it. */
void address_any(const struct sock *s, ip_addr_t *any)
{
    memset(any, 0, sizeof *any);
    if (s->family == AF_INET)
        IP_SET_TYPE(any, IPADDR_TYPE_V4);
    else
        IP_SET_TYPE(any, s->v6_only ? IPADDR_TYPE_V6 : IPADDR_TYPE_ANY);
}

bool address_is_any(const ip_addr_t *ip)
{
    return ip_addr_isany(ip);
}

/* Whether a packet could be for both: the question of a port's conflicts. */
bool address_overlaps(const ip_addr_t *a, const ip_addr_t *b)
{
    if (IP_IS_ANY_TYPE_VAL(*a) || IP_IS_ANY_TYPE_VAL(*b)) return true;
    if (IP_GET_TYPE(a) != IP_GET_TYPE(b)) return false;
    return ip_addr_isany(a) || ip_addr_isany(b) || ip_addr_eq(a, b);
}

bool address_is_own(const ip_addr_t *ip)
{
    if (ip_addr_isany(ip)) return true;
    if (IP_IS_V4(ip)) {
        uint32_t address = ip_2_ip4(ip)->addr;
        return address == instance->address || (lwip_ntohl(address) >> 24) == 127;
    }
    return netif_get_ip6_addr_match(instance->tap, ip_2_ip6(ip)) >= 0 ||
           netif_get_ip6_addr_match(instance->loop, ip_2_ip6(ip)) >= 0;
}

bool address_is_broadcast(const ip_addr_t *ip)
{
    return IP_IS_V4(ip) && (ip_2_ip4(ip)->addr == INADDR_BROADCAST ||
                            ip_2_ip4(ip)->addr == (instance->address | ~instance->netmask));
}

/* Where a connect or a datagram goes: the unspecified address means this machine, as in Linux. */
int address_destination(const struct sock *s, const union cse_address *address, socklen_t length,
                        bool connecting, struct endpoint *to)
{
    union cse_address v4;
    if (s->kind != KIND_TCP && s->family == AF_INET && address->family == AF_UNSPEC) {
        v4 = *address; /* as in Linux */
        v4.family = AF_INET;
        address = &v4;
    }
    int failed = address_take(s, address, length, to);
    if (failed != 0) return failed;
    if (address_is_any(&to->ip)) {
        if (IP_IS_V4(&to->ip))
            ip_addr_set_ip4_u32_val(to->ip, PP_HTONL(INADDR_LOOPBACK));
        else
            ip_addr_set_loopback(true, &to->ip);
    }
    ip6_addr_t *ip6 = ip_2_ip6(&to->ip);
    if (!IP_IS_V6(&to->ip) || !ip6_addr_lacks_zone(ip6, IP6_UNKNOWN)) return 0;
    if (IP_IS_V6(&s->local.ip) && ip6_addr_has_zone(ip_2_ip6(&s->local.ip)))
        ip6_addr_set_zone(ip6, ip6_addr_zone(ip_2_ip6(&s->local.ip)));
    else if (connecting && !ip6_addr_ismulticast(ip6))
        return -EINVAL;
    else
        ip6_addr_assign_zone(ip6, IP6_UNKNOWN,
                             s->multicast_interface6 == 1 ? instance->loop : instance->tap);
    return 0;
}
