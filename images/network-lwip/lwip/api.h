/* What the files behind the implementation's table of functions share (api.c). */
#ifndef CSE_API_H
#define CSE_API_H

#include "instance.h"

/* Runs BODY with the lock and `s`; RESULT is what it sets, -EBADF without such a socket. */
#define WITH_SOCKET(handle, ...)                                                                   \
    ({                                                                                             \
        sigset_t saved_;                                                                           \
        int result = -EBADF;                                                                       \
        instance_lock(&saved_);                                                                    \
        struct sock *s = sock_get(handle);                                                         \
        if (s != NULL) {                                                                           \
            __VA_ARGS__                                                                            \
        }                                                                                          \
        instance_unlock(&saved_);                                                                  \
        result;                                                                                    \
    })

/* connect.c */
int api_connect(cse_socket handle, int fd, const union cse_address *address, socklen_t length,
                bool nonblocking);
int api_connect_wait(cse_socket handle, int fd, int timeout_ms);

#endif
