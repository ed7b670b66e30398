/* The instance: one application's TCP/IP stack, its sockets and the processes that share it.
 *
 * Everything in `struct instance` lies in the arena and is guarded by its lock, unless noted. What
 * belongs to one process only (descriptors, its pump) is `struct process_local`, guarded by the
 * same lock. See instance.c for the theory of operation.
 */
#ifndef CSE_INSTANCE_H
#define CSE_INSTANCE_H

#include "../stack.h"
#include "arena.h"
#include "instruments.h"
#include "sock.h"
#include "wire.h"

#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/tcp.h"
#include "lwip/udp.h"

#include <pthread.h>

#define INSTANCE_MAGIC 0x6373656e65743031UL
#ifdef __GLIBC__
#define INSTANCE_LAYOUT 0x104
#else
#define INSTANCE_LAYOUT 0x204
#endif

enum {
    SOCKETS_MAX = 65536,
    HASH_SLOTS = 4096,
    PORT_SLOTS = 4096,
    NO_PROCESS = 0xffff,
    ZOMBIES_MAX = 256,
    PAIR_BUFFER = 212992,
};

struct process {
    uint32_t used; /* 0 free, 1 reserved for a child being forked, 2 alive */
    int pid;
    uint64_t reserved_ms;
    char bell[8]; /* abstract socket name without the leading NUL; "" before it has one */
    uint8_t bell_length;
    bool rung, dead; /* dead: its bell is nobody's */
    struct sock *pending,
        *pending_last;   /* sockets with something to do, in the order of their news */
    struct sock *unread; /* in direct mode with bytes that nobody has fetched */
    struct sock *fresh, *fresh_last;
    uint32_t sleepers, spinners; /* threads that wait in the library */
};

struct instance {
    uint64_t magic;
    uint32_t layout;
    uint32_t epoch; /* bumped by a reset (reset.c) */
    size_t shared_size;
    pthread_mutex_t lock;
    uint64_t heap_state[48];

    /* binding and settings */
    char name[64];
    uint32_t address, netmask, gateway; /* network byte order */
    ip6_addr_t address6, gateway6;      /* any: none */
    uint8_t prefix6;
    uint8_t mac[6];
    uint16_t mtu, largest_mtu; /* of the device; what the network takes */
    uint32_t spin_us;          /* longest time that a thread polls before it sleeps */
    int default_ttl, receive_buffer, send_buffer;
    int keep_idle, keep_interval, keep_count;
    uint64_t random[2];
    uint8_t isn_key[16];

    /* programs that wait in close (linger.c) */
    uint32_t lingerers, linger_news, linger_seen;

    struct netif *tap, *loop;
    uint32_t device_headers;        /* the tap has virtio headers */
    struct pbuf *rx_head, *rx_tail; /* what the next frame is read into (device.c) */
    uint32_t largest_packet;        /* that the device takes in one frame */

    /* the packet device (packet_ring.c, packet_filter.c) */
    bool uses_ring, ring_lost, ring_unsent, ports_taken, ports_freed;
    uint32_t ring_rx, ring_tx; /* the next slots */
    uint64_t ring_packets, ring_dropped, ring_large, filters_attached;
    struct filter_state *filter;
    uint64_t rx_packets, tx_packets, rx_bytes, tx_bytes, rx_dropped, tx_dropped, checksum_errors;

    uint32_t packet_hooks; /* enum packet_hook: who looks at packets */
    struct instruments instruments;
    struct wires wires; /* wire.c */

    /* time (clock.c) */
    uint64_t slow_ms;         /* when the next ticks of a second are due */
    uint64_t groups_ms;       /* the same for reports of multicast groups */
    uint64_t arp_until_ms;    /* datagrams may be waiting for an address */
    uint64_t leader_wakes_ms; /* when its sleep ends; 0: it is awake */

    uint16_t leader, process_top; /* slots below it were used */
    bool deaths;                  /* there are dead ones */
    uint32_t process_changes;     /* bumped when the process table changes */
    struct process processes[PROCESSES_MAX];
    uint64_t keepers[HOLDER_WORDS]; /* of the processes, those that only keep (keeper.c) */

    /* direct mode (direct.c) */
    bool direct_mode, ticking;
    uint32_t wake_wanted, wake_changes;
    uint32_t sleepers, spinners;     /* of all processes */
    uint64_t visits;                 /* turns that threads of the program took */
    uint64_t device_finds;           /* times they found something at the device unasked */
    uint64_t readiness[SOCKETS_MAX]; /* generation << 32 | what poll would say */

