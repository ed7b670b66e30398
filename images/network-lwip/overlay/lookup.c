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
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define DNS_LIBRARY "libcse-dns.so"

enum { HOSTS_LINE = 1024, SERVERS_TEXT = 256 };

/* ---- /etc/hosts ------------------------------------------------------------------------ */

/* Calls `visit` for each (address, name, first name of the line) until it returns true. */
static bool each_host(bool (*visit)(uint32_t, const char *, const char *, void *), void *context)
{
    FILE *file = fopen("/etc/hosts", "re");
    if (file == NULL) return false;
    char line[HOSTS_LINE];
    bool stopped = false;
    while (!stopped && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "#\n")] = '\0';
        char *rest, *text = strtok_r(line, " \t", &rest);
        struct in_addr address;
        if (text == NULL || inet_pton(AF_INET, text, &address) != 1) continue;
        char *first = strtok_r(NULL, " \t", &rest);
        for (char *name = first; name != NULL && !stopped; name = strtok_r(NULL, " \t", &rest))
            stopped = visit(address.s_addr, name, first, context);
    }
    fclose(file);
    return stopped;
}

struct host_question {
    const char *name;
    struct lookup *found;
};

static bool take_address(uint32_t address, const char *name, const char *first, void *context)
{
    struct host_question *question = context;
    if (strcasecmp(name, question->name) != 0) return false;
    struct lookup *found = question->found;
    if (found->count == 0) snprintf(found->canonical, sizeof found->canonical, "%s", first);
    found->addresses[found->count++] = address;
    return found->count == LOOKUP_ADDRESSES_MAX;
}

struct reverse_question {
    uint32_t address;
    char *name;
    size_t size;
};

static bool take_name(uint32_t address, const char *name, const char *first, void *context)
{
    struct reverse_question *question = context;
    if (address != question->address) return false;
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
        if (server == NULL || used + strlen(server) + 2 > size) break;
        used += (size_t)snprintf(text + used, size - used, "%s%s", used ? "," : "", server);
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

static int ask_dns(const char *name, struct lookup *found)
{
    __typeof__(&cse_dns_addresses) ask = (__typeof__(ask))dns_function("cse_dns_addresses");
    char text[SERVERS_TEXT];
    if (ask == NULL) return EAI_AGAIN;
    int count = ask(servers(text, sizeof text), name, found->canonical, sizeof found->canonical,
                    found->addresses, LOOKUP_ADDRESSES_MAX);
    found->count = count > 0 ? count : 0;
    return eai_of(count);
}

/* ---- in order ------------------------------------------------------------------------------ */

int lookup_addresses(const char *name, struct lookup *found)
{
    struct in_addr address;
    union cse_address peers[2];
    found->count = 0;
    snprintf(found->canonical, sizeof found->canonical, "%s", name);
    if (inet_aton(name, &address)) {
        found->addresses[found->count++] = address.s_addr;
        return 0;
    }
    if (strlen(name) >= LOOKUP_NAME_MAX || *name == '\0' || isspace((unsigned char)*name))
        return EAI_NONAME;
    struct host_question question = {name, found};
    each_host(take_address, &question);
    if (found->count > 0) return 0;
    if (is_localhost(name)) {
        found->addresses[found->count++] = htonl(INADDR_LOOPBACK);
        return 0;
    }
    const char *own = cse_setting("name");
    const char *own_address = cse_setting("address");
    if (own != NULL && own_address != NULL && strcasecmp(own, name) == 0 &&
        inet_pton(AF_INET, own_address, &address) == 1) {
        found->addresses[found->count++] = address.s_addr;
        return 0;
    }
    const struct cse_stack *stack = net_start();
    if (stack == NULL) return EAI_AGAIN;
    int count = stack->resolve(name, peers, 2);
    for (int i = 0; i < count; i++)
        if (peers[i].family == AF_INET)
            found->addresses[found->count++] = peers[i].in.sin_addr.s_addr;
    if (found->count > 0) return 0;
    return ask_dns(name, found);
}

int lookup_name(uint32_t address, char *name, size_t size)
{
    struct reverse_question question = {address, name, size};
    if (each_host(take_name, &question)) return 0;
    if ((ntohl(address) >> 24) == 127) {
        snprintf(name, size, "localhost");
        return 0;
    }
    struct in_addr own;
    const char *own_address = cse_setting("address");
    const char *own_name = cse_setting("name");
    if (own_address != NULL && own_name != NULL && inet_pton(AF_INET, own_address, &own) == 1 &&
        own.s_addr == address) {
        snprintf(name, size, "%s", own_name);
        return 0;
    }
    __typeof__(&cse_dns_name) ask = (__typeof__(ask))dns_function("cse_dns_name");
    char text[SERVERS_TEXT];
    if (ask == NULL || net_start() == NULL) return EAI_AGAIN;
    return eai_of(ask(servers(text, sizeof text), address, name, size));
}
