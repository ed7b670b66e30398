/* Multicast: which groups a socket is in, and how it sends to groups. Called by options.c and
 * options6.c with the option as the program passed it. Filters by source are refused: lwIP speaks
 * IGMPv2 and MLDv1.
 */
#include "instance.h"

#include "lwip/igmp.h"
#include "lwip/mld6.h"

#include <errno.h>
#include <string.h>

enum {
    NOT_OURS = 1,
    SOURCE_FIRST = 43,
    SOURCE_LAST = 48
}; /* MCAST_BLOCK_SOURCE to MCAST_MSFILTER */

static struct netif *netif_of(int index)
{
    return index == 1 ? instance->loop : index == 2 || index == 0 ? instance->tap : NULL;
}

static struct membership **find(struct sock *s, const ip_addr_t *group, const struct netif *netif)
{
    struct membership **at = &s->memberships;
    while (*at != NULL && !((*at)->netif == netif && ip_addr_eq(&(*at)->group, group)))
        at = &(*at)->next;
    return at;
}

static err_t tell_lwip(const struct membership *m, bool join)
{
    if (IP_IS_V6(&m->group))
        return join ? mld6_joingroup_netif(m->netif, ip_2_ip6(&m->group))
                    : mld6_leavegroup_netif(m->netif, ip_2_ip6(&m->group));
    return join ? igmp_joingroup_netif(m->netif, ip_2_ip4(&m->group))
                : igmp_leavegroup_netif(m->netif, ip_2_ip4(&m->group));
}

static int join(struct sock *s, const ip_addr_t *group, struct netif *netif)
{
    if (*find(s, group, netif) != NULL) return -EADDRINUSE;
    struct membership *m = heap_alloc(sizeof *m);
    if (m == NULL) return -ENOBUFS;
    *m = (struct membership){.next = s->memberships, .group = *group, .netif = netif};
    if (tell_lwip(m, true) != ERR_OK) {
        heap_free(m);
        return -ENOBUFS;
    }
    s->memberships = m;
    return 0;
}

static int leave(struct sock *s, const ip_addr_t *group, struct netif *netif)
{
    struct membership **at = find(s, group, netif), *m = *at;
    if (m == NULL) return -EADDRNOTAVAIL;
    *at = m->next;
    tell_lwip(m, false);
    heap_free(m);
    return 0;
}

void group_leave_all(struct sock *s)
{
    while (s->memberships != NULL) {
        struct membership *m = s->memberships;
        s->memberships = m->next;
        tell_lwip(m, false);
        heap_free(m);
    }
}

static int change(struct sock *s, ip_addr_t *group, int index, bool wanted)
{
    struct netif *netif = netif_of(index);
    if (!ip_addr_ismulticast(group)) return -EINVAL;
    if (netif == NULL) return -ENODEV;
    if (IP_IS_V6(group)) ip6_addr_assign_zone(ip_2_ip6(group), IP6_MULTICAST, netif);
    return wanted ? join(s, group, netif) : leave(s, group, netif);
}

/* The interface that an address of ours names; 0 for none given, negative for a stranger. */
static int index_of(uint32_t address)
{
    if (address == INADDR_ANY) return 0;
    if (address == instance->address) return 2;
    return lwip_ntohl(address) >> 24 == 127 ? 1 : -1;
}

/* The three forms in which IPv4's options name an interface; -ENODEV or -EINVAL else. */
static int read_request(const void *value, socklen_t length, uint32_t *group)
{
    struct ip_mreqn request = {0};
    if (length < sizeof(struct ip_mreq)) return -EINVAL;
    memcpy(&request, value, length < sizeof request ? length : sizeof request);
    *group = request.imr_multiaddr.s_addr;
    if (length >= sizeof request && request.imr_ifindex != 0)
        return request.imr_ifindex > 2 || request.imr_ifindex < 0 ? -ENODEV : request.imr_ifindex;
    int index = index_of(request.imr_address.s_addr);
    return index < 0 ? -ENODEV : index;
}

static int membership4(struct sock *s, const void *value, socklen_t length, bool wanted)
{
    uint32_t address = 0;
    ip_addr_t group;
    int index = read_request(value, length, &address);
    if (index == -EINVAL) return index;
    ip_addr_set_ip4_u32_val(group, address);
    if (!ip_addr_ismulticast(&group)) return -EINVAL;
    return index < 0 ? index : change(s, &group, index, wanted);
}

static int membership6(struct sock *s, const void *value, socklen_t length, bool wanted)
{
    struct ipv6_mreq request;
    ip_addr_t group = {0};
    if (length < sizeof request) return -EINVAL;
    memcpy(&request, value, sizeof request);
    IP_SET_TYPE(&group, IPADDR_TYPE_V6);
    memcpy(ip_2_ip6(&group)->addr, &request.ipv6mr_multiaddr, 16);
    return change(s, &group, request.ipv6mr_interface > 2 ? -1 : (int)request.ipv6mr_interface,
                  wanted);
}

/* MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP: of either family. */
static int membership(struct sock *s, const void *value, socklen_t length, bool wanted)
{
    struct group_req request;
    union cse_address address;
    ip_addr_t group = {0};
    if (length < sizeof request) return -EINVAL;
    memcpy(&request, value, sizeof request);
    memcpy(&address, &request.gr_group, sizeof address);
    if (address.family != s->family) return -EADDRNOTAVAIL;
    if (address.family == AF_INET) {
        ip_addr_set_ip4_u32_val(group, address.in.sin_addr.s_addr);
    } else {
        IP_SET_TYPE(&group, IPADDR_TYPE_V6);
        memcpy(ip_2_ip6(&group)->addr, &address.in6.sin6_addr, 16);
    }
    return change(s, &group, request.gr_interface > 2 ? -1 : (int)request.gr_interface, wanted);
}

static int set_interface4(struct sock *s, const void *value, socklen_t length)
{
    uint32_t address;
    int index;
    if (length < sizeof address) return -EINVAL;
    if (length < sizeof(struct ip_mreq)) {
        memcpy(&address, value, sizeof address);
        index = index_of(address);
    } else {
        index = read_request(value, length, &address);
    }
    if (index < 0) return -EADDRNOTAVAIL;
    s->multicast_interface = (uint8_t)index;
    return 0;
}

static int refuse_sources(void)
{
    host->escape("multicast filter by source");
    return -ENOPROTOOPT;
}

static int read_number(const void *value, socklen_t length, int *number)
{
    if (length >= sizeof *number)
        memcpy(number, value, sizeof *number);
    else if (length >= 1)
        *number = *(const unsigned char *)value;
    else
        return -EINVAL;
    return 0;
}

static int option4(struct sock *s, int name, const void *value, socklen_t length)
{
    int number, failed;
    switch (name) {
    case IP_ADD_MEMBERSHIP:
    case IP_DROP_MEMBERSHIP: return membership4(s, value, length, name == IP_ADD_MEMBERSHIP);
    case IP_MULTICAST_IF: return set_interface4(s, value, length);
    case IP_MULTICAST_TTL:
        failed = read_number(value, length, &number);
        if (failed != 0) return failed;
        if (number == -1) number = 1;
        if (number < 0 || number > 255) return -EINVAL;
        s->multicast_ttl = (uint8_t)number;
        return 0;
    case IP_MULTICAST_LOOP:
        failed = read_number(value, length, &number);
        if (failed == 0) s->no_multicast_loop = number == 0;
        return failed;
    case IP_ADD_SOURCE_MEMBERSHIP:
    case IP_DROP_SOURCE_MEMBERSHIP:
    case IP_BLOCK_SOURCE:
    case IP_UNBLOCK_SOURCE:
    case IP_MSFILTER: return refuse_sources();
    default: return NOT_OURS;
    }
}

static int option6(struct sock *s, int name, const void *value, socklen_t length)
{
    int number = 0;
    if (name == IPV6_JOIN_GROUP || name == IPV6_LEAVE_GROUP)
        return membership6(s, value, length, name == IPV6_JOIN_GROUP);
    if (name != IPV6_MULTICAST_IF && name != IPV6_MULTICAST_HOPS && name != IPV6_MULTICAST_LOOP)
        return NOT_OURS;
    if (length < sizeof number) return -EINVAL;
    memcpy(&number, value, sizeof number);
    if (name == IPV6_MULTICAST_IF) {
        if (number < 0 || number > 2) return -ENODEV;
        s->multicast_interface6 = (uint8_t)number;
    } else if (name == IPV6_MULTICAST_HOPS) {
        if (number < -1 || number > 255) return -EINVAL;
        s->multicast_hops = (uint8_t)(number == -1 ? 1 : number);
    } else {
        if (number != 0 && number != 1) return -EINVAL;
        s->no_multicast_loop6 = number == 0;
    }
    return 0;
}

/* 0 or a negative errno; 1 if it is no option of multicast. */
int group_option(struct sock *s, int level, int name, const void *value, socklen_t length)
{
    if (name == MCAST_JOIN_GROUP || name == MCAST_LEAVE_GROUP)
        return membership(s, value, length, name == MCAST_JOIN_GROUP);
    if (name >= SOURCE_FIRST && name <= SOURCE_LAST && name != MCAST_LEAVE_GROUP)
        return refuse_sources();
    if (level == IPPROTO_IPV6) return option6(s, name, value, length);
    return option4(s, name, value, length);
}
