/* Packets over wires.
 *
 * Theory of operation. A packet to a neighbour of the subnet goes over the wire to it. Where none
 * is known the broker is asked, once; meanwhile its packets wait, and when there is no wire to be
 * had the tap takes them, and the next ones for a while. The rings' memory is shared with a
 * stranger: ring.c says why it can break no more than the wire itself, and what arrives is taken
 * only with the peer's own address as its source. TCP, UDP and ICMP checksums are neither made
 * nor looked at: memory does not garble packets.
 *
 * A full ring pushes back: lwIP is told ERR_MEM, keeps the segment, and tries again when
 * the peer has taken something (its acknowledgements come over the other ring).
 *
 * Whoever waits sets `want` in each ring that it reads, and looks at the rings once more; the
 * producer, after each record, takes `want` and rings the bell that it names. One of the two sees
 * the other's store, since a full fence lies between store and load on both sides.
 */
#include "wire.h"
#include "instance.h"

#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/ip.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"
#include "lwip/prot/tcp.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PARTS_MAX = 256, MSS_OPTION = 2, TRIM_BYTES = 65536 };

#define wires (&instance->wires)

/* ---- to the peer --------------------------------------------------------------------------- */

static void ring_bell(const struct wire_map *map, struct ring_words *words)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&words->want, __ATOMIC_RELAXED) == WAKE_NONE) return;
    uint32_t want = __atomic_exchange_n(&words->want, WAKE_NONE, __ATOMIC_SEQ_CST);
    if (want != WAKE_PUMP && want != WAKE_THREAD) return;
    if (syscall(SYS_write, map->bells[want - 1], "", 1L) >= 0 || errno != EPIPE) return;
    /* Nobody is left to read: the kernel has sent this thread a SIGPIPE, which must not reach
     * the program. Signals are blocked while the lock is held. */
    sigset_t pipe_signal;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    struct timespec now = {0, 0};
    syscall(SYS_rt_sigtimedwait, &pipe_signal, NULL, &now, (size_t)8);
}

static bool is_v6(const struct pbuf *p)
{
    return *(const uint8_t *)p->payload >> 4 == 6;
}

/* Where the TCP header of one of our own packets lies, or NULL. */
static struct tcp_hdr *tcp_header(const struct pbuf *p)
{
    const char *packet = p->payload;
    const struct ip_hdr *ip = p->payload;
    const struct ip6_hdr *ip6 = p->payload;
    if (p->len < IP_HLEN) return NULL;
    uint32_t header = is_v6(p) ? IP6_HLEN : IPH_HL_BYTES(ip);
    if (p->len < header + TCP_HLEN) return NULL;
    bool tcp = is_v6(p) ? IP6H_NEXTH(ip6) == IP6_NEXTH_TCP : IPH_PROTO(ip) == IP_PROTO_TCP;
    return tcp ? (struct tcp_hdr *)(void *)(packet + header) : NULL;
}

static bool put(struct wire *wire, struct wire_map *map, struct pbuf *p, err_t *result)
{
    struct iovec parts[PARTS_MAX];
    int count = 0;
    for (struct pbuf *q = p; q != NULL; q = q->next) {
        if (count == PARTS_MAX) return false;
        if (q->len != 0) parts[count++] = (struct iovec){q->payload, q->len};
    }
    struct ring_words *words = &map->control->direction[wire->side];
    switch (ring_put(&wire->end, words, map->rings[wire->side], parts, count)) {
    case RING_DONE:
        wires->tx_packets++;
        wires->tx_bytes += p->tot_len;
        ring_bell(map, words);
        return true;
    case RING_NOTHING:
        if (tcp_header(p) != NULL) {
            wire->blocked = wires->work = true;
            *result = ERR_MEM;
        } else {
            instance->tx_dropped++; /* a full queue drops, as on any wire */
        }
        return true;
    default: wire_break(wire); return false;
    }
}

static bool keep(struct wire *wire, struct pbuf *p)
{
    if (wire->queued >= WIRE_QUEUE_MAX) return false;
    struct wire_packet *kept = heap_alloc(sizeof *kept);
    struct pbuf *copy = kept != NULL ? pbuf_clone(PBUF_LINK, PBUF_RAM, p) : NULL;
    if (copy == NULL) {
        heap_free(kept);
        return false;
    }
    *kept = (struct wire_packet){.packet = copy};
    if (wire->last != NULL)
        wire->last->next = kept;
    else
        wire->first = kept;
    wire->last = kept;
    wire->queued++;
    wires->work = true;
    if (instance->leader != NO_PROCESS && instance->leader != me.slot)
        process_ring(instance->leader);
    return true;
}

bool wire_output(struct pbuf *p, const ip_addr_t *dest, err_t *result)
{
    struct wire *wire = wire_entry(dest);
    *result = ERR_OK;
    if (wire == NULL) return false;
    if (p->flags & PACKET_DAMAGED) return true; /* no checksum would tell the peer */
    struct wire_map *map = wire->state == WIRE_UP && wire->queued == 0 ? wire_map_of(wire) : NULL;
    return map != NULL ? put(wire, map, p, result) : keep(wire, p);
}

