/* getaddrinfo and its relatives, taken whole: inside glibc they cannot be reached.
 *
 * The list that getaddrinfo returns is one allocation of the program's malloc per entry, freed
 * by our freeaddrinfo.
 */
#include "core.h"
#include "lookup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifndef NI_NUMERICSCOPE /* musl has it, old glibc has not */
#define NI_NUMERICSCOPE 0
#endif

struct kind {
    int type, protocol;
    const char *service; /* what /etc/services calls the protocol */
};
static const struct kind KINDS[] = {
    {SOCK_STREAM, IPPROTO_TCP, "tcp"}, {SOCK_DGRAM, IPPROTO_UDP, "udp"}, {SOCK_RAW, 0, NULL}};

struct entry {
    struct addrinfo info; /* first: freeaddrinfo gets a pointer to it */
    union cse_address address;
};

struct question {
    int family, flags, type, protocol;
    const char *node, *service;
    char canonical[LOOKUP_NAME_MAX]; /* put into the first entry */
    struct addrinfo *first, **next;
};

CSE_EXPORT void freeaddrinfo(struct addrinfo *list)
{
    while (list != NULL) {
        struct addrinfo *next = list->ai_next;
        free(list->ai_canonname);
        free(list);
        list = next;
    }
}

/* Port in network byte order of `service` for one kind, or -1. */
static int port_of(const struct question *question, const struct kind *kind)
{
    if (question->service == NULL) return 0;
    char *end;
    unsigned long number = strtoul(question->service, &end, 10);
    if (*question->service != '\0' && *end == '\0')
        return number > 65535 ? -1 : htons((uint16_t)number);
    if ((question->flags & AI_NUMERICSERV) || kind->service == NULL) return -1;
    struct servent entry, *found;
    char buffer[1024];
    if (getservbyname_r(question->service, kind->service, &entry, buffer, sizeof buffer, &found) ||
        found == NULL)
        return -1;
    return entry.s_port;
}

static int append(struct question *question, const struct kind *kind, int port,
                  const union cse_address *address)
{
    struct entry *entry = calloc(1, sizeof *entry);
    if (entry == NULL) return EAI_MEMORY;
    struct addrinfo *info = &entry->info;
    info->ai_flags = question->flags;
    info->ai_family = address->family;
    info->ai_socktype = kind->type;
    info->ai_protocol = kind->protocol ? kind->protocol : question->protocol;
    info->ai_addr = &entry->address.any;
    entry->address = *address;
    if (address->family == AF_INET6) {
        entry->address.in6.sin6_port = (in_port_t)port;
        info->ai_addrlen = sizeof entry->address.in6;
    } else {
        entry->address.in.sin_port = (in_port_t)port;
        info->ai_addrlen = sizeof entry->address.in;
    }
    if (question->first == NULL && (question->flags & AI_CANONNAME)) {
        info->ai_canonname = strdup(question->canonical);
        if (info->ai_canonname == NULL) {
            free(entry);
            return EAI_MEMORY;
        }
    }
    *question->next = info;
    question->next = &info->ai_next;
    if (question->first == NULL) question->first = info;
    return 0;
}

/* One entry per kind of socket that fits type, protocol and service. */
static int append_kinds(struct question *question, const union cse_address *address)
{
    bool any = false;
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        const struct kind *kind = &KINDS[i];
        if (question->type != 0 && question->type != kind->type) continue;
        if (question->protocol != 0 && kind->protocol != 0 && question->protocol != kind->protocol)
            continue;
        int port = port_of(question, kind);
        if (port < 0) continue;
        int failed = append(question, kind, port, address);
        if (failed) return failed;
        any = true;
    }
    return any ? 0 : EAI_SERVICE;
}

static int answer_without_node(struct question *question)
{
    bool passive = question->flags & AI_PASSIVE;
    union cse_address v4 = {.in = {.sin_family = AF_INET}}, v6 = {.in6 = {.sin6_family = AF_INET6}};
    v4.in.sin_addr.s_addr = htonl(passive ? INADDR_ANY : INADDR_LOOPBACK);
    v6.in6.sin6_addr = passive ? in6addr_any : in6addr_loopback;
    /* glibc's order: for a server IPv4 first, for a client IPv6. */
    const union cse_address *first = passive ? &v4 : &v6, *second = passive ? &v6 : &v4;
    int failed = 0;
    if (question->family == AF_UNSPEC || question->family == first->family)
        failed = append_kinds(question, first);
    if (!failed && (question->family == AF_UNSPEC || question->family == second->family))
        failed = append_kinds(question, second);
    return failed;
}

/* ::ffff:a.b.c.d, for who asks for IPv6 addresses only and takes these. */
static void map(union cse_address *address)
{
    if (address->family != AF_INET) return;
    struct in_addr v4 = address->in.sin_addr;
    memset(address, 0, sizeof *address);
    address->in6.sin6_family = AF_INET6;
    address->in6.sin6_addr.s6_addr[10] = address->in6.sin6_addr.s6_addr[11] = 0xff;
    memcpy(&address->in6.sin6_addr.s6_addr[12], &v4, sizeof v4);
}

static int append_all(struct question *question, struct lookup *found, bool mapped)
{
    int failed = 0;
    memcpy(question->canonical, found->canonical, sizeof question->canonical);
    for (int i = 0; i < found->count && !failed; i++) {
        if (mapped) map(&found->addresses[i]);
        failed = append_kinds(question, &found->addresses[i]);
    }
    return failed;
}

static int answer_numeric(struct question *question, union cse_address *address)
{
    snprintf(question->canonical, sizeof question->canonical, "%s", question->node);
    if (question->family == AF_INET6 && (question->flags & AI_V4MAPPED)) map(address);
    if (question->family != AF_UNSPEC && question->family != address->family) return EAI_ADDRFAMILY;
    return append_kinds(question, address);
}

