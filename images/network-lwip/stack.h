/* The seam between overlay and implementation of the network element: two tables of functions.
 *
 * The overlay (libcse-net.so) takes the program's calls; the implementation (libcse-lwip.so, or
 * any other library that exports `cse_stack_open`) is the TCP/IP stack behind them. The overlay
 * loads it at the first internet socket. Errors are returned as negative errno values.
 */
#ifndef CSE_STACK_H
#define CSE_STACK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { CSE_STACK_VERSION = 7, CSE_ADDRESSES6_MAX = 3 };

/* A socket: generation << 32 | index + 1 << 1 | datagram. 0 is no socket. */
typedef uint64_t cse_socket;
#define CSE_SOCKET_IS_DATAGRAM(s) ((s) & 1)

/* A socket address of either family, as the program passes and gets it. */
union cse_address {
    sa_family_t family;
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

/* What stands before the bytes of each datagram in a UDP socket's pair. */
struct cse_datagram {
    union cse_address from;      /* in the socket's family; the unreachable peer if error is set */
    struct in6_addr destination; /* IPv4 as ::ffff:a.b.c.d */
    uint16_t error;              /* an errno instead of a datagram */
    uint8_t ttl, tos, interface, reserved[7];
    int64_t time_ns; /* of arrival, CLOCK_REALTIME; 0 if the socket does not ask for it */
};

/* What a datagram socket wants told beside the bytes: the ancillary data it has switched on. */
enum cse_telling {
    CSE_TELL_PKTINFO = 1,
    CSE_TELL_TTL = 2,
    CSE_TELL_TOS = 4,
    CSE_TELL_PKTINFO6 = 8,
    CSE_TELL_HOPLIMIT = 16,
    CSE_TELL_TCLASS = 32,
    CSE_TELL_TIME = 64,    /* struct timeval */
    CSE_TELL_TIME_NS = 128 /* struct timespec */
};

/* An entry of a socket's queue of errors (MSG_ERRQUEUE): an ICMP message about what it sent. */
enum { CSE_PROBLEM_BYTES = 576 };
struct cse_problem {
    union cse_address to, offender; /* of the packet; who sent the message */
    uint32_t error, info;
    uint8_t origin, type, code, interface;
    uint32_t length; /* of what was sent, as far as the message quotes it */
    char sent[CSE_PROBLEM_BYTES];
};

/* Where a datagram goes, and what its sender says of it in ancillary data. */
struct cse_sending {
    const union cse_address *to; /* NULL: the connected peer */
    socklen_t to_length;
    int interface;          /* 0: by route */
    int ttl, tos;           /* -1: the socket's */
    bool has_source;        /* IP_PKTINFO, IPV6_PKTINFO */
    struct in6_addr source; /* IPv4 as ::ffff:a.b.c.d */
};

/* An interface, for getifaddrs and SIOCGIF*. */
struct cse_interface {
    char name[16];
    uint32_t address, netmask, broadcast; /* network byte order */
    uint32_t gateway;                     /* 0: none */
    struct in6_addr gateway6;             /* the same */
    struct in6_addr address6[CSE_ADDRESSES6_MAX];
    uint8_t prefix6[CSE_ADDRESSES6_MAX];
    int count6;
    uint8_t mac[6];
    bool loopback, up;
    int mtu, index;
    uint64_t rx_packets, tx_packets, rx_bytes, tx_bytes;
};

/* Direct mode: a TCP socket's bytes go between program and stack without the descriptor. */
enum { CSE_RELAYED = -1000 }; /* not in direct mode just now: use the descriptor */
/* Flags for receive, beside MSG_*: on -EAGAIN the thread is counted as spinning from then on; the
 * thread was spinning until now. */
#define CSE_SPIN_NEXT (1 << 30)
#define CSE_SPUN      (1 << 29)
enum { CSE_SLEEP = -1001 };          /* -EAGAIN, and the thread is not counted: it better sleeps */
enum { CSE_FEW = -1002 };            /* -EAGAIN, but some bytes are there: fewer than SO_RCVLOWAT */
#define CSE_READY_RELAYED (1u << 31) /* as readiness: ask the descriptor */
/* Beside EPOLL* in the readiness of a TCP socket: */
#define CSE_NOT_CONNECTED (1u << 27) /* data calls fail: ask `refusal` */
#define CSE_LINGERS       (1u << 26) /* closing it may have to wait */
#define CSE_SHARED        (1u << 24) /* programs that were not forked may have it */
#define CSE_READY_ENOUGH  (1u << 23) /* what the last receive found too little is there */
#define CSE_READY_GONE    (1u << 25) /* to `ready`: and there will be no more to say of it */

enum { CSE_BELLS = 2 };

/* What the overlay lends the implementation, so that descriptors, settings, trace and escapes
 * are the business of one library. */
struct cse_host {
    int (*own_fd)(int fd);
    void (*own_close)(int fd);
    bool (*crowded)(int fd); /* few numbers are left beside the program's newest */
    void (*close_all_but_own)(void);
    const char *(*setting)(const char *key);
    long (*setting_number)(const char *key, long otherwise);
    void (*trace)(const char *function, const char *format, ...);
    bool (*tracing)(void);
    void (*escape)(const char *what);
    void (*report)(const char *what); /* to the user */
    int (*broker_connect)(int timeout_ms);
    bool (*broker_send)(int broker, const char *text, const int *fds, int fd_count);
    int (*broker_receive)(int broker, void *message, int timeout_ms);
    bool (*message_field)(const char *text, const char *key, char *out, size_t size);
    /* Between these no signal handler of the program runs in this thread. */
    void (*hold_signals)(void);
    void (*release_signals)(void);
    /* A socket that this process uses has become `mask` (EPOLL* or CSE_READY_*); called between
     * enter and leave. True if somebody waits for that. */
    bool (*ready)(cse_socket s, uint32_t mask);
};

struct cse_stack {
    int version;

