/* Faults: loss, delay, jitter, reorder, duplicate, corrupt, rate, cut, refuse and reset, made to
 * order.
 *
 * Theory of operation. packet.c shows every IP packet to fault_take, whatever way it goes. A packet
 * passes the matching faults one after another; their delays add up. What becomes of the n-th
 * packet that one fault meets in one direction is a function of its seed, the direction and n
 * alone (draw), so the same sequence of packets meets the same fate again. Packets that are to go
 * later are copies on a heap by due time, and leave in fault_run: at the next unlock after they
 * are due, or when the leader's pump wakes for them. Each fault ends by itself at its deadline,
 * whether or not anybody is there to end it. All of it lies in the arena, under the lock.
 */
#include "instance.h"

#include "lwip/inet_chksum.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/tcp.h"

#include <arpa/inet.h>
#include <string.h>
#include <time.h>

enum {
    LINE_US = 250000,  /* what a slow line queues before it drops */
    PARKED_US = 50000, /* a reordered packet waits so long for one to overtake it */
    LINK_HEADER = 14,
    PPM = 1000000,
};

#define ALL (&instance->instruments)

uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- chance -------------------------------------------------------------------------------- */

enum draw_kind { DRAW_LOSS, DRAW_DUPLICATE, DRAW_CORRUPT, DRAW_PLACE, DRAW_REORDER, DRAW_JITTER };

/* splitmix64 of the packet's place in the sequence: the same for the same seed, always. */
static uint32_t draw(const struct fault *f, enum packet_way way, enum draw_kind kind)
{
    uint64_t place = ((f->packets[way] << 1 | way) << 3) + kind + 1;
    uint64_t x = f->seed + place * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((x ^ x >> 31) >> 32);
}

static bool chance(const struct fault *f, enum packet_way way, enum draw_kind kind, uint32_t ppm)
{
    return ppm != 0 && (uint64_t)draw(f, way, kind) * PPM >> 32 < ppm;
}

static bool same_network(const struct fault_peer *peer, const uint8_t *address)
{
    uint32_t whole = peer->bits / 8, rest = peer->bits % 8;
    if (memcmp(peer->address, address, whole) != 0) return false;
    return rest == 0 || (peer->address[whole] ^ address[whole]) >> (8 - rest) == 0;
}

bool fault_has_peer(const struct fault *f, const uint8_t *address)
{
    for (uint32_t i = 0; i < f->peer_count; i++)
        if (same_network(&f->peers[i], address)) return true;
    return f->peer_count == 0;
}

/* A packet that loops is on its way out and in at once: it meets a fault once. */
static bool concerns(const struct fault *f, const struct packet_names *names, enum packet_way way,
                     bool loops)
{
    if (f->id[0] == '\0' || f->ended || (!f->ways[way] && !(loops && f->ways[WAY_IN])))
        return false;
    return fault_has_peer(f, way == WAY_OUT ? names->target : names->source);
}

/* ---- refuse -------------------------------------------------------------------------------- */

static size_t write_ip_header(uint8_t *out, const struct packet_names *names)
{
    memset(out, 0, 40);
    if (names->version == 4) {
        out[0] = 0x45;
        out[3] = 40;
        out[8] = 64;
        out[9] = IP_PROTO_TCP;
        memcpy(out + 12, names->target + 12, 4);
        memcpy(out + 16, names->source + 12, 4);
        uint16_t sum = inet_chksum(out, 20);
        memcpy(out + 10, &sum, 2);
        return 20;
    }
    out[0] = 0x60;
    out[5] = 20;
    out[6] = IP_PROTO_TCP;
    out[7] = 64;
    memcpy(out + 8, names->target, 16);
    memcpy(out + 24, names->source, 16);
    return 40;
}

