/* Where names are looked for: the name itself if it is an address, the hosts file, the broker
 * (other applications of the network), the DNS. Called by names.c and hostent.c.
 */
#include "net.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* Calls for each name of each line of /etc/hosts with an IPv4 address; true ends the search. */
static bool each_host(bool (*each)(struct in_addr address, const char *name, void *), void *context)
{
    char line[1024];
    bool done = false;
    FILE *file = fopen("/etc/hosts", "re");
    if (file == NULL) return false;
    while (!done && fgets(line, sizeof line, file) != NULL) {
        struct in_addr address;
        char *rest = line, *word;
        line[strcspn(line, "#\n")] = '\0';
        word = strtok_r(rest, " \t", &rest);
        if (word == NULL || inet_pton(AF_INET, word, &address) != 1) continue;
        while (!done && (word = strtok_r(rest, " \t", &rest)) != NULL)
            done = each(address, word, context);
    }
    fclose(file);
    return done;
}

struct search {
    const char *name;
    struct in_addr *list;
    int room, count;
    struct in_addr address;
    char *out;
    size_t size;
};

static bool take_address(struct in_addr address, const char *name, void *context)
{
    struct search *search = context;
    if (strcasecmp(name, search->name) != 0) return false;
    for (int i = 0; i < search->count; i++)
        if (search->list[i].s_addr == address.s_addr) return false;
    search->list[search->count++] = address;
    return search->count == search->room;
}

static bool take_name(struct in_addr address, const char *name, void *context)
{
    struct search *search = context;
    if (address.s_addr != search->address.s_addr) return false;
    snprintf(search->out, search->size, "%s", name);
    return true;
}

static bool is_localhost(const char *name)
{
    size_t length = strlen(name);
    return strcasecmp(name, "localhost") == 0 ||
           (length > 10 && strcasecmp(name + length - 10, ".localhost") == 0);
}

/* A count of addresses, -1 no such name, -2 cannot be found out now. */
int lookup_addresses(const char *name, struct in_addr *list, int room, bool numeric_only)
{
    if (inet_aton(name, &list[0]) != 0) return 1;
    if (numeric_only || *name == '\0') return -1;
    struct search search = {.name = name, .list = list, .room = room};
    each_host(take_address, &search);
    if (search.count > 0) return search.count;
    if (is_localhost(name)) {
        list[0].s_addr = htonl(INADDR_LOOPBACK);
        return 1;
    }
    const struct cse_stack *stack = net_start();
    if (stack == NULL) return -2;
    const char *own = cse_setting("name");
    struct cse_interface interfaces[4];
    if (own != NULL && strcasecmp(own, name) == 0 && stack->interfaces(interfaces, 4) == 2) {
        list[0].s_addr = interfaces[1].address;
        return 1;
    }
    if (stack->resolve(name, &list[0]) == 1) return 1;
    return dns_addresses(name, list, room);
}

/* 1 found, -1 no name, -2 cannot be found out now. */
int lookup_name(struct in_addr address, char *name, size_t size)
{
    struct search search = {.address = address, .out = name, .size = size};
    if (each_host(take_name, &search)) return 1;
    if ((ntohl(address.s_addr) >> 24) == 127) {
        snprintf(name, size, "localhost");
        return 1;
    }
    return net_start() != NULL ? dns_name(address, name, size) : -2;
}
