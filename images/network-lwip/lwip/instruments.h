/* Instruments: what the orchestrator may do to the packets of a running instance (faults) and
 * what it may ask about them (capture, report). Commands come over the broker to the leader's pump.
 *
 * `instance->packet_hooks` says whether any packet is to be looked at: while it is 0, the only cost
 * is that test, in packet.c and at each unlock. See fault.c and capture.c.
 */
#ifndef CSE_INSTRUMENTS_H
#define CSE_INSTRUMENTS_H

#include "lwip/ip_addr.h"
#include "lwip/pbuf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cse_message;
struct netif;

enum packet_hook { HOOK_FAULTS = 1, HOOK_CAPTURE = 2 };
enum packet_way { WAY_IN = 0, WAY_OUT = 1 };
enum packet_link { LINK_TAP = 0, LINK_WIRE = 1, LINK_LOOP = 2, LINKS = 3 };

/* Where a packet goes, or comes from. */
struct packet_path {
    struct netif *netif;
    ip_addr_t target; /* on its way out, except on loopback */
    uint8_t way, link;
};

/* A packet that goes on later (held.c). */
struct held {
    uint64_t due_us, sequence;
    struct pbuf *packet; /* NULL: it has left already */
    struct packet_path path;
    struct fault *parked_by;
};

/* A pbuf's flag that lwIP does not use: its checksum is to be wrong on the wire (device.c). */
#define PACKET_DAMAGED 0x40U

enum { FAULTS_MAX = 16, FAULT_PEERS_MAX = 8, FAULT_ID_MAX = 32, CAPTURES_MAX = 4 };

enum fault_count {
    FAULT_SEEN,
    FAULT_LOST,
    FAULT_DELAYED,
    FAULT_REORDERED,
    FAULT_DUPLICATED,
    FAULT_CORRUPTED,
    FAULT_OVERFLOWED,
    FAULT_CUT,
    FAULT_REFUSED,
    FAULT_RESET,
    FAULT_COUNTS
};

struct fault_peer {
    uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;        /* of it that count */
};

struct fault;

struct fault {
    char id[FAULT_ID_MAX]; /* "": a free place */
    bool cut, ways[2];
    bool ended; /* by itself; kept until the agent is told */
    uint16_t refuse;
    uint32_t peer_count;
    struct fault_peer peers[FAULT_PEERS_MAX]; /* none: everybody */
    uint32_t loss_ppm, reorder_ppm, duplicate_ppm, corrupt_ppm;
    uint64_t delay_us, jitter_us, bits_per_second;
    uint64_t seed, until_ms; /* 0: for ever */
    uint64_t packets[2];     /* of each way so far: the number of a packet decides its fate */
    uint64_t free_us[2];     /* when the slow line is done with what was given to it */
    uint64_t latest_us[2];   /* due time of the last delayed packet: jitter keeps the order */
    struct held *parked[2];  /* waits for the packet behind it to overtake */
    uint64_t counts[FAULT_COUNTS];
};

struct capture {
    uint32_t number; /* 0: a free place */
    uint32_t snap_length;
    char *ring;
    uint64_t head, tail; /* bytes ever read and written */
    uint64_t seen[LINKS], dropped[LINKS];
    bool told; /* its last record is written */
};

struct instruments {
    uint64_t serial; /* of the last command: old ones are met again by a new leader */
    struct fault faults[FAULTS_MAX];
    struct held **held; /* a heap by due time */
    uint32_t held_count, held_room;
    uint64_t held_bytes, held_sequence;
    uint64_t alarm_us; /* when the leader's pump wakes by itself; 0: it is awake */
    struct capture captures[CAPTURES_MAX];
};

/* What a packet says about itself. */
struct packet_names {
    uint8_t version, protocol, tcp_flags, icmp_type;
    uint16_t header, source_port, target_port;
    uint32_t sequence;
    uint8_t source[16], target[16];
};

/* names.c */
bool packet_read_names(const struct pbuf *p, struct packet_names *names);
void packet_address(ip_addr_t *out, const uint8_t *bytes);
void packet_address_bytes(const ip_addr_t *address, uint8_t *bytes);
bool packet_address_read(const char *text, uint8_t *bytes);

/* held.c. `hold` takes the packet, at once and for good; NULL where there is no room. */
struct held *hold(struct pbuf *packet, uint64_t due_us, const struct packet_path *path);
struct pbuf *held_empty(struct held *h);
bool fault_run(void); /* sends what is due; true if there was any */

/* fault.c. True if the packet was held back, dropped or answered; the caller still owns it. */
bool fault_take(const struct pbuf *p, const struct packet_path *path);
bool fault_has_peer(const struct fault *f, const uint8_t *address);
uint64_t now_us(void);

/* fault_orders.c */
void fault_hear(const char *text);
void fault_keep_only(const char *text);
bool fault_expire(void);
uint64_t fault_next_us(void); /* 0: nothing is due ever */
bool fault_to_tell(void);
void fault_tell(void);
size_t fault_report(const struct fault *f, char *out, size_t size);

/* capture.c */
void capture_packet(const struct pbuf *p, const struct packet_path *path);
void capture_hear(const char *text, int fd); /* takes the descriptor */
void capture_end(const char *text);
bool capture_waiting(void);
void capture_hung_up(int place);
void capture_drain(void); /* by the leader's pump */

/* report.c */
void report_hear(const char *text, int fd);
size_t report_counters(char *out, size_t size);

/* instruments.c */
bool instruments_settle(void);                      /* what is due; true if anything happened */
bool instruments_hear(struct cse_message *message); /* false: not a command of these */
void instruments_tell(void);
int instruments_timeout(int timeout_ms); /* the pump may sleep so long at most */
void instruments_poke(void);             /* at unlock: the leader may have to wake earlier */
void instruments_reset(void);
void instruments_update_hooks(void);

#endif
