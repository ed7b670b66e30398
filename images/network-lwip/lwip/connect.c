/* connect(2). One that is under way shows its descriptor not writable: in direct mode from memory,
 * else by a pair that is full. Who waits for it in relay mode waits on a futex, the socket's state.
 * Called by api.c.
 */
#include "api.h"
#include "direct.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int connect_result(struct sock *s)
{
    if (s->state == CONNECTED) return 0;
    int error = s->error != 0 ? s->error : ECONNABORTED;
    s->error = 0;
    return -error;
}

static int start_connect(struct sock *s, int fd, const union cse_address *address, socklen_t length,
                         bool nonblocking)
{
    struct endpoint to;
    int failed = address != NULL ? address_destination(s, address, length, true, &to) : 0;
    if (s->kind != KIND_TCP) {
        const struct endpoint *peer = address != NULL ? &to : NULL;
        if (failed == 0 && s->kind == KIND_PING && !s->bound) failed = ping_bind(s, &s->local);
        if (failed != 0) return failed;
        return s->kind == KIND_PING ? udp_set_peer(s, peer) : udp_connect_to(s, peer);
    }
    if (s->state == LISTENING) return -EISCONN;
    if (s->state == CONNECTING) return -EALREADY;
    if (s->state == CONNECTED && s->connect_open) { /* the first to ask how it went */
        s->connect_open = false;
        return 0;
    }
    if (s->state == CONNECTED || (s->state == ENDED && !s->connect_failed)) return -EISCONN;
    if (s->state == ENDED) return connect_result(s);
    if (failed != 0) return failed;
    failed = tcp_start_connect(s, &to);
    if (failed != 0) return failed;
    s->waited_for = !nonblocking;
    s->connect_open = nonblocking;
    direct_start(s);
    if (nonblocking && !(s->direct && s->fresh)) pair_fill(s, fd); /* else: fresh_over */
    return -EINPROGRESS;
}

int api_connect(cse_socket handle, int fd, const union cse_address *address, socklen_t length,
                bool nonblocking)
{
    return WITH_SOCKET(handle, { result = start_connect(s, fd, address, length, nonblocking); });
}

/* Where to wait while it connects; looked up anew each time, since a reset moves it. */
static uint32_t *connecting_word(cse_socket handle)
{
    sigset_t saved;
    instance_lock(&saved);
    struct sock *s = sock_get(handle);
    uint32_t *word = s != NULL && s->state == CONNECTING ? &s->state : NULL;
    if (word != NULL) s->waited_for = true;
    instance_unlock(&saved);
    return word;
}

/* The program goes on while it connects. */
static int stop_waiting(cse_socket handle, int fd, int why)
{
    return WITH_SOCKET(handle, {
        result = why;
        if (s->state == CONNECTING && s->waited_for) {
            s->waited_for = false;
            s->connect_open = true;
            pair_fill(s, fd);
        }
    });
}

/* A futex, because its rules for signals and time-outs are those of connect(2). */
int api_connect_wait(cse_socket handle, int fd, int timeout_ms)
{
    struct timespec limit = {timeout_ms / 1000, (timeout_ms % 1000) * 1000000L};
    uint32_t *word;
    while ((word = connecting_word(handle)) != NULL) {
        long woken = syscall(SYS_futex, word, FUTEX_WAIT, CONNECTING,
                             timeout_ms < 0 ? NULL : &limit, NULL, 0);
        if (woken < 0 && errno == EINTR) return stop_waiting(handle, fd, -EINTR);
        if (woken < 0 && errno == ETIMEDOUT) return stop_waiting(handle, fd, -EINPROGRESS);
    }
    return WITH_SOCKET(handle, {
        s->waited_for = s->connect_open = false;
        result = connect_result(s);
    });
}
