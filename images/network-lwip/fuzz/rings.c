/* libFuzzer target: a wire whose other end writes whatever it likes, wherever it likes. Built by
 * `make -C images fuzz`, run by tests/native/test_net_fuzz.py.
 *
 * An input is a row of steps: what to do (1), where (4), how much (2), bytes. The memory of the
 * rings is allocated to the byte, so that the address sanitizer sees each step outside. What lies
 * above the rings is fuzzed as frames are (frames.c): wires bring the same packets.
 */
#include "../lwip/ring.h"

#include <stdlib.h>
#include <string.h>

enum { STEP_BYTES = 7, STEPS_MAX = 4096, READS = 64, PARTS = 3 };
enum step { SCRIBBLE_WORDS, SCRIBBLE_RING, READ, WRITE, HONEST, STEPS };

static struct {
    struct ring_control *control;
    char *rings[2];
    struct ring_end own, peer; /* side 0, and an honest side 1 where it is honest */
} wire;

static void start_over(void)
{
    memset(wire.control, 0, sizeof *wire.control);
    memset(&wire.own, 0, sizeof wire.own);
    memset(&wire.peer, 0, sizeof wire.peer);
}

static void check(bool holds)
{
    if (!holds) abort();
}

static enum ring_result write_some(struct ring_end *end, int side, const uint8_t *bytes,
                                   uint32_t length)
{
    uint32_t third = length / PARTS;
    struct iovec parts[PARTS] = {{(void *)bytes, third},
                                 {(void *)(bytes + third), third},
                                 {(void *)(bytes + 2 * third), length - 2 * third}};
    return ring_put(end, &wire.control->direction[side], wire.rings[side], parts, PARTS);
}

/* True while the wire holds. Only so many packets are in a ring. */
static bool read_some(void)
{
    struct ring_words *words = &wire.control->direction[1];
    for (int i = 0; i < READS; i++) {
        uint32_t length, before = wire.own.head;
        enum ring_result result = ring_peek(&wire.own, words, wire.rings[1], &length);
        if (result != RING_DONE) return result != RING_BROKEN;
        check(length >= PACKET_LEAST && length <= PACKET_MOST);
        char *packet = malloc(length);
        ring_take(&wire.own, wire.rings[1], packet, length);
        free(packet);
        ring_release(&wire.own, words);
        check((wire.own.head & 7) == 0 && wire.own.head - before <= PACKET_MOST + 16);
    }
    return true;
}

/* A peer as it should be: what it writes is read as it was, while nothing was scribbled. */
static void be_honest(uint32_t length)
{
    static uint8_t sent[PACKET_MOST], got[PACKET_MOST];
    uint32_t found;
    start_over();
    for (uint32_t i = 0; i < length; i++) sent[i] = (uint8_t)(i * 31 + length);
    wire.own.head = wire.peer.tail = wire.peer.peer_head = length * 8 * 4099;
    wire.control->direction[1].head = wire.control->direction[1].tail = wire.own.head;
    check(write_some(&wire.peer, 1, sent, length) == RING_DONE);
    check(ring_peek(&wire.own, &wire.control->direction[1], wire.rings[1], &found) == RING_DONE);
    check(found == length);
    ring_take(&wire.own, wire.rings[1], (char *)got, length);
    check(memcmp(sent, got, length) == 0);
    check(ring_is_empty(&wire.control->direction[1], wire.own.head));
}

static void scribble(void *memory, size_t size, uint32_t where, const uint8_t *bytes, size_t count)
{
    size_t at = where % size;
    memcpy((char *)memory + at, bytes, count < size - at ? count : size - at);
}

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    wire.control = aligned_alloc(128, sizeof *wire.control);
    for (int i = 0; i < 2; i++) wire.rings[i] = aligned_alloc(8, WIRE_RING_BYTES);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    start_over();
    for (int i = 0; i < STEPS_MAX && size >= STEP_BYTES; i++) {
        enum step step = data[0] % STEPS;
        uint32_t where, length = (uint32_t)(data[5] << 8 | data[6]);
        memcpy(&where, data + 1, sizeof where);
        data += STEP_BYTES, size -= STEP_BYTES;
        size_t given = length < size ? length : size;
        bool holds = true;
        if (step == SCRIBBLE_WORDS)
            scribble(wire.control, sizeof *wire.control, where, data, given);
        if (step == SCRIBBLE_RING) scribble(wire.rings[1], WIRE_RING_BYTES, where, data, given);
        if (step == READ) holds = read_some();
        if (step == WRITE) holds = write_some(&wire.own, 0, data, (uint32_t)given) != RING_BROKEN;
        if (step == HONEST) be_honest(length < PACKET_LEAST ? PACKET_LEAST : length);
        if (step <= SCRIBBLE_RING || step == WRITE) data += given, size -= given;
        if (!holds) start_over(); /* the wire is gone; the next one begins empty */
    }
    return 0;
}