    /* Makes or joins this application's instance; with attach_only, joins one or fails. */
    int (*start)(bool attach_only);
    /* True once this process takes part in an instance. */
    bool (*running)(void);

    /* A new socket (AF_INET or AF_INET6, SOCK_STREAM or SOCK_DGRAM) as the program's descriptor. A
     * datagram socket of IPPROTO_ICMP or IPPROTO_ICMPV6 sends and gets echoes (icmp(7)). */
    int (*socket)(int family, int type, int protocol, int flags, cse_socket *made);
    /* The socket whose program end has this inode, or 0. */
    cse_socket (*find)(uint64_t inode);
    /* That inode, of a socket that was made just now. */
    uint64_t (*inode)(cse_socket s);
    int (*bind)(cse_socket s, const union cse_address *address, socklen_t length);
    /* `fd` is the program's end, which must not look writable from then on. */
    int (*listen)(cse_socket s, int fd, int backlog);
    /* Takes one established connection from the queue; -EAGAIN: there is none. CSE_RELAYED: the
     * caller is to read a token from `fd`, the program's end, and then ask with `token`. */
    int (*accept)(cse_socket s, int fd, bool token, int flags, union cse_address *peer,
                  cse_socket *made);
    /* Starts to connect; `fd` is the program's end, which must not look writable until done if
     * `nonblocking`. 0, -EINPROGRESS, or why not. NULL dissolves a datagram socket's address. */
    int (*connect)(cse_socket s, int fd, const union cse_address *address, socklen_t length,
                   bool nonblocking);
    /* Waits for a connect under way. 0, -EINTR, -EINPROGRESS after timeout_ms (-1: never), or why
     * not. */
    int (*connect_wait)(cse_socket s, int fd, int timeout_ms);
    /* After a connect that failed, or with `disconnect` in any state: another descriptor, for a new
     * socket with the same options, to take the place of `fd`. 0: none is needed. */
    int (*renew)(cse_socket s, int fd, bool disconnect, cse_socket *made);
    /* What a data call says of a socket that is not connected: a negative errno, 0 at the end. */
    int (*refusal)(cse_socket s, bool sending);
    /* Its last descriptor may have been closed just now: in direct mode that ends the connection
     * here and now; waits as SO_LINGER says. */
    void (*closed)(cse_socket s);
    int (*name)(cse_socket s, bool peer, union cse_address *address);
    int (*getoption)(cse_socket s, int level, int name, void *value, socklen_t *length);
    int (*setoption)(cse_socket s, int level, int name, const void *value, socklen_t length);
    /* Before the program's end is shut down with the same `how`; returns what is left to do there.
     */
    int (*shutdown)(cse_socket s, int how);

