/* close(2) with SO_LINGER: waits until the peer has acknowledged all and our FIN, or the time is
 * over, or a signal comes; the connection goes on by itself then. Called by the overlay's close
 * once the descriptor is closed, for sockets that ask for it (CSE_LINGERS).
 *
 * The waiting thread has no hold on the connection, only its names. It is woken when segments have
 * come in or a connection was given up, and looks.
 */
#include "instance.h"

#include "lwip/priv/tcp_priv.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct names {
    struct endpoint local, remote;
};

/* Other copies of the descriptor keep the socket open. */
static bool is_closed(const struct sock *s)
{
    struct pollfd end = {sock_end(s), 0, 0};
    struct timespec now = {0, 0};
    if (s->state == ENDED) return true;
    return s->state == CONNECTED && end.fd >= 0 &&
           syscall(SYS_ppoll, &end, 1, &now, NULL, 0) == 1 && (end.revents & POLLHUP) != 0;
}

/* Of the socket, what its pair still holds; then of the connection that lwIP has alone. */
static bool is_unfinished(cse_socket handle, const struct names *names)
{
    const struct sock *s = sock_get(handle);
    if (s != NULL && s->state == CONNECTED) return true;
    const struct tcp_pcb *pcb =
        tcp_find(&names->local.ip, names->local.port, &names->remote.ip, names->remote.port);
    if (pcb == NULL || pcb->callback_arg != NULL) return false;
    return pcb->state != FIN_WAIT_2 && pcb->state != TIME_WAIT;
}

/* False when there is nothing more to wait for. */
static bool wait_for_news(cse_socket handle, const struct names *names, uint64_t deadline_ms)
{
    sigset_t saved;
    instance_lock(&saved);
    bool waits = is_unfinished(handle, names);
    uint32_t seen = instance->linger_news;
    uint64_t now = now_ms();
    instance_unlock(&saved);
    if (!waits || now >= deadline_ms) return false;
    uint64_t left_ms = deadline_ms - now;
    struct timespec left = {(time_t)(left_ms / 1000), (long)(left_ms % 1000) * 1000000};
    long woken = syscall(SYS_futex, &instance->linger_news, FUTEX_WAIT, seen, &left, NULL, 0);
    return woken == 0 || errno != EINTR;
}

void linger_close(cse_socket handle)
{
    sigset_t saved;
    struct names names = {0};
    uint64_t deadline_ms = 0;
    instance_lock(&saved);
    struct sock *s = sock_get(handle);
    bool waits = s != NULL && s->linger_on && s->linger_seconds > 0 && is_closed(s);
    if (waits) {
        names = (struct names){s->local, s->remote};
        deadline_ms = now_ms() + (uint64_t)s->linger_seconds * 1000;
        instance->lingerers++;
        if (s->state == CONNECTED && s->owner == me.slot) pump_serve(s, EPOLLHUP | EPOLLIN);
    }
    instance_unlock(&saved);
    if (!waits) return;
    while (wait_for_news(handle, &names, deadline_ms)) continue;
    instance_lock(&saved);
    if (instance->lingerers > 0) instance->lingerers--;
    instance_unlock(&saved);
}

/* Under the lock, before it is let go. A process that died while it waited leaves a count behind,
 * which costs a system call now and then. */
void linger_news(bool dropped)
{
    uint32_t segments = lwip_stats.mib2.tcpinsegs;
    if (instance->lingerers == 0 || (!dropped && segments == instance->linger_seen)) return;
    instance->linger_seen = segments;
    __atomic_fetch_add(&instance->linger_news, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &instance->linger_news, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
