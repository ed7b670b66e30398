/* Routes as a routing socket tells them: what the private stack does with a packet, in the words of
 * the kernel's tables. Nobody keeps such tables here; they follow from each interface's addresses
 * and gateway, as those do that the kernel makes when an interface goes up. Called by routing.c.
 */
#include "netlink.h"

#include <unistd.h>

enum {
    ROUTES_MAX = 48,
    METRIC = 256,
    METRIC_DEFAULT = 1024,
    DUMP_FILTERED = 0x20 /* NLM_F_DUMP_FILTERED */
};
/* Of a route that is in use, above RTM_F_*. */
#define FLAG_LOCAL     0x80000000U
#define FLAG_BROADCAST 0x10000000U
#define FLAG_MULTICAST 0x20000000U

struct route {
    unsigned char family, length, table, protocol, scope, type;
    int interface;
    unsigned char to[16], gateway[16], source[16];
    bool has_gateway, has_source;
    uint32_t metric;
};

struct routes {
    struct route list[ROUTES_MAX];
    int count;
};

/* ---- the tables ------------------------------------------------------------------------------ */

static struct route *add(struct routes *all, const struct cse_interface *i, int family, int table,
                         int type, const void *to, int length)
{
    struct route *made = &all->list[all->count < ROUTES_MAX ? all->count++ : ROUTES_MAX - 1];
    *made = (struct route){.family = (unsigned char)family,
                           .length = (unsigned char)length,
                           .table = (unsigned char)table,
                           .protocol = RTPROT_KERNEL,
                           .type = (unsigned char)type,
                           .interface = i->index};
    if (to != NULL) memcpy(made->to, to, family == AF_INET ? 4 : 16);
    return made;
}

static void add4(struct routes *all, const struct cse_interface *i, int table, int type, int scope,
                 uint32_t to, int length)
{
    struct route *made = add(all, i, AF_INET, table, type, &to, length);
    made->scope = (unsigned char)scope;
    made->has_source = true;
    memcpy(made->source, &i->address, sizeof i->address);
}

static void list4(struct routes *all, const struct cse_interface *i)
{
    int length = __builtin_popcount(i->netmask);
    uint32_t net = i->address & i->netmask;
    if (i->address == 0) return;
    if (i->gateway != 0) {
        struct route *made = add(all, i, AF_INET, RT_TABLE_MAIN, RTN_UNICAST, NULL, 0);
        made->protocol = RTPROT_BOOT;
        made->has_gateway = true;
        memcpy(made->gateway, &i->gateway, sizeof i->gateway);
    }
    if (i->loopback)
        add4(all, i, RT_TABLE_LOCAL, RTN_LOCAL, RT_SCOPE_HOST, net, length);
    else if (length < 32)
        add4(all, i, RT_TABLE_MAIN, RTN_UNICAST, RT_SCOPE_LINK, net, length);
    add4(all, i, RT_TABLE_LOCAL, RTN_LOCAL, RT_SCOPE_HOST, i->address, 32);
    if (length < 31)
        add4(all, i, RT_TABLE_LOCAL, RTN_BROADCAST, RT_SCOPE_LINK, net | ~i->netmask, 32);
}

static void list6(struct routes *all, const struct cse_interface *i)
{
    static const unsigned char groups[16] = {0xff};
    for (int n = 0; n < i->count6; n++) {
        unsigned char net[16];
        int length = i->prefix6[n];
        memcpy(net, &i->address6[n], sizeof net);
        for (int bit = length; bit < 128; bit++) net[bit / 8] &= (unsigned char)~(0x80 >> bit % 8);
        if (!i->loopback && length < 128)
            add(all, i, AF_INET6, RT_TABLE_MAIN, RTN_UNICAST, net, length)->metric = METRIC;
        add(all, i, AF_INET6, RT_TABLE_LOCAL, RTN_LOCAL, &i->address6[n], 128);
    }
    if (i->loopback || i->count6 == 0) return;
    add(all, i, AF_INET6, RT_TABLE_LOCAL, RTN_MULTICAST, groups, 8)->metric = METRIC;
    if (IN6_IS_ADDR_UNSPECIFIED(&i->gateway6)) return;
    struct route *made = add(all, i, AF_INET6, RT_TABLE_MAIN, RTN_UNICAST, NULL, 0);
    made->protocol = RTPROT_BOOT;
    made->metric = METRIC_DEFAULT;
    made->has_gateway = true;
    memcpy(made->gateway, &i->gateway6, sizeof i->gateway6);
}

