/* Wires: packets between two instances of one host through memory that both map. See wire.c for
 * the packets, wire_link.c for how a wire comes and goes.
 */
#ifndef CSE_WIRE_H
#define CSE_WIRE_H

#include "ring.h"

#include "lwip/err.h"
#include "lwip/ip_addr.h"
#include "lwip/pbuf.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    WIRES_MAX = 512,    /* peers that are known, with a wire or without */
    WIRES_UP_MAX = 200, /* MAX_WIRES of app/broker/wires.py */
    WIRE_HASH = 512,
    WIRE_MTU = 65500,
    WIRE_QUEUE_MAX = 64,
};

enum wire_state {
    WIRE_FREE,
    WIRE_ASKED, /* the broker is being asked; packets wait */
    WIRE_UP,
    WIRE_NONE, /* the tap's, for a while */
};

/* A packet that waits for an answer or for a process that has the wire mapped. */
struct wire_packet {
    struct wire_packet *next;
    struct pbuf *packet;
};

/* In the arena: what the instance knows of one peer. */
struct wire {
    uint8_t state, side;
    bool to_ask;          /* the leader's pump is to send the question */
    bool blocked;         /* the ring was full: TCP holds segments back */
    bool resync;          /* the instance was reset: the ends are no longer known */
    uint16_t next[2];     /* in the hash chains of both families, + 1 */
    ip_addr_t address[2]; /* IPv4 and IPv6; any: there is none, or it is not known */
    uint32_t generation;  /* of the grant; never the same twice */
    uint64_t until_ms; /* the state ends then: ASKED, NONE; UP: a process may map it until then */
    struct ring_end end;
    uint32_t looked_at, trimmed; /* the end's tail when wire_trim came by, and gave memory back */
    struct wire_packet *first, *last;
    uint32_t queued;
    char name[64];
    char id[20]; /* the broker's, of the grant; "": it gave none */
};

/* In the arena, beside the table. */
struct wires {
    bool wanted; /* there is a broker to ask */
    bool work;   /* wire_serve has something to do */
    uint16_t top, up;
    uint32_t changes; /* bumped when a wire comes or goes */
    uint32_t last_generation;
    uint16_t hash[2][WIRE_HASH];
    uint64_t rx_packets, tx_packets, rx_bytes, tx_bytes, spoofed, errors;
    struct wire table[WIRES_MAX];
};

/* What wakes whoever reads the rings. */
enum wake { WAKE_NONE, WAKE_PUMP, WAKE_THREAD };

/* wire.c. True if a ring of this process has something; without the lock. */
bool wire_pending(void);
/* Says what peers are to ring; the caller then looks at wire_pending again. Without the lock. */
void wire_want(enum wake wake);

/* All others under the lock. Feeds at most `limit` packets of each wire to packet_in; true if any
 * was. */
bool wire_read(int limit);
/* True if the packet was this one's business: sent, kept, or (ERR_MEM) to be offered again. */
bool wire_output(struct pbuf *p, const ip_addr_t *dest, err_t *result);
/* Sends what waited over the wire or the tap, as its state is now. */
void wire_flush(struct wire *wire);
/* Memory of rings that nothing lies in goes back to the kernel: of those that were not written to
 * since the last call, or (`idle`) of all. */
void wire_trim(bool idle);
/* All that is in the ring, before the wire goes. */
void wire_drain(struct wire *wire);

/* wire_table.c */
bool wire_is_up(const ip_addr_t *address);
struct wire *wire_find(const ip_addr_t *address);
struct wire *wire_new(const ip_addr_t *address); /* NULL: the table is full */
void wire_name(struct wire *wire, const ip_addr_t *address);
struct wire *wire_peer(const ip_addr_t *v4, const ip_addr_t *v6);
struct wire *wire_entry(const ip_addr_t *dest);
bool wire_waiting(void); /* packets wait for an answer */
void wire_reset(void);   /* after a reset of the instance */

/* wire_link.c: one process's hold on a wire. */
struct wire_map {
    uint32_t generation; /* 0: none */
    uint8_t side;
    struct ring_control *control; /* stays mapped, readable without the lock */
    char *rings[2];               /* that of side 0, that of side 1 */
    int memory, bells[2];
};
extern struct wire_map wire_maps[WIRES_MAX];
struct wire_map *wire_map_of(const struct wire *wire); /* NULL: not mapped here */
bool wire_hold(uint32_t index, const int *fds); /* takes memory and bells, also if it fails */
void wire_let_go(uint32_t index);
void wire_give_up(struct wire *wire); /* on both sides */
void wire_break(struct wire *wire);   /* the same, for one that does not do what it should */
void wire_ask(struct wire *wire);

/* For the pump and the start of an instance (wire_link.c, wire_share.c). */
int wire_make_bells(void);
void wire_lead(void);   /* this process leads now, or has a new broker */
void wire_serve(void);  /* in each round of a pump */
void wire_follow(void); /* in each turn of a thread */
int wire_timeout(void); /* ms until wire_serve is needed, -1: never */
struct cse_message;
bool wire_message(struct cse_message *message); /* from the broker; true if it was for us */
void wire_hush(void);                           /* the pump bell */
void wire_hang_up(uint32_t index);              /* the last process of a peer is gone */
void wire_watch(bool wanted);                   /* the leader's epoll */

#endif
