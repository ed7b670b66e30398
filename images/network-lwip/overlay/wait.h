/* Threads that wait for private sockets (watch.c, wait.c), for stream.c, epoll.c and poll.c. */
#ifndef CSE_WAIT_H
#define CSE_WAIT_H

#include "net.h"

#include <poll.h>
#include <sys/epoll.h>
#include <time.h>

/* Somebody who waits: a thread in a call, or the program's epoll set. */
struct waiter {
    int kernel;   /* an epoll descriptor with the bells and `wake` in it */
    int wake;     /* eventfd: another thread found something for us */
    int sleeping; /* threads asleep in `kernel` */
    struct watch *ready_first, *ready_last;
};

/* One interest of a waiter in one private socket; guarded by the stack's lock. */
struct watch {
    cse_socket socket;
    struct waiter *waiter;
    uint32_t events; /* EPOLL* that are wanted, and EPOLLET, EPOLLONESHOT */
    bool listed;     /* on the waiter's list of the ready */
    bool in_set;     /* part of an epoll set: the fields below are used */
    bool relayed;    /* the kernel's set reports it */
    struct watch *socket_next, *ready_next, *ready_before, *set_next, *set_before;
    int fd;
    uint32_t generation; /* of fd's slot in the table of descriptors */
    uint64_t data;
};

/* Marks of our own descriptors in a program's epoll set: their events' data. */
extern char wait_marks[3];
enum { MARK_WAKE, MARK_BELL, MARK_DEVICE };

bool wait_prepare(struct waiter *w, int kernel);
/* The bells leave the descriptor again. */
void wait_without_bells(struct waiter *w);
/* Inside the stack's lock. */
void wait_add(struct watch *watch);
void wait_remove(struct watch *watch);
struct watch *wait_pop(struct waiter *w);
void wait_push(struct watch *watch);
void wait_rouse(struct watch *watch); /* the same, and its sleeping waiter is woken */
/* The watch of this descriptor in this waiter, or NULL. */
struct watch *wait_find(const struct waiter *w, cse_socket s, int fd);

/* Our own descriptors' events are taken out of what a kernel's epoll reported; the rest. */
int wait_filter(struct waiter *w, struct epoll_event *events, int count);
/* Before a thread waits: puts right what an interrupted call left. False without memory. */
bool wait_begin(void);
/* Inside the stack's lock: this thread is about to spin, or no longer does. */
void wait_spinning(bool on);
/* The same without it: the stack has counted this thread already (CSE_SPIN_NEXT, CSE_SPUN). */
void wait_counted_as_spinning(bool on);
/* Polls for a short time, as long as that has been of use; true if something came, for this waiter
 * or this socket if given. */
bool wait_spin(const struct waiter *w, cse_socket s);
/* Inside the lock, after a turn that left nothing to do. Announces sleep; false if something came
 * just now. Ends it. */
bool wait_lie_down(struct waiter *w);
void wait_get_up(struct waiter *w);

/* Milliseconds until `deadline` (-1: for ever), rounded up. */
uint64_t wait_now_ns(void);
int wait_left_ms(uint64_t deadline_ns);
enum { WAIT_FOREVER = 0 };

struct wish {
    cse_socket socket;
    uint32_t events;
};
/* Waits until one of the sockets or of `kernel`'s descriptors is ready: above 0; 0 when the
 * deadline is past, -1 with errno. `kernel` has room for one more. */
int wait_many(const struct wish *wishes, int count, struct pollfd *kernel, int kernel_count,
              uint64_t deadline_ns, const sigset_t *mask);
int wait_one(cse_socket s, uint32_t events, uint64_t deadline_ns);

/* epoll.c: something else than epoll_wait asks about a descriptor that may be a set. */
void epoll_nest(int fd);
/* epoll.c: the socket behind a descriptor is another now; sets that have it keep it. */
void epoll_renewed(int fd, cse_socket former, cse_socket s);
/* epoll.c: an upcall concerns a watch of a program's set; its socket is gone for good. */
void epoll_changed(struct watch *watch, uint32_t mask);
void epoll_gone(struct watch *watch);
/* The stack tells us that a socket has become something (struct cse_host). */
bool wait_ready(cse_socket s, uint32_t mask);
/* The program has closed a descriptor of a relayed socket. Without the lock. */
void wait_closed(cse_socket s);

#endif