/* The kernel's order: IPv4 before IPv6, main before local, by destination; IPv6's default last. */
static bool goes_before(const struct route *a, const struct route *b)
{
    if (a->family != b->family) return a->family < b->family;
    if (a->table != b->table) return a->table < b->table;
    if (a->family == AF_INET6 && (a->length == 0) != (b->length == 0)) return b->length == 0;
    int order = memcmp(a->to, b->to, sizeof a->to);
    return order != 0 ? order < 0 : a->length < b->length;
}

static void list_all(struct routes *all, const struct answer *answer)
{
    all->count = 0;
    for (int i = 0; i < answer->count; i++) {
        list4(all, &answer->list[i]);
        list6(all, &answer->list[i]);
    }
    for (int i = 1; i < all->count; i++)
        for (int k = i; k > 0 && goes_before(&all->list[k], &all->list[k - 1]); k--) {
            struct route swapped = all->list[k];
            all->list[k] = all->list[k - 1];
            all->list[k - 1] = swapped;
        }
}

/* ---- telling --------------------------------------------------------------------------------- */

static const struct rta_cacheinfo no_cache;

static struct rtmsg *begin(struct answer *answer, const struct route *r)
{
    struct rtmsg *body = answer_begin(answer, RTM_NEWROUTE, sizeof *body);
    *body = (struct rtmsg){.rtm_family = r->family,
                           .rtm_dst_len = r->length,
                           .rtm_table = r->table,
                           .rtm_protocol = r->protocol,
                           .rtm_scope = r->scope,
                           .rtm_type = r->type};
    answer_add_u32(answer, RTA_TABLE, r->table);
    return body;
}

static void tell4(struct answer *answer, const struct route *r)
{
    begin(answer, r);
    if (r->length > 0) answer_add(answer, RTA_DST, r->to, 4);
    if (r->has_source) answer_add(answer, RTA_PREFSRC, r->source, 4);
    if (r->has_gateway) answer_add(answer, RTA_GATEWAY, r->gateway, 4);
    answer_add_u32(answer, RTA_OIF, (uint32_t)r->interface);
}

/* With whom it would go: of an answer to a question for one destination. */
static void tell6(struct answer *answer, const struct route *r, const void *from, const void *as)
{
    struct rtmsg *body = begin(answer, r);
    if (r->length > 0) answer_add(answer, RTA_DST, r->to, 16);
    if (from != NULL) {
        body->rtm_src_len = 128;
        answer_add(answer, RTA_SRC, from, 16);
    }
    if (as != NULL) answer_add(answer, RTA_PREFSRC, as, 16);
    answer_add_u32(answer, RTA_PRIORITY, r->metric);
    if (r->has_gateway) answer_add(answer, RTA_GATEWAY, r->gateway, 16);
    answer_add_u32(answer, RTA_OIF, (uint32_t)r->interface);
    answer_add(answer, RTA_CACHEINFO, &no_cache, sizeof no_cache);
    answer_add(answer, RTA_PREF, "", 1);
}

/* What a dump is to leave out, where the asker is one that means it. */
struct filter {
    unsigned table, protocol, type;
    int interface;
};