/* The answer of a host where nobody listens, to the sender of this SYN. */
static void refuse(const struct packet_names *names, const struct packet_path *path)
{
    uint8_t bytes[60];
    size_t header = write_ip_header(bytes, names);
    uint8_t *tcp = bytes + header;
    uint32_t acknowledged = htonl(names->sequence + 1);
    memset(tcp, 0, 20);
    tcp[0] = (uint8_t)(names->target_port >> 8);
    tcp[1] = (uint8_t)names->target_port;
    tcp[2] = (uint8_t)(names->source_port >> 8);
    tcp[3] = (uint8_t)names->source_port;
    memcpy(tcp + 8, &acknowledged, 4);
    tcp[12] = 0x50;
    tcp[13] = TCP_RST | TCP_ACK;
    struct pbuf *p = pbuf_alloc(PBUF_LINK, (u16_t)(header + 20), PBUF_RAM);
    struct packet_path back = *path;
    if (p == NULL) return;
    pbuf_take(p, bytes, (u16_t)(header + 20));
    packet_address(&back.target, names->source);
    back.way = path->way == WAY_OUT ? WAY_IN : WAY_OUT;
    hold(p, now_us(), &back);
}

/* ---- one packet ---------------------------------------------------------------------------- */

/* When this fault lets the packet go on, in microseconds from now; -1: the slow line is full. */
static int64_t line_delay(struct fault *f, enum packet_way way, uint64_t now, uint32_t length)
{
    if (f->bits_per_second == 0) return 0;
    uint64_t begin = f->free_us[way] > now ? f->free_us[way] : now;
    if (begin - now > LINE_US) return -1;
    f->free_us[way] = begin + (uint64_t)(length + LINK_HEADER) * 8000000 / f->bits_per_second;
    return (int64_t)(f->free_us[way] - now);
}

static uint64_t slow_down(struct fault *f, enum packet_way way, uint64_t now)
{
    uint64_t delay = f->delay_us;
    if (f->jitter_us != 0) {
        uint64_t span = 2 * f->jitter_us + 1;
        uint64_t shift = (uint64_t)draw(f, way, DRAW_JITTER) * span >> 32;
        delay = delay + shift > f->jitter_us ? delay + shift - f->jitter_us : 0;
        if (now + delay < f->latest_us[way]) delay = f->latest_us[way] - now;
        f->latest_us[way] = now + delay;
    }
    return delay;
}

/* What becomes of one packet; filled by the faults that it meets. */
struct fate {
    bool gone, twice;
    uint64_t delay_us;
    struct fault *parks;
    const struct fault *damages;
};

static void judge(struct fault *f, enum packet_way way, uint32_t length, uint64_t now,
                  struct fate *fate)
{
    f->counts[FAULT_SEEN]++;
    if (f->cut) {
        f->counts[FAULT_CUT]++;
        fate->gone = true;
    } else if (chance(f, way, DRAW_LOSS, f->loss_ppm)) {
        f->counts[FAULT_LOST]++;
        fate->gone = true;
    } else {
        int64_t line = line_delay(f, way, now, length);
        if (line < 0) {
            f->counts[FAULT_OVERFLOWED]++;
            fate->gone = true;
        } else {
            uint64_t delay = (uint64_t)line + slow_down(f, way, now);
            if (f->delay_us + f->jitter_us != 0) f->counts[FAULT_DELAYED]++;
            fate->delay_us += delay;
            if (chance(f, way, DRAW_DUPLICATE, f->duplicate_ppm)) {
                f->counts[FAULT_DUPLICATED]++;
                fate->twice = true;
            }
            if (chance(f, way, DRAW_CORRUPT, f->corrupt_ppm)) {
                f->counts[FAULT_CORRUPTED]++;
                fate->damages = f;
            }
            if (fate->parks == NULL && f->parked[way] == NULL &&
                chance(f, way, DRAW_REORDER, f->reorder_ppm))
                fate->parks = f;
        }
    }
}

/* A bit of the payload is turned. The receiver's checksum finds it; where none is made (a wire,
 * loopback, an arriving packet that was checked already) that is the end of it. */
