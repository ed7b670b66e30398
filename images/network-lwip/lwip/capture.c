/* Capture: copies of packets for the agent, which filters them and makes a pcapng file of them.
 *
 * Each capture has a ring in the arena, filled by whatever process runs the stack. The leader's
 * pump, the only one with the agent's descriptor, moves its bytes there and never waits: a packet
 * that finds no room in the ring is counted and not captured. Records: struct record, then the
 * packet's first bytes, padded to 8; the last record of a capture is only its counts.
 */
#include "core.h"
#include "instance.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pump.h"

enum { RING_BYTES = 2 << 20, DRAIN_BYTES = 1 << 20, LAST_RECORD = 0xff };

struct record {
    uint32_t size; /* of all of it, with padding */
    uint32_t captured, original;
    uint8_t link, way;
    uint16_t reserved;
    uint64_t time_ns;
};

/* This process's descriptors; only those of captures that live count. */
static struct {
    uint32_t number;
    int fd;
    bool waits; /* for room: EPOLLOUT is on */
} outlets[CAPTURES_MAX];

static uint64_t space(const struct capture *c)
{
    return RING_BYTES - (c->tail - c->head);
}

static void put(struct capture *c, const void *bytes, uint32_t length)
{
    uint32_t at = (uint32_t)(c->tail % RING_BYTES), first = RING_BYTES - at;
    if (first > length) first = length;
    memcpy(c->ring + at, bytes, first);
    memcpy(c->ring, (const char *)bytes + first, length - first);
    c->tail += length;
}

static void put_packet(struct capture *c, const struct pbuf *p, uint32_t length)
{
    for (; p != NULL && length > 0; p = p->next) {
        uint32_t part = p->len < length ? p->len : length;
        put(c, p->payload, part);
        length -= part;
    }
}

void capture_packet(const struct pbuf *p, const struct packet_path *path)
{
    struct timespec now = {0, 0};
    for (int i = 0; i < CAPTURES_MAX; i++) {
        struct capture *c = &instance->instruments.captures[i];
        if (c->number == 0 || c->told) continue;
        uint32_t length = p->tot_len < c->snap_length ? p->tot_len : c->snap_length;
        uint32_t padding = -length & 7;
        struct record record = {.size = (uint32_t)sizeof record + length + padding,
                                .captured = length,
                                .original = p->tot_len,
                                .link = path->link,
                                .way = path->way};
        c->seen[path->link]++;
        if (space(c) < record.size + 256) { /* the last record always has room */
            c->dropped[path->link]++;
            continue;
        }
        if (now.tv_sec == 0) clock_gettime(CLOCK_REALTIME, &now);
        record.time_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
        put(c, &record, sizeof record);
        put_packet(c, p, length);
        put(c, "\0\0\0\0\0\0\0", padding);
    }
}

static struct capture *find(uint32_t number)
{
    for (int i = 0; i < CAPTURES_MAX; i++)
        if (instance->instruments.captures[i].number == number)
            return &instance->instruments.captures[i];
    return NULL;
}

static void close_outlet(int i)
{
    if (outlets[i].number != 0) pump_unwatch_fd(outlets[i].fd);
    outlets[i].number = 0;
}

static void stop(struct capture *c)
{
    close_outlet((int)(c - instance->instruments.captures));
    heap_free(c->ring);
    memset(c, 0, sizeof *c);
    instruments_update_hooks();
}

static uint32_t number_in(const char *text, const char *key)
{
    char value[16];
    return host->message_field(text, key, value, sizeof value) ? (uint32_t)strtoul(value, NULL, 10)
                                                               : 0;
}

/* A new capture, or one that a former leader served: then only the descriptor is new. */
void capture_hear(const char *text, int fd)
{
    uint32_t number = number_in(text, "id");
    struct capture *c = number != 0 ? find(number) : NULL;
    if (c == NULL && number != 0 && fd >= 0 && (c = find(0)) != NULL) {
        c->ring = heap_alloc(RING_BYTES);
        c->snap_length = number_in(text, "snaplen");
        if (c->ring != NULL) c->number = number;
    }
    if (c == NULL || c->number == 0 || fd < 0) {
        if (fd >= 0) host->own_close(fd);
        return;
    }
    int i = (int)(c - instance->instruments.captures);
    close_outlet(i);
    outlets[i].number = number;
    outlets[i].fd = fd;
    outlets[i].waits = false;
    pump_watch_fd(fd, PUMP_CAPTURE + (unsigned)i);
}

/* The agent wants no more: the last record, and with it the end. */
void capture_end(const char *text)
{
    uint32_t number = number_in(text, "id");
    struct capture *c = number != 0 ? find(number) : NULL;
    if (c == NULL || c->told) return;
    struct record record = {.size = sizeof record + sizeof c->seen + sizeof c->dropped,
                            .link = LAST_RECORD};
    put(c, &record, sizeof record);
    put(c, c->seen, sizeof c->seen);
    put(c, c->dropped, sizeof c->dropped);
    c->told = true;
}

bool capture_waiting(void)
{
    for (int i = 0; i < CAPTURES_MAX; i++) {
        const struct capture *c = &instance->instruments.captures[i];
        if (c->number != 0 && c->head != c->tail) return true;
    }
    return false;
}

static void want_room(int i, bool wanted)
{
    if (outlets[i].waits == wanted) return;
    struct epoll_event event = {.events = wanted ? EPOLLOUT : 0,
                                .data.u64 = PUMP_CAPTURE + (unsigned)i};
    syscall(SYS_epoll_ctl, me.epoll, EPOLL_CTL_MOD, outlets[i].fd, &event);
    outlets[i].waits = wanted;
}

/* False when the agent has hung up. */
static bool drain(struct capture *c, int i)
{
    for (uint64_t moved = 0; c->head != c->tail && moved < DRAIN_BYTES;) {
        uint32_t at = (uint32_t)(c->head % RING_BYTES);
        uint64_t part = RING_BYTES - at, left = c->tail - c->head;
        if (part > left) part = left;
        long sent = syscall(SYS_sendto, outlets[i].fd, c->ring + at, (long)part,
                            (long)(MSG_DONTWAIT | MSG_NOSIGNAL), NULL, 0L);
        if (sent <= 0) {
            want_room(i, errno == EAGAIN);
            return errno == EAGAIN;
        }
        c->head += (uint64_t)sent;
        moved += (uint64_t)sent;
    }
    want_room(i, c->head != c->tail);
    return true;
}

/* The agent is gone, or has enough. */
void capture_hung_up(int place)
{
    struct capture *c = &instance->instruments.captures[place];
    bool current = c->number != 0 && outlets[place].number == c->number;
    close_outlet(place);
    if (current) stop(c);
}

void capture_drain(void)
{
    for (int i = 0; i < CAPTURES_MAX; i++) {
        struct capture *c = &instance->instruments.captures[i];
        if (outlets[i].number != 0 && outlets[i].number != c->number) close_outlet(i);
        if (c->number == 0 || outlets[i].number != c->number) continue;
        if (!drain(c, i) || (c->told && c->head == c->tail)) stop(c);
    }
}
