/* Leaving frames: checksums left to the kernel, and contiguous TCP segments made one (GSO).
 *
 * A device with virtio headers takes a frame larger than the MTU with the size to cut it to, so
 * that a burst of segments of one connection costs one system call and one walk through the
 * kernel, and a peer on this host gets it whole. The last TCP frame is held back until a frame
 * comes that does not continue it, or the holder of the lock is done (offload_flush, called by
 * instance_unlock): nothing ever waits for more. A held acknowledgement is replaced by a later one
 * of its connection. Frames are held by a reference, which makes lwIP leave their bytes alone; what
 * differs from the first segment's headers goes into a copy of these.
 *
 * Without virtio headers each frame leaves at once, its checksum made here.
 */
#include "device.h"

#include "lwip/inet_chksum.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/tcp.h"

#include <string.h>

enum {
    IPV4_HEADER = 20,
    IPV6_HEADER = 40,
    TCP_HEADER = 20,
    HEADERS_MAX = ETHERNET_HEADER + IPV6_HEADER + 60,
    PACKET_MAX = 65535,
    TCP_CHECKSUM_AT = 16,
    UDP_CHECKSUM_AT = 6,
};

/* ---- what a packet is ----------------------------------------------------------------------- */

/* Places are counted from the first byte of the IP header. */
struct shape {
    bool six;
    uint8_t protocol;
    uint16_t transport; /* where TCP's or UDP's header is; 0: neither, or a fragment */
    uint16_t end;       /* of the packet, by its own header */
};

static uint16_t read16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t read32(const uint8_t *at)
{
    return (uint32_t)read16(at) << 16 | read16(at + 2);
}

static void write16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* IPv6 with extension headers counts as neither: lwIP sends none with TCP and UDP. */
static bool shape_of(const uint8_t *ip, size_t length, struct shape *shape)
{
    *shape = (struct shape){0};
    if (length >= IPV4_HEADER && ip[0] >> 4 == 4) {
        uint16_t header = (uint16_t)((ip[0] & 15) * 4);
        shape->protocol = ip[9];
        shape->end = read16(ip + 2);
        bool fragment = (read16(ip + 6) & (IP_MF | IP_OFFMASK)) != 0;
        if (header >= IPV4_HEADER && shape->end >= header && !fragment) shape->transport = header;
    } else if (length >= IPV6_HEADER && ip[0] >> 4 == 6) {
        uint32_t end = IPV6_HEADER + (uint32_t)read16(ip + 4);
        if (end > PACKET_MAX) return false;
        shape->six = true;
        shape->protocol = ip[6];
        shape->end = (uint16_t)end;
        shape->transport = IPV6_HEADER;
    } else {
        return false;
    }
    if (shape->protocol != IP_PROTO_TCP && shape->protocol != IP_PROTO_UDP) shape->transport = 0;
    return true;
}

/* ---- checksums ------------------------------------------------------------------------------ */

static uint16_t fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* Of addresses, protocol and length, folded and not complemented: RFC 1071, RFC 8200 8.1. */
static uint16_t pseudo_sum(const uint8_t *ip, const struct shape *shape, uint16_t length)
{
    uint32_t sum = cse_lwip_checksum(ip + (shape->six ? 8 : 12), shape->six ? 32 : 8);
    return fold(sum + lwip_htons(shape->protocol) + lwip_htons(length));
}

/* Of bytes `from` up to `to` of a chain. */
static uint16_t chain_sum(const struct pbuf *p, uint32_t from, uint32_t to)
{
    uint32_t sum = 0, at = 0;
    bool odd = false;
    for (; p != NULL && at < to; at += p->len, p = p->next) {
        uint32_t first = from > at ? from - at : 0, last = to - at < p->len ? to - at : p->len;
        if (first >= last) continue;
        uint16_t part = cse_lwip_checksum((const char *)p->payload + first, (int)(last - first));
        sum += odd ? (uint16_t)(part << 8 | part >> 8) : part;
        odd ^= (last - first) & 1;
    }
    return fold(sum);
}

