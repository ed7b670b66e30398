/* The table of peers: who has a wire, who is being asked about, who is left to the tap.
 *
 * A peer has an address of each family and one wire for both; until a wire is granted only the
 * address is known that a packet went to. Called by the other wire files, under the lock.
 */
#include "instance.h"
#include "wire.h"

#include "lwip/ip6.h"
#include "lwip/nd6.h"

#include <string.h>

enum { ASK_MS = 1000 };

#define wires (&instance->wires)

static int family(const ip_addr_t *address)
{
    return IP_IS_V6(address) ? 1 : 0;
}

static uint16_t *hash_place(const ip_addr_t *address)
{
    uint32_t mix = 0;
    if (IP_IS_V6(address))
        for (int i = 0; i < 4; i++) mix = mix * 31 + ip_2_ip6(address)->addr[i];
    else
        mix = ip_2_ip4(address)->addr;
    return &wires->hash[family(address)][(mix * 0x9e3779b1U) >> 23];
}
_Static_assert(WIRE_HASH == 1 << (32 - 23), "hash_place");

struct wire *wire_find(const ip_addr_t *address)
{
    int which = family(address);
    for (uint16_t at = *hash_place(address); at != 0; at = wires->table[at - 1].next[which])
        if (ip_addr_eq(&wires->table[at - 1].address[which], address)) return &wires->table[at - 1];
    return NULL;
}

void wire_name(struct wire *wire, const ip_addr_t *address)
{
    int which = family(address);
    uint16_t *place = hash_place(address);
    wire->address[which] = *address;
    wire->next[which] = *place;
    *place = (uint16_t)(wire - wires->table + 1);
}

static void remove_entry(struct wire *wire)
{
    uint16_t own = (uint16_t)(wire - wires->table + 1);
    for (int which = 0; which < 2; which++) {
        if (ip_addr_isany(&wire->address[which])) continue;
        uint16_t *at = hash_place(&wire->address[which]);
        while (*at != 0 && *at != own) at = &wires->table[*at - 1].next[which];
        if (*at == own) *at = wire->next[which];
    }
    wire->state = WIRE_FREE;
}

struct wire *wire_new(const ip_addr_t *address)
{
    struct wire *found = NULL;
    uint64_t now = now_ms();
    for (uint16_t i = 0; i < WIRES_MAX && found == NULL; i++) {
        struct wire *wire = &wires->table[i];
        if (wire->state == WIRE_NONE && now >= wire->until_ms) remove_entry(wire);
        if (wire->state == WIRE_FREE) found = wire;
        if (found != NULL && i >= wires->top) wires->top = (uint16_t)(i + 1);
    }
    if (found == NULL) return NULL;
    memset(found, 0, sizeof *found);
    IP_SET_TYPE_VAL(found->address[1], IPADDR_TYPE_V6);
    wire_name(found, address);
    return found;
}

/* The entry of a peer that is now known by both addresses; what waited for one of them waits
 * there. */
struct wire *wire_peer(const ip_addr_t *v4, const ip_addr_t *v6)
{
    struct wire *wire = wire_find(v4);
    struct wire *other = ip_addr_isany(v6) ? NULL : wire_find(v6);
    if (wire == NULL && other != NULL) {
        wire = other;
        wire_name(wire, v4);
    }
    if (wire == NULL) wire = wire_new(v4);
    if (wire == NULL || wire == other) return wire;
    if (other != NULL) {
        if (wire->last != NULL)
            wire->last->next = other->first;
        else
            wire->first = other->first;
        if (other->last != NULL) wire->last = other->last;
        wire->queued += other->queued;
        remove_entry(other);
    }
    if (!ip_addr_isany(v6) && !ip_addr_eq(&wire->address[1], v6)) wire_name(wire, v6);
    return wire;
}

/* A neighbour on the subnet that may be an application's. */
static bool may_be_peer(const ip_addr_t *dest)
{
    if (!wires->wanted) return false;
    if (IP_IS_V6(dest)) {
        const ip6_addr_t *address6 = ip_2_ip6(dest);
        return !ip6_addr_isany(&instance->address6) && !ip6_addr_ismulticast(address6) &&
               cse_same_subnet6(address6, &instance->address6) &&
               !ip6_addr_zoneless_eq(address6, &instance->address6) &&
               !ip6_addr_zoneless_eq(address6, &instance->gateway6);
    }
    uint32_t address = ip_2_ip4(dest)->addr, mask = instance->netmask;
    return (address & mask) == (instance->address & mask) && address != instance->address &&
           address != instance->gateway && address != (instance->address | ~mask) &&
           address != (instance->address & mask);
}

/* The entry for a packet's destination; NULL: the tap takes it. */
struct wire *wire_entry(const ip_addr_t *dest)
{
    struct wire *wire = wire_find(dest);
    if (wire == NULL) {
        if (!may_be_peer(dest) || wires->up >= WIRES_UP_MAX) return NULL;
        wire = wire_new(dest);
        if (wire == NULL) return NULL;
    } else if (wire->state != WIRE_NONE) {
        return wire;
    } else if (now_ms() < wire->until_ms) {
        return NULL;
    }
    wire->state = WIRE_ASKED;
    wire->until_ms = now_ms() + ASK_MS;
    wire_ask(wire);
    return wire->state == WIRE_NONE ? NULL : wire;
}

bool wire_is_up(const ip_addr_t *address)
{
    const struct wire *wire = wires->up != 0 ? wire_find(address) : NULL;
    return wire != NULL && wire->state == WIRE_UP;
}

bool wire_waiting(void)
{
    if (!wires->work) return false;
    for (uint16_t i = 0; i < wires->top; i++)
        if (wires->table[i].queued != 0) return true;
    return false;
}

/* What waited lies in a heap that is no more; the rings go on where their words say. */
void wire_reset(void)
{
    memset(wires->hash, 0, sizeof wires->hash);
    wires->up = 0;
    for (uint16_t i = 0; i < wires->top; i++) {
        struct wire *wire = &wires->table[i];
        wire->first = wire->last = NULL;
        wire->queued = 0;
        wire->resync = true;
        if (wire->state != WIRE_UP) {
            wire->state = WIRE_FREE;
            continue;
        }
        for (int which = 0; which < 2; which++) {
            ip_addr_t address = wire->address[which];
            if (!ip_addr_isany(&address)) wire_name(wire, &address);
        }
        wires->up++;
    }
}
