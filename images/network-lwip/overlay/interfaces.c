/* The interfaces of the private stack, as getifaddrs and if_nametoindex show them.
 *
 * glibc asks the kernel over netlink and would show the empty namespace's loopback only. The
 * SIOCGIF* ioctls of a private socket are answered in ioctl's wrapper from the same list.
 */
#include "core.h"
#include "net.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdlib.h>
#include <string.h>

enum { INTERFACES_MAX = 8 };

/* One allocation per entry, with all it points to. */
struct entry {
    struct ifaddrs entry; /* first: freeifaddrs gets a pointer to it */
    char name[IF_NAMESIZE];
    struct sockaddr_in address, netmask, broadcast;
};

static int list_interfaces(struct cse_interface *list)
{
    const struct cse_stack *stack = net_start();
    return stack != NULL ? stack->interfaces(list, INTERFACES_MAX) : -ENETDOWN;
}

static struct sockaddr_in internet(uint32_t address)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {address}};
}

CSE_EXPORT void freeifaddrs(struct ifaddrs *list)
{
    while (list != NULL) {
        struct ifaddrs *next = list->ifa_next;
        free(list);
        list = next;
    }
}

CSE_EXPORT int getifaddrs(struct ifaddrs **result)
{
    struct cse_interface list[INTERFACES_MAX];
    int count = list_interfaces(list);
    if (count < 0) {
        errno = -count;
        return -1;
    }
    struct ifaddrs *first = NULL, **next = &first;
    for (int i = 0; i < count; i++) {
        struct entry *made = calloc(1, sizeof *made);
        if (made == NULL) {
            freeifaddrs(first);
            errno = ENOMEM;
            return -1;
        }
        strncpy(made->name, list[i].name, sizeof made->name - 1);
        made->address = internet(list[i].address);
        made->netmask = internet(list[i].netmask);
        made->broadcast = internet(list[i].broadcast);
        struct ifaddrs *entry = &made->entry;
        entry->ifa_name = made->name;
        entry->ifa_flags = (list[i].up ? IFF_UP | IFF_RUNNING : 0U) |
                           (list[i].loopback ? IFF_LOOPBACK : IFF_BROADCAST | IFF_MULTICAST);
        entry->ifa_addr = (struct sockaddr *)&made->address;
        entry->ifa_netmask = (struct sockaddr *)&made->netmask;
        if (!list[i].loopback) entry->ifa_broadaddr = (struct sockaddr *)&made->broadcast;
        *next = entry;
        next = &entry->ifa_next;
    }
    *result = first;
    return 0;
}

CSE_EXPORT unsigned if_nametoindex(const char *name)
{
    struct cse_interface list[INTERFACES_MAX];
    int count = list_interfaces(list);
    for (int i = 0; i < count; i++)
        if (strncmp(list[i].name, name, sizeof list[i].name) == 0) return (unsigned)list[i].index;
    errno = ENODEV;
    return 0;
}

CSE_EXPORT char *if_indextoname(unsigned index, char *name)
{
    struct cse_interface list[INTERFACES_MAX];
    int count = list_interfaces(list);
    for (int i = 0; i < count; i++) {
        if ((unsigned)list[i].index != index) continue;
        memcpy(name, list[i].name, IF_NAMESIZE);
        return name;
    }
    errno = ENXIO;
    return NULL;
}

/* The array ends with an entry of index 0, which holds no name; names follow the array. */
CSE_EXPORT struct if_nameindex *if_nameindex(void)
{
    struct cse_interface list[INTERFACES_MAX];
    int count = list_interfaces(list);
    if (count < 0) {
        errno = -count;
        return NULL;
    }
    struct if_nameindex *made = calloc(1, ((size_t)count + 1) * (sizeof *made + IF_NAMESIZE));
    if (made == NULL) return NULL;
    char *names = (char *)&made[count + 1];
    for (int i = 0; i < count; i++) {
        made[i].if_index = (unsigned)list[i].index;
        made[i].if_name = names + (size_t)i * IF_NAMESIZE;
        strncpy(made[i].if_name, list[i].name, IF_NAMESIZE - 1);
    }
    return made;
}

CSE_EXPORT void if_freenameindex(struct if_nameindex *list)
{
    free(list);
}
