/* The packet device: frames through PACKET_MMAP rings of a packet socket, instead of a tap.
 *
 * The socket lies in a namespace of its own, on one end of a veth pair whose other end is plugged
 * into the bridge; the agent hands it over unbound. Both rings are in memory that the kernel and
 * every process of the application map. Version 2 of the rings: version 3 tells of packets only
 * when a block is full or a timer of a millisecond runs out. Chosen per instance by the setting
 * `transport`; called by device.c, under the lock.
 *
 * Arriving: slots for packets of the usual MTU. A larger one (merged segments, large datagrams) is
 * queued by the kernel whole beside its slot (PACKET_COPY_THRESH), and read from the socket.
 * Leaving: slots of 64 kB, and one system call at the end of the holder's work. The header length
 * given with each frame is the whole frame's, so that the kernel copies it: it would otherwise give
 * the slot back while a receiver on this host still reads from it.
 */
#include "device.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

enum {
    RX_SLOT = 2048,
    RX_SLOTS = 1024,
    TX_SLOT = 65536,
    TX_SLOTS = 32,
    BLOCK = 65536,
    RING_BYTES = RX_SLOT * RX_SLOTS + TX_SLOT * TX_SLOTS,
    TX_DATA = TPACKET_ALIGN(sizeof(struct tpacket2_hdr)), /* where a leaving frame begins */
    TX_ROOM = TX_SLOT - TX_DATA,
    PACKET_MAX = TX_ROOM - (int)sizeof(struct offload_header) - ETHERNET_HEADER,
};

static char *ring; /* of this process: receive slots, then send slots */

static struct tpacket2_hdr *rx_slot(uint32_t at)
{
    return (struct tpacket2_hdr *)(ring + (size_t)at * RX_SLOT);
}

static struct tpacket2_hdr *tx_slot(uint32_t at)
{
    return (struct tpacket2_hdr *)(ring + (size_t)RX_SLOT * RX_SLOTS + (size_t)at * TX_SLOT);
}

static uint32_t status_of(const struct tpacket2_hdr *slot)
{
    return __atomic_load_n(&slot->tp_status, __ATOMIC_ACQUIRE);
}

static void set_status(struct tpacket2_hdr *slot, uint32_t status)
{
    __atomic_store_n(&slot->tp_status, status, __ATOMIC_RELEASE);
}

/* ---- to the device -------------------------------------------------------------------------- */

