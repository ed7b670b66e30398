/* Orders about faults: the agent's messages, deadlines, and what the agent is told at the end.
 *
 * The agent sends all faults of the application whenever a process begins to lead: `faults ids=…`
 * (others end) and one `fault id=… key=value…` each; known ones are left as they are. What a
 * fault does to packets is fault.c.
 */
#include "core.h"
#include "instance.h"

#include "lwip/priv/tcp_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALL (&instance->instruments)

static struct fault *find(const char *id)
{
    for (int i = 0; i < FAULTS_MAX; i++)
        if (strcmp(ALL->faults[i].id, id) == 0) return &ALL->faults[i];
    return NULL;
}

static uint64_t number(const char *text, const char *key, uint64_t most)
{
    char value[32];
    if (!host->message_field(text, key, value, sizeof value)) return 0;
    uint64_t found = strtoull(value, NULL, 10);
    return found < most ? found : most;
}

/* ---- reset --------------------------------------------------------------------------------- */

static bool connection_matches(const struct fault *f, const struct tcp_pcb *pcb, uint16_t port)
{
    uint8_t peer[16];
    if (pcb->state < ESTABLISHED) return false;
    bool ours = f->ways[WAY_IN] && pcb->local_port == port;
    bool theirs = f->ways[WAY_OUT] && pcb->remote_port == port;
    packet_address_bytes(&pcb->remote_ip, peer);
    return (ours || theirs) && fault_has_peer(f, peer);
}

/* Each abort changes lwIP's list: begin anew after it. */
static void reset_connections(struct fault *f, uint16_t port)
{
    struct tcp_pcb *pcb = tcp_active_pcbs;
    while (pcb != NULL) {
        if (!connection_matches(f, pcb, port)) {
            pcb = pcb->next;
            continue;
        }
        struct sock *s = pcb->callback_arg;
        if (s != NULL && s->tcp == pcb) s->error = ECONNRESET;
        f->counts[FAULT_RESET]++;
        tcp_abort(pcb);
        pcb = tcp_active_pcbs;
    }
}

/* ---- begin and end ------------------------------------------------------------------------- */

/* `peers=A/BITS,…` with the bits of the 16-byte form. */
static bool read_peers(struct fault *f, const char *text)
{
    char list[512], *rest = list;
    if (!host->message_field(text, "peers", list, sizeof list)) return true;
    for (char *item; (item = strsep(&rest, ",")) != NULL;) {
        char *slash = strchr(item, '/');
        if (slash == NULL || f->peer_count == FAULT_PEERS_MAX) return false;
        *slash = '\0';
        struct fault_peer *peer = &f->peers[f->peer_count++];
        unsigned long bits = strtoul(slash + 1, NULL, 10);
        if (bits > 128 || !packet_address_read(item, peer->address)) return false;
        peer->bits = (uint8_t)bits;
    }
    return true;
}

static bool read_fault(struct fault *f, const char *text)
{
    enum { PPM = 1000000 };
    const uint64_t longest = UINT64_C(3600) * 1000000;
    *f = (struct fault){
        .cut = number(text, "cut", 1) != 0,
        .ways = {number(text, "in", 1) != 0, number(text, "out", 1) != 0},
        .refuse = (uint16_t)number(text, "refuse", UINT16_MAX),
        .loss_ppm = (uint32_t)number(text, "loss_ppm", PPM),
        .reorder_ppm = (uint32_t)number(text, "reorder_ppm", PPM),
        .duplicate_ppm = (uint32_t)number(text, "duplicate_ppm", PPM),
        .corrupt_ppm = (uint32_t)number(text, "corrupt_ppm", PPM),
        .delay_us = number(text, "delay_us", longest),
        .jitter_us = number(text, "jitter_us", longest),
        .bits_per_second = number(text, "bits_per_second", UINT64_C(1) << 40),
        .seed = number(text, "seed", UINT64_MAX),
        .until_ms = number(text, "until_ms", UINT64_MAX),
    };
    return read_peers(f, text);
}

static void unpark(struct fault *f)
{
    for (int way = 0; way < 2; way++)
        if (f->parked[way] != NULL) f->parked[way]->parked_by = NULL;
    f->parked[0] = f->parked[1] = NULL;
}

