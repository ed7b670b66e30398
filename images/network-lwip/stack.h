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
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { CSE_STACK_VERSION = 1 };

/* A socket: generation << 32 | index + 1 << 1 | datagram. 0 is no socket. */
typedef uint64_t cse_socket;
#define CSE_SOCKET_IS_DATAGRAM(s) ((s) & 1)

/* What stands before the bytes of each datagram in a UDP socket's pair. */
struct cse_datagram {
    uint32_t address; /* sender, network byte order; of the unreachable peer when error is set */
    uint16_t port;    /* network byte order */
    uint16_t error;   /* an errno instead of a datagram */
    uint32_t destination;
    uint8_t ttl, tos;
    uint16_t reserved;
};

/* An interface, for getifaddrs and SIOCGIF*. */
struct cse_interface {
    char name[16];
    uint32_t address, netmask, broadcast; /* network byte order */
    uint8_t mac[6];
    bool loopback, up;
    int mtu, index;
    uint64_t rx_packets, tx_packets, rx_bytes, tx_bytes;
};

/* What the overlay lends the implementation, so that descriptors, settings, trace and escapes
 * are the business of one library. */
struct cse_host {
    int (*own_fd)(int fd);
    void (*own_close)(int fd);
    const char *(*setting)(const char *key);
    long (*setting_number)(const char *key, long otherwise);
    void (*trace)(const char *function, const char *format, ...);
    bool (*tracing)(void);
    void (*escape)(const char *what);
    int (*broker_connect)(int timeout_ms);
    bool (*broker_send)(int broker, const char *text, const int *fds, int fd_count);
    int (*broker_receive)(int broker, void *message, int timeout_ms);
    bool (*message_field)(const char *text, const char *key, char *out, size_t size);
};

struct cse_stack {
    int version;

    /* Makes or joins this application's instance; with attach_only, joins one or fails. */
    int (*start)(bool attach_only);
    /* True once this process takes part in an instance. */
    bool (*running)(void);

    /* A new socket (SOCK_STREAM or SOCK_DGRAM) as the program's descriptor. */
    int (*socket)(int type, int flags, cse_socket *made);
    /* The socket whose program end has this inode, or 0. */
    cse_socket (*find)(uint64_t inode);
    int (*bind)(cse_socket s, const struct sockaddr_in *address);
    int (*listen)(cse_socket s, int backlog);
    /* Takes one established connection from the queue, whose token the caller has read. */
    int (*accept)(cse_socket s, int flags, struct sockaddr_in *peer, cse_socket *made);
    /* Starts to connect; `fd` is the program's end, which must not look writable until done if
     * `nonblocking`. 0, -EINPROGRESS, or why not. NULL dissolves a datagram socket's address. */
    int (*connect)(cse_socket s, int fd, const struct sockaddr_in *address, bool nonblocking);
    /* Waits for a connect under way. 0, -EINTR, -ETIMEDOUT after timeout_ms (-1: never), or why
     * not. */
    int (*connect_wait)(cse_socket s, int timeout_ms);
    int (*name)(cse_socket s, bool peer, struct sockaddr_in *address);
    int (*getoption)(cse_socket s, int level, int name, void *value, socklen_t *length);
    int (*setoption)(cse_socket s, int level, int name, const void *value, socklen_t length);
    /* Before the program's end is shut down with the same `how`; returns what is left to do there.
     */
    int (*shutdown)(cse_socket s, int how);

    /* Sends one datagram, to the connected peer if `to` is NULL. */
    ssize_t (*send)(cse_socket s, const struct iovec *parts, int count,
                    const struct sockaddr_in *to);
    /* The pending error, cleared. */
    int (*take_error)(cse_socket s);

    /* The broker's answer about a name: 1 found, 0 no such peer, negative: no broker. */
    int (*resolve)(const char *name, struct in_addr *address);
    int (*interfaces)(struct cse_interface *list, int room);

    /* Around exec and exit, so that connections outlive the program's image and its process. */
    void (*before_exec)(void);
    void (*exec_failed)(void);
    void (*before_exit)(void);
};

/* Exported by the implementation. */
const struct cse_stack *cse_stack_open(const struct cse_host *host);

#endif
