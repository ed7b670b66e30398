/* One socket, as it lies in the arena; guarded by the instance's lock (instance.h, sock.c). */
#ifndef CSE_SOCK_H
#define CSE_SOCK_H

#include "../stack.h"

#include "lwip/ip_addr.h"

enum { PROCESSES_MAX = 256, HOLDER_WORDS = PROCESSES_MAX / 64 };

enum sock_kind { KIND_TCP = 1, KIND_UDP = 2, KIND_PING = 3 };
/* An address and port as lwIP has them; the port in host byte order. */
struct endpoint {
    ip_addr_t ip;
    uint16_t port;
};

enum sock_state { FRESH, LISTENING, CONNECTING, CONNECTED, ENDED };

/* Received and not yet given to the program: packets of TCP, ready records of UDP. */
struct chunk {
    struct chunk *next;
    struct pbuf *packet; /* TCP */
    uint32_t length;     /* UDP: of the record behind this header */
};

struct membership {
    struct membership *next;
    ip_addr_t group;
    struct netif *netif;
};

struct problem {
    struct problem *next;
    struct cse_problem told;
};

struct sock {
    uint32_t index, generation;
    uint64_t inode; /* of the program's end; 0 while not accepted */
    struct sock *hash_next;
    struct sock *port_next, *port_prev; /* while bound: others of the same port */
    struct sock *pending_next, *queue_next;
    uint8_t kind, family;
    bool v6_only;
    bool pending;                   /* on its owner's list */
    uint32_t state;                 /* a futex word: connect waits on it */
    uint16_t owner;                 /* process that pumps it, or NO_PROCESS */
    uint64_t holders[HOLDER_WORDS]; /* processes that have its stack end */
    struct tcp_pcb *tcp;            /* or the listening pcb; NULL when done */
    struct udp_pcb *udp;
    struct endpoint local, remote;
    int error; /* SO_ERROR */

    /* from the network to the program */
    struct chunk *rx_first, *rx_last;
    size_t rx_bytes;
    uint32_t rx_offset; /* bytes of the first chunk that are delivered */
    bool rx_blocked;    /* the pair is full: wait for EPOLLOUT */
    bool fin_received, fin_delivered;
    bool read_shut; /* SHUT_RD */
    /* from the program to the network */
    bool tx_ready; /* the stack end may hold bytes */
    bool tx_eof;   /* the program's half-close was seen */
    bool hang_up;  /* all program ends are closed, or both directions shut */
    char *stash;   /* read from the pair, not yet taken by lwIP */
    uint32_t stash_length, stash_offset;
    size_t junk;                          /* bytes of filling to skip (api.c) */
    bool small_pair;                      /* the program's end has a small buffer since then */
    bool reset_wanted, adopt, waited_for; /* waited_for: a blocking connect is under way */
    bool connect_failed;                  /* ENDED, and a new pair would make it FRESH (renew.c) */
    bool connect_open;                    /* connected, and no connect has said so yet */
    uint64_t bytes_acked, bytes_received; /* TCP_INFO */
    uint64_t read_since_us, read_bytes;   /* by the program, in this round trip (buffers.c) */

    /* direct mode (direct.c) */
    bool direct;
    bool relay_news; /* the overlay does not know yet that it is relayed */
    bool rx_news;    /* bytes came since it was last told */
    uint32_t told;   /* of its readiness, what the overlay was told and is still so */
    bool awaited;    /* a thread spins for its bytes */
    uint32_t enough; /* bytes that the last call which found too little would be content with */
    bool unread;     /* on the list of process unread_by, since unread_ms */
    uint16_t unread_by;
    uint64_t unread_ms;
    struct sock *unread_next;
    uint32_t relayed_calls, neglects;
    bool fresh; /* on the list of process fresh_of, since fresh_ms (fresh.c) */
    uint16_t fresh_of;
    uint64_t fresh_ms;
    struct sock *fresh_next, *fresh_before;

    /* listening */
    struct sock *queue_first, *queue_last, *listener;
    struct tcp_pcb *half_first, *half_last; /* handshakes under way, oldest first */
    uint32_t queued, half_open, tokens, backlog;

    /* options */
    bool reuse_address, reuse_port, keep_alive, broadcast, no_delay, linger_on, cork;
    uint8_t telling; /* CSE_TELL_* */
    bool receive_error, receive_error6;
    struct membership *memberships;
    struct problem *problems;
    uint8_t hops, multicast_ttl, multicast_hops, traffic_class; /* hops, class: IPv6's */
    bool no_multicast_loop, no_multicast_loop6;
    uint8_t multicast_interface, multicast_interface6; /* 0: by route */
    int linger_seconds, receive_buffer, send_buffer, user_timeout_ms;
    int keep_idle, keep_interval, keep_count, max_segment;
    int defer_accept; /* SYN-ACKs that a handshake without data outlasts */
    int syn_retries, fin_wait_s, window_clamp, fast_open; /* 0: not set */
    uint32_t receive_low, notsent_low;                    /* SO_RCVLOWAT, TCP_NOTSENT_LOWAT */
    uint8_t congestion_given;                             /* algorithm + 1, 0: the setting's */
    uint8_t priority, device;                             /* device: 1 lo, 2 eth0 */
    bool quick_ack, slow_ack, oob_inline;
    bool receive_fixed, send_fixed; /* SO_RCVBUF, SO_SNDBUF */
    uint8_t ttl, tos;
    bool bound, port_given, local_given; /* local_given: bound to an address by the program */
};

#endif
