/* How long calls on a private socket wait (patience.c). */
#ifndef CSE_PATIENCE_H
#define CSE_PATIENCE_H

#include "net.h"

/* Asks where it is not known: false: not at all. Else when to give up, from now, by `option`
 * (SO_RCVTIMEO, SO_SNDTIMEO), or WAIT_FOREVER. */
bool patience_of(int fd, cse_socket s, int option, uint64_t *deadline_ns);
bool patience_nonblocking(int fd, cse_socket s);
/* It is known to wait. */
bool patience_is_known(cse_socket s);
/* The program may have changed it. */
void patience_forget(cse_socket s);

#endif