    uint32_t socket_top, socket_free, sockets_live;
    uint32_t stale_changes; /* bumped when stack ends in other processes may be stale */
    uint32_t zombie_at;
    struct sock *zombies[ZOMBIES_MAX];
    struct sock *hash[HASH_SLOTS];
    uint16_t ping_ident;
    struct sock *ports[PORT_SLOTS]; /* bound sockets, by port */
    struct sock *sockets[SOCKETS_MAX];
    uint32_t generations[SOCKETS_MAX];
    uint32_t free_next[SOCKETS_MAX];
};

#define instance ((struct instance *)ARENA_BASE)

/* One process's hold on a socket: its copy of the stack end. */
struct end {
    int fd; /* -1 or 0: none */
    uint32_t generation;
    int program_fd; /* a hint: the number of the program's end in this process */
    uint64_t inode; /* of the program's end */
    bool watched, watching_out;
};

struct process_local {
    int pid;
    uint16_t slot;
    uint32_t epoch;
    int tap, arena, broker, epoll, bell;
    int bells[2], bell_holds[2]; /* what peers ring (wire_link.c), and what keeps them open */
    bool attached;               /* the arena is mapped */
    bool pump_runs;
    bool confined;       /* the program's threads make no calls that a filter could forbid */
    bool reads_device;   /* this pump reads the device */
    bool watches_device; /* which is in its epoll */
    uint32_t top;        /* ends below this were used */
    struct end *ends;    /* SOCKETS_MAX, touched lazily */
    uint32_t seen_changes, seen_stale;
    int watched[PROCESSES_MAX]; /* pidfds */
    int watched_pid[PROCESSES_MAX];
    char *scratch;
    uint64_t seen_visits, seen_finds;
    uint64_t pump_wakes_ms; /* when the pump's sleep ends; 0: it is awake */
    bool bells_given;       /* a new sleeper waits for the device */
    bool device_ready;      /* a sleeping thread saw the device readable */
};
extern struct process_local me;
extern const struct cse_host *host;

#define trace(...)                                                                                 \
    do {                                                                                           \
        if (__builtin_expect(host->tracing(), 0)) host->trace(__func__, __VA_ARGS__);              \
    } while (0)

/* instance.c */
int instance_start(bool attach_only);
bool instance_running(void);
/* Takes the lock; with `saved`, no handler of the program runs in this thread meanwhile. */
void instance_lock(sigset_t *saved);
void instance_lock_patiently(void); /* without holding signals back */
/* Delivers what is due, rings other processes, lets go. errno is kept. */
void instance_unlock(sigset_t *saved);
void instance_settle(void);
void instance_set_mss(long mss);
void instance_read_settings(void); /* settings.c */
void instance_fill_in(void);       /* lwIP's own variables */
uint32_t cse_lwip_random(void);
/* No other thread of this process can take the lock any more, until the gate is opened. */
void instance_close_gate(void);
void instance_close_gate_unseen(void);
void instance_open_gate(void);
void instance_new_gate(void); /* in a forked child */
uint64_t now_ms(void);

/* settings.c */
bool settings_good(void); /* else it is reported what is wrong */
long setting_bounded(const char *key, long otherwise);
long setting_clamped(const char *key, long value);

/* reset.c: after a process died with the lock */
void reset_instance(void);
void reset_ends(void);

/* processes.c */
bool process_join(void); /* this process gets a slot; under the lock */
void process_leave(void);
void process_gone(uint16_t slot); /* another process died: its sockets find a new owner */
void process_watch(void);         /* follow changes of the table: pidfds, leader */
bool process_claim_leader(void);
uint16_t process_next_owner(const struct sock *s);
bool process_bury(void);
void process_register_fork_handlers(void);
void process_before_exec(void);
void process_exec_failed(void);
void process_before_exit(void);
void process_confined(void); /* by a filter of its own */

/* bell.c */
void process_open_bell(void);
void process_publish_bell(void);
void process_ring(uint16_t slot);

/* fresh.c */
void fresh_add(struct sock *s);
void fresh_forget(struct sock *s);
void fresh_over(struct sock *s);
int fresh_settle(void);
void fresh_closed(cse_socket handle);

/* room.c */
bool room_make(void);
bool room_after(int fd);

