/* Watches: who waits for which private socket, and what the stack tells them.
 *
 * The stack says `ready` of a socket; that finds the watches on it and puts them on their waiters'
 * lists. All lists are guarded by the stack's lock (enter, leave), which fork leaves in order.
 */
#include "patience.h"
#include "wait.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SOCKETS = 65536 };

static struct watch **by_socket; /* SOCKETS of them, touched lazily */

static struct watch **place_of(cse_socket s)
{
    if (by_socket == NULL) {
        void *table = mmap(NULL, SOCKETS * sizeof *by_socket, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (table == MAP_FAILED) return NULL;
        by_socket = table;
    }
    return &by_socket[(((uint32_t)s >> 1) - 1) % SOCKETS];
}

void wait_add(struct watch *watch)
{
    struct watch **place = place_of(watch->socket);
    if (place == NULL) return;
    watch->socket_next = *place;
    *place = watch;
}

static void unlist(struct watch *watch)
{
    struct waiter *w = watch->waiter;
    if (!watch->listed) return;
    if (watch->ready_next != NULL)
        watch->ready_next->ready_before = watch->ready_before;
    else
        w->ready_last = watch->ready_before;
    if (watch->ready_before != NULL)
        watch->ready_before->ready_next = watch->ready_next;
    else
        __atomic_store_n(&w->ready_first, watch->ready_next, __ATOMIC_RELEASE);
    watch->listed = false;
}

void wait_remove(struct watch *watch)
{
    struct watch **at = place_of(watch->socket);
    while (at != NULL && *at != NULL && *at != watch) at = &(*at)->socket_next;
    if (at != NULL && *at == watch) *at = watch->socket_next;
    unlist(watch);
}

struct watch *wait_find(const struct waiter *w, cse_socket s, int fd)
{
    struct watch **place = place_of(s);
    struct watch *watch = place != NULL ? *place : NULL;
    while (watch != NULL && (watch->waiter != w || watch->fd != fd || watch->socket != s))
        watch = watch->socket_next;
    return watch;
}

void wait_push(struct watch *watch)
{
    struct waiter *w = watch->waiter;
    if (watch->listed) return;
    watch->listed = true;
    watch->ready_next = NULL;
    watch->ready_before = w->ready_last;
    if (w->ready_last != NULL)
        w->ready_last->ready_next = watch;
    else
        __atomic_store_n(&w->ready_first, watch, __ATOMIC_RELEASE);
    w->ready_last = watch;
}

struct watch *wait_pop(struct waiter *w)
{
    struct watch *watch = w->ready_first;
    if (watch != NULL) unlist(watch);
    return watch;
}

void wait_rouse(struct watch *watch)
{
    uint64_t one = 1;
    wait_push(watch);
    if (watch->waiter->sleeping > 0)
        libc(syscall)(SYS_write, watch->waiter->wake, &one, sizeof one);
}

/* ---- what the stack says ------------------------------------------------------------------- */

/* Whether this watch's waiter is to look at it. */
static bool concerns(const struct watch *watch, uint32_t mask)
{
    if (mask & (CSE_READY_RELAYED | CSE_READY_GONE)) return !watch->in_set; /* else: the kernel's */
    return (mask & (watch->events | EPOLLERR | EPOLLHUP)) != 0;
}

bool wait_ready(cse_socket s, uint32_t mask)
{
    bool awaited = false;
    if (mask & CSE_READY_RELAYED) patience_forget(s);
    struct watch **place = by_socket != NULL ? place_of(s) : NULL;
    struct watch *next = NULL;
    for (struct watch *watch = place != NULL ? *place : NULL; watch != NULL; watch = next) {
        next = watch->socket_next;
        if (watch->socket != s) continue;
        if (watch->in_set) epoll_changed(watch, mask);
        if (watch->in_set && mask & CSE_READY_GONE) {
            epoll_gone(watch);
            continue;
        }
        if (!concerns(watch, mask)) continue;
        wait_rouse(watch);
        awaited = true;
    }
    return awaited;
}

void wait_closed(cse_socket s)
{
    sigset_t saved;
    if (by_socket == NULL || __atomic_load_n(place_of(s), __ATOMIC_RELAXED) == NULL) return;
    net_running()->enter(&saved);
    wait_ready(s, CSE_READY_GONE);
    net_running()->leave(&saved);
}
