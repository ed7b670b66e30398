/* getaddrinfo, freeaddrinfo and getnameinfo, taken whole: inside libc they reach the kernel's
 * network past any overlay. The instance speaks IPv4; an IPv6 address given as digits is passed
 * back as such, and its socket is then refused with EAFNOSUPPORT.
 */
#include "net.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADDRESSES_MAX = 32 };

struct service {
    int type, protocol;
    const char *name;
};
static const struct service services[] = {
    {SOCK_STREAM, IPPROTO_TCP, "tcp"}, {SOCK_DGRAM, IPPROTO_UDP, "udp"}, {SOCK_RAW, 0, NULL}};

/* The port of a service by number or name, network byte order; -1 if there is none. */
static int port_of(const char *service, const char *protocol, int flags)
{
    if (service == NULL) return 0;
    char *end;
    long number = strtol(service, &end, 10);
    if (*end == '\0' && end != service) return number < 0 || number > 65535 ? -1 : htons((uint16_t)number);
    if (flags & AI_NUMERICSERV || protocol == NULL) return -1;
    struct servent entry, *found = NULL;
    char buffer[1024];
#ifdef __GLIBC__
    if (getservbyname_r(service, protocol, &entry, buffer, sizeof buffer, &found) != 0) return -1;
#else
    (void)entry;
    (void)buffer;
    found = getservbyname(service, protocol);
#endif
    return found != NULL ? found->s_port : -1;
}

static struct addrinfo *new_entry(int family, const void *address, int port, int scope,
                                  const struct service *s, int protocol)
{
    struct addrinfo *entry = calloc(1, sizeof *entry + sizeof(struct sockaddr_in6));
    if (entry == NULL) return NULL;
    entry->ai_family = family;
    entry->ai_socktype = s->type;
    entry->ai_protocol = s->protocol != 0 ? s->protocol : protocol;
    entry->ai_addr = (struct sockaddr *)(entry + 1);
    entry->ai_addr->sa_family = (sa_family_t)family;
    if (family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)entry->ai_addr;
        in->sin_port = (in_port_t)port;
        memcpy(&in->sin_addr, address, sizeof in->sin_addr);
        entry->ai_addrlen = sizeof *in;
    } else {
        struct sockaddr_in6 *in = (struct sockaddr_in6 *)entry->ai_addr;
        in->sin6_port = (in_port_t)port;
        in->sin6_scope_id = (uint32_t)scope;
        memcpy(&in->sin6_addr, address, sizeof in->sin6_addr);
        entry->ai_addrlen = sizeof *in;
    }
    return entry;
}

/* Appends an entry for each kind of socket that fits. 0 or an EAI_ error. */
static int append(struct addrinfo ***tail, int family, const void *address, const char *service,
                  const struct addrinfo *hints)
{
    bool any = false;
    for (size_t i = 0; i < sizeof services / sizeof *services; i++) {
        const struct service *s = &services[i];
        if (hints->ai_socktype != 0 && hints->ai_socktype != s->type) continue;
        if (hints->ai_protocol != 0 && s->protocol != 0 && hints->ai_protocol != s->protocol) continue;
        int port = port_of(service, s->name, hints->ai_flags);
        if (port < 0) continue;
        any = true;
        **tail = new_entry(family, address, port, 0, s, hints->ai_protocol);
        if (**tail == NULL) return EAI_MEMORY;
        *tail = &(**tail)->ai_next;
    }
    return any ? 0 : EAI_SERVICE;
}

static int without_node(struct addrinfo ***tail, const char *service, const struct addrinfo *hints)
{
    struct in_addr address = {htonl(hints->ai_flags & AI_PASSIVE ? INADDR_ANY : INADDR_LOOPBACK)};
    struct in6_addr six = IN6ADDR_ANY_INIT;
    if (hints->ai_family != AF_INET6) return append(tail, AF_INET, &address, service, hints);
    if (!(hints->ai_flags & AI_PASSIVE)) six.s6_addr[15] = 1;
    return append(tail, AF_INET6, &six, service, hints);
}

static int with_node(struct addrinfo ***tail, const char *node, const char *service,
                     const struct addrinfo *hints)
{
    struct in6_addr six;
    if (hints->ai_family != AF_INET && inet_pton(AF_INET6, node, &six) == 1)
        return append(tail, AF_INET6, &six, service, hints);
    if (hints->ai_family == AF_INET6) return EAI_NONAME;
    struct in_addr list[ADDRESSES_MAX];
    int count = lookup_addresses(node, list, ADDRESSES_MAX, (hints->ai_flags & AI_NUMERICHOST) != 0);
    if (count == -2) return EAI_AGAIN;
    if (count <= 0) return EAI_NONAME;
    int failed = 0;
    for (int i = 0; i < count && failed == 0; i++)
        failed = append(tail, AF_INET, &list[i], service, hints);
    return failed;
}

