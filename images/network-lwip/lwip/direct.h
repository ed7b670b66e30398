/* What tcp.c, pump.c, processes.c and api.c need of direct mode (direct.c, turn.c). */
#ifndef CSE_DIRECT_H
#define CSE_DIRECT_H

#include "instance.h"

enum { NEGLECT_MS = 20, TICK_MS = 1 };

ssize_t direct_receive(cse_socket handle, int fd, const struct iovec *parts, int count, int flags);
ssize_t direct_transmit(cse_socket handle, int fd, const struct iovec *parts, int count, int flags);
uint32_t direct_readiness(cse_socket handle);
void direct_relay(cse_socket handle);

uint32_t direct_publish(struct sock *s); /* its readiness, for those without the lock */
void direct_wish(struct sock *s);        /* an option that only direct mode honours */
bool direct_held_here_alone(const struct sock *s);
void direct_start(struct sock *s); /* if this process alone holds it */
/* This process waits for connections of a listener without tokens. */
bool direct_listens(struct sock *s, int fd);
void direct_tell_relayed(struct sock *s);
void direct_stop(struct sock *s);
void direct_deliver(struct sock *s);
void direct_mirror_end(struct sock *s);
void direct_half_close(struct sock *s);
void direct_forget(struct sock *s);
void direct_look_for_neglect(void);

bool direct_turn(void);
bool direct_polls(void);
void direct_spin(bool on);
uint32_t direct_spin_us(void);
void direct_sleep(bool on);
bool direct_tick(bool leads);
bool direct_leaves_to_pump(void);
bool direct_finds(void);
bool direct_leaves_device(void);
void direct_bells(int fds[CSE_BELLS]);
void direct_heard(int bell);
void direct_forget_process(struct process *p);

#endif
