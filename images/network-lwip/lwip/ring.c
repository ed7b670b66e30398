/* The rings of a wire: single producer, single consumer, in memory that the peer may scribble over.
 *
 * A record is its length in four bytes, an IP packet, and padding to a multiple of eight; it may
 * go round the end. Positions count bytes and are never wrapped. Each end keeps its own positions
 * to itself (struct ring_end) and only tells them; what it reads from the peer is checked, once,
 * and whatever is copied from here is copied once and looked at there. So garbage in this memory
 * breaks this wire at most: nothing is read or written outside, and no loop depends on it.
 *
 * Called by wire.c, under the instance's lock, and by the fuzzer.
 */
#include "ring.h"

#include <string.h>

enum { MASK = WIRE_RING_BYTES - 1, LENGTH_BYTES = 4 };

static uint32_t record_bytes(uint32_t length)
{
    return (LENGTH_BYTES + length + 7) & ~7U;
}

static void copy_in(char *ring, uint32_t at, const char *bytes, uint32_t length)
{
    uint32_t place = at & MASK, first = WIRE_RING_BYTES - place;
    if (first > length) first = length;
    memcpy(ring + place, bytes, first);
    memcpy(ring, bytes + first, length - first);
}

static void copy_out(char *bytes, const char *ring, uint32_t at, uint32_t length)
{
    uint32_t place = at & MASK, first = WIRE_RING_BYTES - place;
    if (first > length) first = length;
    memcpy(bytes, ring + place, first);
    memcpy(bytes + first, ring, length - first);
}

enum ring_result ring_put(struct ring_end *end, struct ring_words *words, char *ring,
                          const struct iovec *parts, int count)
{
    uint32_t length = 0;
    for (int i = 0; i < count; i++) length += (uint32_t)parts[i].iov_len;
    if (record_bytes(length) > WIRE_RING_BYTES - (end->tail - end->peer_head)) {
        uint32_t head = __atomic_load_n(&words->head, __ATOMIC_ACQUIRE), used = end->tail - head;
        if (used > WIRE_RING_BYTES || (used & 7) != 0) return RING_BROKEN;
        end->peer_head = head;
        if (record_bytes(length) > WIRE_RING_BYTES - used) return RING_NOTHING;
    }
    memcpy(ring + (end->tail & MASK), &length, LENGTH_BYTES);
    uint32_t at = end->tail + LENGTH_BYTES;
    for (int i = 0; i < count; i++) {
        copy_in(ring, at, parts[i].iov_base, (uint32_t)parts[i].iov_len);
        at += (uint32_t)parts[i].iov_len;
    }
    end->tail += record_bytes(length);
    __atomic_store_n(&words->tail, end->tail, __ATOMIC_RELEASE);
    return RING_DONE;
}

enum ring_result ring_peek(const struct ring_end *end, const struct ring_words *words,
                           const char *ring, uint32_t *length)
{
    uint32_t used = __atomic_load_n(&words->tail, __ATOMIC_ACQUIRE) - end->head;
    if (used == 0) return RING_NOTHING;
    if (used > WIRE_RING_BYTES || (used & 7) != 0) return RING_BROKEN;
    const uint32_t *word = (const uint32_t *)(const void *)(ring + (end->head & MASK));
    *length = __atomic_load_n(word, __ATOMIC_RELAXED);
    if (*length < PACKET_LEAST || *length > PACKET_MOST || record_bytes(*length) > used)
        return RING_BROKEN;
    return RING_DONE;
}

void ring_take(struct ring_end *end, const char *ring, char *out, uint32_t length)
{
    if (out != NULL) copy_out(out, ring, end->head + LENGTH_BYTES, length);
    end->head += record_bytes(length);
}

void ring_release(const struct ring_end *end, struct ring_words *words)
{
    __atomic_store_n(&words->head, end->head, __ATOMIC_RELEASE);
}
