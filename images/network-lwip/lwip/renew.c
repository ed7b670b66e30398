/* A TCP socket that connect(2) makes usable again: one whose connect has failed, or one that is
 * connected to AF_UNSPEC, which ends its connection.
 *
 * What such a socket's pair shows cannot be taken back (an error, a hang-up), so that the program
 * gets another pair in the place of its descriptor: a new socket with the options and the port
 * that the program gave to the old one. Descriptors that are copies of the old one stay what they
 * are, the ends of a socket that is gone. Called by the overlay's control.c and by tcp.c.
 */
#include "instance.h"

#include "lwip/priv/tcp_priv.h"

#include <errno.h>

/* The port is free again where the program did not choose it. */
void renew_forget_names(struct sock *s)
{
    address_any(s, &s->remote.ip);
    s->remote.port = 0;
    if (!s->port_given) {
        sock_unbound(s);
        s->local.port = 0;
    }
    if (!s->local_given) address_any(s, &s->local.ip);
}

static bool is_spent(const struct sock *s, bool disconnect)
{
    if (s->kind != KIND_TCP) return false;
    if (disconnect) return s->state != FRESH;
    return s->state == ENDED && s->connect_failed;
}

/* As tcp_disconnect of Linux: a peer that knows of the connection is told. */
static void end_connection(struct sock *s)
{
    struct tcp_pcb *pcb = s->tcp;
    s->tcp = NULL;
    if (pcb == NULL) return;
    tcp_arg(pcb, NULL);
    tcp_abandon(pcb, pcb->state != SYN_SENT);
}

static void take_names(struct sock *made, struct sock *s)
{
    if (!s->port_given || !s->bound) return;
    made->local = s->local;
    made->local_given = s->local_given;
    renew_forget_names(made);
    sock_unbound(s);
    sock_bound(made);
}

static void end(struct sock *s)
{
    if (s->state == ENDED) return; /* its names are kept a while, as of all that ended */
    if (s->state == LISTENING)
        listen_close(s);
    else
        end_connection(s);
    sock_free(s);
}

int renew_socket(cse_socket handle, int fd, bool disconnect, cse_socket *made)
{
    sigset_t saved;
    int result = 0;
    instance_lock(&saved);
    struct sock *s = sock_get(handle), *fresh = NULL;
    if (s == NULL) {
        result = -EBADF;
    } else if (is_spent(s, disconnect)) {
        fresh = sock_new(KIND_TCP, s->family);
        result = fresh != NULL ? sock_make_pair(fresh, 0) : -ENOBUFS;
        if (fresh != NULL && result < 0) sock_free(fresh);
    }
    if (result > 0) {
        bool connection = s->state == CONNECTED || s->state == CONNECTING;
        sock_copy_options(fresh, s);
        take_names(fresh, s);
        if (connection) fresh->error = ECONNRESET;
        me.ends[fresh->index].program_fd = fd;
        *made = sock_handle(fresh);
        end(s);
    }
    instance_unlock(&saved);
    return result;
}
