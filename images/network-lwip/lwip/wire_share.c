/* Wires between the processes of one instance, and what their pumps do for them in each round.
 *
 * Called by the pump (pump.c). A process that finds wires in the arena which it does not have
 * mapped asks the leader for the descriptors, by a note to its doorbell; a leader that does not
 * have them (it came to lead when another process died) asks all others. What nobody has any more
 * is given up after a while.
 */
#include "core.h"
#include "notes.h"
#include "pump.h"
#include "wire.h"

#include "lwip/priv/tcp_priv.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NONE_MS = 5000, SHARE_MS = 1000, BLOCKED_MS = 5, AGAIN_MS = 100 };
enum { FDS_EACH = 3, GRANTS_MAX = NOTE_FDS / FDS_EACH };
_Static_assert(GRANTS_MAX <= NOTE_ITEMS, "a note has room for all grants");

#define wires (&instance->wires)

/* When this process last asked for descriptors, and at which state of the wires. */
static uint64_t asked_ms;
static uint32_t asked_changes, followed_changes;

static bool leading(void)
{
    return me.slot != NO_PROCESS && instance->leader == me.slot;
}

/* ---- descriptors from process to process --------------------------------------------------- */

static void ask_process(uint16_t slot)
{
    struct sockaddr_un address;
    socklen_t length;
    static const struct note ask = {.kind = NOTE_ASK};
    if (me.bell >= 0 && note_address(slot, &address, &length))
        note_send(&address, length, &ask, NULL, 0);
}

static void ask_for_descriptors(void)
{
    uint64_t now = now_ms();
    if (asked_changes == wires->changes && now < asked_ms + AGAIN_MS) return;
    asked_ms = now;
    asked_changes = wires->changes;
    if (leading()) {
        for (uint16_t i = 0; i < instance->process_top; i++)
            if (i != me.slot) ask_process(i);
    } else if (instance->leader != NO_PROCESS) {
        ask_process(instance->leader);
    }
}

void wire_answer(const struct sockaddr_un *to, socklen_t length)
{
    struct note note = {.kind = NOTE_GRANT};
    int fds[NOTE_FDS];
    for (uint16_t i = 0; i < wires->top; i++) {
        const struct wire_map *map = wire_map_of(&wires->table[i]);
        if (map == NULL) continue;
        note.index[note.count] = i;
        note.generation[note.count] = map->generation;
        memcpy(fds + note.count * FDS_EACH, (int[]){map->memory, map->bells[0], map->bells[1]},
               FDS_EACH * sizeof(int));
        if (++note.count < GRANTS_MAX) continue;
        note_send(to, length, &note, fds, GRANTS_MAX * FDS_EACH);
        note.count = 0;
    }
    if (note.count > 0) note_send(to, length, &note, fds, (size_t)note.count * FDS_EACH);
}

void wire_take_grants(const struct note *note, int *fds, size_t count)
{
    size_t grants = count / FDS_EACH;
    for (size_t i = 0; i < grants; i++) {
        int *own = fds + i * FDS_EACH;
        uint32_t index = note->index[i];
        bool good = own[0] >= 0 && own[1] >= 0 && own[2] >= 0 && i < note->count &&
                    index < wires->top && wires->table[index].state == WIRE_UP &&
                    wires->table[index].generation == note->generation[i] &&
                    wire_maps[index].generation != note->generation[i];
        if (good) {
            wire_hold(index, own);
            wires->work = true;
        } else {
            for (int fd = 0; fd < FDS_EACH; fd++)
                if (own[fd] >= 0) host->own_close(own[fd]);
        }
    }
    for (size_t i = grants * FDS_EACH; i < count; i++)
        if (fds[i] >= 0) host->own_close(fds[i]);
}

/* ---- each round of a pump ------------------------------------------------------------------ */

/* Lets go of what is no more; asks for what this process does not have. */
static bool follow_changes(void)
{
    bool whole = true;
    for (uint32_t i = 0; i < wires->top; i++) {
        const struct wire *wire = &wires->table[i];
        bool up = wire->state == WIRE_UP;
        if (up && wire_maps[i].generation == wire->generation) continue;
        if (wire_maps[i].generation != 0) wire_let_go(i);
        if (up) whole = false;
    }
    if (!whole) ask_for_descriptors();
    return whole;
}

static void serve_one(struct wire *wire, uint64_t now)
{
    bool late = now >= wire->until_ms;
    if (wire->state == WIRE_ASKED && wire->to_ask) {
        wire_ask(wire);
    } else if (wire->state == WIRE_ASKED && late) {
        wire->state = WIRE_NONE;
        wire->until_ms = now + NONE_MS;
        wire_flush(wire);
    } else if (wire->state == WIRE_UP && wire_map_of(wire) == NULL) {
        if (wire->until_ms == 0)
            wire->until_ms = now + SHARE_MS;
        else if (late)
            wire_give_up(wire);
    } else if (wire->state == WIRE_UP) {
        wire->until_ms = 0;
        wire_flush(wire);
        if (wire->blocked) {
            wire->blocked = false;
            tcp_txnow();
        }
    }
}

static bool busy(const struct wire *wire)
{
    if (wire->state == WIRE_ASKED) return true;
    return wire->state == WIRE_UP &&
           (wire->queued != 0 || wire->blocked || wire_map_of(wire) == NULL);
}

/* Whoever runs the stack has what wires there are. A thread of a process that lacks one may have
 * taken the wake that was meant for it: the leader, who has them all, is rung. */
void wire_follow(void)
{
    uint32_t now = wires->changes;
    if (__builtin_expect(followed_changes == now, 1)) return;
    wires->work = true;
    if (follow_changes())
        followed_changes = now;
    else if (instance->leader != NO_PROCESS && instance->leader != me.slot)
        process_ring(instance->leader);
}

void wire_serve(void)
{
    wire_follow();
    if (!leading() || !wires->work) return;
    wires->work = false;
    uint64_t now = now_ms();
    for (uint16_t i = 0; i < wires->top; i++) serve_one(&wires->table[i], now);
    for (uint16_t i = 0; i < wires->top && !wires->work; i++) wires->work = busy(&wires->table[i]);
}

int wire_timeout(void)
{
    int timeout = -1;
    if (!leading() || !wires->work) return -1;
    uint64_t now = now_ms();
    for (uint16_t i = 0; i < wires->top; i++) {
        const struct wire *wire = &wires->table[i];
        if (!busy(wire)) continue;
        int due = wire->until_ms <= now ? 0 : (int)(wire->until_ms - now);
        if (wire->state == WIRE_UP && wire_map_of(wire) == NULL && due > AGAIN_MS) due = AGAIN_MS;
        if (wire->state == WIRE_UP && wire_map_of(wire) != NULL) due = BLOCKED_MS;
        if (timeout < 0 || due < timeout) timeout = due;
    }
    return timeout;
}