static uint16_t checksum_at(const struct shape *shape)
{
    return shape->protocol == IP_PROTO_TCP ? TCP_CHECKSUM_AT : UDP_CHECKSUM_AT;
}

/* Of an arrived IP packet that the device did not vouch for; what has none is for lwIP to judge. */
bool offload_checksum_good(const struct pbuf *packet)
{
    struct shape shape;
    const uint8_t *ip = packet->payload;
    if (!shape_of(ip, packet->len, &shape) || shape.transport == 0) return true;
    uint32_t place = shape.transport + checksum_at(&shape);
    if (shape.end > packet->tot_len || place + 2 > shape.end) return true;
    uint16_t field;
    if (pbuf_copy_partial(packet, &field, sizeof field, (u16_t)place) != sizeof field) return true;
    if (field == 0 && shape.protocol == IP_PROTO_UDP && !shape.six) return true; /* without one */
    uint32_t sum = pseudo_sum(ip, &shape, (uint16_t)(shape.end - shape.transport));
    return fold(sum + chain_sum(packet, shape.transport, shape.end)) == 0xffff;
}

/* ---- one frame ------------------------------------------------------------------------------ */

static int parts_of(const struct pbuf *p, uint32_t skip, struct iovec *parts, int room)
{
    int count = 0;
    for (; p != NULL && count < room; p = p->next) {
        if (skip >= p->len) {
            skip -= p->len;
            continue;
        }
        parts[count++] = (struct iovec){(char *)p->payload + skip, p->len - skip};
        skip = 0;
    }
    return p == NULL ? count : -1;
}

/* Completes the checksum of a TCP or UDP packet, or asks the kernel to. */
static void seal(struct pbuf *frame, struct offload_header *offload)
{
    struct shape shape;
    uint8_t *ip = (uint8_t *)frame->payload + ETHERNET_HEADER;
    if (frame->len < ETHERNET_HEADER ||
        !shape_of(ip, frame->len - (size_t)ETHERNET_HEADER, &shape) || shape.transport == 0)
        return;
    uint16_t place = (uint16_t)(shape.transport + checksum_at(&shape));
    if (frame->len < ETHERNET_HEADER + place + 2 || frame->tot_len < ETHERNET_HEADER + shape.end)
        return;
    uint16_t sum = pseudo_sum(ip, &shape, (uint16_t)(shape.end - shape.transport));
    bool damaged = (frame->flags & PACKET_DAMAGED) != 0;
    if (instance->device_headers && !damaged) {
        memcpy(ip + place, &sum, sizeof sum);
        offload->flags = NEEDS_CHECKSUM;
        offload->checksum_start = (uint16_t)(ETHERNET_HEADER + shape.transport);
        offload->checksum_offset = checksum_at(&shape);
        return;
    }
    memset(ip + place, 0, sizeof sum);
    uint32_t all = sum + chain_sum(frame, ETHERNET_HEADER + shape.transport,
                                   ETHERNET_HEADER + (uint32_t)shape.end);
    sum = (uint16_t)~fold(all);
    if (sum == 0 && shape.protocol == IP_PROTO_UDP) sum = 0xffff;
    if (damaged) sum ^= sum == 1 ? 2 : 1; /* a fault that was asked for (fault.c) */
    memcpy(ip + place, &sum, sizeof sum);
}

static void send_alone(struct pbuf *frame)
{
    struct offload_header offload = {0};
    struct iovec parts[PARTS_MAX];
    seal(frame, &offload);
    parts[0] = (struct iovec){&offload, sizeof offload};
    int count = parts_of(frame, 0, parts + 1, PARTS_MAX - 1);
    if (count < 0)
        instance->tx_dropped++;
    else
        device_write(parts, count + 1);
}

/* ---- segments that become one --------------------------------------------------------------- */

