/* gethostbyname, gethostbyaddr and their forms, on the same look-up as getaddrinfo.
 *
 * The reentrant forms put everything into the caller's buffer; the old ones use one static buffer,
 * as their man page says.
 */
#include "core.h"
#include "lookup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#ifndef NETDB_INTERNAL /* not in musl's header */
#define NETDB_INTERNAL (-1)
#define NETDB_SUCCESS  0
#endif

enum { STATIC_BUFFER = 2048 };

static __thread char static_buffer[STATIC_BUFFER];
static __thread struct hostent static_entry;

static int h_errno_of(int eai)
{
    if (eai == EAI_AGAIN) return TRY_AGAIN;
    return eai == EAI_NONAME ? HOST_NOT_FOUND : NO_RECOVERY;
}

static size_t bytes_of(int family)
{
    return family == AF_INET6 ? sizeof(struct in6_addr) : sizeof(struct in_addr);
}

/* Lays `name` and `count` addresses of one family out in the buffer; ERANGE if it is too small. */
static int fill(struct hostent *entry, char *buffer, size_t size, const char *name,
                const union cse_address *addresses, int count, int family)
{
    size_t padding = (size_t)(-(uintptr_t)buffer % sizeof(char *));
    size_t pointers = ((size_t)count + 2) * sizeof(char *), one = bytes_of(family);
    size_t bytes = (size_t)count * one;
    size_t length = strlen(name) + 1;
    if (size < padding + pointers + bytes + length) return ERANGE;
    char **list = (char **)(void *)(buffer + padding);
    char *data = buffer + padding + pointers;
    for (int i = 0; i < count; i++) {
        list[i] = data + (size_t)i * one;
        const void *address = family == AF_INET6 ? (const void *)&addresses[i].in6.sin6_addr
                                                 : (const void *)&addresses[i].in.sin_addr;
        memcpy(list[i], address, one);
    }
    list[count] = NULL;
    list[count + 1] = NULL;
    memcpy(data + bytes, name, length);
    *entry = (struct hostent){.h_name = data + bytes,
                              .h_aliases = &list[count + 1],
                              .h_addrtype = family,
                              .h_length = (int)one,
                              .h_addr_list = list};
    return 0;
}

CSE_EXPORT int gethostbyname2_r(const char *name, int family, struct hostent *entry, char *buffer,
                                size_t size, struct hostent **result, int *error)
{
    struct lookup found;
    *result = NULL;
    bool known = family == AF_INET || family == AF_INET6;
    int failed = known ? lookup_addresses(name, family, &found) : EAI_NONAME;
    if (failed) {
        *error = h_errno_of(failed);
        return failed == EAI_AGAIN ? EAGAIN : 0;
    }
    int full = fill(entry, buffer, size, found.canonical, found.addresses, found.count, family);
    if (full) {
        *error = NETDB_INTERNAL;
        return full;
    }
    *error = NETDB_SUCCESS;
    *result = entry;
    return 0;
}

CSE_EXPORT int gethostbyname_r(const char *name, struct hostent *entry, char *buffer, size_t size,
                               struct hostent **result, int *error)
{
    return gethostbyname2_r(name, AF_INET, entry, buffer, size, result, error);
}

CSE_EXPORT int gethostbyaddr_r(const void *address, socklen_t length, int family,
                               struct hostent *entry, char *buffer, size_t size,
                               struct hostent **result, int *error)
{
    char name[LOOKUP_NAME_MAX];
    union cse_address asked = {.family = (sa_family_t)family};
    *result = NULL;
    int failed = EAI_NONAME;
    if ((family == AF_INET || family == AF_INET6) && length == bytes_of(family)) {
        memcpy(family == AF_INET6 ? (void *)&asked.in6.sin6_addr : (void *)&asked.in.sin_addr,
               address, length);
        failed = lookup_name(&asked, name, sizeof name);
    }
    if (failed) {
        *error = h_errno_of(failed);
        return failed == EAI_AGAIN ? EAGAIN : 0;
    }
    int full = fill(entry, buffer, size, name, &asked, 1, family);
    if (full) {
        *error = NETDB_INTERNAL;
        return full;
    }
    *error = NETDB_SUCCESS;
    *result = entry;
    return 0;
}

CSE_EXPORT struct hostent *gethostbyname2(const char *name, int family)
{
    struct hostent *result;
    int error;
    gethostbyname2_r(name, family, &static_entry, static_buffer, sizeof static_buffer, &result,
                     &error);
    if (result == NULL) h_errno = error;
    return result;
}

CSE_EXPORT struct hostent *gethostbyname(const char *name)
{
    return gethostbyname2(name, AF_INET);
}

CSE_EXPORT struct hostent *gethostbyaddr(const void *address, socklen_t length, int family)
{
    struct hostent *result;
    int error;
    gethostbyaddr_r(address, length, family, &static_entry, static_buffer, sizeof static_buffer,
                    &result, &error);
    if (result == NULL) h_errno = error;
    return result;
}