static void forget(struct fault *f)
{
    unpark(f);
    memset(f, 0, sizeof *f);
}

/* A free place, or that of an ended one of which no agent wants to hear. */
static struct fault *free_place(void)
{
    struct fault *free = find("");
    for (int i = 0; i < FAULTS_MAX && free == NULL; i++)
        if (ALL->faults[i].ended) free = &ALL->faults[i];
    return free;
}

void fault_hear(const char *text)
{
    char id[FAULT_ID_MAX];
    struct fault read, *place = free_place();
    if (!host->message_field(text, "id", id, sizeof id) || id[0] == '\0') return;
    if (find(id) != NULL || !read_fault(&read, text)) return;
    if (read.until_ms != 0 && read.until_ms <= now_ms()) return;
    uint16_t reset = (uint16_t)number(text, "reset", UINT16_MAX);
    if (reset != 0) reset_connections(&read, reset);
    if (place == NULL) {
        trace("no place for fault %s", id);
        return;
    }
    memcpy(read.id, id, sizeof id);
    *place = read;
    trace("fault %s begins", id);
}

static bool listed(const char *list, const char *id)
{
    size_t length = strlen(id);
    for (const char *at = list; at != NULL && *at != '\0';) {
        const char *comma = strchr(at, ',');
        size_t word = comma != NULL ? (size_t)(comma - at) : strlen(at);
        if (word == length && memcmp(at, id, length) == 0) return true;
        at = comma != NULL ? comma + 1 : NULL;
    }
    return false;
}

void fault_keep_only(const char *text)
{
    char list[FAULTS_MAX * FAULT_ID_MAX] = "";
    host->message_field(text, "ids", list, sizeof list);
    for (int i = 0; i < FAULTS_MAX; i++) {
        struct fault *f = &ALL->faults[i];
        if (f->id[0] != '\0' && !listed(list, f->id)) forget(f);
    }
}

/* Ends what is due; nobody needs to be there for it. */
bool fault_expire(void)
{
    bool any = false;
    uint64_t now = 0;
    for (int i = 0; i < FAULTS_MAX; i++) {
        struct fault *f = &ALL->faults[i];
        if (f->id[0] == '\0' || f->ended || f->until_ms == 0) continue;
        if (now == 0) now = now_ms();
        if (f->until_ms > now) continue;
        trace("fault %s ends", f->id);
        f->ended = true;
        unpark(f);
        any = true;
    }
    return any;
}

uint64_t fault_next_us(void)
{
    uint64_t next = ALL->held_count > 0 ? ALL->held[0]->due_us : 0;
    for (int i = 0; i < FAULTS_MAX; i++) {
        const struct fault *f = &ALL->faults[i];
        uint64_t ends = f->id[0] != '\0' && !f->ended ? f->until_ms * 1000 : 0;
        if (ends != 0 && (next == 0 || ends < next)) next = ends;
    }
    return next;
}

size_t fault_report(const struct fault *f, char *out, size_t size)
{
    static const char *const names[FAULT_COUNTS] = {
        "seen",      "lost",       "delayed", "reordered", "duplicated",
        "corrupted", "overflowed", "cut",     "refused",   "reset"};
    size_t used = (size_t)snprintf(out, size, "fault id=%s", f->id);
    for (int i = 0; i < FAULT_COUNTS && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, " %s=%lu", names[i], f->counts[i]);
    return used < size ? used : size - 1;
}

bool fault_to_tell(void)
{
    for (int i = 0; i < FAULTS_MAX; i++)
        if (ALL->faults[i].ended) return true;
    return false;
}

/* The agent hears which faults have ended by themselves, and what they did. */
void fault_tell(void)
{
    char text[512], counts[400];
    for (int i = 0; i < FAULTS_MAX; i++) {
        struct fault *f = &ALL->faults[i];
        if (!f->ended) continue;
        fault_report(f, counts, sizeof counts);
        snprintf(text, sizeof text, "event %s ended", counts);
        if (!host->broker_send(me.broker, text, NULL, 0)) return;
        forget(f);
    }
}