/* A TCP segment without SYN, RST or URG, its headers in one piece. */
struct segment {
    struct shape shape;
    const uint8_t *ip, *tcp;
    uint32_t sequence, acknowledged;
    uint16_t data;    /* bytes */
    uint16_t headers; /* from the first byte of the frame */
};

/* Of this process, and empty whenever it does not hold the lock. */
static struct {
    struct pbuf *frames[PARTS_MAX];
    unsigned count, parts;
    bool complete; /* a short or finishing segment is the last */
    struct segment first;
    uint16_t segment_data; /* bytes of each but the last */
    uint32_t packet;       /* bytes of the IP packet so far */
    uint32_t next;         /* sequence number that would continue */
} burst;

static bool segment_of(const struct pbuf *frame, struct segment *s)
{
    s->ip = (const uint8_t *)frame->payload + ETHERNET_HEADER;
    if (frame->len < ETHERNET_HEADER + IPV4_HEADER + TCP_HEADER ||
        !shape_of(s->ip, frame->len - (size_t)ETHERNET_HEADER, &s->shape))
        return false;
    uint16_t transport = s->shape.transport;
    if (s->shape.protocol != IP_PROTO_TCP || transport == 0 ||
        transport != (s->shape.six ? IPV6_HEADER : IPV4_HEADER) ||
        frame->len < ETHERNET_HEADER + transport + TCP_HEADER ||
        frame->tot_len != ETHERNET_HEADER + s->shape.end)
        return false;
    s->tcp = s->ip + transport;
    uint16_t header = (uint16_t)((s->tcp[12] >> 4) * 4);
    s->headers = (uint16_t)(ETHERNET_HEADER + transport + header);
    if (header < TCP_HEADER || frame->len < s->headers) return false;
    if ((s->tcp[13] & ~(TCP_PSH | TCP_FIN)) != TCP_ACK) return false;
    s->data = (uint16_t)(frame->tot_len - s->headers);
    s->sequence = read32(s->tcp + 4);
    s->acknowledged = read32(s->tcp + 8);
    return true;
}

/* Ethernet, addresses, ports, TTL, options: everything but lengths, numbers and checksums. */
static bool same_flow(const struct segment *a, const struct segment *b)
{
    if (a->headers != b->headers || a->shape.six != b->shape.six) return false;
    const uint8_t *x = a->ip, *y = b->ip;
    if (memcmp(x - ETHERNET_HEADER, y - ETHERNET_HEADER, ETHERNET_HEADER) != 0) return false;
    bool same = a->shape.six ? memcmp(x, y, 4) == 0 && memcmp(x + 6, y + 6, 34) == 0
                             : memcmp(x, y, 2) == 0 && memcmp(x + 6, y + 6, 4) == 0 &&
                                   memcmp(x + 12, y + 12, 8) == 0;
    size_t options = (size_t)(a->headers - ETHERNET_HEADER - a->shape.transport - TCP_HEADER);
    return same && memcmp(a->tcp, b->tcp, 4) == 0 && a->tcp[12] == b->tcp[12] &&
           memcmp(a->tcp + TCP_HEADER, b->tcp + TCP_HEADER, options) == 0;
}

static bool continues(const struct segment *s, unsigned parts)
{
    return burst.count > 0 && !burst.complete && burst.count < PARTS_MAX &&
           burst.parts + parts + 2 <= PARTS_MAX && s->data > 0 && s->data <= burst.segment_data &&
           burst.packet + s->data <= instance->largest_packet && s->sequence == burst.next &&
           (int32_t)(s->acknowledged - read32(burst.first.tcp + 8)) >= 0 &&
           same_flow(&burst.first, s);
}

/* The held frame says nothing but what this one says later. */
static bool replaces(const struct segment *s)
{
    return burst.count == 1 && burst.first.data == 0 && !(burst.first.tcp[13] & TCP_FIN) &&
           s->sequence == burst.first.sequence &&
           (int32_t)(s->acknowledged - burst.first.acknowledged) > 0 && same_flow(&burst.first, s);
}