    ssize_t (*send)(cse_socket s, const struct iovec *parts, int count,
                    const struct cse_sending *how);

    /* In direct mode, without waiting: bytes, 0 at the end, a negative errno (-EAGAIN) or
     * CSE_RELAYED. `fd` is the program's end; MSG_PEEK, MSG_TRUNC, MSG_MORE are honoured. */
    ssize_t (*receive)(cse_socket s, int fd, const struct iovec *parts, int count, int flags);
    ssize_t (*transmit)(cse_socket s, int fd, const struct iovec *parts, int count, int flags);
    /* What poll would say, from memory. A socket that was never connected is relayed, and EPOLLHUP
     * is said of it nevertheless. */
    uint32_t (*readiness)(cse_socket s);
    /* The socket's bytes go through its descriptor from now on, for good. */
    void (*relay)(cse_socket s);

    /* Waiting. The stack's lock guards the overlay's lists of waiters as well. */
    void (*enter)(sigset_t *saved);
    void (*leave)(sigset_t *saved);
    bool (*turn)(void);        /* inside: runs what has arrived; true if any had */
    bool (*pending)(void);     /* outside: something has arrived */
    bool (*polls)(void);       /* `pending` can become true: there is a reason to spin */
    uint32_t (*spin_us)(void); /* longest time that a thread may poll before it sleeps */
    void (*spin)(bool on);     /* inside: this thread polls `pending`, peers need not wake it */
    void (*sleep)(bool on);    /* inside: this thread sleeps until a bell is readable */
    /* The descriptors that become readable when a sleeper is wanted; -1 where there is none. */
    void (*bells)(int fds[CSE_BELLS]);
    void (*heard)(int bell); /* this one was readable */

    /* The pending error, cleared. */
    int (*take_error)(cse_socket s);
    /* The oldest of the queue of errors; false if there is none. */
    bool (*take_problem)(cse_socket s, struct cse_problem *problem);
    /* A datagram socket has an error to tell: what poll(2) shows as POLLERR. */
    bool (*has_problem)(cse_socket s);
    /* What a datagram socket wants told: CSE_TELL_*. */
    unsigned (*telling)(cse_socket s);

    /* The broker's answer about a name: how many addresses, 0: no such peer, negative: no broker.
     */
    int (*resolve)(const char *name, union cse_address *list, int room);
    int (*interfaces)(struct cse_interface *list, int room);

    /* These go over another socket to who knows whom (SCM_RIGHTS). */
    void (*entrust)(const cse_socket *list, size_t count);
    /* libc is about to start a program that inherits what is inheritable, and these. */
    void (*before_spawn)(const cse_socket *also, size_t count);
    /* Around exec and exit, so that connections outlive the program's image and its process. */
    void (*before_exec)(void);
    void (*exec_failed)(void);
    void (*before_exit)(void);
    /* From now on this process's threads may make few system calls (seccomp(2)): its TCP sockets
     * are relayed, and it leaves at its exit without a word. */
    void (*confined)(void);
    /* Of this process, those that are the implementation's. */
    int (*threads)(void);
};

/* Exported by the implementation. */
const struct cse_stack *cse_stack_open(const struct cse_host *host);

#endif
