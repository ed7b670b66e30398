/* Where names come from (lookup.h). Called by names.c and hostent.c.
 *
 * glibc's own resolver cannot be reached from outside and would use kernel sockets, so nothing of
 * it is used; files are read, peers are asked of the broker, the rest goes to libcse-dns.so.
 */
#include "lookup.h"
#include "core.h"
#include "dns/dns.h"
#include "net.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DNS_LIBRARY "libcse-dns.so"

enum { HOSTS_LINE = 1024, SERVERS_TEXT = 256 };

/* ---- /etc/hosts ------------------------------------------------------------------------ */

/* Calls `visit` for each (address, name, first name of the line) until it returns true. */
static bool each_host(bool (*visit)(const union cse_address *, const char *, const char *, void *),
                      void *context)
{
    FILE *file = fopen("/etc/hosts", "re");
    if (file == NULL) return false;
    char line[HOSTS_LINE];
    bool stopped = false;
    while (!stopped && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "#\n")] = '\0';
        char *rest, *text = strtok_r(line, " \t", &rest);
        union cse_address address;
        if (text == NULL || !lookup_numeric(text, &address)) continue;
        char *first = strtok_r(NULL, " \t", &rest);
        for (char *name = first; name != NULL && !stopped; name = strtok_r(NULL, " \t", &rest))
            stopped = visit(&address, name, first, context);
    }
    fclose(file);
    return stopped;
}

struct host_question {
    const char *name;
    int family;
    bool named; /* in whatever family */
    struct lookup *found;
};

static bool take_address(const union cse_address *address, const char *name, const char *first,
                         void *context)
{
    struct host_question *question = context;
    if (strcasecmp(name, question->name) != 0) return false;
    question->named = true;
    struct lookup *found = question->found;
    if (question->family != AF_UNSPEC && address->family != question->family) return false;
    if (found->count == 0) snprintf(found->canonical, sizeof found->canonical, "%s", first);
    found->addresses[found->count++] = *address;
    return found->count == LOOKUP_ADDRESSES_MAX;
}

struct reverse_question {
    const union cse_address *address;
    char *name;
    size_t size;
};

static bool same_address(const union cse_address *a, const union cse_address *b)
{
    if (a->family != b->family) return false;
    return a->family == AF_INET ? a->in.sin_addr.s_addr == b->in.sin_addr.s_addr
                                : IN6_ARE_ADDR_EQUAL(&a->in6.sin6_addr, &b->in6.sin6_addr);
}

static bool take_name(const union cse_address *address, const char *name, const char *first,
                      void *context)
{
    struct reverse_question *question = context;
    if (!same_address(address, question->address)) return false;
    snprintf(question->name, question->size, "%s", first);
    return true;
}

/* RFC 6761: localhost and what ends in .localhost never leave the machine. */
static bool is_localhost(const char *name)
{
    size_t length = strlen(name);
    if (length > 0 && name[length - 1] == '.') length--;
    return (length == 9 && strncasecmp(name, "localhost", 9) == 0) ||
           (length > 10 && strncasecmp(name + length - 10, ".localhost", 10) == 0);
}

/* ---- DNS --------------------------------------------------------------------------------- */

static const char *servers(char *text, size_t size)
{
    size_t used = 0;
    for (int i = 0; i < 8; i++) {
        char key[16];
        snprintf(key, sizeof key, "dns.%d", i);
        const char *server = cse_setting(key);
        if (server == NULL || used + strlen(server) + 4 > size) break;
        bool v6 = strchr(server, ':') != NULL;
        used += (size_t)snprintf(text + used, size - used, "%s%s%s%s", used ? "," : "",
                                 v6 ? "[" : "", server, v6 ? "]" : "");
    }
    return used > 0 ? text : NULL;
}

/* A function of libcse-dns.so, which lies beside this library. */
static void *dns_function(const char *name)
{
    static void *handle;
    void *library = __atomic_load_n(&handle, __ATOMIC_ACQUIRE);
    if (library == NULL) {
        char path[4096];
        Dl_info self;
        if (dladdr((const void *)lookup_addresses, &self) == 0) return NULL;
        const char *slash = strrchr(self.dli_fname, '/');
        int directory = slash != NULL ? (int)(slash - self.dli_fname) + 1 : 0;
        snprintf(path, sizeof path, "%.*s" DNS_LIBRARY, directory, self.dli_fname);
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) {
            cse_escape("dns library not loaded");
            return NULL;
        }
        __atomic_store_n(&handle, library, __ATOMIC_RELEASE);
    }
    return dlsym(library, name);
}

static int eai_of(int count)
{
    if (count > 0) return 0;
    if (count == 0) return EAI_NONAME;
    return count == -ENOMEM ? EAI_MEMORY : EAI_AGAIN;
}

static int ask_dns(const char *name, int family, struct lookup *found)
{
    __typeof__(&cse_dns_addresses) ask = (__typeof__(ask))dns_function("cse_dns_addresses");
    char text[SERVERS_TEXT];
    if (ask == NULL) return EAI_AGAIN;
    int count = ask(servers(text, sizeof text), name, family, found->canonical,
                    sizeof found->canonical, found->addresses, LOOKUP_ADDRESSES_MAX);
    found->count = count > 0 ? count : 0;
    return eai_of(count);
}

/* ---- the order of use ---------------------------------------------------------------------- */

static bool own_address6(struct in6_addr *own)
{
    const char *text = cse_setting("address6");
    return text != NULL && inet_pton(AF_INET6, text, own) == 1;
}