static void burst_add(struct pbuf *frame, const struct segment *s, unsigned parts)
{
    if (burst.count == 0 || burst.count >= PARTS_MAX) {
        burst.count = 0;
        burst.first = *s;
        burst.parts = 0;
        burst.segment_data = s->data;
        burst.packet = (uint32_t)(frame->tot_len - ETHERNET_HEADER);
        burst.complete = s->data == 0;
    } else {
        burst.packet += s->data;
        burst.complete = s->data < burst.segment_data;
    }
    if (s->tcp[13] & TCP_FIN) burst.complete = true;
    burst.next = s->sequence + s->data;
    burst.parts += parts;
    burst.frames[burst.count++] = frame;
    pbuf_ref(frame);
}

static void burst_drop(void)
{
    for (unsigned i = 0; i < burst.count; i++) pbuf_free(burst.frames[i]);
    burst.count = 0;
}

/* The first segment's headers, as those of all that is burst. */
static void common_headers(uint8_t *out, struct offload_header *offload)
{
    const struct segment *first = &burst.first;
    const struct pbuf *last = burst.frames[burst.count - 1];
    memcpy(out, first->ip - ETHERNET_HEADER, first->headers);
    uint8_t *ip = out + ETHERNET_HEADER, *tcp = ip + first->shape.transport;
    const uint8_t *last_tcp =
        (const uint8_t *)last->payload + ETHERNET_HEADER + first->shape.transport;
    memcpy(tcp + 8, last_tcp + 8, 4); /* acknowledgement */
    tcp[13] |= last_tcp[13];
    memcpy(tcp + 14, last_tcp + 14, 2); /* window */
    if (first->shape.six) {
        write16(ip + 4, (uint16_t)(burst.packet - IPV6_HEADER));
    } else {
        write16(ip + 2, (uint16_t)burst.packet);
        memset(ip + 10, 0, 2);
        uint16_t sum = (uint16_t)~cse_lwip_checksum(ip, IPV4_HEADER);
        memcpy(ip + 10, &sum, sizeof sum);
    }
    uint16_t sum = pseudo_sum(ip, &first->shape, (uint16_t)(burst.packet - first->shape.transport));
    memcpy(tcp + TCP_CHECKSUM_AT, &sum, sizeof sum);
    *offload = (struct offload_header){
        .flags = NEEDS_CHECKSUM,
        .header_length = first->headers,
        .checksum_start = (uint16_t)(ETHERNET_HEADER + first->shape.transport),
        .checksum_offset = TCP_CHECKSUM_AT,
    };
    if (burst.count == 1) return;
    offload->gso_type = first->shape.six ? GSO_TCPV6 : GSO_TCPV4;
    offload->gso_size = burst.segment_data;
}

void offload_flush(void)
{
    if (burst.count == 0) return;
    struct offload_header offload;
    struct iovec parts[PARTS_MAX];
    uint8_t headers[HEADERS_MAX];
    common_headers(headers, &offload);
    parts[0] = (struct iovec){&offload, sizeof offload};
    parts[1] = (struct iovec){headers, burst.first.headers};
    int count = 2;
    for (unsigned i = 0; i < burst.count; i++)
        count += parts_of(burst.frames[i], burst.first.headers, parts + count, PARTS_MAX - count);
    device_write(parts, count);
    burst_drop();
}

void offload_send(struct pbuf *frame)
{
    struct segment s;
    bool damaged = (frame->flags & PACKET_DAMAGED) != 0;
    bool tcp = instance->device_headers && !damaged && segment_of(frame, &s);
    unsigned parts = tcp ? pbuf_clen(frame) : 0;
    if (tcp && parts < PARTS_MAX - 2) {
        if (replaces(&s))
            burst_drop();
        else if (!continues(&s, parts))
            offload_flush();
        burst_add(frame, &s, parts);
        return;
    }
    offload_flush();
    send_alone(frame);
}
