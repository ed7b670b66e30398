/* Held packets: copies that go on later, on a heap by due time in the arena. For fault.c. */
#include "instance.h"

#include <string.h>

enum { HELD_MAX = 16384, HELD_BYTES_MAX = 64 << 20 };

#define ALL (&instance->instruments)

static bool before(const struct held *a, const struct held *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->sequence < b->sequence;
}

static bool make_room(void)
{
    if (ALL->held_count < ALL->held_room) return true;
    uint32_t room = ALL->held_room == 0 ? 64 : ALL->held_room * 2;
    if (room > HELD_MAX) return false;
    struct held **larger = heap_alloc(room * sizeof *larger);
    if (larger == NULL) return false;
    if (ALL->held != NULL) memcpy(larger, ALL->held, ALL->held_count * sizeof *larger);
    heap_free(ALL->held);
    ALL->held = larger;
    ALL->held_room = room;
    return true;
}

/* Takes the packet; false (and the packet is gone) where there is no room. */
struct held *hold(struct pbuf *packet, uint64_t due_us, const struct packet_path *path)
{
    struct held *h = NULL;
    if (packet != NULL && ALL->held_bytes + packet->tot_len <= HELD_BYTES_MAX && make_room())
        h = heap_alloc(sizeof *h);
    if (h == NULL) {
        if (packet != NULL) pbuf_free(packet);
        return NULL;
    }
    *h = (struct held){
        .due_us = due_us, .sequence = ALL->held_sequence++, .packet = packet, .path = *path};
    ALL->held_bytes += packet->tot_len;
    uint32_t at = ALL->held_count++;
    for (; at > 0 && before(h, ALL->held[(at - 1) / 2]); at = (at - 1) / 2)
        ALL->held[at] = ALL->held[(at - 1) / 2];
    ALL->held[at] = h;
    return h;
}

static struct held *take_first(void)
{
    struct held *first = ALL->held[0], *last = ALL->held[--ALL->held_count];
    uint32_t at = 0, count = ALL->held_count;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count) break;
        if (child + 1 < count && before(ALL->held[child + 1], ALL->held[child])) child++;
        if (!before(ALL->held[child], last)) break;
        ALL->held[at] = ALL->held[child];
        at = child;
    }
    if (count > 0) ALL->held[at] = last;
    if (first->packet != NULL) ALL->held_bytes -= first->packet->tot_len;
    return first;
}

/* The packet has other plans; its entry is empty when its time comes. */
struct pbuf *held_empty(struct held *h)
{
    struct pbuf *packet = h->packet;
    h->packet = NULL;
    ALL->held_bytes -= packet->tot_len;
    return packet;
}

bool fault_run(void)
{
    bool any = false;
    uint64_t now = ALL->held_count > 0 ? now_us() : 0;
    while (ALL->held_count > 0 && ALL->held[0]->due_us <= now) {
        struct held *h = take_first();
        if (h->parked_by != NULL) h->parked_by->parked[h->path.way] = NULL;
        if (h->packet != NULL && h->path.way == WAY_OUT) {
            packet_send(h->packet, &h->path);
            pbuf_free(h->packet);
        } else if (h->packet != NULL) {
            packet_deliver(h->packet, &h->path);
        }
        heap_free(h);
        any = true;
    }
    return any;
}
