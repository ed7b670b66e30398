/* What processes.c needs of the pump, beside instance.h. */
#ifndef CSE_PUMP_H
#define CSE_PUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Tags of the pump's epoll entries that are not sockets. */
#define PUMP_TAG     (UINT64_C(1) << 63)
#define PUMP_BELL    (PUMP_TAG | 1)
#define PUMP_TAP     (PUMP_TAG | 2)
#define PUMP_BROKER  (PUMP_TAG | 3)
#define PUMP_CAPTURE (PUMP_TAG | 8) /* and the next three */
#define PUMP_RINGS   (PUMP_TAG | 4)
#define PUMP_PROCESS (PUMP_TAG | 16)
#define PUMP_WIRE    (PUMP_TAG | (UINT64_C(1) << 32))

void process_heard(uint16_t slot);
void pump_watch_fd(int fd, uint64_t tag);
void pump_unwatch_fd(int fd); /* and closes it */
void pump_before_fork(void);  /* no pump is on its way from here on ... */
void pump_after_fork(void);   /* ... to here */
bool pump_hear_broker(int timeout_ms);
void pump_requeue_device(void);
void pump_drop(void); /* in a forked child: the parent's thread, epoll and doorbell */
/* A connection still has something to send or to be acknowledged. */
bool tcp_unfinished(void);
void broker_hello(char *out, size_t size, const char *more);

#endif
