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

/* Lays `name` and `count` addresses out in the buffer; ERANGE if it is too small. */
static int fill(struct hostent *entry, char *buffer, size_t size, const char *name,
                const uint32_t *addresses, int count)
{
    size_t padding = (size_t)(-(uintptr_t)buffer % sizeof(char *));
    size_t pointers = ((size_t)count + 2) * sizeof(char *);
    size_t bytes = (size_t)count * sizeof(uint32_t);
    size_t length = strlen(name) + 1;
    if (size < padding + pointers + bytes + length) return ERANGE;
    char **list = (char **)(void *)(buffer + padding);
    char *data = buffer + padding + pointers;
    memcpy(data, addresses, bytes);
    for (int i = 0; i < count; i++) list[i] = data + (size_t)i * sizeof(uint32_t);
    list[count] = NULL;
    list[count + 1] = NULL;
    memcpy(data + bytes, name, length);
    *entry = (struct hostent){.h_name = data + bytes,
                              .h_aliases = &list[count + 1],
                              .h_addrtype = AF_INET,
                              .h_length = sizeof(uint32_t),
                              .h_addr_list = list};
    return 0;
}

CSE_EXPORT int gethostbyname2_r(const char *name, int family, struct hostent *entry, char *buffer,
                                size_t size, struct hostent **result, int *error)
{
    struct lookup found;
    *result = NULL;
    int failed = family == AF_INET ? lookup_addresses(name, &found) : EAI_NONAME;
    if (failed) {
        *error = h_errno_of(failed);
        return failed == EAI_AGAIN ? EAGAIN : 0;
    }
    int full = fill(entry, buffer, size, found.canonical, found.addresses, found.count);
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
    uint32_t bytes;
    *result = NULL;
    int failed = EAI_NONAME;
    if (family == AF_INET && length == sizeof bytes) {
        memcpy(&bytes, address, sizeof bytes);
        failed = lookup_name(bytes, name, sizeof name);
    }
    if (failed) {
        *error = h_errno_of(failed);
        return failed == EAI_AGAIN ? EAGAIN : 0;
    }
    int full = fill(entry, buffer, size, name, &bytes, 1);
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
