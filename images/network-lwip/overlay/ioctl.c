/* ioctl on private sockets: the interfaces of the private stack (SIOCGIF*), as interfaces.c lists
 * them, and FIONREAD of datagram sockets. All else is the kernel's, on the real descriptor.
 */
#include "patience.h"

#include <net/if.h>
#include <net/if_arp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

enum { ROOM = 4 };

static int list_interfaces(struct cse_interface *list)
{
    const struct cse_stack *stack = net_start();
    return stack != NULL ? stack->interfaces(list, ROOM) : -1;
}

static unsigned flags_of(const struct cse_interface *i)
{
    unsigned flags = IFF_UP | IFF_RUNNING;
    return i->loopback ? flags | IFF_LOOPBACK : flags | IFF_BROADCAST | IFF_MULTICAST;
}

static void put_address(struct sockaddr *to, uint32_t address)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = address};
    memcpy(to, &in, sizeof in);
}

static int list_request(struct ifconf *all)
{
    struct cse_interface list[ROOM];
    int count = list_interfaces(list), used = 0;
    for (int n = 0; n < count; n++) {
        if (all->ifc_buf != NULL) {
            if (used + (int)sizeof(struct ifreq) > all->ifc_len) break;
            struct ifreq *request = (struct ifreq *)(all->ifc_buf + used);
            memset(request, 0, sizeof *request);
            strcpy(request->ifr_name, list[n].name);
            put_address(&request->ifr_addr, list[n].address);
        }
        used += (int)sizeof(struct ifreq);
    }
    all->ifc_len = used;
    return 0;
}

static int interface_request(unsigned long what, struct ifreq *request)
{
    struct cse_interface list[ROOM];
    int count = list_interfaces(list);
    const struct cse_interface *i = NULL;
    for (int n = 0; n < count && i == NULL; n++) {
        if (what == SIOCGIFNAME ? list[n].index == request->ifr_ifindex
                                : strncmp(list[n].name, request->ifr_name, IF_NAMESIZE) == 0)
            i = &list[n];
    }
    if (i == NULL) return net_fail(-ENODEV);
    switch (what) {
    case SIOCGIFNAME: strcpy(request->ifr_name, i->name); return 0;
    case SIOCGIFINDEX: request->ifr_ifindex = i->index; return 0;
    case SIOCGIFFLAGS: request->ifr_flags = (short)flags_of(i); return 0;
    case SIOCGIFMTU: request->ifr_mtu = i->mtu; return 0;
    case SIOCGIFADDR: put_address(&request->ifr_addr, i->address); return 0;
    case SIOCGIFNETMASK: put_address(&request->ifr_netmask, i->netmask); return 0;
    case SIOCGIFBRDADDR: put_address(&request->ifr_broadaddr, i->broadcast); return 0;
    case SIOCGIFMETRIC: request->ifr_metric = 0; return 0;
    case SIOCGIFTXQLEN: request->ifr_qlen = 1000; return 0;
    case SIOCGIFHWADDR:
        memset(&request->ifr_hwaddr, 0, sizeof request->ifr_hwaddr);
        request->ifr_hwaddr.sa_family = i->loopback ? ARPHRD_LOOPBACK : ARPHRD_ETHER;
        memcpy(request->ifr_hwaddr.sa_data, i->mac, 6);
        return 0;
    default: return net_fail(-EOPNOTSUPP);
    }
}

/* Bytes of the next datagram, without the addresses in front of it. */
static int next_datagram(int fd, int *bytes)
{
    struct cse_datagram header;
    ssize_t got = libc(recv)(fd, &header, sizeof header, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
    *bytes = got > (ssize_t)sizeof header ? (int)(got - (ssize_t)sizeof header) : 0;
    return 0;
}

#ifdef __GLIBC__
CSE_EXPORT int ioctl(int fd, unsigned long what, ...)
#else
CSE_EXPORT int ioctl(int fd, int what_signed, ...)
#endif
{
    va_list list;
#ifdef __GLIBC__
    va_start(list, what);
#else
    unsigned long what = (unsigned)what_signed;
    va_start(list, what_signed);
#endif
    void *argument = va_arg(list, void *);
    va_end(list);
    bool interface = what >= SIOCGIFNAME && what <= SIOCGIFTXQLEN;
    cse_socket s = interface || what == FIONREAD ? net_find(fd) : 0;
    if (cse_is_own_fd(fd)) return net_fail(-EBADF);
    if (s == 0) {
        int result = libc(ioctl)(fd, what, argument);
        if (what == FIONBIO) patience_forget(net_find_data(fd));
        return result;
    }
    if (what == FIONREAD && CSE_SOCKET_IS_DATAGRAM(s)) return next_datagram(fd, argument);
    if (!interface) return libc(ioctl)(fd, what, argument);
    if (argument == NULL) return net_fail(-EFAULT);
    return what == SIOCGIFCONF ? list_request(argument) : interface_request(what, argument);
}