/* A SYN that waited announces the tap's MSS: this way has more room. */
static void raise_mss(struct pbuf *p)
{
    struct tcp_hdr *tcp = tcp_header(p);
    if (tcp == NULL || !(TCPH_FLAGS(tcp) & TCP_SYN)) return;
    uint8_t *option = (uint8_t *)(tcp + 1);
    if (option + 4 > (uint8_t *)p->payload + p->len) return;
    if (option[0] != MSS_OPTION || option[1] != 4) return; /* lwIP writes it first */
    uint32_t largest = WIRE_MTU - (is_v6(p) ? IP6_HLEN : IP_HLEN) - TCP_HLEN;
    uint16_t mss = (uint16_t)(cse_tcp_mss < largest ? cse_tcp_mss : largest);
    option[2] = (uint8_t)(mss >> 8);
    option[3] = (uint8_t)mss;
}

void wire_flush(struct wire *wire)
{
    struct wire_map *map = wire->state == WIRE_UP ? wire_map_of(wire) : NULL;
    ip_addr_t dest[2] = {wire->address[0], wire->address[1]};
    if (wire->state == WIRE_UP && map == NULL) return;
    struct wire_packet *kept = wire->first;
    wire->first = wire->last = NULL;
    wire->queued = 0;
    while (kept != NULL) {
        struct wire_packet *next = kept->next;
        err_t result = ERR_OK;
        if (map != NULL) raise_mss(kept->packet);
        if (map == NULL || !put(wire, map, kept->packet, &result)) {
            map = NULL;
            packet_to_tap(kept->packet, &dest[is_v6(kept->packet)]);
        }
        pbuf_free(kept->packet);
        heap_free(kept);
        kept = next;
    }
}

/* ---- from the peer ------------------------------------------------------------------------- */

bool wire_pending(void)
{
    for (uint16_t i = 0; i < wires->top; i++) {
        const struct wire_map *map = &wire_maps[i];
        if (map->generation != 0 &&
            !ring_is_empty(&map->control->direction[1 - map->side], wires->table[i].end.head))
            return true;
    }
    return false;
}

void wire_want(enum wake wake)
{
    for (uint16_t i = 0; i < wires->top; i++) {
        const struct wire_map *map = &wire_maps[i];
        if (map->generation == 0) continue;
        uint32_t *want = &map->control->direction[1 - map->side].want;
        if (__atomic_load_n(want, __ATOMIC_RELAXED) != wake)
            __atomic_store_n(want, wake, __ATOMIC_RELAXED);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static bool from_peer(const struct wire *wire, const struct pbuf *p)
{
    const struct ip_hdr *ip = p->payload;
    const struct ip6_hdr *ip6 = p->payload;
    const ip6_addr_t *own6 = ip_2_ip6(&wire->address[1]);
    if (IPH_V(ip) == 4) return ip->src.addr == ip_2_ip4(&wire->address[0])->addr;
    return IPH_V(ip) == 6 && p->len >= IP6_HLEN && !ip6_addr_isany(own6) &&
           memcmp(&ip6->src, own6->addr, sizeof ip6->src) == 0;
}

/* One packet; false where none is left or the wire is broken. */
static bool take(struct wire *wire, struct wire_map *map)
{
    struct ring_words *words = &map->control->direction[1 - wire->side];
    const char *ring = map->rings[1 - wire->side];
    uint32_t length;
    switch (ring_peek(&wire->end, words, ring, &length)) {
    case RING_NOTHING: return false;
    case RING_BROKEN: wire_break(wire); return false;
    default: break;
    }
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)length, PBUF_RAM);
    ring_take(&wire->end, ring, p != NULL ? p->payload : NULL, length);
    ring_release(&wire->end, words); /* before anything is answered: the peer may wait for room */
    if (p == NULL) {
        instance->rx_dropped++;
    } else if (!from_peer(wire, p)) {
        wires->spoofed++;
        pbuf_free(p);
    } else {
        wires->rx_packets++;
        wires->rx_bytes += length;
        packet_in(p, LINK_WIRE);
    }
    return true;
}

static bool read_wire(struct wire *wire, int limit)
{
    struct wire_map *map = wire_map_of(wire);
    if (map == NULL) return false;
    uint32_t generation = wire->generation;
    bool any = false;
    while (limit-- > 0 && map->generation == generation && take(wire, map)) any = true;
    if (any && wire->blocked && wire->state == WIRE_UP) {
        wire->blocked = false;
        tcp_txnow();
    }
    return any;
}

bool wire_read(int limit)
{
    bool any = false;
    for (uint16_t i = 0; i < wires->top; i++)
        if (wires->table[i].state == WIRE_UP && read_wire(&wires->table[i], limit)) any = true;
    return any;
}

/* A ring goes round: after a megabyte of traffic, however slow, all of it is memory. Only the
 * producer gives it back, under its lock: nobody else writes there, and nobody reads. */
void wire_trim(bool idle)
{
    for (uint16_t i = 0; i < wires->top; i++) {
        struct wire *wire = &wires->table[i];
        struct wire_map *map = wire->state == WIRE_UP ? wire_map_of(wire) : NULL;
        if (map == NULL) continue;
        bool quiet = idle || wire->looked_at == wire->end.tail;
        wire->looked_at = wire->end.tail;
        if (!quiet || wire->end.tail - wire->trimmed < TRIM_BYTES ||
            !ring_is_drained(&wire->end, &map->control->direction[wire->side]))
            continue;
        madvise(map->rings[wire->side], WIRE_RING_BYTES, MADV_REMOVE);
        wire->trimmed = wire->end.tail;
    }
}

void wire_drain(struct wire *wire)
{
    uint32_t generation = wire->generation;
    for (int rounds = 0; rounds < WIRE_RING_BYTES / PACKET_LEAST / 64; rounds++)
        if (wire->state != WIRE_UP || wire->generation != generation || !read_wire(wire, 64))
            return;
}