/* pump.c */
int pump_ensure(void); /* starts the thread; without the lock */
int pump_threads(void);
void pump_watch(struct sock *s);
void pump_want_out(struct sock *s, bool wanted);
void pump_forget(struct sock *s);
void pump_serve(struct sock *s, uint32_t events);
void pump_once(int timeout_ms);

/* sock.c */
struct sock *sock_new(enum sock_kind kind, int family);
void sock_free(struct sock *s);
void sock_retire(struct sock *s); /* dead, but its names are kept for a while */
struct sock *sock_get(cse_socket handle);
cse_socket sock_handle(const struct sock *s);
struct sock *sock_by_inode(uint64_t inode);
void sock_know(struct sock *s);    /* by its inode */
void sock_notify(struct sock *s);  /* its owner has something to do */
void sock_deliver(struct sock *s); /* done by the owner */
void sock_drop_rx(struct sock *s);
void sock_set_state(struct sock *s, enum sock_state state);
void sock_orphaned(struct sock *s);
void sock_bound(struct sock *s); /* its local port is known from now on */
void sock_unbound(struct sock *s);
struct sock *sock_of_port(enum sock_kind kind, uint16_t port, struct sock *after);
int sock_check_bind(struct sock *s, const struct endpoint *wanted);

void sock_unlist(struct sock *s); /* it has nothing to do for its owner any more */

/* pair.c */
/* Gives it a pair; the program's end is returned, the stack end is kept by this process. */
int sock_make_pair(struct sock *s, int flags);
int sock_end(const struct sock *s); /* this process's stack end, or -1 */
void sock_close_end(uint32_t index);
void sock_sweep_ends(void);
void sock_hand_over(struct sock *s); /* to who else has its stack end */
bool sock_just_closed(struct sock *s);
void pair_fill(struct sock *s, int fd); /* not writable from now on; `fd`: the program's end */
void pair_fill_own(struct sock *s);
void pair_skip_junk(struct sock *s, int fd); /* `fd`: the stack end */
void pair_widen(struct sock *s, int fd);
void pair_spoil(const struct end *end);

/* address.c */
int address_take(const struct sock *s, const union cse_address *given, socklen_t length,
                 struct endpoint *taken);
int address_destination(const struct sock *s, const union cse_address *address, socklen_t length,
                        bool connecting, struct endpoint *to);
void address_give(const struct sock *s, const struct endpoint *from, union cse_address *to);
void address_any(const struct sock *s, ip_addr_t *any);
bool address_is_any(const ip_addr_t *ip);
bool address_overlaps(const ip_addr_t *a, const ip_addr_t *b);
bool address_is_own(const ip_addr_t *ip);
bool address_is_broadcast(const ip_addr_t *ip);
void address_to_in6(const ip_addr_t *ip, struct in6_addr *out);

/* api.c */
int bind_pcb(struct sock *s, const struct endpoint *to);

/* tcp.c, listen.c, udp.c, connect.c */
int tcp_make_pcb(struct sock *s);
void tcp_deliver(struct sock *s);
void tcp_consume(struct sock *s, size_t bytes);
void tcp_take(struct sock *s); /* program's bytes to lwIP */
void tcp_finish(struct sock *s);
void tcp_push(struct sock *s, bool more);
void tcp_half_close(struct sock *s);
void tcp_reset_program(struct sock *s, int error);
int tcp_start_connect(struct sock *s, const struct endpoint *to);
void tcp_apply_options(struct sock *s);
void tcp_tune_pcb(struct tcp_pcb *pcb, const struct sock *s); /* at a handshake's start as well */
void tcp_error_event(struct sock *s, err_t error);
int listen_start(struct sock *s, int backlog);
void listen_deliver(struct sock *s);
void listen_close(struct sock *s);
err_t listen_accept_event(struct sock *listener, struct tcp_pcb *pcb);
struct sock *listen_take(struct sock *s);
void listen_unqueue(struct sock *s);
void udp_deliver(struct sock *s);
void udp_take(struct sock *s);
void udp_close(struct sock *s);
int udp_make_pcb(struct sock *s);
int udp_connect_to(struct sock *s, const struct endpoint *to);
ssize_t udp_send_parts(struct sock *s, const struct iovec *parts, int count,
                       const struct cse_sending *how);
