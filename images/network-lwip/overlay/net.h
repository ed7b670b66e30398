/* What the overlay's files share: the stack behind it, and which descriptors are private. */
#ifndef CSE_NET_H
#define CSE_NET_H

#include "../stack.h"
#include "core.h"

#include <errno.h>

/* net.c. The implementation, loaded and started; NULL with errno where that fails. */
const struct cse_stack *net_start(void);
/* The implementation if this process already takes part in an instance, else NULL. */
const struct cse_stack *net_running(void);
/* The private socket behind a descriptor, or 0. May join the application's instance, when the
 * descriptor could be a socket inherited across exec. */
cse_socket net_find(int fd);
/* The same for calls on the data path: one load where this process has no private socket. */
cse_socket net_find_data(int fd);
void net_remember(int fd, cse_socket s);
/* The program has put a filter of system calls on itself: TCP sockets, which are relayed then, are
 * the kernel's to every data call. */
void net_confine(void);
/* Counts a call that this overlay cannot serve. */
void net_escape(const char *what);
/* signals.c. No handler of the program runs in this thread between the two. */
void net_hold_signals(void);
void net_release_signals(void);
bool net_inside(void);
/* After EINTR: whether the handler that ran wants the call restarted (SA_RESTART). */
bool net_signal_restarts(void);
/* Sets errno from a negative errno; -1. */
int net_fail(int negative);

#endif
