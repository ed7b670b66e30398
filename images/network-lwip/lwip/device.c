/* The device: frames between lwIP and a TAP descriptor, and the loopback interface.
 *
 * Frames are written by whoever holds the lock and read by the leader's pump. With virtio headers
 * (IFF_VNET_HDR) the kernel completes and vouches for checksums and may hand over segments larger
 * than the MTU; without, they are made and checked here. What comes from the device is not
 * trusted: every length is checked against what was read.
 */
#include "instance.h"

#include "lwip/etharp.h"
#include "lwip/inet_chksum.h"
#include "lwip/nd6.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"
#include "netif/ethernet.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FRAME_MAX = 65536 + 64, PARTS_MAX = 64, ETHERNET_HEADER = 14 };

/* struct virtio_net_hdr, without depending on the machine's headers */
struct offload_header {
    uint8_t flags, gso_type;
    uint16_t header_length, gso_size, checksum_start, checksum_offset;
};
enum { NEEDS_CHECKSUM = 1, DATA_VALID = 2 };

/* ---- to the device ------------------------------------------------------------------------ */

static uint16_t fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static uint16_t chain_sum(struct pbuf *p, uint16_t skip)
{
    uint32_t sum = 0;
    bool odd = false;
    for (; p != NULL; p = p->next) {
        if (skip >= p->len) {
            skip = (uint16_t)(skip - p->len);
            continue;
        }
        uint16_t part = cse_lwip_checksum((char *)p->payload + skip, p->len - skip);
        if (odd) part = (uint16_t)(part << 8 | part >> 8);
        sum += part;
        odd ^= (p->len - skip) & 1;
        skip = 0;
    }
    return fold(sum);
}

/* A TCP or UDP packet's header, as far as checksums need it. */
struct transport {
    uint16_t start, length; /* of the transport's part of the packet */
    uint16_t place;         /* of its checksum, from `start` */
    uint32_t sum;           /* of the pseudo-header */
};

/* False for other protocols, for fragments, and for what is not sound: lwIP judges these. */
static bool find_transport(const char *packet, size_t length, struct transport *found)
{
    const struct ip_hdr *ip = (const struct ip_hdr *)packet;
    const struct ip6_hdr *ip6 = (const struct ip6_hdr *)packet;
    uint8_t protocol;
    if (length >= IP6_HLEN && IP6H_V(ip6) == 6) { /* behind an extension header: lwIP's */
        protocol = IP6H_NEXTH(ip6);
        found->start = IP6_HLEN;
        found->length = IP6H_PLEN(ip6);
        found->sum = cse_lwip_checksum(&ip6->src, 32);
    } else {
        if (length < IP_HLEN || IPH_V(ip) != 4) return false;
        found->start = IPH_HL_BYTES(ip);
        uint16_t whole = lwip_ntohs(IPH_LEN(ip));
        if ((IPH_OFFSET(ip) & lwip_htons(IP_MF | IP_OFFMASK)) != 0) return false;
        if (found->start < IP_HLEN || whole < found->start) return false;
        protocol = IPH_PROTO(ip);
        found->length = (uint16_t)(whole - found->start);
        found->sum = cse_lwip_checksum(&ip->src, 8);
    }
    if (protocol != IP_PROTO_TCP && protocol != IP_PROTO_UDP) return false;
    found->place = protocol == IP_PROTO_TCP ? 16 : 6;
    found->sum += (uint32_t)lwip_htons(protocol) + lwip_htons(found->length);
    return found->length >= found->place + 2;
}

/* Completes the checksum of an outgoing packet, or leaves that to the kernel. */
static void seal(struct pbuf *p, struct offload_header *offload)
{
    struct eth_hdr *ethernet = p->payload;
    struct transport t;
    if (p->len < ETHERNET_HEADER + IP_HLEN ||
        (ethernet->type != PP_HTONS(ETHTYPE_IP) && ethernet->type != PP_HTONS(ETHTYPE_IPV6)))
        return;
    char *packet = (char *)p->payload + ETHERNET_HEADER;
    if (!find_transport(packet, p->len - ETHERNET_HEADER, &t)) return;
    uint16_t start = (uint16_t)(ETHERNET_HEADER + t.start);
    if (p->len < start + t.place + 2) return;
    uint16_t *field = (uint16_t *)((char *)p->payload + start + t.place);
    bool damaged = (p->flags & PACKET_DAMAGED) != 0;
    if (instance->device_headers && !damaged) {
        *field = fold(t.sum);
        offload->flags = NEEDS_CHECKSUM;
        offload->checksum_start = start;
        offload->checksum_offset = t.place;
        return;
    }
    *field = 0;
    uint16_t whole = (uint16_t)~fold(t.sum + chain_sum(p, start));
    *field = whole == 0 && t.place == 6 ? 0xffff : whole;
    if (damaged) *field ^= *field == 1 ? 2 : 1;
}