static struct pbuf *damage(struct pbuf *copy, const struct fault *f, enum packet_way way,
                           uint16_t header)
{
    uint32_t place = draw(f, way, DRAW_PLACE);
    if (copy == NULL || copy->tot_len <= header) return copy;
    uint32_t at = header + place / 8 % (uint32_t)(copy->tot_len - header);
    ((uint8_t *)copy->payload)[at] ^= (uint8_t)(1 << place % 8);
    copy->flags |= PACKET_DAMAGED;
    return copy;
}

static struct pbuf *copy_of(const struct pbuf *p)
{
    return pbuf_clone(PBUF_LINK, PBUF_RAM, (struct pbuf *)p);
}

/* The packet behind it has passed: the parked one follows at once. */
static void release_parked(struct fault *f, enum packet_way way, uint64_t due)
{
    struct held *h = f->parked[way];
    if (h == NULL) return;
    f->parked[way] = NULL;
    h->parked_by = NULL;
    hold(held_empty(h), due, &h->path);
}

static bool carry_out(const struct fate *fate, const struct pbuf *p,
                      const struct packet_names *names, const struct packet_path *path)
{
    uint64_t now = now_us(), due = now + fate->delay_us;
    bool behind_others = ALL->held_count > 0 && ALL->held[0]->due_us <= now;
    bool later =
        fate->delay_us != 0 || fate->parks != NULL || fate->damages != NULL || behind_others;
    if (fate->parks != NULL) {
        struct held *h = hold(copy_of(p), due + PARKED_US, path);
        if (h != NULL) {
            h->parked_by = fate->parks;
            fate->parks->parked[path->way] = h;
            fate->parks->counts[FAULT_REORDERED]++;
        }
    } else if (later) {
        struct pbuf *copy = copy_of(p);
        if (fate->damages != NULL) copy = damage(copy, fate->damages, path->way, names->header);
        hold(copy, due, path);
    }
    if (fate->twice) hold(copy_of(p), due, path);
    return later;
}

/* Neighbour discovery and group membership: what ARP is for IPv4. They come by their own clocks; as
 * part of the sequence they would make no two runs alike. */
static bool is_housekeeping(const struct packet_names *names)
{
    enum { HOP_BY_HOP = 0, ICMP6 = 58, FIRST = 130, LAST = 137, MLD2 = 143 };
    if (names->version != 6) return false;
    bool icmp = names->protocol == ICMP6;
    return names->protocol == HOP_BY_HOP || (icmp && names->icmp_type == MLD2) ||
           (icmp && names->icmp_type >= FIRST && names->icmp_type <= LAST);
}

bool fault_take(const struct pbuf *p, const struct packet_path *path)
{
    struct packet_names names;
    struct fate fate = {0};
    enum packet_way way = path->way;
    bool loops = path->link == LINK_LOOP;
    uint64_t now = 0;
    bool met[FAULTS_MAX] = {0};
    if (!packet_read_names(p, &names) || is_housekeeping(&names)) return false;
    for (int i = 0; i < FAULTS_MAX && !fate.gone; i++) {
        struct fault *f = &ALL->faults[i];
        if (!concerns(f, &names, way, loops)) continue;
        bool opens = (names.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
        if (f->refuse != 0 && names.target_port == f->refuse && opens) {
            f->counts[FAULT_REFUSED]++;
            refuse(&names, path);
            return true;
        }
        if (now == 0) now = now_us();
        met[i] = true;
        judge(f, way, p->tot_len, now, &fate);
    }
    bool dropped = fate.gone || (fate.damages != NULL && (way == WAY_IN || loops));
    bool taken = dropped || (now != 0 && carry_out(&fate, p, &names, path));
    for (int i = 0; i < FAULTS_MAX; i++) {
        if (!met[i]) continue;
        struct fault *f = &ALL->faults[i];
        f->packets[way]++;
        if (!dropped && fate.parks != f) release_parked(f, way, now + fate.delay_us);
    }
    return taken;
}
