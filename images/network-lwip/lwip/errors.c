/* ICMP messages for sockets: errors about what a socket sent, and the queue of errors.
 *
 * An error travels to the program as a record in the socket's pair, which wakes it (udp.c), and, if
 * the socket asks for it (IP_RECVERR, IPV6_RECVERR), as an entry of its queue, which recvmsg takes
 * with MSG_ERRQUEUE. Which errors are final and which errno they are is Linux's (icmp(7)). Called
 * by lwIP's icmp.c and icmp6.c through cse_icmp_error, and by api.c.
 */
#include "instance.h"

#include "lwip/icmp.h"
#include "lwip/ip.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/icmp.h"
#include "lwip/prot/icmp6.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <string.h>

enum { ICMP_HEADER = 8, PROBLEMS_MAX = 64, QUOTED_MAX = 60 + 8 + CSE_PROBLEM_BYTES };

/* What an ICMP message quotes of the packet it is about. */
struct quoted {
    uint8_t protocol;
    struct endpoint local, remote;
    uint16_t ident; /* of an echo */
    const char *rest;
    size_t rest_length;
};

struct verdict {
    int error;
    bool final;
    uint32_t info;
};

/* ---- the queue ----------------------------------------------------------------------------- */

void problem_add(struct sock *s, const struct cse_problem *told)
{
    int count = 0;
    struct problem **at = &s->problems;
    for (; *at != NULL; at = &(*at)->next) count++;
    struct problem *problem = count < PROBLEMS_MAX ? heap_alloc(sizeof *problem) : NULL;
    if (problem == NULL) return;
    problem->next = NULL;
    problem->told = *told;
    *at = problem;
}

/* What is left in the queue is the socket's next error, as in Linux. */
bool problem_take(struct sock *s, struct cse_problem *told)
{
    struct problem *problem = s->problems;
    if (problem == NULL) return false;
    *told = problem->told;
    s->problems = problem->next;
    heap_free(problem);
    s->error = s->problems != NULL ? (int)s->problems->told.error : 0;
    return true;
}

void problem_drop(struct sock *s)
{
    while (s->problems != NULL) {
        struct problem *problem = s->problems;
        s->problems = problem->next;
        heap_free(problem);
    }
}

/* ---- what a message says ------------------------------------------------------------------- */

static struct verdict judge4(uint8_t type, uint8_t code, uint32_t data)
{
    static const struct {
        uint8_t error;
        bool final;
    } unreachable[] = {
        {ENETUNREACH, false},  {EHOSTUNREACH, false}, {ENOPROTOOPT, true},  {ECONNREFUSED, true},
        {EMSGSIZE, true},      {EOPNOTSUPP, false},   {ENETUNREACH, true},  {EHOSTDOWN, true},
        {ENONET, true},        {ENETUNREACH, true},   {EHOSTUNREACH, true}, {ENETUNREACH, false},
        {EHOSTUNREACH, false}, {EHOSTUNREACH, true},  {EHOSTUNREACH, true}, {EHOSTUNREACH, true}};
    if (type == ICMP_PP) return (struct verdict){EPROTO, true, data >> 24};
    if (type != ICMP_DUR) return (struct verdict){EHOSTUNREACH, false, 0};
    if (code >= sizeof unreachable / sizeof *unreachable)
        return (struct verdict){EHOSTUNREACH, true, 0};
    return (struct verdict){unreachable[code].error, unreachable[code].final,
                            code == 4 ? data & 0xffff : 0};
}

static struct verdict judge6(uint8_t type, uint8_t code, uint32_t data)
{
    static const struct {
        uint8_t error;
        bool final;
    } unreachable[] = {{ENETUNREACH, false},  {EACCES, true},       {EHOSTUNREACH, false},
                       {EHOSTUNREACH, false}, {ECONNREFUSED, true}, {EACCES, true},
                       {EACCES, true}};
    if (type == ICMP6_TYPE_PTB) return (struct verdict){EMSGSIZE, true, data};
    if (type == ICMP6_TYPE_PP) return (struct verdict){EPROTO, true, data};
    if (type != ICMP6_TYPE_DUR) return (struct verdict){EHOSTUNREACH, false, 0};
    if (code >= sizeof unreachable / sizeof *unreachable) return (struct verdict){EPROTO, true, 0};
    return (struct verdict){unreachable[code].error, unreachable[code].final, 0};
}

