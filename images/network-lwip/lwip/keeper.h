/* What processes.c, direct.c and api.c need of keeper.c. */
#ifndef CSE_KEEPER_H
#define CSE_KEEPER_H

#include "instance.h"

/* These sockets are about to be in hands that have no stack end of them. Without the lock. */
void keeper_entrust(const cse_socket *list, size_t count);
void keeper_before_exec(void); /* the same for all that is inherited */
/* The program of a forked process from now on; it does not return. It keeps these alone. */
void keeper_run(const cse_socket *list, size_t count) __attribute__((noreturn));
void keeper_mark(uint16_t slot, bool on);
bool keeper_has(const struct sock *s);
/* In fork's handlers: this thread's fork is that of a keeper, or on the way to it. */
bool keeper_is_made(void);
extern bool keeper_next; /* and the next child is it */

/* spawned.c */
void spawned_before_exec(void); /* in a child that is not this process, before it execs */
void spawned_before(const cse_socket *also, size_t count); /* see before_spawn in stack.h */
void spawned_serve(void);                                  /* after notes_hear, without the lock */

/* processes.c: leaves the instance and ends this process, past the program's own handlers. */
void process_quit(int status) __attribute__((noreturn));

#endif