static int read_filter(struct answer *answer, struct filter *filter)
{
    const struct rtmsg *body = NLMSG_DATA(answer->request);
    uint32_t table, interface;
    if (answer->request->nlmsg_len < NLMSG_LENGTH(sizeof *body))
        return answer->strict ? -EINVAL : 0;
    if (!answer->strict) return 0;
    *filter = (struct filter){body->rtm_table, body->rtm_protocol, body->rtm_type, 0};
    if (request_value(answer->request, sizeof *body, RTA_TABLE, &table, sizeof table))
        filter->table = table;
    if (request_value(answer->request, sizeof *body, RTA_OIF, &interface, sizeof interface))
        filter->interface = (int)interface;
    if (filter->table != 0 || filter->protocol != 0 || filter->type != 0 || filter->interface != 0)
        answer->flags |= DUMP_FILTERED;
    if (filter->table == 0 || filter->table == RT_TABLE_MAIN || filter->table == RT_TABLE_LOCAL)
        return 0;
    return body->rtm_family == AF_UNSPEC ? 0 : -ENOENT;
}

int routes_dump(struct answer *answer)
{
    const struct rtmsg *body = NLMSG_DATA(answer->request);
    struct filter filter = {0};
    struct routes all;
    int failed = read_filter(answer, &filter);
    if (failed != 0) return failed;
    bool whole = answer->request->nlmsg_len >= NLMSG_LENGTH(sizeof *body);
    if (whole && (body->rtm_flags & (RTM_F_CLONED | RTM_F_PREFIX))) return 0; /* what is cached */
    list_all(&all, answer);
    for (int i = 0; i < all.count; i++) {
        const struct route *r = &all.list[i];
        if ((body->rtm_family == AF_INET || body->rtm_family == AF_INET6) &&
            body->rtm_family != r->family)
            continue;
        if ((filter.table != 0 && filter.table != r->table) ||
            (filter.protocol != 0 && filter.protocol != r->protocol) ||
            (filter.type != 0 && filter.type != r->type) ||
            (filter.interface != 0 && filter.interface != r->interface))
            continue;
        if (r->family == AF_INET)
            tell4(answer, r);
        else
            tell6(answer, r, NULL, NULL);
    }
    return 0;
}

/* ---- one destination ------------------------------------------------------------------------- */

static bool covers(const struct route *r, const unsigned char *to)
{
    int whole = r->length / 8, rest = r->length % 8;
    if (memcmp(r->to, to, (size_t)whole) != 0) return false;
    return rest == 0 || ((r->to[whole] ^ to[whole]) & (0xff00 >> rest)) == 0;
}

/* The longest prefix, of the local table first; with an interface given, one of its. */
static const struct route *find(const struct routes *all, int family, const unsigned char *to,
                                int interface)
{
    const struct route *best = NULL;
    for (int i = 0; i < all->count; i++) {
        const struct route *r = &all->list[i];
        if (r->family != family || !covers(r, to)) continue;
        if (interface != 0 && r->interface != interface) continue;
        if (best == NULL || r->table > best->table ||
            (r->table == best->table && r->length > best->length))
            best = r;
    }
    return best;
}

static const struct cse_interface *interface_of(const struct answer *answer, int index)
{
    for (int i = 0; i < answer->count; i++)
        if (answer->list[i].index == index) return &answer->list[i];
    return NULL;
}

