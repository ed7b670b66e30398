/* The device: frames between lwIP and a TAP descriptor, and the loopback interface.
 *
 * Frames are written by whoever holds the lock (offload.c) and read by the leader's pump. With
 * virtio headers (IFF_VNET_HDR) the kernel completes and vouches for checksums and hands over
 * several TCP segments as one frame of up to 64 kB; without, checksums are checked here. What
 * comes from the device is not trusted: every length is checked against what was read.
 */
#include "device.h"

#include "lwip/etharp.h"
#include "lwip/nd6.h"
#include "lwip/prot/ethernet.h"
#include "netif/ethernet.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A packet is read into two buffers of the arena, the second for what is larger than the usual
 * MTU; a buffer that is mostly used becomes the packet's, of a smaller packet a copy is made. */
enum { HEAD_BYTES = 1664, TAIL_BYTES = 65535 - HEAD_BYTES, COPY_HEAD = 512, COPY_TAIL = 16384 };

/* ---- to the device ------------------------------------------------------------------------ */

err_t cse_netif_linkoutput(struct netif *netif, struct pbuf *frame)
{
    offload_send(frame);
    return ERR_OK;
}

static long write_to_tap(const struct iovec *parts, int count)
{
    int skip = instance->device_headers ? 0 : 1;
    return syscall(SYS_writev, me.tap, parts + skip, (long)(count - skip));
}

void device_write(const struct iovec *parts, int count)
{
    bool sent = instance->uses_ring ? ring_write(parts, count) : write_to_tap(parts, count) >= 0;
    if (!sent) {
        instance->tx_dropped++; /* a full queue drops, as on any wire */
        return;
    }
    instance->tx_packets++;
    for (int i = 1; i < count; i++) instance->tx_bytes += parts[i].iov_len;
}

/* What was held back leaves: the holder of the lock is done. */
void device_flush(void)
{
    offload_flush();
    if (instance->uses_ring) ring_flush();
}

/* ---- from the device ---------------------------------------------------------------------- */

static struct pbuf *copy_of(const struct pbuf *from, uint16_t length)
{
    struct pbuf *p = pbuf_alloc(PBUF_RAW, length, PBUF_RAM);
    if (p != NULL) memcpy(p->payload, from->payload, length);
    return p;
}

/* The first `length` bytes of a buffer as a packet: the buffer itself, or a copy. */
static struct pbuf *packet_of(struct pbuf **buffer, size_t length, size_t copy_below)
{
    if (length < copy_below) return copy_of(*buffer, (uint16_t)length);
    struct pbuf *p = *buffer;
    pbuf_realloc(p, (u16_t)length);
    *buffer = NULL;
    return p;
}

/* The packet that was just read, behind its Ethernet header; NULL when memory is short. */
static struct pbuf *take_packet(size_t length)
{
    size_t first = length < HEAD_BYTES ? length : HEAD_BYTES;
    struct pbuf *p = packet_of(&instance->rx_head, first, COPY_HEAD);
    if (p == NULL || length == first) return p;
    struct pbuf *rest = packet_of(&instance->rx_tail, length - first, COPY_TAIL);
    if (rest == NULL) {
        pbuf_free(p);
        return NULL;
    }
    pbuf_cat(p, rest);
    return p;
}

static void take_arp(const struct eth_hdr *ethernet, const char *packet, size_t length)
{
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)(ETHERNET_HEADER + length), PBUF_RAM);
    if (p == NULL) return;
    memcpy(p->payload, ethernet, ETHERNET_HEADER);
    memcpy((char *)p->payload + ETHERNET_HEADER, packet, length);
    if (ethernet_input(p, instance->tap) != ERR_OK) pbuf_free(p);
}

/* True for a frame that lwIP is to see; ARP it has seen then. `length` is without the Ethernet
 * header, and of an ARP message `packet` has all. */
static bool wanted(const struct eth_hdr *ethernet, const char *packet, size_t length)
{
    bool group = (ethernet->dest.addr[0] & 1) != 0;
    if (!group && memcmp(&ethernet->dest, instance->tap->hwaddr, ETH_HWADDR_LEN) != 0) return false;
    instance->rx_packets++;
    instance->rx_bytes += ETHERNET_HEADER + length;
    bool whole = length >= SIZEOF_ETHARP_HDR; /* lwIP does not look */
    if (ethernet->type == PP_HTONS(ETHTYPE_ARP) && whole && length <= COPY_HEAD)
        take_arp(ethernet, packet, length);
    return length <= UINT16_MAX &&
           (ethernet->type == PP_HTONS(ETHTYPE_IP) || ethernet->type == PP_HTONS(ETHTYPE_IPV6));
}