/* The headers of the packet that a message quotes; false if there is too little of them. */
static bool read_quoted(const char *bytes, size_t length, struct quoted *q)
{
    size_t header;
    memset(q, 0, sizeof *q);
    if (ip_current_is_v6()) {
        const struct ip6_hdr *ip = (const struct ip6_hdr *)bytes;
        if (length < IP6_HLEN || IP6H_V(ip) != 6) return false;
        header = IP6_HLEN;
        q->protocol = IP6H_NEXTH(ip);
        ip_addr_copy_from_ip6_packed(q->local.ip, ip->src);
        ip_addr_copy_from_ip6_packed(q->remote.ip, ip->dest);
        ip6_addr_assign_zone(ip_2_ip6(&q->local.ip), IP6_UNICAST, ip_current_input_netif());
        ip6_addr_assign_zone(ip_2_ip6(&q->remote.ip), IP6_UNKNOWN, ip_current_input_netif());
    } else {
        const struct ip_hdr *ip = (const struct ip_hdr *)bytes;
        if (length < IP_HLEN || IPH_V(ip) != 4 || IPH_HL_BYTES(ip) < IP_HLEN) return false;
        header = IPH_HL_BYTES(ip);
        q->protocol = IPH_PROTO(ip);
        ip_addr_copy_from_ip4(q->local.ip, ip->src);
        ip_addr_copy_from_ip4(q->remote.ip, ip->dest);
    }
    if (length < header + 8) return false;
    uint16_t words[3];
    memcpy(words, bytes + header, sizeof words);
    q->local.port = lwip_ntohs(words[0]);
    q->remote.port = lwip_ntohs(words[1]);
    q->ident = lwip_ntohs(words[2]);
    q->rest = bytes + header;
    q->rest_length = length - header;
    return true;
}

/* ---- to the sockets ------------------------------------------------------------------------ */

static void tell(struct sock *s, const struct quoted *q, const struct verdict *verdict,
                 const struct icmp_echo_hdr *message)
{
    bool v6 = ip_current_is_v6();
    bool queued = v6 ? s->receive_error6 : s->receive_error;
    if (!queued && (!verdict->final || s->state != CONNECTED)) return;
    struct endpoint remote = q->remote, offender = {.ip = *ip_current_src_addr()};
    if (s->kind == KIND_PING) remote.port = 0;
    if (queued) {
        struct cse_problem problem = {
            .error = (uint32_t)verdict->error,
            .info = verdict->info,
            .origin = v6 ? SO_EE_ORIGIN_ICMP6 : SO_EE_ORIGIN_ICMP,
            .type = message->type,
            .code = message->code,
            .interface = netif_get_index(ip_current_input_netif()),
        };
        size_t skip = s->kind == KIND_PING ? 0 : 8;
        size_t length = q->rest_length - skip;
        problem.length = (uint32_t)(length < sizeof problem.sent ? length : sizeof problem.sent);
        memcpy(problem.sent, q->rest + skip, problem.length);
        address_give(s, &remote, &problem.to);
        address_give(s, &offender, &problem.offender);
        problem_add(s, &problem);
    }
    s->error = verdict->error;
    udp_push_error(s, verdict->error, &remote);
}

/* The socket that sent it: the one connected to its destination before one that is not. */
static struct sock *udp_sender(const struct quoted *q)
{
    struct sock *found = NULL;
    for (struct udp_pcb *u = UDP_PCBS(q->local.port); u != NULL; u = u->next) {
        if (u->recv_arg == NULL || u->local_port != q->local.port ||
            !address_overlaps(&u->local_ip, &q->local.ip))
            continue;
        if (!(u->flags & UDP_FLAGS_CONNECTED))
            found = found != NULL ? found : u->recv_arg;
        else if (u->remote_port == q->remote.port && ip_addr_eq(&u->remote_ip, &q->remote.ip))
            return u->recv_arg;
    }
    return found;
}

/* lwIP got an error message: `p` starts with its ICMP header. */
void cse_icmp_error(struct pbuf *p, u8_t type, u8_t code)
{
    union {
        struct icmp_echo_hdr message;
        char bytes[ICMP_HEADER + QUOTED_MAX];
    } got;
    struct quoted q;
    size_t length = pbuf_copy_partial(p, &got, sizeof got, 0);
    if (length < ICMP_HEADER) return;
    if (!read_quoted(got.bytes + ICMP_HEADER, length - ICMP_HEADER, &q)) return;
    uint32_t data;
    memcpy(&data, got.bytes + 4, sizeof data);
    bool v6 = ip_current_is_v6();
    struct verdict verdict =
        v6 ? judge6(type, code, lwip_ntohl(data)) : judge4(type, code, lwip_ntohl(data));
    struct sock *s = NULL;
    if (q.protocol == IP_PROTO_UDP) {
        s = udp_sender(&q);
    } else if (q.protocol == (v6 ? IP6_NEXTH_ICMP6 : IP_PROTO_ICMP)) {
        s = ping_find(v6 ? AF_INET6 : AF_INET, q.ident);
    } else if (q.protocol == IP_PROTO_TCP && verdict.error != EMSGSIZE) {
        struct tcp_pcb *t = tcp_find(&q.local.ip, q.local.port, &q.remote.ip, q.remote.port);
        if (t != NULL && t->state != TIME_WAIT) tcp_unreachable(t, verdict.error);
    }
    if (s != NULL) tell(s, &q, &verdict, &got.message);
}