static int answer_node(struct question *question)
{
    union cse_address address;
    struct lookup found, more;
    if (lookup_numeric(question->node, &address)) return answer_numeric(question, &address);
    if (question->flags & AI_NUMERICHOST) return EAI_NONAME;

    int family = question->family;
    if (family == AF_UNSPEC && (question->flags & AI_ADDRCONFIG) && !lookup_has_ipv6())
        family = AF_INET;
    int failed = lookup_addresses(question->node, family, &found);
    bool mapped = question->family == AF_INET6 && (question->flags & AI_V4MAPPED);
    if (!failed && !(mapped && (question->flags & AI_ALL)))
        return append_all(question, &found, false);
    if (!mapped) return failed;
    if (!failed) failed = append_all(question, &found, false);
    int failed4 = lookup_addresses(question->node, AF_INET, &more);
    return failed4 ? failed : append_all(question, &more, true);
}

static int check(const struct question *question)
{
    if (question->node == NULL && question->service == NULL) return EAI_NONAME;
    if (question->family != AF_UNSPEC && question->family != AF_INET &&
        question->family != AF_INET6)
        return EAI_FAMILY;
    if ((question->flags & AI_CANONNAME) && question->node == NULL) return EAI_BADFLAGS;
    if (question->type == 0 || question->type == SOCK_RAW) return 0;
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++)
        if (KINDS[i].type == question->type) return 0;
    return EAI_SOCKTYPE;
}

CSE_EXPORT int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                           struct addrinfo **result)
{
    static const struct addrinfo no_hints = {.ai_flags = AI_V4MAPPED | AI_ADDRCONFIG};
    const struct addrinfo *wanted = hints != NULL ? hints : &no_hints;
    struct question question = {.family = wanted->ai_family,
                                .flags = wanted->ai_flags,
                                .type = wanted->ai_socktype,
                                .protocol = wanted->ai_protocol,
                                .node = node,
                                .service = service};
    question.next = &question.first;
    int failed = check(&question);
    if (!failed) failed = node != NULL ? answer_node(&question) : answer_without_node(&question);
    if (failed) {
        freeaddrinfo(question.first);
        cse_trace("%s: %s", node ? node : "-", gai_strerror(failed));
        return failed;
    }
    *result = question.first;
    return 0;
}

/* ---- back to names --------------------------------------------------------------------------- */

static int put(char *out, socklen_t size, const char *text)
{
    if (out == NULL || size == 0) return 0;
    size_t length = strlen(text);
    if (length >= size) return EAI_OVERFLOW;
    memcpy(out, text, length + 1);
    return 0;
}

static int put_service(const struct sockaddr *address, char *service, socklen_t size, int flags)
{
    in_port_t port = address->sa_family == AF_INET
                         ? ((const struct sockaddr_in *)address)->sin_port
                         : ((const struct sockaddr_in6 *)address)->sin6_port;
    struct servent entry, *found = NULL;
    char buffer[1024], number[8];
    if (!(flags & NI_NUMERICSERV) && service != NULL && size > 0)
        getservbyport_r(port, (flags & NI_DGRAM) ? "udp" : "tcp", &entry, buffer, sizeof buffer,
                        &found);
    snprintf(number, sizeof number, "%u", ntohs(port));
    return put(service, size, found != NULL ? entry.s_name : number);
}

/* An address without a name: its scope as the interface's name, as getnameinfo(3) writes it. */
static void write_number(const union cse_address *address, int flags, char *out, size_t size)
{
    char interface[IF_NAMESIZE];
    if (address->family == AF_INET) {
        inet_ntop(AF_INET, &address->in.sin_addr, out, (socklen_t)size);
        return;
    }
    inet_ntop(AF_INET6, &address->in6.sin6_addr, out, (socklen_t)size);
    uint32_t scope = address->in6.sin6_scope_id;
    size_t used = strlen(out);
    bool local = IN6_IS_ADDR_LINKLOCAL(&address->in6.sin6_addr) ||
                 IN6_IS_ADDR_MC_LINKLOCAL(&address->in6.sin6_addr);
    if (scope == 0) return;
    if (local && !(flags & NI_NUMERICSCOPE) && if_indextoname(scope, interface) != NULL)
        snprintf(out + used, size - used, "%%%s", interface);
    else
        snprintf(out + used, size - used, "%%%u", scope);
}

CSE_EXPORT int getnameinfo(const struct sockaddr *address, socklen_t length, char *host,
                           socklen_t host_size, char *service, socklen_t service_size, int flags)
{
    bool v4 =
        address != NULL && address->sa_family == AF_INET && length >= sizeof(struct sockaddr_in);
    bool v6 =
        address != NULL && address->sa_family == AF_INET6 && length >= sizeof(struct sockaddr_in6);
    if (address != NULL && address->sa_family == AF_UNIX)
        return libc(getnameinfo)(address, length, host, host_size, service, service_size, flags);
    if (!v4 && !v6) return EAI_FAMILY;
    if ((host == NULL || host_size == 0) && (service == NULL || service_size == 0))
        return EAI_NONAME;

    if (host != NULL && host_size > 0) {
        union cse_address asked = {0};
        char name[LOOKUP_NAME_MAX];
        memcpy(&asked, address, v4 ? sizeof asked.in : sizeof asked.in6);
        int failed = (flags & NI_NUMERICHOST) ? EAI_NONAME : lookup_name(&asked, name, sizeof name);
        if (failed && (flags & NI_NAMEREQD)) return failed;
        if (failed) write_number(&asked, flags, name, sizeof name);
        failed = put(host, host_size, name);
        if (failed) return failed;
    }
    return put_service(address, service, service_size, flags);
}
