/* The gethostbyname family, on top of lookup.c. The plain forms answer from a buffer per thread.
 */
#include "net.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <string.h>

enum { ADDRESSES_MAX = 32, ANSWER_BYTES = 2048 };

static int trouble(int found)
{
    return found == -2 ? TRY_AGAIN : HOST_NOT_FOUND;
}

/* Lays a hostent out in the caller's buffer. 0 or ERANGE. */
static int lay_out(struct hostent *entry, char *buffer, size_t size, const char *name,
                   const struct in_addr *list, int count)
{
    size_t skip = -(uintptr_t)buffer % sizeof(char *), length = strlen(name) + 1;
    size_t pointers = ((size_t)count + 2) * sizeof(char *);
    if (skip + pointers + (size_t)count * sizeof *list + length > size) return ERANGE;
    char **aliases = (char **)(buffer + skip), **addresses = aliases + 1;
    char *at = buffer + skip + pointers;
    aliases[0] = NULL;
    for (int i = 0; i < count; i++) {
        addresses[i] = memcpy(at, &list[i], sizeof *list);
        at += sizeof *list;
    }
    addresses[count] = NULL;
    *entry = (struct hostent){.h_name = memcpy(at, name, length), .h_aliases = aliases,
                              .h_addrtype = AF_INET, .h_length = sizeof *list,
                              .h_addr_list = addresses};
    return 0;
}

CSE_EXPORT int gethostbyname2_r(const char *name, int family, struct hostent *entry, char *buffer,
                                size_t size, struct hostent **result, int *error)
{
    struct in_addr list[ADDRESSES_MAX];
    *result = NULL;
    int count = family == AF_INET ? lookup_addresses(name, list, ADDRESSES_MAX, false) : -1;
    if (count <= 0) {
        *error = trouble(count);
        return count == -2 ? EAGAIN : 0;
    }
    int failed = lay_out(entry, buffer, size, name, list, count);
    if (failed != 0) {
        *error = NETDB_INTERNAL;
        return failed;
    }
    *result = entry;
    *error = NETDB_SUCCESS;
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
    struct in_addr four;
    char name[NI_MAXHOST];
    *result = NULL;
    int found = -1;
    if (family == AF_INET && length == sizeof four) {
        memcpy(&four, address, sizeof four);
        found = lookup_name(four, name, sizeof name);
    }
    if (found != 1) {
        *error = trouble(found);
        return found == -2 ? EAGAIN : 0;
    }
    int failed = lay_out(entry, buffer, size, name, &four, 1);
    *error = failed != 0 ? NETDB_INTERNAL : NETDB_SUCCESS;
    if (failed == 0) *result = entry;
    return failed;
}

static __thread struct hostent plain_entry;
static __thread char plain_buffer[ANSWER_BYTES];

CSE_EXPORT struct hostent *gethostbyname2(const char *name, int family)
{
    struct hostent *result;
    int error;
    gethostbyname2_r(name, family, &plain_entry, plain_buffer, sizeof plain_buffer, &result, &error);
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
    gethostbyaddr_r(address, length, family, &plain_entry, plain_buffer, sizeof plain_buffer,
                    &result, &error);
    if (result == NULL) h_errno = error;
    return result;
}
