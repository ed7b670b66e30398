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
#include <net/if_arp.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdlib.h>
#include <string.h>

enum { INTERFACES_MAX = 8 };

/* One allocation per entry, with all it points to. */
struct entry {
    struct ifaddrs entry; /* first: freeifaddrs gets a pointer to it */
    char name[IF_NAMESIZE];
    union {
        union cse_address internet;
        struct sockaddr_ll link;
    } address, netmask, broadcast;
};

static int list_interfaces(struct cse_interface *list)
{
    const struct cse_stack *stack = net_start();
    return stack != NULL ? stack->interfaces(list, INTERFACES_MAX) : -ENETDOWN;
}

CSE_EXPORT void freeifaddrs(struct ifaddrs *list)
{
    while (list != NULL) {
        struct ifaddrs *next = list->ifa_next;
        free(list);
        list = next;
    }
}

struct list {
    struct ifaddrs *first, **next;
    bool failed;
};

/* The next entry of the list, for one address of an interface. */
static struct entry *append(struct list *list, const struct cse_interface *interface)
{
    static struct entry none;
    struct entry *made = calloc(1, sizeof *made);
    if (made == NULL) {
        list->failed = true;
        return &none;
    }
    memcpy(made->name, interface->name, sizeof made->name);
    struct ifaddrs *entry = &made->entry;
    entry->ifa_name = made->name;
    entry->ifa_flags = (interface->up ? IFF_UP | IFF_RUNNING : 0U) |
                       (interface->loopback ? IFF_LOOPBACK : IFF_BROADCAST | IFF_MULTICAST);
    entry->ifa_addr = (struct sockaddr *)&made->address;
    *list->next = entry;
    list->next = &entry->ifa_next;
    return made;
}

static void append_link(struct list *list, const struct cse_interface *interface)
{
    struct entry *made = append(list, interface);
    made->address.link = (struct sockaddr_ll){
        .sll_family = AF_PACKET,
        .sll_ifindex = interface->index,
        .sll_hatype = interface->loopback ? ARPHRD_LOOPBACK : ARPHRD_ETHER,
        .sll_halen = 6,
    };
    made->broadcast.link = made->address.link;
    memcpy(made->address.link.sll_addr, interface->mac, 6);
    memset(made->broadcast.link.sll_addr, interface->loopback ? 0 : 0xff, 6);
    made->entry.ifa_broadaddr = (struct sockaddr *)&made->broadcast;
}

static void put4(union cse_address *to, uint32_t address)
{
    to->in = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {address}};
}

static void append4(struct list *list, const struct cse_interface *interface)
{
    struct entry *made = append(list, interface);
    put4(&made->address.internet, interface->address);
    put4(&made->netmask.internet, interface->netmask);
    made->entry.ifa_netmask = (struct sockaddr *)&made->netmask;
    put4(&made->broadcast.internet,
         interface->loopback ? interface->address : interface->broadcast);
    made->entry.ifa_broadaddr = (struct sockaddr *)&made->broadcast;
}

static void append6(struct list *list, const struct cse_interface *interface, int which)
{
    struct entry *made = append(list, interface);
    struct sockaddr_in6 *address = &made->address.internet.in6, *mask = &made->netmask.internet.in6;
    address->sin6_family = mask->sin6_family = AF_INET6;
    address->sin6_addr = interface->address6[which];
    if (IN6_IS_ADDR_LINKLOCAL(&address->sin6_addr))
        address->sin6_scope_id = (uint32_t)interface->index;
    for (int bit = 0; bit < interface->prefix6[which]; bit++)
        mask->sin6_addr.s6_addr[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
    made->entry.ifa_netmask = (struct sockaddr *)&made->netmask;
}

/* In the kernel's order: links, IPv4, IPv6. */
CSE_EXPORT int getifaddrs(struct ifaddrs **result)
{
    struct cse_interface list[INTERFACES_MAX];
    int count = list_interfaces(list);
    if (count < 0) {
        errno = -count;
        return -1;
    }
    struct list made = {.next = &made.first};
    for (int i = 0; i < count; i++) append_link(&made, &list[i]);
    for (int i = 0; i < count; i++)
        if (list[i].address != 0) append4(&made, &list[i]);
    for (int i = 0; i < count; i++)
        for (int n = 0; n < list[i].count6; n++) append6(&made, &list[i], n);
    if (made.failed) {
        freeifaddrs(made.first);
        errno = ENOMEM;
        return -1;
    }
    *result = made.first;
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