void udp_push_error(struct sock *s, int error, const struct endpoint *peer);
void udp_push_datagram(struct sock *s, struct pbuf *p, const struct endpoint *from);
int udp_aim(struct sock *s, const struct cse_sending *how, struct endpoint *to, struct netif **out,
            ip_addr_t *source);
int udp_set_peer(struct sock *s, const struct endpoint *to);
struct pbuf *udp_payload(const struct iovec *parts, int count, size_t length);
int errno_of(err_t error);

/* ping.c */
int ping_bind(struct sock *s, const struct endpoint *wanted);
ssize_t ping_send(struct sock *s, const struct iovec *parts, int count,
                  const struct cse_sending *how);
struct sock *ping_find(int family, uint16_t ident);

/* errors.c */
void problem_add(struct sock *s, const struct cse_problem *told);
bool problem_take(struct sock *s, struct cse_problem *told);
void problem_drop(struct sock *s);

/* groups.c */
int group_option(struct sock *s, int level, int name, const void *value, socklen_t length);
void group_leave_all(struct sock *s);
void tcp_unreachable(struct tcp_pcb *pcb, int error);

/* options.c */
int option_get(struct sock *s, int level, int name, void *value, socklen_t *length);
int option_set(struct sock *s, int level, int name, const void *value, socklen_t length);

void sock_copy_options(struct sock *s, const struct sock *from);

/* options_tcp.c */
int option_tcp_get(struct sock *s, int name, void *value, socklen_t *length);
int option_tcp_set(struct sock *s, int name, int number);
int option_congestion_set(struct sock *s, const void *value, socklen_t length);

/* renew.c */
int renew_socket(cse_socket handle, int fd, bool disconnect, cse_socket *made);
void renew_forget_names(struct sock *s);

/* buffers.c */
void buffers_fit(struct tcp_pcb *pcb, const struct sock *s); /* as its options say */
void buffers_fit_pair(const struct sock *s);
void buffers_established(struct tcp_pcb *pcb, const struct sock *s);
void buffers_read(struct sock *s, size_t bytes);
void buffers_acked(struct sock *s);
void buffers_receive_most(struct tcp_pcb *pcb, uint32_t bytes);
void buffers_send_most(struct tcp_pcb *pcb, uint32_t bytes);

/* linger.c */
void linger_close(cse_socket handle);
void linger_news(bool dropped);

/* options6.c */
int option6_get(struct sock *s, int name, void *value, socklen_t *length);
int option6_set(struct sock *s, int name, const void *value, socklen_t length, int number);

/* packet.c */
void packet_in(struct pbuf *p, enum packet_link link);
/* On the way, past all instruments. `packet_deliver` consumes the packet. */
err_t packet_send(struct pbuf *p, const struct packet_path *path);
void packet_deliver(struct pbuf *p, const struct packet_path *path);
err_t packet_to_tap(struct pbuf *p, const ip_addr_t *to);

/* device.c */
int device_open(const char *name);
int device_setup(void);
void device_add_interfaces(void);
bool device_read(int limit); /* false when drained */
void device_flush(void);     /* before the lock is let go */
int device_attach(void);     /* in a program that joins the instance */

/* packet_ring.c, packet_filter.c */
int ring_map(void);
void ring_count(void);
void filter_ports_changed(bool taken);

/* tune.c */
void tune_apply(const char *text); /* a `set` of the broker */

/* clock.c */
void clock_run(void);              /* runs what is due */
int clock_timeout(void);           /* ms until the next, -1: never */
void clock_poke(void);             /* something happened that may be due earlier */
void clock_sleeps(int timeout_ms); /* the leader will, for so long (-1: until rung) */
void clock_is_awake(void);
uint64_t clock_us(void); /* of CLOCK_MONOTONIC, read once for each hold of the lock */
void clock_read_again(void);

/* timers.c */
void tcp_timer_run(void);
int32_t tcp_timer_wait(void); /* ms until the next is due, -1: none is */

/* recovery.c, congestion.c */
void recovery_timeout(struct tcp_pcb *pcb);
enum congestion { CONGESTION_RENO, CONGESTION_CUBIC };
int congestion_find(const char *name); /* -1: no such algorithm */
const char *congestion_name(int algorithm);
void congestion_acked(struct tcp_pcb *pcb, uint32_t acked);
void congestion_loss(struct tcp_pcb *pcb);

size_t arena_size(void);
void cse_lwip_assertion(const char *message);

#endif