/* An IP packet to lwIP; NULL: there was no memory for it. */
static void deliver(const struct eth_hdr *ethernet, struct pbuf *p,
                    const struct offload_header *offload)
{
    if (p == NULL) {
        instance->rx_dropped++;
        return;
    }
    if (!(offload->flags & (NEEDS_CHECKSUM | DATA_VALID)) && !offload_checksum_good(p)) {
        instance->checksum_errors++;
        pbuf_free(p);
        return;
    }
    if (ethernet->dest.addr[0] & 1) p->flags |= PBUF_FLAG_LLBCAST;
    packet_in(p, LINK_TAP);
}

void device_take(const char *frame, size_t length, const struct offload_header *offload)
{
    struct eth_hdr ethernet;
    memcpy(&ethernet, frame, sizeof ethernet);
    frame += ETHERNET_HEADER;
    length -= ETHERNET_HEADER;
    if (!wanted(&ethernet, frame, length)) return;
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)length, PBUF_RAM);
    if (p != NULL) memcpy(p->payload, frame, length);
    deliver(&ethernet, p, offload);
}

static bool have_buffers(void)
{
    if (instance->rx_head == NULL) instance->rx_head = pbuf_alloc(PBUF_RAW, HEAD_BYTES, PBUF_RAM);
    if (instance->rx_tail == NULL) instance->rx_tail = pbuf_alloc(PBUF_RAW, TAIL_BYTES, PBUF_RAM);
    return instance->rx_head != NULL && instance->rx_tail != NULL;
}

/* Memory is short: a frame is lost, so that the device does not stay readable. */
static bool discard(void)
{
    char byte;
    instance->rx_dropped++;
    return syscall(SYS_read, me.tap, &byte, 1L) > 0;
}

bool device_read_one(void)
{
    if (!have_buffers()) return discard();
    struct offload_header offload = {0};
    struct eth_hdr ethernet;
    struct iovec parts[] = {{&offload, sizeof offload},
                            {&ethernet, sizeof ethernet},
                            {instance->rx_head->payload, HEAD_BYTES},
                            {instance->rx_tail->payload, TAIL_BYTES}};
    int skip = instance->device_headers ? 0 : 1;
    ssize_t got = syscall(SYS_readv, me.tap, parts + skip, (long)(4 - skip));
    if (got <= 0) return false;
    got -= ETHERNET_HEADER + (skip != 0 ? 0 : (ssize_t)sizeof offload);
    if (got > 0 && wanted(&ethernet, instance->rx_head->payload, (size_t)got))
        deliver(&ethernet, take_packet((size_t)got), &offload);
    return true;
}

/* Feeds at most `limit` frames to lwIP; false when none is left. */
bool device_read(int limit)
{
    if (instance->uses_ring) return ring_read(limit);
    for (int i = 0; i < limit; i++)
        if (!device_read_one()) return false;
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
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET |
                   NETIF_FLAG_IGMP | NETIF_FLAG_MLD6;
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
    instance->rx_head = instance->rx_tail = NULL;
    instance->ring_lost = instance->uses_ring;
    if (instance->uses_ring) filter_start();
    instance->loop = add_interface(PP_HTONL(0x7f000001), PP_HTONL(0xff000000), 0, loop_init);
    instance->tap =
        add_interface(instance->address, instance->netmask, instance->gateway, tap_init);
    netif_set_default(instance->tap);
    ip6_addr_t loopback;
    ip6_addr_set_loopback(&loopback);
    add_address6(instance->loop, 0, &loopback);
    if (ip6_addr_isany(&instance->address6)) return; /* the network has no IPv6 */
    netif_create_ip6_linklocal_address(instance->tap, 1);
    add_address6(instance->tap, 1, &instance->address6);
}

/* The tap behind me.tap as it is: headers or not; offload as we can use it. */
static int tap_setup(void)
{
    struct ifreq request;
    instance->largest_packet = UINT16_MAX;
    memset(&request, 0, sizeof request);
    if (syscall(SYS_ioctl, me.tap, TUNGETIFF, &request) != 0) return -errno;
    instance->device_headers = (request.ifr_flags & IFF_VNET_HDR) != 0;
    if (instance->device_headers) {
        int header = sizeof(struct offload_header);
        long offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
        syscall(SYS_ioctl, me.tap, TUNSETVNETHDRSZ, &header);
        syscall(SYS_ioctl, me.tap, TUNSETOFFLOAD, offloads);
    }
    return 0;
}

int device_setup(void)
{
    int failed = ring_is_given() ? ring_setup() : tap_setup();
    if (failed != 0) return failed;
    long flags = syscall(SYS_fcntl, me.tap, F_GETFL);
    syscall(SYS_fcntl, me.tap, F_SETFL, flags | O_NONBLOCK);
    return 0;
}

int device_attach(void)
{
    return instance->uses_ring ? ring_map() : 0;
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
