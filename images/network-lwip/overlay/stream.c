/* Data calls on TCP sockets, called by data.c: the descriptor, one end of a socket pair, carries
 * the bytes.
 */
#include "data.h"

ssize_t stream_receive(int fd, cse_socket s, struct msghdr *message, int flags)
{
    (void)s;
    return libc(recvmsg)(fd, message, flags);
}

ssize_t stream_transmit(int fd, cse_socket s, const struct msghdr *message, int flags)
{
    (void)s;
    /* A connected stream ignores the address in the kernel's TCP; AF_UNIX would refuse it. */
    struct msghdr plain = *message;
    plain.msg_name = NULL;
    plain.msg_namelen = 0;
    return libc(sendmsg)(fd, &plain, flags);
}