bool lookup_has_ipv6(void)
{
    struct in6_addr own;
    return own_address6(&own);
}

static bool unique_local(const struct in6_addr *address)
{
    return (address->s6_addr[0] & 0xfe) == 0xfc;
}

/* RFC 6724 as far as one address of each family allows: an IPv6 destination comes before IPv4 if
 * there is a source of its kind, else after it. */
static int rank(const union cse_address *address)
{
    struct in6_addr own;
    if (address->family == AF_INET) return 1;
    const struct in6_addr *to = &address->in6.sin6_addr;
    if (IN6_IS_ADDR_LOOPBACK(to) || IN6_IS_ADDR_LINKLOCAL(to)) return 0;
    return own_address6(&own) && unique_local(&own) == unique_local(to) ? 0 : 2;
}

static void sort(struct lookup *found)
{
    for (int i = 1; i < found->count; i++) {
        union cse_address moved = found->addresses[i];
        int at = i;
        for (; at > 0 && rank(&found->addresses[at - 1]) > rank(&moved); at--)
            found->addresses[at] = found->addresses[at - 1];
        found->addresses[at] = moved;
    }
}

/* ---- in order ------------------------------------------------------------------------------ */

bool lookup_numeric(const char *text, union cse_address *address)
{
    char bare[INET6_ADDRSTRLEN];
    const char *scope = strchr(text, '%');
    memset(address, 0, sizeof *address);
    if (scope == NULL && inet_aton(text, &address->in.sin_addr)) {
        address->family = AF_INET;
        return true;
    }
    size_t length = scope != NULL ? (size_t)(scope - text) : strlen(text);
    if (length >= sizeof bare) return false;
    memcpy(bare, text, length);
    bare[length] = '\0';
    if (inet_pton(AF_INET6, bare, &address->in6.sin6_addr) != 1) return false;
    address->family = AF_INET6;
    if (scope == NULL) return true;
    char *end;
    address->in6.sin6_scope_id = if_nametoindex(scope + 1);
    if (address->in6.sin6_scope_id == 0) {
        address->in6.sin6_scope_id = (uint32_t)strtoul(scope + 1, &end, 10);
        if (scope[1] == '\0' || *end != '\0') return false;
    }
    return true;
}

static void add(struct lookup *found, int family, const char *text)
{
    union cse_address address;
    if (text == NULL || found->count == LOOKUP_ADDRESSES_MAX || !lookup_numeric(text, &address))
        return;
    if (family == AF_UNSPEC || address.family == family) found->addresses[found->count++] = address;
}

/* Names that are settled before anybody is asked. True if `name` is one. */
static bool find_at_home(const char *name, int family, struct lookup *found)
{
    struct host_question question = {name, family, false, found};
    each_host(take_address, &question);
    if (question.named) return true;
    if (is_localhost(name)) {
        add(found, family, "::1");
        add(found, family, "127.0.0.1");
        return true;
    }
    const char *own = cse_setting("name");
    if (own == NULL || cse_setting("address") == NULL || strcasecmp(own, name) != 0) return false;
    add(found, family, cse_setting("address6"));
    add(found, family, cse_setting("address"));
    return true;
}

static int find(const char *name, int family, struct lookup *found)
{
    union cse_address peers[2];
    if (find_at_home(name, family, found)) return found->count > 0 ? 0 : EAI_NONAME;
    const struct cse_stack *stack = net_start();
    if (stack == NULL) return EAI_AGAIN;
    int count = stack->resolve(name, peers, 2);
    for (int i = 0; i < count; i++)
        if (family == AF_UNSPEC || peers[i].family == family)
            found->addresses[found->count++] = peers[i];
    if (count > 0) return found->count > 0 ? 0 : EAI_NONAME;
    return ask_dns(name, family, found);
}

int lookup_addresses(const char *name, int family, struct lookup *found)
{
    union cse_address address;
    cse_settings_load("network");
    found->count = 0;
    snprintf(found->canonical, sizeof found->canonical, "%s", name);
    if (lookup_numeric(name, &address)) {
        if (family == AF_UNSPEC || family == address.family)
            found->addresses[found->count++] = address;
        return found->count > 0 ? 0 : EAI_NONAME;
    }
    if (strlen(name) >= LOOKUP_NAME_MAX || *name == '\0' || isspace((unsigned char)*name))
        return EAI_NONAME;
    int failed = find(name, family, found);
    if (failed == 0) sort(found);
    return failed;
}

static bool is_own(const union cse_address *address)
{
    union cse_address own;
    const char *text = cse_setting(address->family == AF_INET6 ? "address6" : "address");
    return text != NULL && lookup_numeric(text, &own) && same_address(&own, address);
}

int lookup_name(const union cse_address *address, char *name, size_t size)
{
    struct reverse_question question = {address, name, size};
    if (each_host(take_name, &question)) return 0;
    bool loopback = address->family == AF_INET6 ? IN6_IS_ADDR_LOOPBACK(&address->in6.sin6_addr)
                                                : ntohl(address->in.sin_addr.s_addr) >> 24 == 127;
    const char *own_name = cse_setting("name");
    if (loopback || (own_name != NULL && is_own(address))) {
        snprintf(name, size, "%s", loopback ? "localhost" : own_name);
        return 0;
    }
    __typeof__(&cse_dns_name) ask = (__typeof__(ask))dns_function("cse_dns_name");
    char text[SERVERS_TEXT];
    if (ask == NULL || net_start() == NULL) return EAI_AGAIN;
    return eai_of(ask(servers(text, sizeof text), address, name, size));
}