err_t cse_netif_linkoutput(struct netif *netif, struct pbuf *p)
{
    struct offload_header offload = {0};
    struct iovec parts[PARTS_MAX];
    int count = 0;
    seal(p, &offload);
    if (instance->device_headers) parts[count++] = (struct iovec){&offload, sizeof offload};
    for (struct pbuf *q = p; q != NULL && count < PARTS_MAX; q = q->next)
        if (q->len != 0) parts[count++] = (struct iovec){q->payload, q->len};
    if (syscall(SYS_writev, me.tap, parts, (long)count) < 0) {
        instance->tx_dropped++; /* a full queue drops, as on any wire */
        return ERR_OK;
    }
    instance->tx_packets++;
    instance->tx_bytes += p->tot_len;
    return ERR_OK;
}

/* ---- from the device ---------------------------------------------------------------------- */

static bool checksum_good(const char *packet, size_t length)
{
    struct transport t;
    uint16_t field;
    if (!find_transport(packet, length, &t) || (size_t)t.start + t.length > length) return true;
    memcpy(&field, packet + t.start + t.place, sizeof field);
    if (t.place == 6 && field == 0)
        return t.start != IP6_HLEN || IPH_V((struct ip_hdr *)packet) == 4;
    return fold(t.sum + cse_lwip_checksum(packet + t.start, t.length)) == 0xffff;
}

static struct pbuf *packet_of(const char *bytes, size_t length)
{
    if (length > UINT16_MAX) {
        instance->rx_dropped++;
        return NULL;
    }
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)length, PBUF_RAM);
    if (p == NULL)
        instance->rx_dropped++;
    else
        memcpy(p->payload, bytes, length);
    return p;
}

static void take_frame(char *frame, size_t length, const struct offload_header *offload)
{
    struct netif *netif = instance->tap;
    if (length < ETHERNET_HEADER) return;
    const struct eth_hdr *ethernet = (const struct eth_hdr *)frame;
    bool group = (ethernet->dest.addr[0] & 1) != 0;
    if (!group && memcmp(&ethernet->dest, netif->hwaddr, ETH_HWADDR_LEN) != 0) return;
    instance->rx_packets++;
    instance->rx_bytes += length;
    if (ethernet->type == PP_HTONS(ETHTYPE_ARP)) {
        struct pbuf *p = packet_of(frame, length);
        if (p != NULL && ethernet_input(p, netif) != ERR_OK) pbuf_free(p);
    } else if (ethernet->type == PP_HTONS(ETHTYPE_IP) || ethernet->type == PP_HTONS(ETHTYPE_IPV6)) {
        char *packet = frame + ETHERNET_HEADER;
        length -= ETHERNET_HEADER;
        if (!(offload->flags & (NEEDS_CHECKSUM | DATA_VALID)) && !checksum_good(packet, length)) {
            instance->checksum_errors++;
            return;
        }
        struct pbuf *p = packet_of(packet, length);
        if (p == NULL) return;
        if (group) p->flags |= PBUF_FLAG_LLBCAST;
        packet_in(p);
    }
}

/* Feeds at most `limit` frames to lwIP; false when none is left. */
bool device_read(int limit)
{
    struct offload_header offload;
    for (int i = 0; i < limit; i++) {
        struct iovec parts[2] = {{&offload, sizeof offload}, {me.scratch, FRAME_MAX}};
        memset(&offload, 0, sizeof offload);
        bool headers = instance->device_headers;
        ssize_t got = syscall(SYS_readv, me.tap, headers ? parts : parts + 1, headers ? 2L : 1L);
        if (got <= 0) return false;
        if (headers) got -= (ssize_t)sizeof offload;
        if (got > 0) take_frame(me.scratch, (size_t)got, &offload);
    }
    return true;
}

/* ---- set-up -------------------------------------------------------------------------------- */

static err_t tap_init(struct netif *netif)
{
    netif->name[0] = 'e';
    netif->name[1] = 't';
    netif->hwaddr_len = ETH_HWADDR_LEN;
    memcpy(netif->hwaddr, instance->mac, ETH_HWADDR_LEN);
    netif->mtu = instance->mtu;
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_MLD6;
    return ERR_OK;
}

