/* getaddrinfo and its relatives, taken whole: inside glibc they cannot be reached.
 *
 * The list that getaddrinfo returns is one allocation of the program's malloc per entry, freed
 * by our freeaddrinfo. IPv6 addresses are answered only where they are given as text.
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

struct kind {
    int type, protocol;
    const char *service; /* what /etc/services calls the protocol */
};
static const struct kind KINDS[] = {
    {SOCK_STREAM, IPPROTO_TCP, "tcp"}, {SOCK_DGRAM, IPPROTO_UDP, "udp"}, {SOCK_RAW, 0, NULL}};

struct entry {
    struct addrinfo info; /* first: freeaddrinfo gets a pointer to it */
    union {
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address;
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

static int append(struct question *question, const struct kind *kind, int port, int family,
                  const void *address)
{
    struct entry *entry = calloc(1, sizeof *entry);
    if (entry == NULL) return EAI_MEMORY;
    struct addrinfo *info = &entry->info;
    info->ai_flags = question->flags;
    info->ai_family = family;
    info->ai_socktype = kind->type;
    info->ai_protocol = kind->protocol ? kind->protocol : question->protocol;
    info->ai_addr = (struct sockaddr *)&entry->address;
    if (family == AF_INET) {
        entry->address.v4.sin_family = AF_INET;
        entry->address.v4.sin_port = (in_port_t)port;
        memcpy(&entry->address.v4.sin_addr, address, sizeof(struct in_addr));
        info->ai_addrlen = sizeof entry->address.v4;
    } else {
        entry->address.v6.sin6_family = AF_INET6;
        entry->address.v6.sin6_port = (in_port_t)port;
        memcpy(&entry->address.v6.sin6_addr, address, sizeof(struct in6_addr));
        info->ai_addrlen = sizeof entry->address.v6;
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
static int append_kinds(struct question *question, int family, const void *address)
{
    bool any = false;
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        const struct kind *kind = &KINDS[i];
        if (question->type != 0 && question->type != kind->type) continue;
        if (question->protocol != 0 && kind->protocol != 0 && question->protocol != kind->protocol)
            continue;
        int port = port_of(question, kind);
        if (port < 0) continue;
        int failed = append(question, kind, port, family, address);
        if (failed) return failed;
        any = true;
    }
    return any ? 0 : EAI_SERVICE;
}

static int answer_without_node(struct question *question)
{
    struct in_addr v4 = {htonl((question->flags & AI_PASSIVE) ? INADDR_ANY : INADDR_LOOPBACK)};
    if (question->family == AF_INET6)
        return append_kinds(question, AF_INET6,
                            (question->flags & AI_PASSIVE) ? &in6addr_any : &in6addr_loopback);
    return append_kinds(question, AF_INET, &v4);
}

static int answer_node(struct question *question)
{
    struct in6_addr v6;
    struct in_addr v4;
    snprintf(question->canonical, sizeof question->canonical, "%s", question->node);
    if (inet_pton(AF_INET6, question->node, &v6) == 1)
        return question->family == AF_INET ? EAI_ADDRFAMILY : append_kinds(question, AF_INET6, &v6);
    bool numeric = inet_aton(question->node, &v4) != 0;
    if (!numeric && (question->flags & AI_NUMERICHOST)) return EAI_NONAME;
    if (question->family == AF_INET6 && !(question->flags & AI_V4MAPPED))
        return numeric ? EAI_ADDRFAMILY : EAI_NONAME;

    struct lookup found;
    int failed = lookup_addresses(question->node, &found);
    if (failed) return failed;
    memcpy(question->canonical, found.canonical, sizeof question->canonical);
    for (int i = 0; i < found.count && !failed; i++) {
        if (question->family != AF_INET6) {
            failed = append_kinds(question, AF_INET, &found.addresses[i]);
            continue;
        }
        struct in6_addr mapped = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
        memcpy(&mapped.s6_addr[12], &found.addresses[i], 4);
        failed = append_kinds(question, AF_INET6, &mapped);
    }
    return failed;
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
        char name[LOOKUP_NAME_MAX];
        int failed = EAI_NONAME;
        if (v4 && !(flags & NI_NUMERICHOST))
            failed = lookup_name(((const struct sockaddr_in *)address)->sin_addr.s_addr, name,
                                 sizeof name);
        if (failed && (flags & NI_NAMEREQD)) return failed;
        if (failed) {
            const void *bytes =
                v4 ? (const void *)&((const struct sockaddr_in *)address)->sin_addr
                   : (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr;
            inet_ntop(address->sa_family, bytes, name, sizeof name);
        }
        failed = put(host, host_size, name);
        if (failed) return failed;
    }
    return put_service(address, service, service_size, flags);
}
