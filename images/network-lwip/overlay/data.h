/* The data calls' two kinds of socket, behind the wrappers of data.c. All set errno as recvmsg and
 * sendmsg do.
 */
#ifndef CSE_DATA_H
#define CSE_DATA_H

#include "net.h"

/* datagram.c */
ssize_t datagram_receive(int fd, cse_socket s, struct msghdr *message, int flags);
ssize_t datagram_transmit(cse_socket s, const struct msghdr *message, int flags);

/* stream.c. Waits for readiness of a socket in direct mode, until SO_RCVTIMEO or SO_SNDTIMEO
 * (`option`) says to give up; 0, or -1 with errno. Before the first call `asked` is false. */
int stream_wait(int fd, cse_socket s, uint32_t events, int flags, int option, uint64_t *deadline,
                bool *asked);
/* In direct mode through the stack, else through the descriptor. */
ssize_t stream_receive(int fd, cse_socket s, struct msghdr *message, int flags);
ssize_t stream_transmit(int fd, cse_socket s, const struct msghdr *message, int flags);

#endif
