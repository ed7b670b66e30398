/* What a routing socket answers (rtnetlink(7)): links, addresses, errors; the routes are
 * routes.c's.
 *
 * Messages, attributes and their order are those of Linux 6. Everything is told of the instance as
 * it is at this moment; nothing can be changed by way of it: EPERM, as to a program without
 * CAP_NET_ADMIN. What a kernel without the part in question would refuse (rules, neighbours,
 * queues) is refused so, and counted. Called by netlink.c.
 */
#include "netlink.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <net/if_arp.h>

enum {
    QUEUE_LENGTH = 1000,
    PROTOCOL_LO = 1, /* IFAPROT_KERNEL_LO, _LL: newer than some headers */
    PROTOCOL_LINK_LOCAL = 3,
    ADDRESS_PROTOCOL = 11, /* IFA_PROTO */
    LOWER_UP = 0x10000,    /* IFF_LOWER_UP */
    OPERSTATE_UP = 6,
    DUMP_FILTERED = 0x20, /* NLM_F_DUMP_FILTERED */
    CAPPED = 0x100        /* NLM_F_CAPPED */
};

/* ---- writing --------------------------------------------------------------------------------- */

static void flush(struct answer *answer)
{
    if (answer->used == 0) return;
    if (libc(send)(answer->fd, answer->bytes, answer->used, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        answer->overrun = true;
    answer->used = 0;
}

/* Room for one message and its attributes, which take at most 1 KiB. */
void *answer_begin(struct answer *answer, uint16_t type, size_t body)
{
    if (answer->used > ANSWER_BYTES - 1024) flush(answer);
    answer->message = (struct nlmsghdr *)(void *)(answer->bytes + answer->used);
    memset(answer->message, 0, NLMSG_SPACE(body));
    *answer->message = (struct nlmsghdr){.nlmsg_len = NLMSG_LENGTH(body),
                                         .nlmsg_type = type,
                                         .nlmsg_flags = answer->flags,
                                         .nlmsg_seq = answer->request->nlmsg_seq,
                                         .nlmsg_pid = answer->port};
    answer->used += NLMSG_SPACE(body);
    return NLMSG_DATA(answer->message);
}

void answer_add(struct answer *answer, uint16_t type, const void *value, size_t size)
{
    if (answer->used + RTA_SPACE(size) > ANSWER_BYTES) return;
    struct rtattr *attribute = (struct rtattr *)(void *)(answer->bytes + answer->used);
    memset(attribute, 0, RTA_SPACE(size));
    attribute->rta_type = type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(size);
    if (size > 0) memcpy(RTA_DATA(attribute), value, size);
    answer->used += RTA_SPACE(size);
    answer->message->nlmsg_len = NLMSG_ALIGN(answer->message->nlmsg_len) + RTA_SPACE(size);
}

void answer_add_u32(struct answer *answer, uint16_t type, uint32_t value)
{
    answer_add(answer, type, &value, sizeof value);
}

static void add_u8(struct answer *answer, uint16_t type, uint8_t value)
{
    answer_add(answer, type, &value, sizeof value);
}

static void add_text(struct answer *answer, uint16_t type, const char *text)
{
    answer_add(answer, type, text, strlen(text) + 1);
}

bool request_value(const struct nlmsghdr *request, size_t body, uint16_t type, void *value,
                   size_t size)
{
    if (request->nlmsg_len < NLMSG_SPACE(body)) return false;
    size_t left = request->nlmsg_len - NLMSG_SPACE(body);
    const char *at = (const char *)request + NLMSG_SPACE(body);
    while (left >= sizeof(struct rtattr)) {
        const struct rtattr *attribute = (const struct rtattr *)(const void *)at;
        size_t length = attribute->rta_len;
        if (length < sizeof *attribute || length > left) return false;
        if ((attribute->rta_type & NLA_TYPE_MASK) == type && RTA_PAYLOAD(attribute) >= size) {
            memcpy(value, RTA_DATA(attribute), size);
            return true;
        }
        if (RTA_ALIGN(length) >= left) return false;
        at += RTA_ALIGN(length);
        left -= RTA_ALIGN(length);
    }
    return false;
}

/* ---- links ----------------------------------------------------------------------------------- */

static void add_counters(struct answer *answer, const struct cse_interface *i)
{
    struct rtnl_link_stats64 wide = {.rx_packets = i->rx_packets,
                                     .tx_packets = i->tx_packets,
                                     .rx_bytes = i->rx_bytes,
                                     .tx_bytes = i->tx_bytes};
    struct rtnl_link_stats narrow = {.rx_packets = (uint32_t)i->rx_packets,
                                     .tx_packets = (uint32_t)i->tx_packets,
                                     .rx_bytes = (uint32_t)i->rx_bytes,
                                     .tx_bytes = (uint32_t)i->tx_bytes};
    answer_add(answer, IFLA_STATS64, &wide, sizeof wide);
    answer_add(answer, IFLA_STATS, &narrow, sizeof narrow);
}

static void tell_link(struct answer *answer, const struct cse_interface *i)
{
    unsigned char everybody[6];
    struct ifinfomsg *body = answer_begin(answer, RTM_NEWLINK, sizeof *body);
    body->ifi_type = i->loopback ? ARPHRD_LOOPBACK : ARPHRD_ETHER;
    body->ifi_index = i->index;
    body->ifi_flags = IFF_UP | IFF_RUNNING | LOWER_UP |
                      (i->loopback ? IFF_LOOPBACK : IFF_BROADCAST | IFF_MULTICAST);
    memset(everybody, i->loopback ? 0 : 0xff, sizeof everybody);
    add_text(answer, IFLA_IFNAME, i->name);
    answer_add_u32(answer, IFLA_TXQLEN, QUEUE_LENGTH);
    add_u8(answer, IFLA_OPERSTATE, i->loopback ? 0 : OPERSTATE_UP);
    add_u8(answer, IFLA_LINKMODE, 0);
    answer_add_u32(answer, IFLA_MTU, (uint32_t)i->mtu);
    answer_add_u32(answer, IFLA_GROUP, 0);
    answer_add_u32(answer, IFLA_PROMISCUITY, 0);
    answer_add_u32(answer, IFLA_NUM_TX_QUEUES, 1);
    answer_add_u32(answer, IFLA_NUM_RX_QUEUES, 1);
    add_u8(answer, IFLA_CARRIER, 1);
    add_text(answer, IFLA_QDISC, "noqueue");
    answer_add(answer, IFLA_ADDRESS, i->mac, sizeof i->mac);
    answer_add(answer, IFLA_BROADCAST, everybody, sizeof everybody);
    add_counters(answer, i);
}

static int dump_links(struct answer *answer)
{
    const struct ifinfomsg *body = NLMSG_DATA(answer->request);
    bool whole = answer->request->nlmsg_len >= NLMSG_LENGTH(sizeof *body);
    if (answer->strict && (!whole || body->ifi_index != 0)) return -EINVAL;
    for (int i = 0; i < answer->count; i++) tell_link(answer, &answer->list[i]);
    return 0;
}

static int get_link(struct answer *answer)
{
    const struct ifinfomsg *body = NLMSG_DATA(answer->request);
    char name[IF_NAMESIZE] = "";
    if (answer->request->nlmsg_len < NLMSG_LENGTH(sizeof *body)) return -EINVAL;
    for (size_t size = 1; size < sizeof name; size++) /* with or without its NUL */
        if (!request_value(answer->request, sizeof *body, IFLA_IFNAME, name, size)) break;
    if (body->ifi_index <= 0 && name[0] == '\0') return -EINVAL;
    for (int i = 0; i < answer->count; i++) {
        const struct cse_interface *found = &answer->list[i];
        if (body->ifi_index > 0 ? found->index != body->ifi_index : strcmp(found->name, name) != 0)
            continue;
        tell_link(answer, found);
        return 0;
    }
    return -ENODEV;
}

/* ---- addresses ------------------------------------------------------------------------------- */

static struct ifaddrmsg *begin_address(struct answer *answer, const struct cse_interface *i,
                                       int family, int prefix, int scope)
{
    struct ifaddrmsg *body = answer_begin(answer, RTM_NEWADDR, sizeof *body);
    *body = (struct ifaddrmsg){.ifa_family = (uint8_t)family,
                               .ifa_prefixlen = (uint8_t)prefix,
                               .ifa_flags = IFA_F_PERMANENT,
                               .ifa_scope = (uint8_t)scope,
                               .ifa_index = (uint32_t)i->index};
    return body;
}

static const struct ifa_cacheinfo for_ever = {.ifa_prefered = UINT32_MAX, .ifa_valid = UINT32_MAX};

static void tell_address4(struct answer *answer, const struct cse_interface *i)
{
    begin_address(answer, i, AF_INET, __builtin_popcount(i->netmask),
                  i->loopback ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE);
    answer_add_u32(answer, IFA_ADDRESS, i->address);
    answer_add_u32(answer, IFA_LOCAL, i->address);
    if (!i->loopback && __builtin_popcount(i->netmask) < 31)
        answer_add_u32(answer, IFA_BROADCAST, i->broadcast);
    add_text(answer, IFA_LABEL, i->name);
    answer_add_u32(answer, IFA_FLAGS, IFA_F_PERMANENT);
    answer_add(answer, IFA_CACHEINFO, &for_ever, sizeof for_ever);
}

static void tell_address6(struct answer *answer, const struct cse_interface *i, int n)
{
    const struct in6_addr *address = &i->address6[n];
    bool link_local = IN6_IS_ADDR_LINKLOCAL(address);
    begin_address(answer, i, AF_INET6, i->prefix6[n],
                  i->loopback  ? RT_SCOPE_HOST
                  : link_local ? RT_SCOPE_LINK
                               : RT_SCOPE_UNIVERSE);
    answer_add(answer, IFA_ADDRESS, address, sizeof *address);
    answer_add(answer, IFA_CACHEINFO, &for_ever, sizeof for_ever);
    answer_add_u32(answer, IFA_FLAGS, IFA_F_PERMANENT);
    if (i->loopback || link_local)
        add_u8(answer, ADDRESS_PROTOCOL, i->loopback ? PROTOCOL_LO : PROTOCOL_LINK_LOCAL);
}

static int dump_addresses(struct answer *answer)
{
    const struct ifaddrmsg *body = NLMSG_DATA(answer->request);
    int family = ((const struct rtgenmsg *)NLMSG_DATA(answer->request))->rtgen_family, only = 0;
    if (answer->strict) {
        if (answer->request->nlmsg_len < NLMSG_LENGTH(sizeof *body)) return -EINVAL;
        only = (int)body->ifa_index;
        if (only != 0) answer->flags |= DUMP_FILTERED;
        bool known = only == 0;
        for (int i = 0; i < answer->count; i++) known |= answer->list[i].index == only;
        if (!known) return -ENODEV;
    }
    for (int i = 0; i < answer->count; i++) {
        const struct cse_interface *of = &answer->list[i];
        if (family != AF_INET6 && of->address != 0 && (only == 0 || of->index == only))
            tell_address4(answer, of);
    }
    for (int i = 0; i < answer->count; i++) {
        const struct cse_interface *of = &answer->list[i];
        if (family == AF_INET || (only != 0 && of->index != only)) continue;
        for (int n = 0; n < of->count6; n++) tell_address6(answer, of, n);
    }
    return 0;
}

/* ---- requests -------------------------------------------------------------------------------- */

/* Errors quote the request, successes its header. */
static void acknowledge(struct answer *answer, int error)
{
    const struct nlmsghdr *request = answer->request;
    bool whole = error != 0 && !answer->brief && request->nlmsg_len <= 1024 - sizeof *request;
    size_t quoted = whole ? request->nlmsg_len : sizeof *request;
    answer->flags = whole || (error != 0 && !answer->brief) ? 0 : CAPPED;
    struct nlmsgerr *body = answer_begin(answer, NLMSG_ERROR, sizeof body->error + quoted);
    body->error = error;
    memcpy(&body->msg, request, quoted);
}

static int dump(struct answer *answer)
{
    switch (answer->request->nlmsg_type) {
    case RTM_GETLINK: return dump_links(answer);
    case RTM_GETADDR: return dump_addresses(answer);
    case RTM_GETROUTE: return routes_dump(answer);
    default: net_escape("rtnetlink dump (refused)"); return -EOPNOTSUPP;
    }
}

static int get(struct answer *answer)
{
    switch (answer->request->nlmsg_type) {
    case RTM_GETLINK: return get_link(answer);
    case RTM_GETROUTE: return routes_get(answer);
    default: net_escape("rtnetlink question (refused)"); return -EOPNOTSUPP;
    }
}

static int end_dump(struct answer *answer)
{
    int error = 0;
    answer->flags |= NLM_F_MULTI;
    flush(answer);
    *(int *)answer_begin(answer, NLMSG_DONE, sizeof error) = error;
    return 0;
}

static void answer_one(struct answer *answer)
{
    const struct nlmsghdr *request = answer->request;
    unsigned type = request->nlmsg_type, kind = type & 3;
    bool dumps = kind == 2 && (request->nlmsg_flags & NLM_F_DUMP) != 0;
    int error = 0;
    answer->flags = dumps ? NLM_F_MULTI : 0;
    if (type < RTM_BASE) { /* of netlink itself: nothing is asked */
    } else if (type > RTM_MAX) {
        error = -EOPNOTSUPP;
    } else if (request->nlmsg_len < NLMSG_LENGTH(sizeof(struct rtgenmsg))) {
    } else if (kind != 2) {
        net_escape("rtnetlink change (refused)");
        error = -EPERM;
    } else if (answer->count < 0) {
        error = answer->count;
    } else {
        error = dumps ? dump(answer) : get(answer);
        if (error == 0 && dumps) {
            end_dump(answer);
            flush(answer);
            return;
        }
    }
    flush(answer);
    if (error != 0 || (request->nlmsg_flags & NLM_F_ACK)) acknowledge(answer, error);
    flush(answer);
}

void routing_answer(struct answer *answer, const char *bytes, size_t size)
{
    const struct cse_stack *stack = net_start();
    answer->used = 0;
    answer->overrun = false;
    answer->count = stack != NULL ? stack->interfaces(answer->list, INTERFACES_ASKED) : -ENETDOWN;
    while (size >= sizeof(struct nlmsghdr)) {
        const struct nlmsghdr *request = (const struct nlmsghdr *)(const void *)bytes;
        size_t length = request->nlmsg_len;
        if (length < sizeof *request || length > size) return;
        answer->request = request;
        if (request->nlmsg_flags & NLM_F_REQUEST) answer_one(answer);
        if (NLMSG_ALIGN(length) >= size) return;
        bytes += NLMSG_ALIGN(length);
        size -= NLMSG_ALIGN(length);
    }
}
