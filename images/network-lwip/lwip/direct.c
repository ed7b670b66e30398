/* Direct mode: the data path of a TCP socket without its pair, in the program's own thread.
 *
 * A connected socket starts in direct mode: what arrives stays in the arena until the overlay asks
 * for it (receive), what is sent goes to lwIP at once (transmit), and a thread that waits polls
 * the wires itself (turn), then sleeps on the instance's thread bell. The pair mirrors what is rare
 * at once (end of file, reset, close) and what is frequent late: data that nobody has fetched
 * after NEGLECT_MS is written into the pair, and the socket is relayed from then on, because
 * somebody may wait for it there by a call that no overlay sees. A relayed socket returns to direct
 * mode when this process alone holds it and its pair is empty in both directions.
 *
 * Called through stack.h by the overlay's stream.c, epoll.c and poll.c, and by tcp.c and pump.c.
 */
#include "direct.h"
#include "keeper.h"
#include "pump.h"
#include "wire.h"

#include "lwip/priv/tcp_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DEVICE_LOOKS = 2, TRY_AGAIN = 16, NEGLECTS_MAX = 5, FOR_GOOD = 6, TRY_AT_ONCE = 1 << 20 };

static struct process *self(void)
{
    return &instance->processes[me.slot];
}

/* ---- readiness ----------------------------------------------------------------------------- */

/* Bytes that the program may add before TCP_NOTSENT_LOWAT. */
static uint32_t unsent_room(const struct sock *s)
{
    uint32_t unsent = s->tcp->snd_lbb - s->tcp->snd_nxt;
    if (s->notsent_low == 0) return UINT32_MAX;
    return unsent < s->notsent_low ? s->notsent_low - unsent : 0;
}

static uint32_t compute(const struct sock *s)
{
    uint32_t mask = s->linger_on && s->linger_seconds > 0 ? CSE_LINGERS : 0;
    bool failed = s->state == ENDED && s->connect_failed;
    if (keeper_has(s)) mask |= CSE_SHARED;
    if (s->kind == KIND_TCP && (s->state == FRESH || s->state == LISTENING || failed))
        mask |= CSE_NOT_CONNECTED;
    /* What a pair cannot show. */
    if (s->kind == KIND_TCP && s->state == FRESH) mask |= EPOLLOUT | EPOLLWRNORM | EPOLLHUP;
    if (!s->direct) return mask | CSE_READY_RELAYED;
    if (s->state == LISTENING && s->queue_first != NULL) mask |= EPOLLIN | EPOLLRDNORM;
    if (s->state == LISTENING || s->state == CONNECTING) return mask;
    bool finished = s->fin_received || s->read_shut;
    if (s->rx_bytes >= s->receive_low || finished) mask |= EPOLLIN | EPOLLRDNORM;
    if (s->rx_bytes >= s->enough || finished) mask |= CSE_READY_ENOUGH;
    if (finished) mask |= EPOLLRDHUP;
    if (s->tcp == NULL || s->tx_eof ||
        (s->tcp->snd_buf > s->tcp->snd_most / 3 && s->tcp->snd_queuelen < TCP_SND_QUEUELEN / 2 &&
         unsent_room(s) > s->notsent_low / 2))
        mask |= EPOLLOUT | EPOLLWRNORM;
    if (s->fin_received && s->tx_eof) mask |= EPOLLHUP;
    return mask;
}

uint32_t direct_publish(struct sock *s)
{
    uint32_t mask = compute(s);
    s->told &= mask;
    __atomic_store_n(&instance->readiness[s->index], (uint64_t)s->generation << 32 | mask,
                     __ATOMIC_RELEASE);
    return mask;
}

/* Without the lock; a socket that is gone is left to its descriptor. */
uint32_t direct_readiness(cse_socket handle)
{
    uint32_t index = ((uint32_t)handle >> 1) - 1;
    if (index >= SOCKETS_MAX) return CSE_READY_RELAYED;
    uint64_t word = __atomic_load_n(&instance->readiness[index], __ATOMIC_ACQUIRE);
    return word >> 32 == handle >> 32 ? (uint32_t)word : CSE_READY_RELAYED;
}

/* ---- in and out of direct mode -------------------------------------------------------------- */

/* By the setting, or by an option that a pair cannot honour. */
static bool is_wanted(const struct sock *s)
{
    return instance->direct_mode || s->receive_low > 1 || s->notsent_low != 0;
}

