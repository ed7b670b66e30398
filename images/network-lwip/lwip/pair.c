/* The pair of descriptors behind each socket: the program's end and ours, the stack end.
 *
 * They are made here, handed to others, closed, and made to look like what they stand for where the
 * kernel alone would not show it: full while a connection is on its way or nobody can write, broken
 * where the connection was reset. Called by whatever has a socket to make or to end.
 */
#include "direct.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { JUNK_PIECE = 2048, SKIP_BYTES = 65535 };

int sock_end(const struct sock *s)
{
    const struct end *end = &me.ends[s->index];
    return end->fd > 0 && end->generation == s->generation ? end->fd : -1;
}

void sock_close_end(uint32_t index)
{
    struct end *end = &me.ends[index];
    if (end->fd <= 0) return;
    /* Out of the epoll set first: a copy of it in another process would keep it reporting. */
    if (end->watched && me.epoll >= 0) {
        char event[16] = {0};
        syscall(SYS_epoll_ctl, me.epoll, 2 /* EPOLL_CTL_DEL */, end->fd, event);
    }
    host->own_close(end->fd);
    host->ready((uint64_t)end->generation << 32 | (uint64_t)(index + 1) << 1, CSE_READY_GONE);
    memset(end, 0, sizeof *end);
}

/* Closes stack ends of sockets that are gone. */
void sock_sweep_ends(void)
{
    for (uint32_t i = 0; i < me.top; i++)
        if (me.ends[i].fd > 0 && me.ends[i].generation != instance->generations[i])
            sock_close_end(i);
}

int sock_make_pair(struct sock *s, int flags)
{
    int pair[2], type = s->kind == KIND_TCP ? SOCK_STREAM : SOCK_SEQPACKET;
    if (syscall(SYS_socketpair, AF_UNIX, type | (flags & (SOCK_CLOEXEC | SOCK_NONBLOCK)), 0, pair) <
        0)
        return -errno;
    struct stat status;
    fstat(pair[0], &status);
    int fd = host->own_fd(pair[1]);
    if (fd < 0) {
        int failed = -errno;
        syscall(SYS_close, pair[0]);
        return failed;
    }
    s->inode = status.st_ino;
    sock_know(s);
    s->owner = me.slot;
    s->holders[me.slot / 64] |= UINT64_C(1) << (me.slot % 64);
    if (me.ends[s->index].fd > 0) sock_close_end(s->index);
    me.ends[s->index] = (struct end){
        .fd = fd, .generation = s->generation, .program_fd = pair[0], .inode = s->inode};
    if (s->index >= me.top) me.top = s->index + 1;
    if (s->kind == KIND_TCP && instance->direct_mode)
        fresh_add(s);
    else
        pump_watch(s);
    return pair[0];
}

/* Others have its stack end and go on with it; this process has it no more. */
void sock_hand_over(struct sock *s)
{
    sock_unlist(s);
    direct_forget(s);
    fresh_forget(s);
    s->holders[me.slot / 64] &= ~(UINT64_C(1) << (me.slot % 64));
    s->owner = process_next_owner(s);
    s->adopt = true;
    sock_notify(s);
    sock_close_end(s->index);
}

/* ---- what the program's end shows ----------------------------------------------------------- */

/* The program's end as we know it, unless its number is something else by now; -1. */
static int copy_of_program_end(const struct end *end)
{
    struct stat status;
    int copy = (int)syscall(SYS_fcntl, end->program_fd, 1030 /* F_DUPFD_CLOEXEC */, 3);
    if (copy < 0 || (fstat(copy, &status) == 0 && status.st_ino == end->inode)) return copy;
    syscall(SYS_close, copy);
    return -1;
}

/* Fills the program's end until poll does not show it writable, which takes little after its buffer
 * was made small; tcp_deliver skips these bytes. */
void pair_fill(struct sock *s, int fd)
{
    static const char junk[JUNK_PIECE];
    int least = 0;
    syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDBUF, &least, (socklen_t)sizeof least);
    s->small_pair = true;
    for (;;) {
        long sent =
            syscall(SYS_sendto, fd, junk, sizeof junk, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
        if (sent <= 0) return;
        s->junk += (size_t)sent;
        struct pollfd writable = {fd, POLLOUT, 0};
        struct timespec now = {0, 0};
        if (syscall(SYS_ppoll, &writable, 1, &now, NULL, 0) != 1 || !(writable.revents & POLLOUT))
            return;
    }
}

/* The same by a process that has the stack end and knows the program's. */
void pair_fill_own(struct sock *s)
{
    int copy = sock_end(s) >= 0 ? copy_of_program_end(&me.ends[s->index]) : -1;
    if (copy < 0) return;
    pair_fill(s, copy);
    syscall(SYS_close, copy);
}

/* Takes the filling out again. */
void pair_skip_junk(struct sock *s, int fd)
{
    while (s->junk > 0) {
        size_t wanted = s->junk < SKIP_BYTES ? s->junk : SKIP_BYTES;
        long got = syscall(SYS_recvfrom, fd, me.scratch, wanted, MSG_DONTWAIT, NULL, NULL);
        if (got <= 0) break;
        s->junk -= (size_t)got;
    }
}

/* While it connected, the program's end was made to look full. */
void pair_widen(struct sock *s, int fd)
{
    int bytes = PAIR_BUFFER;
    syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDBUF, &bytes, (socklen_t)sizeof bytes);
    s->small_pair = false;
}

/* The stack end is about to be closed, and the program shall see ECONNRESET: AF_UNIX says so when
 * something was left unread. Its end is only written to if it is still the one we know. */
void pair_spoil(const struct end *end)
{
    int copy = copy_of_program_end(end);
    if (copy < 0) return;
    syscall(SYS_sendto, copy, "", 1L, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
    syscall(SYS_close, copy);
}

/* The program may have closed this socket a moment ago, before the pump heard of it: what has hung
 * up is taken down at once. True if it is gone. */
bool sock_just_closed(struct sock *s)
{
    struct pollfd end = {sock_end(s), 0, 0};
    struct timespec now = {0, 0};
    uint32_t index = s->index;
    if (end.fd < 0 || s->owner != me.slot) return false;
    if (syscall(SYS_ppoll, &end, 1, &now, NULL, 0) != 1 || !(end.revents & POLLHUP)) return false;
    pump_serve(s, EPOLLHUP | EPOLLIN);
    return instance->sockets[index] != s || s->state == ENDED;
}
