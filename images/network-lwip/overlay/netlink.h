/* The routing socket: netlink.c has the sockets, routing.c answers what is asked of them, routes.c
 * the routes among it. */
#ifndef CSE_NETLINK_H
#define CSE_NETLINK_H

#include "net.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

/* As a value in the table of descriptors: no socket of the stack's has such a number. */
#define NETLINK_HANDLE(slot) ((cse_socket)(slot) << 32 | 1)
#define IS_NETLINK(s)        ((uint32_t)(s) == 1)

int netlink_socket(int type, int protocol);
/* The routing socket behind a descriptor, or 0: one load where this process has none. */
cse_socket netlink_find(int fd);
void netlink_closed(void); /* a descriptor of one was */
ssize_t netlink_receive(int fd, cse_socket s, struct msghdr *message, int flags);
ssize_t netlink_transmit(cse_socket s, const struct msghdr *message, int flags);
/* The control calls of descriptors that are no sockets of the stack's. */
int netlink_bind(int fd, const struct sockaddr *address, socklen_t length);
int netlink_connect(int fd, const struct sockaddr *address, socklen_t length);
int netlink_listen(int fd, int backlog);
int netlink_name(int fd, bool peer, struct sockaddr *address, socklen_t *length);
int netlink_getoption(int fd, int level, int name, void *value, socklen_t *length);
int netlink_setoption(int fd, int level, int name, const void *value, socklen_t length);

/* ---- answers --------------------------------------------------------------------------------- */

enum { INTERFACES_ASKED = 4, ANSWER_BYTES = 3584 };

struct answer {
    int fd; /* the other end of the asker's pair */
    uint32_t port;
    bool strict, brief; /* NETLINK_GET_STRICT_CHK; NETLINK_CAP_ACK: errors quote the header alone */
    const struct nlmsghdr *request;
    uint16_t flags; /* of each message of a dump */
    bool overrun;   /* the asker does not read */
    size_t used;
    struct nlmsghdr *message; /* being written */
    struct cse_interface list[INTERFACES_ASKED];
    int count;
    char bytes[ANSWER_BYTES] __attribute__((aligned(NLMSG_ALIGNTO)));
};

/* routing.c. All requests of one datagram. */
void routing_answer(struct answer *answer, const char *bytes, size_t size);
/* One message, written piece by piece. */
void *answer_begin(struct answer *answer, uint16_t type, size_t body);
void answer_add(struct answer *answer, uint16_t type, const void *value, size_t size);
void answer_add_u32(struct answer *answer, uint16_t type, uint32_t value);
/* The value of an attribute of the request, whose body has `body` bytes, if it has this size. */
bool request_value(const struct nlmsghdr *request, size_t body, uint16_t type, void *value,
                   size_t size);

/* routes.c. 0 or a negative errno. */
int routes_dump(struct answer *answer);
int routes_get(struct answer *answer);

#endif