static void kick(void)
{
    filter_refresh(); /* before an answer can come */
    syscall(SYS_sendto, me.tap, NULL, 0L, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
    instance->ring_unsent =
        status_of(tx_slot((instance->ring_tx + TX_SLOTS - 1) % TX_SLOTS)) == TP_STATUS_SEND_REQUEST;
}

/* A free slot, or NULL: the kernel has not got rid of the earlier frames yet. */
static struct tpacket2_hdr *free_slot(void)
{
    struct tpacket2_hdr *slot = tx_slot(instance->ring_tx);
    if (status_of(slot) != TP_STATUS_AVAILABLE) kick();
    return status_of(slot) == TP_STATUS_AVAILABLE ? slot : NULL;
}

bool ring_write(const struct iovec *parts, int count)
{
    struct tpacket2_hdr *slot = free_slot();
    size_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    if (slot == NULL || length > TX_ROOM) return false;
    char *frame = (char *)slot + TX_DATA, *at = frame;
    for (int i = 0; i < count; i++) {
        memcpy(at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
    struct offload_header *offload = (struct offload_header *)frame;
    offload->header_length = (uint16_t)(length - sizeof *offload);
    filter_sees(frame + sizeof *offload, length - sizeof *offload);
    slot->tp_len = (uint32_t)length;
    set_status(slot, TP_STATUS_SEND_REQUEST);
    instance->ring_tx = (instance->ring_tx + 1) % TX_SLOTS;
    instance->ring_unsent = true;
    return true;
}

void ring_flush(void)
{
    if (instance->ring_unsent)
        kick();
    else
        filter_refresh();
}

/* ---- from the device ------------------------------------------------------------------------ */

/* After a reset nobody knows which slot is next: the first full one behind one that is not. */
static void find_rx(void)
{
    for (uint32_t i = 0; i < RX_SLOTS; i++)
        if (status_of(rx_slot(i)) != TP_STATUS_KERNEL &&
            status_of(rx_slot((i + RX_SLOTS - 1) % RX_SLOTS)) == TP_STATUS_KERNEL) {
            instance->ring_rx = i;
            return;
        }
}

/* The same for sending: the kernel skips a frame too large for its slot, if that is its next. */
static void find_tx(void)
{
    for (uint32_t i = 0; i < TX_SLOTS; i++)
        if (status_of(tx_slot(i)) != TP_STATUS_SENDING) set_status(tx_slot(i), TP_STATUS_AVAILABLE);
    for (uint32_t i = 0; i < TX_SLOTS; i++) {
        struct tpacket2_hdr *slot = tx_slot(i);
        slot->tp_len = TX_SLOT;
        set_status(slot, TP_STATUS_SEND_REQUEST);
        syscall(SYS_sendto, me.tap, NULL, 0L, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
        bool was_next = status_of(slot) != TP_STATUS_SEND_REQUEST;
        set_status(slot, TP_STATUS_AVAILABLE);
        if (was_next) {
            instance->ring_tx = (i + 1) % TX_SLOTS;
            return;
        }
    }
}

/* Feeds one slot to lwIP, or what the kernel queued whole beside it. */
static void take_slot(struct tpacket2_hdr *slot, uint32_t status)
{
    uint32_t length = slot->tp_snaplen, start = slot->tp_mac;
    struct offload_header offload = {0};
    if (status & TP_STATUS_COPY) {
        device_read_one();
        instance->ring_large++;
    } else if (length != slot->tp_len || start < sizeof *slot + sizeof offload || start > RX_SLOT ||
               length > RX_SLOT - start || length < ETHERNET_HEADER) {
        instance->rx_dropped++;
    } else {
        const char *frame = (const char *)slot + start;
        memcpy(&offload, frame - sizeof offload, sizeof offload);
        device_take(frame, length, &offload);
    }
}

/* Feeds at most `limit` frames to lwIP; false when none is left. */
bool ring_read(int limit)
{
    if (instance->ring_lost) {
        find_rx();
        find_tx();
        while (status_of(rx_slot(instance->ring_rx)) == TP_STATUS_KERNEL && device_read_one()) {}
        instance->ring_lost = false;
    }
    for (int i = 0; i < limit; i++) {
        struct tpacket2_hdr *slot = rx_slot(instance->ring_rx);
        uint32_t status = status_of(slot);
        if (!(status & TP_STATUS_USER)) return false;
        take_slot(slot, status);
        set_status(slot, TP_STATUS_KERNEL);
        instance->ring_rx = (instance->ring_rx + 1) % RX_SLOTS;
    }
    return true;
}

/* ---- set-up --------------------------------------------------------------------------------- */

static int set(int option, const void *value, size_t size)
{
    return syscall(SYS_setsockopt, me.tap, SOL_PACKET, option, value, size) == 0 ? 0 : -errno;
}

static int make_rings(void)
{
    int yes = 1, version = TPACKET_V2, threshold = 1;
    struct tpacket_req rx = {BLOCK, RX_SLOT * RX_SLOTS / BLOCK, RX_SLOT, RX_SLOTS};
    struct tpacket_req tx = {BLOCK, TX_SLOT * TX_SLOTS / BLOCK, TX_SLOT, TX_SLOTS};
    int failed = set(PACKET_VERSION, &version, sizeof version);
    if (failed == 0) failed = set(PACKET_VNET_HDR, &yes, sizeof yes);
    if (failed == 0) failed = set(PACKET_LOSS, &yes, sizeof yes);
    if (failed == 0) failed = set(PACKET_COPY_THRESH, &threshold, sizeof threshold);
    if (failed == 0) failed = set(PACKET_RX_RING, &rx, sizeof rx);
    if (failed == 0) failed = set(PACKET_TX_RING, &tx, sizeof tx);
    return failed;
}

/* From now on frames arrive. */
static int bind_to_interface(void)
{
    struct ifreq request;
    memset(&request, 0, sizeof request);
    snprintf(request.ifr_name, sizeof request.ifr_name, "eth0");
    if (syscall(SYS_ioctl, me.tap, SIOCGIFINDEX, &request) != 0) return -errno;
    struct sockaddr_ll place = {.sll_family = AF_PACKET,
                                .sll_protocol = lwip_htons(ETH_P_ALL),
                                .sll_ifindex = request.ifr_ifindex};
    return syscall(SYS_bind, me.tap, &place, sizeof place) == 0 ? 0 : -errno;
}

/* True if the device that the agent gave is a packet socket. */
bool ring_is_given(void)
{
    int domain = 0;
    socklen_t size = sizeof domain;
    return syscall(SYS_getsockopt, me.tap, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
           domain == AF_PACKET;
}

/* In each process that runs the stack; a forked child has it. */
int ring_map(void)
{
    if (ring != NULL) return 0;
    void *mapped =
        mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, me.tap, 0);
    if (mapped == MAP_FAILED) return -errno;
    ring = mapped;
    return 0;
}

/* By the process that makes the instance. */
int ring_setup(void)
{
    int failed = make_rings();
    if (failed == 0) failed = ring_map();
    if (failed == 0) failed = filter_setup();
    if (failed == 0) failed = bind_to_interface();
    if (failed != 0) return failed;
    instance->uses_ring = instance->device_headers = true;
    instance->largest_packet = PACKET_MAX;
    if (instance->largest_mtu > PACKET_MAX) instance->largest_mtu = PACKET_MAX;
    if (instance->mtu > PACKET_MAX) instance->mtu = PACKET_MAX;
    return 0;
}

/* What the filter let through, and what of it the kernel dropped because the ring was full. */
void ring_count(void)
{
    struct tpacket_stats found; /* reading them clears them */
    socklen_t size = sizeof found;
    if (!instance->uses_ring ||
        syscall(SYS_getsockopt, me.tap, SOL_PACKET, PACKET_STATISTICS, &found, &size) != 0)
        return;
    instance->ring_packets += found.tp_packets;
    instance->ring_dropped += found.tp_drops;
}
