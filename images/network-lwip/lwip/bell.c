/* Doorbells: each process of an instance has an abstract datagram socket, at which the others wake
 * its pump, and leave notes (notes.c). Called by whatever has news for a socket of another process.
 */
#include "instance.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* The bell's name, where other processes look for it. */
void process_publish_bell(void)
{
    struct sockaddr_un address;
    socklen_t length = sizeof address;
    struct process *p = &instance->processes[me.slot];
    if (me.bell < 0 || syscall(SYS_getsockname, me.bell, &address, &length) != 0) return;
    size_t name = length - offsetof(struct sockaddr_un, sun_path);
    if (name <= 1 || name > sizeof p->bell + 1) return;
    memcpy(p->bell, address.sun_path + 1, name - 1);
    p->bell_length = (uint8_t)(name - 1);
}

void process_open_bell(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = (int)syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    /* Only the family: the kernel picks an abstract name of five hexadecimal digits. */
    syscall(SYS_bind, fd, &address, sizeof(sa_family_t));
    me.bell = host->own_fd(fd);
    process_publish_bell();
}

/* Wakes the pump of a process that has something to do. A bell nobody holds: it died or exec'd,
 * which is for process_bury; here somebody may be in the middle of one of its sockets. */
void process_ring(uint16_t slot)
{
    struct process *p = &instance->processes[slot];
    if (p->rung || p->used != 2 || p->bell_length == 0) return;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path + 1, p->bell, p->bell_length);
    socklen_t length = (socklen_t)offsetof(struct sockaddr_un, sun_path) + 1 + p->bell_length;
    int from = me.bell;
    int temporary = -1;
    if (from < 0)
        from = temporary = (int)syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    p->rung = true;
    if (syscall(SYS_sendto, from, "", 1L, MSG_DONTWAIT | MSG_NOSIGNAL, &address, length) < 0) {
        if (errno == ECONNREFUSED)
            p->dead = instance->deaths = true;
        else if (errno != EAGAIN)
            p->rung = false; /* not heard: the next event tries again */
    }
    if (temporary >= 0) syscall(SYS_close, temporary);
}