/* A keeper waits for nothing. */
bool direct_held_here_alone(const struct sock *s)
{
    if (s->owner != me.slot || sock_end(s) < 0 || me.confined) return false;
    for (int word = 0; word < HOLDER_WORDS; word++) {
        uint64_t mine = me.slot / 64 == word ? UINT64_C(1) << (me.slot % 64) : 0;
        if ((s->holders[word] & ~mine & ~instance->keepers[word]) != 0) return false;
    }
    return true;
}

void direct_start(struct sock *s)
{
    if (s->kind != KIND_TCP || !is_wanted(s) || !direct_held_here_alone(s)) return;
    s->told = 0;
    s->direct = true;
    direct_publish(s);
}

/* The bytes that wait follow through the pair: sock_deliver is due. */
void direct_stop(struct sock *s)
{
    if (!s->direct) return;
    s->direct = false;
    s->relay_news = true;
    direct_publish(s);
    sock_notify(s);
}

/* In the owner, after that. */
void direct_tell_relayed(struct sock *s)
{
    if (!s->relay_news) return;
    s->relay_news = false;
    pump_watch(s);
    host->ready(sock_handle(s), CSE_READY_RELAYED);
}

static int bytes_in(int fd)
{
    int bytes = 0;
    return syscall(SYS_ioctl, fd, FIONREAD, &bytes) == 0 ? bytes : -1;
}

/* Nothing is on its way in the pair, and no other process could be waiting there. */
static bool may_start(const struct sock *s, int fd)
{
    if (!is_wanted(s) || s->hang_up || s->relay_news || !direct_held_here_alone(s)) return false;
    if (s->state == LISTENING) return s->tokens == 0 && bytes_in(fd) == 0;
    if (s->state != CONNECTED || s->tx_eof || s->stash != NULL || s->junk != 0 || s->reset_wanted ||
        s->rx_first != NULL || s->fin_delivered || s->tcp == NULL)
        return false;
    return bytes_in(fd) == 0 && bytes_in(sock_end(s)) == 0;
}

/* At once where the pair is empty, else with a call to come. */
void direct_wish(struct sock *s)
{
    const struct end *end = &me.ends[s->index];
    struct stat status;
    if (s->direct || s->neglects == FOR_GOOD || s->state != CONNECTED) return;
    s->relayed_calls = TRY_AT_ONCE;
    if (sock_end(s) < 0 || fstat(end->program_fd, &status) != 0 || status.st_ino != s->inode ||
        !may_start(s, end->program_fd))
        return;
    direct_start(s);
    host->ready(sock_handle(s), instance->readiness[s->index] & UINT32_MAX);
}

/* True if the socket is in direct mode, or could be brought back to it. */
static bool usable(struct sock *s, int fd)
{
    if (!s->direct) {
        if (s->neglects == FOR_GOOD || ++s->relayed_calls < (uint32_t)TRY_AGAIN << 2 * s->neglects)
            return false;
        s->relayed_calls = 0;
        if (!may_start(s, fd)) return false;
        direct_start(s);
        host->ready(sock_handle(s), instance->readiness[s->index] & UINT32_MAX);
    }
    if (s->owner == me.slot) return true;
    if (sock_end(s) < 0) { /* it came here by exec or over a socket: its owner pumps it */
        direct_stop(s);
        return false;
    }
    s->owner = me.slot; /* its news go to whoever uses it */
    pump_watch(s);
    return true;
}

bool direct_listens(struct sock *s, int fd)
{
    if (!usable(s, fd)) return false;
    s->unread_ms = clock_us() / 1000;
    if (s->queue_first == NULL) direct_turn();
    return s->direct;
}

/* ---- data ----------------------------------------------------------------------------------- */

/* Copies what waits into the program's buffers; the number of bytes. */
static size_t copy_out(const struct sock *s, const struct iovec *parts, int count)
{
    size_t done = 0, at = 0;
    int part = 0;
    uint32_t skip = s->rx_offset;
    for (struct chunk *chunk = s->rx_first; chunk != NULL; chunk = chunk->next)
        for (struct pbuf *p = chunk->packet; p != NULL; p = p->next) {
            if (skip >= p->len) {
                skip -= p->len;
                continue;
            }
            const char *from = (const char *)p->payload + skip;
            size_t left = p->len - skip;
            skip = 0;
            while (left > 0) {
                while (part < count && at == parts[part].iov_len) part++, at = 0;
                if (part >= count) return done;
                size_t piece = LWIP_MIN(left, parts[part].iov_len - at);
                memcpy((char *)parts[part].iov_base + at, from, piece);
                from += piece, left -= piece, at += piece, done += piece;
            }
        }
    return done;
}