static int get4(struct answer *answer, const struct routes *all, const unsigned char *to,
                const unsigned char *from, int interface)
{
    static const unsigned char everybody[4] = {0xff, 0xff, 0xff, 0xff}, nobody[4];
    bool group = (to[0] & 0xf0) == 0xe0, all_hosts = memcmp(to, everybody, 4) == 0;
    bool here = memcmp(to, nobody, 4) == 0;
    const struct route *way = find(all, AF_INET, to, 0);
    const struct cse_interface *out;
    unsigned type = group ? RTN_MULTICAST : all_hosts ? RTN_BROADCAST : RTN_LOCAL;
    if (group || all_hosts)
        out = interface_of(answer, interface != 0 ? interface : 2);
    else if (here)
        out = interface_of(answer, 1);
    else {
        if (way == NULL) return -ENETUNREACH;
        type = way->type;
        out = interface_of(answer, type == RTN_LOCAL ? 1 : way->interface);
    }
    if (out == NULL) return -ENETUNREACH;
    struct route told = {.family = AF_INET,
                         .length = 32,
                         .table = RT_TABLE_MAIN,
                         .type = (unsigned char)type,
                         .interface = out->index};
    struct rtmsg *body = begin(answer, &told);
    body->rtm_flags = RTM_F_CLONED | (type == RTN_LOCAL       ? FLAG_LOCAL
                                      : type == RTN_BROADCAST ? FLAG_LOCAL | FLAG_BROADCAST
                                      : type == RTN_MULTICAST ? FLAG_MULTICAST
                                                              : 0U);
    answer_add(answer, RTA_DST, to, 4);
    if (from != NULL) {
        body->rtm_src_len = 32;
        answer_add(answer, RTA_SRC, from, 4);
    }
    answer_add_u32(answer, RTA_OIF, (uint32_t)out->index);
    /* Packets to oneself are from the address that they go to. */
    const void *source = way != NULL && way->has_source && type == RTN_LOCAL
                             ? (const void *)way->source
                             : (const void *)&out->address;
    if (from == NULL) answer_add(answer, RTA_PREFSRC, source, 4);
    if (type == RTN_UNICAST && way != NULL && way->has_gateway)
        answer_add(answer, RTA_GATEWAY, way->gateway, 4);
    answer_add_u32(answer, RTA_UID, getuid());
    answer_add(answer, RTA_CACHEINFO, &no_cache, sizeof no_cache);
    return 0;
}

/* The address of an interface that packets to `to` come from. */
static const struct in6_addr *source_for(const struct cse_interface *i, const unsigned char *to)
{
    bool near = to[0] == 0xff ? (to[1] & 0xf) <= 2 : to[0] == 0xfe && (to[1] & 0xc0) == 0x80;
    for (int n = 0; n < i->count6; n++)
        if ((IN6_IS_ADDR_LINKLOCAL(&i->address6[n]) != 0) == near) return &i->address6[n];
    return i->count6 > 0 ? &i->address6[0] : NULL;
}

static int get6(struct answer *answer, const struct routes *all, const unsigned char *to,
                const unsigned char *from, int interface)
{
    static const unsigned char nobody[16];
    const struct route *way = find(all, AF_INET6, to, interface);
    if (way == NULL) return -ENETUNREACH;
    struct route told = *way;
    told.length = 128;
    memcpy(told.to, to, sizeof told.to);
    const void *as = to;
    if (way->type == RTN_LOCAL)
        told.interface = 1;
    else
        as = source_for(interface_of(answer, way->interface), to);
    tell6(answer, &told, from != NULL ? from : nobody, as);
    return 0;
}

/* Only the stack's own addresses can be a source. */
static bool is_own(const struct routes *all, int family, const unsigned char *address)
{
    const struct route *way = find(all, family, address, 0);
    return way != NULL && way->type == RTN_LOCAL;
}

int routes_get(struct answer *answer)
{
    const struct nlmsghdr *request = answer->request;
    const struct rtmsg *body = NLMSG_DATA(request);
    unsigned char to[16] = {0}, from[16] = {0};
    uint32_t interface = 0;
    struct routes all;
    if (request->nlmsg_len < NLMSG_LENGTH(sizeof *body)) return -EINVAL;
    if (body->rtm_family != AF_INET && body->rtm_family != AF_INET6) return -EOPNOTSUPP;
    size_t size = body->rtm_family == AF_INET ? 4 : 16;
    request_value(request, sizeof *body, RTA_DST, to, size);
    bool given = request_value(request, sizeof *body, RTA_SRC, from, size);
    request_value(request, sizeof *body, RTA_OIF, &interface, sizeof interface);
    if (interface != 0 && interface_of(answer, (int)interface) == NULL) return -ENODEV;
    list_all(&all, answer);
    if (given && !is_own(&all, body->rtm_family, from)) return -EINVAL;
    return body->rtm_family == AF_INET
               ? get4(answer, &all, to, given ? from : NULL, (int)interface)
               : get6(answer, &all, to, given ? from : NULL, (int)interface);
}