static err_t loop_init(struct netif *netif)
{
    netif->name[0] = 'l';
    netif->name[1] = 'o';
    netif->mtu = 65520;
    return ERR_OK;
}

static struct netif *add_interface(uint32_t address, uint32_t mask, uint32_t gateway,
                                   netif_init_fn init)
{
    struct netif *netif = heap_alloc(sizeof *netif);
    if (netif == NULL) return NULL;
    memset(netif, 0, sizeof *netif);
    ip4_addr_t ip = {address}, netmask = {mask}, router = {gateway};
    netif_add(netif, &ip, &netmask, &router, NULL, init, ip_input);
    /* Checksums of TCP and UDP are the device's business; IP and ICMP stay with lwIP. */
    NETIF_SET_CHECKSUM_CTRL(netif, NETIF_CHECKSUM_GEN_IP | NETIF_CHECKSUM_GEN_ICMP |
                                       NETIF_CHECKSUM_CHECK_IP | NETIF_CHECKSUM_CHECK_ICMP |
                                       NETIF_CHECKSUM_GEN_ICMP6 | NETIF_CHECKSUM_CHECK_ICMP6);
    netif_set_up(netif);
    netif_set_link_up(netif);
    return netif;
}

static void add_address6(struct netif *netif, s8_t at, const ip6_addr_t *address)
{
    netif_ip6_addr_set(netif, at, address);
    ip6_addr_assign_zone((ip6_addr_t *)(void *)netif_ip6_addr(netif, at), IP6_UNICAST, netif);
    netif_ip6_addr_set_state(netif, at, IP6_ADDR_PREFERRED);
}

u8_t cse_same_subnet6(const ip6_addr_t *address, const ip6_addr_t *own)
{
    unsigned bits = ip6_addr_isloopback(own) ? 128 : instance->prefix6;
    if (ip6_addr_islinklocal(own)) bits = 64;
    for (int word = 0; word < 4 && bits > 0; word++) {
        uint32_t mask = bits >= 32 ? ~0U : lwip_htonl(~(~0U >> bits));
        if ((address->addr[word] ^ own->addr[word]) & mask) return 0;
        bits = bits >= 32 ? bits - 32 : 0;
    }
    return 1;
}

/* The gateway for everything outside the subnet, when nd6.c asks. */
const ip6_addr_t *cse_gateway6(struct netif *netif, const ip6_addr_t *destination)
{
    (void)destination;
    bool known = netif == instance->tap && !ip6_addr_isany(&instance->gateway6);
    return known ? &instance->gateway6 : NULL;
}

/* lwIP's two interfaces, when an instance is made or reset. */
void device_add_interfaces(void)
{
    instance->loop = add_interface(PP_HTONL(0x7f000001), PP_HTONL(0xff000000), 0, loop_init);
    instance->tap =
        add_interface(instance->address, instance->netmask, instance->gateway, tap_init);
    netif_set_default(instance->tap);
    ip6_addr_t loopback;
    ip6_addr_set_loopback(&loopback);
    add_address6(instance->loop, 0, &loopback);
    netif_create_ip6_linklocal_address(instance->tap, 1);
    if (!ip6_addr_isany(&instance->address6)) add_address6(instance->tap, 1, &instance->address6);
}

/* The tap behind me.tap as it is: headers or not; offload as we can use it. */
int device_setup(void)
{
    struct ifreq request;
    memset(&request, 0, sizeof request);
    if (syscall(SYS_ioctl, me.tap, TUNGETIFF, &request) != 0) return -errno;
    instance->device_headers = (request.ifr_flags & IFF_VNET_HDR) != 0;
    if (instance->device_headers) {
        int header = sizeof(struct offload_header);
        syscall(SYS_ioctl, me.tap, TUNSETVNETHDRSZ, &header);
        syscall(SYS_ioctl, me.tap, TUNSETOFFLOAD, (long)(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6));
    }
    long flags = syscall(SYS_fcntl, me.tap, F_GETFL);
    syscall(SYS_fcntl, me.tap, F_SETFL, flags | O_NONBLOCK);
    return 0;
}

/* A tap opened by ourselves, for a library tried by hand. */
int device_open(const char *name)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return -errno;
    struct ifreq request;
    memset(&request, 0, sizeof request);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (syscall(SYS_ioctl, fd, TUNSETIFF, &request) != 0) {
        int failed = -errno;
        syscall(SYS_close, fd);
        return failed;
    }
    return fd;
}
