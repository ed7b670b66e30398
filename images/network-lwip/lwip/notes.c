/* Notes: what processes of one instance tell each other on their doorbells, with descriptors that
 * not all of them were forked with. Sent and heard under the lock, by pumps for the most part.
 */
#include "notes.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(NOTE_FDS * sizeof(int))];
};

bool note_address(uint16_t slot, struct sockaddr_un *to, socklen_t *length)
{
    const struct process *p = &instance->processes[slot];
    if (p->used != 2 || p->bell_length == 0) return false;
    *to = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(to->sun_path + 1, p->bell, p->bell_length);
    *length = (socklen_t)offsetof(struct sockaddr_un, sun_path) + 1 + p->bell_length;
    return true;
}

int note_send(const struct sockaddr_un *to, socklen_t length, const struct note *note,
              const int *fds, size_t fd_count)
{
    union control control;
    size_t bytes = fd_count * sizeof(int);
    struct iovec part = {(void *)note, sizeof *note};
    struct msghdr message = {
        .msg_name = (void *)to, .msg_namelen = length, .msg_iov = &part, .msg_iovlen = 1};
    if (fd_count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(bytes);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(header), fds, bytes);
    }
    int from = me.bell, temporary = -1;
    if (from < 0)
        from = temporary = (int)syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int failed = 0;
    if (syscall(SYS_sendmsg, from, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) failed = errno;
    if (temporary >= 0) syscall(SYS_close, temporary);
    return failed;
}

static size_t take_descriptors(struct msghdr *message, int *fds)
{
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
        return 0;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(header), count * sizeof(int));
    for (size_t i = 0; i < count; i++) fds[i] = host->own_fd(fds[i]);
    return count;
}

void notes_hear(void)
{
    for (;;) {
        struct note note = {0};
        struct sockaddr_un from;
        union control control;
        int fds[NOTE_FDS];
        struct iovec part = {&note, sizeof note};
        struct msghdr message = {.msg_name = &from,
                                 .msg_namelen = sizeof from,
                                 .msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = control.bytes,
                                 .msg_controllen = sizeof control.bytes};
        if (syscall(SYS_recvmsg, me.bell, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0) return;
        size_t count = take_descriptors(&message, fds);
        if (note.count > NOTE_ITEMS) note.count = NOTE_ITEMS;
        if (note.kind == NOTE_ASK && message.msg_namelen > offsetof(struct sockaddr_un, sun_path))
            wire_answer(&from, message.msg_namelen);
        if (note.kind == NOTE_KEEP)
            keeper_take(&note, fds, count);
        else if (note.kind == NOTE_HAND_ON)
            spawned_take(&note, fds, count);
        else
            wire_take_grants(&note, fds, count);
    }
}