/* Not even what a call that may wait would be content with, which SO_RCVLOWAT and its buffer say:
 * readiness is told by that, too. */
static bool is_too_little(struct sock *s, size_t wanted)
{
    uint32_t enough = (uint32_t)LWIP_MIN(wanted, s->receive_low);
    if (s->rx_bytes >= enough || s->fin_received || s->read_shut) return false;
    if (s->enough != enough) {
        s->enough = enough;
        direct_publish(s);
    }
    return true;
}

static ssize_t take(struct sock *s, const struct iovec *parts, int count, int flags)
{
    size_t wanted = 0;
    for (int i = 0; i < count; i++) wanted += parts[i].iov_len;
    bool too_little = !(flags & MSG_DONTWAIT) && is_too_little(s, wanted);
    if (s->rx_first == NULL) {
        if (s->fin_received || s->read_shut) return 0;
        return wanted == 0 ? 0 : -EAGAIN;
    }
    if (too_little) return CSE_FEW;
    size_t got = flags & MSG_TRUNC ? LWIP_MIN(wanted, s->rx_bytes) : copy_out(s, parts, count);
    if (!(flags & MSG_PEEK)) tcp_consume(s, got);
    return (ssize_t)got;
}

/* Bytes for this socket come by memory, which a spinning thread sees; a device wakes a sleeper. */
static bool comes_by_memory(const struct sock *s)
{
    if (s->tcp == NULL) return false;
    return wire_is_up(&s->tcp->remote_ip) || ip_addr_isloopback(&s->tcp->remote_ip);
}

/* A turn that looks at the device, too, without having been told of anything there. A thread whose
 * connection is busy finds what it would sleep for, and spares the pump the wake (direct_finds). */
static bool turn_for(const struct sock *s)
{
    bool found = false;
    if (!comes_by_memory(s) && !me.device_ready) {
        uint64_t before = instance->rx_packets;
        device_read(DEVICE_LOOKS);
        found = instance->rx_packets != before;
        instance->device_finds += found;
    }
    return direct_turn() || found;
}

ssize_t direct_receive(cse_socket handle, int fd, const struct iovec *parts, int count, int flags)
{
    sigset_t saved;
    ssize_t result = CSE_RELAYED;
    instance_lock(&saved);
    struct sock *s = sock_get(handle);
    if (s != NULL && usable(s, fd)) {
        s->unread_ms = clock_us() / 1000;
        if (s->rx_first == NULL) turn_for(s);
        /* What came may have been a reset: then the descriptor tells it. */
        if (instance->sockets[s->index] == s && s->direct && !s->reset_wanted) {
            result = take(s, parts, count, flags);
            if (result >= 0) direct_deliver(s);
        }
    }
    bool spins = result == -EAGAIN && (flags & CSE_SPIN_NEXT) && comes_by_memory(s);
    if (result == -EAGAIN && (flags & CSE_SPIN_NEXT) && !spins) result = CSE_SLEEP;
    if (result != CSE_RELAYED) s->awaited = spins;
    if (spins != ((flags & CSE_SPUN) != 0)) direct_spin(spins);
    instance_unlock(&saved);
    return result;
}

static ssize_t put(struct sock *s, const struct iovec *parts, int count, bool more)
{
    struct tcp_pcb *pcb = s->tcp;
    size_t done = 0;
    for (int i = 0; i < count; i++) {
        const char *from = parts[i].iov_base;
        size_t left = parts[i].iov_len;
        while (left > 0) {
            size_t room = LWIP_MIN(pcb->snd_buf, unsent_room(s));
            u16_t piece = (u16_t)LWIP_MIN(left, LWIP_MIN(room, 0xffff));
            u8_t flags = TCP_WRITE_FLAG_COPY | (left > piece || more ? TCP_WRITE_FLAG_MORE : 0);
            if (piece == 0 || tcp_write(pcb, from, piece, flags) != ERR_OK) goto full;
            from += piece, left -= piece, done += piece;
        }
    }
full:
    if (done > 0) tcp_push(s, more || s->cork);
    return done > 0 ? (ssize_t)done : -EAGAIN;
}

/* The sender takes its acknowledgements, so that the memory of what has arrived is used again while
 * it is in the processor's cache. False if the socket is not to be used any more. */
static bool acknowledged(struct sock *s)
{
    uint32_t index = s->index;
    if (s->tcp != NULL && s->tcp->snd_buf < s->tcp->snd_most) turn_for(s);
    return instance->sockets[index] == s && s->direct;
}

