/* One end of a wire: two rings in memory that a stranger maps as well. See ring.c. */
#ifndef CSE_RING_H
#define CSE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    WIRE_RING_BYTES = 1 << 20,  /* of one direction; RING_BYTES of app/broker/wires.py */
    WIRE_CONTROL_BYTES = 65536, /* a page of any machine */
    WIRE_BYTES = WIRE_CONTROL_BYTES + 2 * WIRE_RING_BYTES,
    PACKET_LEAST = 20,
    PACKET_MOST = 65535,
};

/* The first page of the memory: each word on a cache line of its own, as it has one writer (want
 * has two: who waits sets it, who wakes takes it). */
struct ring_words {
    _Alignas(128) uint32_t tail; /* written by the producer */
    _Alignas(128) uint32_t head; /* written by the consumer */
    _Alignas(128) uint32_t want; /* enum wake: what wakes the consumer */
};
struct ring_control {
    struct ring_words direction[2]; /* side 0 produces into the first */
};

/* What one end knows by itself. The shared words are never read back for it. */
struct ring_end {
    uint32_t tail, head;
    uint32_t peer_head; /* as last seen: the producer looks only when it needs room */
};

static inline bool ring_is_empty(const struct ring_words *words, uint32_t head)
{
    return __atomic_load_n(&words->tail, __ATOMIC_ACQUIRE) == head;
}

enum ring_result { RING_DONE, RING_NOTHING, RING_BROKEN };

/* Writes one record. RING_NOTHING: no room. */
enum ring_result ring_put(struct ring_end *end, struct ring_words *words, char *ring,
                          const struct iovec *parts, int count);
/* The length of the next record; it stays until ring_take. */
enum ring_result ring_peek(const struct ring_end *end, const struct ring_words *words,
                           const char *ring, uint32_t *length);
/* Copies the record that ring_peek found to `out` (which may be NULL), and is past it. */
void ring_take(struct ring_end *end, const char *ring, char *out, uint32_t length);
/* Nothing is on its way in the ring that this end writes. */
static inline bool ring_is_drained(const struct ring_end *end, const struct ring_words *words)
{
    return __atomic_load_n(&words->head, __ATOMIC_ACQUIRE) == end->tail;
}

/* Gives the room of what was taken back to the producer. */
void ring_release(const struct ring_end *end, struct ring_words *words);

#endif