CSE_EXPORT void freeaddrinfo(struct addrinfo *list)
{
    while (list != NULL) {
        struct addrinfo *next = list->ai_next;
        free(list->ai_canonname);
        free(list);
        list = next;
    }
}

CSE_EXPORT int getaddrinfo(const char *restrict node, const char *restrict service,
                           const struct addrinfo *restrict hints, struct addrinfo **restrict result)
{
    static const struct addrinfo none;
    struct addrinfo *list = NULL, **tail = &list;
    if (hints == NULL) hints = &none;
    if (node == NULL && service == NULL) return EAI_NONAME;
    if (hints->ai_family != AF_UNSPEC && hints->ai_family != AF_INET && hints->ai_family != AF_INET6)
        return EAI_FAMILY;
    if ((hints->ai_flags & AI_CANONNAME) && node == NULL) return EAI_BADFLAGS;
    if (hints->ai_socktype != 0 && hints->ai_socktype != SOCK_STREAM &&
        hints->ai_socktype != SOCK_DGRAM && hints->ai_socktype != SOCK_RAW)
        return EAI_SOCKTYPE;
    int failed = node == NULL ? without_node(&tail, service, hints)
                              : with_node(&tail, node, service, hints);
    if (failed == 0 && (hints->ai_flags & AI_CANONNAME)) {
        list->ai_canonname = strdup(node);
        if (list->ai_canonname == NULL) failed = EAI_MEMORY;
    }
    if (failed != 0) freeaddrinfo(list);
    else *result = list;
    return failed;
}

/* ---- the other way --------------------------------------------------------------------------- */

static int service_text(uint16_t port, char *out, size_t size, int flags)
{
    struct servent *found = NULL;
#ifdef __GLIBC__
    struct servent entry;
    char buffer[1024];
    if (!(flags & NI_NUMERICSERV))
        getservbyport_r(port, flags & NI_DGRAM ? "udp" : "tcp", &entry, buffer, sizeof buffer, &found);
#else
    if (!(flags & NI_NUMERICSERV)) found = getservbyport(port, flags & NI_DGRAM ? "udp" : "tcp");
#endif
    int used = found != NULL ? snprintf(out, size, "%s", found->s_name)
                             : snprintf(out, size, "%u", ntohs(port));
    return used < (int)size ? 0 : EAI_OVERFLOW;
}

static int host_text(const struct sockaddr *address, char *out, size_t size, int flags)
{
    char name[NI_MAXHOST];
    if (address->sa_family == AF_INET6) {
        if (flags & NI_NAMEREQD) return EAI_NONAME;
        const void *six = &((const struct sockaddr_in6 *)address)->sin6_addr;
        return inet_ntop(AF_INET6, six, out, (socklen_t)size) != NULL ? 0 : EAI_OVERFLOW;
    }
    struct in_addr four = ((const struct sockaddr_in *)address)->sin_addr;
    if (!(flags & NI_NUMERICHOST)) {
        int found = lookup_name(four, name, sizeof name);
        if (found == 1) return snprintf(out, size, "%s", name) < (int)size ? 0 : EAI_OVERFLOW;
        if (flags & NI_NAMEREQD) return found == -2 ? EAI_AGAIN : EAI_NONAME;
    }
    return inet_ntop(AF_INET, &four, out, (socklen_t)size) != NULL ? 0 : EAI_OVERFLOW;
}

CSE_EXPORT int getnameinfo(const struct sockaddr *restrict address, socklen_t length,
                           char *restrict host, socklen_t host_size, char *restrict service,
                           socklen_t service_size, int flags)
{
    if (length < sizeof(sa_family_t)) return EAI_FAMILY;
    bool four = address->sa_family == AF_INET && length >= sizeof(struct sockaddr_in);
    bool six = address->sa_family == AF_INET6 && length >= sizeof(struct sockaddr_in6);
    if (!four && !six) { /* AF_UNIX has its own ways */
        return libc(getnameinfo)(address, length, host, host_size, service, service_size, flags);
    }
    if (host == NULL && service == NULL) return EAI_NONAME;
    int failed = 0;
    if (host != NULL && host_size > 0) failed = host_text(address, host, host_size, flags);
    if (failed == 0 && service != NULL && service_size > 0)
        failed = service_text(((const struct sockaddr_in *)address)->sin_port, service,
                              service_size, flags);
    return failed;
}