ssize_t direct_transmit(cse_socket handle, int fd, const struct iovec *parts, int count, int flags)
{
    sigset_t saved;
    ssize_t result = CSE_RELAYED;
    size_t wanted = 0;
    for (int i = 0; i < count; i++) wanted += parts[i].iov_len;
    instance_lock(&saved);
    struct sock *s = sock_get(handle);
    if (s != NULL && s->small_pair && s->state == CONNECTED) pair_widen(s, fd);
    if (s != NULL && s->direct && s->state == CONNECTING) result = -EAGAIN;
    if (s != NULL && usable(s, fd) && acknowledged(s) && !s->reset_wanted &&
        s->state == CONNECTED) {
        if (s->tx_eof || s->tcp == NULL)
            result = -EPIPE;
        else if (wanted == 0)
            result = 0;
        else
            result = put(s, parts, count, (flags & MSG_MORE) != 0);
        if (result == -EAGAIN && turn_for(s) && instance->sockets[s->index] == s &&
            s->tcp != NULL && s->direct)
            result = put(s, parts, count, (flags & MSG_MORE) != 0);
        if (instance->sockets[s->index] == s) direct_publish(s);
    }
    instance_unlock(&saved);
    return result;
}

/* The program's half-close, without waiting for the pump to see it at the pair. */
void direct_half_close(struct sock *s)
{
    uint32_t generation = s->generation;
    s->tx_ready = true;
    tcp_take(s); /* what was written past us goes first */
    if (instance->generations[s->index] != generation || s->tx_eof) return;
    tcp_half_close(s);
    direct_publish(s);
}

void direct_relay(cse_socket handle)
{
    sigset_t saved;
    instance_lock(&saved);
    struct sock *s = sock_get(handle);
    if (s != NULL) {
        s->neglects = FOR_GOOD;
        direct_stop(s);
    }
    instance_unlock(&saved);
}

/* There is something that the program has not fetched. */
static bool waits_here(const struct sock *s)
{
    if (s->state == LISTENING) return s->queue_first != NULL;
    return s->rx_first != NULL && (s->rx_bytes >= s->receive_low || s->fin_received);
}

/* The peer has finished, and the program has read what came before. */
void direct_mirror_end(struct sock *s)
{
    int fd = sock_end(s);
    if (s->rx_first != NULL || !s->fin_received || s->fin_delivered || fd < 0) return;
    s->fin_delivered = true;
    syscall(SYS_shutdown, fd, SHUT_WR);
}

/* In the owner, from sock_deliver: what the pair mirrors, and who waits is told. */
void direct_deliver(struct sock *s)
{
    if (!s->fresh) direct_mirror_end(s);
    uint32_t mask = direct_publish(s) & ~(CSE_LINGERS | CSE_NOT_CONNECTED | CSE_SHARED);
    uint32_t news = mask & ~s->told;
    s->told = mask;
    if (s->rx_news) news |= mask & (EPOLLIN | EPOLLRDNORM | CSE_READY_ENOUGH);
    s->rx_news = false;
    bool awaited = (news != 0 && host->ready(sock_handle(s), mask)) || s->awaited;
    if (waits_here(s) && !s->unread && !awaited) {
        s->unread = true;
        s->unread_ms = clock_us() / 1000;
        s->unread_by = me.slot;
        s->unread_next = self()->unread;
        self()->unread = s;
    }
}

/* What lies in the arena for long, and is not asked for by calls that we see, may be waited for by
 * others. */
void direct_look_for_neglect(void)
{
    struct sock *s = self()->unread;
    uint64_t now = clock_us() / 1000;
    self()->unread = NULL;
    while (s != NULL) {
        struct sock *next = s->unread_next;
        s->unread = s->direct && waits_here(s) && now < s->unread_ms + NEGLECT_MS;
        if (s->unread) {
            s->unread_next = self()->unread;
            self()->unread = s;
        } else if (waits_here(s) && s->direct) {
            if (s->neglects < NEGLECTS_MAX) s->neglects++;
            direct_stop(s);
        }
        s = next;
    }
}

/* A socket is about to go. */
void direct_forget(struct sock *s)
{
    if (!s->unread) return;
    struct sock **at = &instance->processes[s->unread_by].unread;
    while (*at != NULL && *at != s) at = &(*at)->unread_next;
    if (*at == s) *at = s->unread_next;
    s->unread = false;
}
