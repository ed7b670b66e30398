/* Notes between the processes of one instance, on their doorbells, with descriptors (notes.c). */
#ifndef CSE_NOTES_H
#define CSE_NOTES_H

#include "instance.h"

#include <sys/socket.h>
#include <sys/un.h>

enum { NOTE_ITEMS = 32, NOTE_FDS = 96 };
enum note_kind {
    NOTE_RING = 0,      /* a plain ring is one byte */
    NOTE_ASK = 'a',     /* for the descriptors of wires */
    NOTE_GRANT = 'g',   /* here they are: three for each wire */
    NOTE_KEEP = 'k',    /* stack ends for the keeper: one for each socket */
    NOTE_HAND_ON = 'h', /* inodes (index: low half, generation: high half), and what is closed when
                           the keeper has their sockets */
};

struct note {
    uint8_t kind, count;
    uint32_t index[NOTE_ITEMS];
    uint32_t generation[NOTE_ITEMS];
};

/* Where a process hears; false if it has no doorbell yet. */
bool note_address(uint16_t slot, struct sockaddr_un *to, socklen_t *length);
/* 0 or an errno; the descriptors stay open here. */
int note_send(const struct sockaddr_un *to, socklen_t length, const struct note *note,
              const int *fds, size_t fd_count);
/* Everything at this process's doorbell. */
void notes_hear(void);

/* Who takes them: wire_share.c, keeper.c, spawned.c. What they do not want of `fds`, protected
 * already, they close. */
void wire_answer(const struct sockaddr_un *to, socklen_t length);
void wire_take_grants(const struct note *note, int *fds, size_t count);
void keeper_take(const struct note *note, const int *fds, size_t count);
void spawned_take(const struct note *note, const int *fds, size_t count);

#endif
