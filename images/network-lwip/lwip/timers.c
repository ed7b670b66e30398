/* TCP's timers. Each connection is in a wheel by the time of the earliest thing that it waits for;
 * lwIP calls tcp_timer_update after whatever may have made one earlier, clock.c runs what is due.
 *
 * A deadline that moves further away is not moved in the wheel (each ACK moves that of the
 * retransmission): the entry fires, finds nothing due, and goes where it belongs by then. The wheel
 * has four levels of 64 slots, of 1, 64, 4,096 and 262,144 ms; what is later waits in the last.
 */
#include "instance.h"

#include "lwip/priv/tcp_priv.h"

enum {
    SLOTS = 64,
    RETRIES = 15, /* Linux: tcp_retries2, tcp_synack_retries, tcp_orphan_retries */
    SYNACK_RETRIES = 5,
    ORPHAN_RETRIES = 8,
    PERSIST_BACKOFF_MAX = 10,
    RTO_MOST_MS = 120000,
    RETRY_MS = 50, /* after an output that failed: no memory, no route */
    HELD_MS = 200, /* unsent data that nothing else will send: TCP_CORK */
    NEVER = INT32_MAX,
};

/* ---- the wheel ------------------------------------------------------------------------------- */

static void wheel_insert(struct tcp_pcb *pcb)
{
    uint32_t ahead = pcb->timer_due - tcp_timer_now;
    int level = 0;
    while (level < TCP_TIMER_LEVELS - 1 && ahead >= 1u << 6 * (level + 1)) level++;
    uint32_t most = (1u << 6 * TCP_TIMER_LEVELS) - 1;
    uint32_t due = ahead > most ? tcp_timer_now + most : pcb->timer_due;
    uint32_t slot = due >> 6 * level & (SLOTS - 1);
    struct tcp_pcb **head = &tcp_timer_wheel[level][slot];
    pcb->timer_prev = NULL;
    pcb->timer_next = *head;
    if (*head != NULL) (*head)->timer_prev = pcb;
    *head = pcb;
    pcb->timer_armed = 1;
    pcb->timer_level = (u8_t)level;
    pcb->timer_slot = (u8_t)slot;
    tcp_timer_used[level] |= UINT64_C(1) << slot;
}

static void wheel_remove(struct tcp_pcb *pcb)
{
    if (!pcb->timer_armed) return;
    struct tcp_pcb **head = &tcp_timer_wheel[pcb->timer_level][pcb->timer_slot];
    if (pcb->timer_next != NULL) pcb->timer_next->timer_prev = pcb->timer_prev;
    if (pcb->timer_prev != NULL)
        pcb->timer_prev->timer_next = pcb->timer_next;
    else
        *head = pcb->timer_next;
    if (*head == NULL) tcp_timer_used[pcb->timer_level] &= ~(UINT64_C(1) << pcb->timer_slot);
    pcb->timer_armed = 0;
}

/* How many ms after tcp_timer_now the wheel has something to do; NEVER if it is empty. */
static int32_t wheel_next(void)
{
    int32_t soonest = NEVER;
    for (int level = 0; level < TCP_TIMER_LEVELS; level++) {
        uint64_t used = tcp_timer_used[level];
        if (used == 0) continue;
        uint32_t at = tcp_timer_now >> 6 * level, turn = (at + 1) & (SLOTS - 1);
        uint64_t turned = turn == 0 ? used : used >> turn | used << (SLOTS - turn);
        uint32_t slot_begins = at + 1 + (uint32_t)__builtin_ctzll(turned);
        int32_t ahead = (int32_t)((slot_begins << 6 * level) - tcp_timer_now);
        if (ahead < soonest) soonest = ahead;
    }
    return soonest;
}

int32_t tcp_timer_wait(void)
{
    int32_t ahead = wheel_next();
    if (ahead == NEVER) return -1;
    int32_t left = (int32_t)(tcp_timer_now + (uint32_t)ahead - sys_now());
    return left > 0 ? left : 0;
}

static void fire(struct tcp_pcb *pcb);
static bool turning; /* tcp_timer_now is the slot under way */

/* Moves the wheel to the next time at which it has something to do, and does that. */
static void turn(int32_t ahead)
{
    tcp_timer_now += (uint32_t)ahead;
    for (int level = TCP_TIMER_LEVELS - 1; level > 0; level--) {
        if ((tcp_timer_now & ((1u << 6 * level) - 1)) != 0) continue;
        struct tcp_pcb **head = &tcp_timer_wheel[level][tcp_timer_now >> 6 * level & (SLOTS - 1)];
        for (struct tcp_pcb *pcb = *head, *next; pcb != NULL; pcb = next) {
            next = pcb->timer_next;
            wheel_remove(pcb);
            wheel_insert(pcb);
        }
    }
    struct tcp_pcb **head = &tcp_timer_wheel[0][tcp_timer_now & (SLOTS - 1)];
    turning = true;
    while (*head != NULL) {
        struct tcp_pcb *pcb = *head;
        wheel_remove(pcb);
        fire(pcb); /* arms at least 1 ms ahead: never this slot again */
    }
    turning = false;
}

void tcp_timer_run(void)
{
    uint32_t now = sys_now();
    for (;;) {
        int32_t ahead = wheel_next();
        if (ahead == NEVER || ahead > (int32_t)(now - tcp_timer_now)) break;
        turn(ahead);
    }
    tcp_timer_now = now;
}

/* ---- what a connection waits for ------------------------------------------------------------- */

static int32_t left(uint32_t now, uint32_t since, uint32_t interval)
{
    uint32_t past = now - since;
    return past >= interval ? 0 : (int32_t)(interval - past);
}

static int32_t until(uint32_t now, uint32_t when)
{
    int32_t ahead = (int32_t)(when - now);
    return ahead > 0 ? ahead : 0;
}

static uint32_t persist_interval(const struct tcp_pcb *pcb)
{
    uint32_t interval = tcp_rto_of(pcb) << (pcb->persist_backoff - 1);
    return interval < RTO_MOST_MS ? interval : RTO_MOST_MS;
}

static bool keeps_alive(const struct tcp_pcb *pcb)
{
    return ip_get_option(pcb, SOF_KEEPALIVE) && pcb->unacked == NULL && pcb->unsent == NULL &&
           (pcb->state == ESTABLISHED || pcb->state == CLOSE_WAIT);
}

static uint32_t keepalive_interval(const struct tcp_pcb *pcb)
{
    return pcb->keep_idle + pcb->keep_cnt_sent * pcb->keep_intvl;
}

static bool output_failed(const struct tcp_pcb *pcb)
{
    return pcb->refused_data != NULL || (pcb->flags & (TF_CLOSEPEND | TF_NAGLEMEMERR)) != 0;
}

/* ---- output that failed: no memory, no route, a way that is blocked ----------------------------
 */

static void unlist_retry(struct tcp_pcb *pcb)
{
    if (!pcb->retry_listed) return;
    if (pcb->retry_next != NULL) pcb->retry_next->retry_prev = pcb->retry_prev;
    if (pcb->retry_prev != NULL)
        pcb->retry_prev->retry_next = pcb->retry_next;
    else
        tcp_retry_pcbs = pcb->retry_next;
    pcb->retry_listed = 0;
}

static void list_retry(struct tcp_pcb *pcb)
{
    if (pcb->retry_listed) return;
    pcb->retry_prev = NULL;
    pcb->retry_next = tcp_retry_pcbs;
    if (tcp_retry_pcbs != NULL) tcp_retry_pcbs->retry_prev = pcb;
    tcp_retry_pcbs = pcb;
    pcb->retry_listed = 1;
}

/* A way out is open again. */
void tcp_txnow(void)
{
    struct tcp_pcb *last = NULL;
    while (tcp_retry_pcbs != NULL && tcp_retry_pcbs != last) {
        struct tcp_pcb *pcb = tcp_retry_pcbs;
        unlist_retry(pcb);
        tcp_output(pcb);
        if (pcb->retry_listed && last == NULL) last = pcb; /* blocked again: enough */
    }
}

void tcp_timer_forget(struct tcp_pcb *pcb)
{
    wheel_remove(pcb);
    unlist_retry(pcb);
}

/* ms until the earliest, or NEVER. */
static int32_t time_left(const struct tcp_pcb *pcb, uint32_t now)
{
    int32_t soonest = NEVER;
    if (pcb->state == CLOSED) return NEVER;
    if (pcb->state == TIME_WAIT) return left(now, pcb->tmr, 2 * TCP_MSL);
#define SOONER(ms)                                                                                 \
    do {                                                                                           \
        int32_t ms_ = (ms);                                                                        \
        if (ms_ < soonest) soonest = ms_;                                                          \
    } while (0)
    if (pcb->rtime >= 0) {
        SOONER(left(now, pcb->rto_start, pcb->rto));
        if (pcb->user_timeout != 0) SOONER(left(now, pcb->progress, pcb->user_timeout));
    }
    if (pcb->persist_backoff > 0) {
        SOONER(left(now, pcb->persist_start, persist_interval(pcb)));
        if (pcb->user_timeout != 0) SOONER(left(now, pcb->progress, pcb->user_timeout));
    }
    if (pcb->flags & TF_ACK_DELAY) SOONER(until(now, pcb->ack_due));
    if (output_failed(pcb)) SOONER(RETRY_MS);
    if (pcb->unsent != NULL && pcb->unacked == NULL && pcb->persist_backoff == 0) SOONER(HELD_MS);
    if (pcb->state == FIN_WAIT_2 && (pcb->flags & TF_RXCLOSED))
        SOONER(left(now, pcb->tmr, pcb->fin_wait_timeout));
    if (keeps_alive(pcb)) SOONER(left(now, pcb->tmr, keepalive_interval(pcb)));
#undef SOONER
    return soonest;
}

void tcp_timer_update(struct tcp_pcb *pcb)
{
    uint32_t now = sys_now();
    int32_t ahead = time_left(pcb, now);
    if (ahead == NEVER) return;
    if (pcb->flags & TF_NAGLEMEMERR) list_retry(pcb);
    if (ahead < 1) ahead = 1;
    if (pcb->timer_armed) {
        if ((int32_t)(now + (uint32_t)ahead - pcb->timer_due) >= 0) return;
        wheel_remove(pcb);
    }
    /* An empty wheel stands still, and so does one that nobody had to turn for long. */
    if (!turning && wheel_next() == NEVER) tcp_timer_now = now;
    pcb->timer_due = now + (uint32_t)ahead;
    wheel_insert(pcb);
}

/* ---- what is done then ----------------------------------------------------------------------- */

/* The connection is given up. */
static void drop(struct tcp_pcb *pcb, bool reset)
{
    void *arg = pcb->callback_arg;
    enum tcp_state state = pcb->state;
    u32_t seqno = pcb->snd_nxt, ackno = pcb->rcv_nxt;
    tcp_pcb_purge(pcb);
    TCP_RMV_ACTIVE(pcb);
    if (reset)
        tcp_rst(pcb, seqno, ackno, &pcb->local_ip, &pcb->remote_ip, pcb->local_port,
                pcb->remote_port);
    tcp_free(pcb);
    TCP_EVENT_ERR(state, NULL, arg, ERR_ABRT);
}

static uint32_t retries_allowed(const struct tcp_pcb *pcb)
{
    if (pcb->state == SYN_SENT) return pcb->syn_retries;
    if (pcb->state == SYN_RCVD) {
        const struct sock *listener = pcb->callback_arg;
        uint32_t deferred =
            pcb->deferred && listener != NULL ? (uint32_t)listener->defer_accept : 0;
        return deferred > SYNACK_RETRIES ? deferred : SYNACK_RETRIES;
    }
    return pcb->callback_arg == NULL ? ORPHAN_RETRIES : RETRIES;
}

/* False if the connection was dropped. */
static bool retransmit(struct tcp_pcb *pcb, uint32_t now)
{
    bool user_timeout = pcb->user_timeout != 0 && now - pcb->progress >= pcb->user_timeout;
    bool due = now - pcb->rto_start >= pcb->rto;
    if (user_timeout || (due && pcb->nrtx >= retries_allowed(pcb))) {
        drop(pcb, false);
        return false;
    }
    if (due) recovery_timeout(pcb);
    return true;
}

static bool probe_window(struct tcp_pcb *pcb, uint32_t now)
{
    bool due = now - pcb->persist_start >= persist_interval(pcb);
    /* Also if the peer answers the probes: its window is what makes no progress. */
    if ((due && pcb->persist_probe >= RETRIES) ||
        (pcb->user_timeout != 0 && now - pcb->progress >= pcb->user_timeout)) {
        drop(pcb, false);
        return false;
    }
    if (!due) return true;
    pcb->persist_start = now;
    if (pcb->snd_wnd == 0) {
        tcp_zero_window_probe(pcb);
        if (pcb->persist_backoff < PERSIST_BACKOFF_MAX) pcb->persist_backoff++;
    } else if (tcp_split_unsent_seg(pcb, (u16_t)LWIP_MIN(pcb->snd_wnd, 0xffff)) == ERR_OK) {
        tcp_output(pcb);
    }
    return true;
}

static bool keep_alive(struct tcp_pcb *pcb, uint32_t now)
{
    if (now - pcb->tmr < keepalive_interval(pcb)) return true;
    bool gone = pcb->user_timeout != 0
                    ? pcb->keep_cnt_sent > 0 && now - pcb->tmr >= pcb->user_timeout
                    : pcb->keep_cnt_sent >= pcb->keep_cnt;
    if (gone) {
        drop(pcb, true);
        return false;
    }
    if (tcp_keepalive(pcb) == ERR_OK) pcb->keep_cnt_sent++;
    return true;
}

static void send_delayed_ack(struct tcp_pcb *pcb)
{
    pcb->answers = 0;
    tcp_ack_now(pcb);
    tcp_output(pcb);
    tcp_clear_flags(pcb, TF_ACK_DELAY | TF_ACK_NOW);
}

static void fire(struct tcp_pcb *pcb)
{
    uint32_t now = sys_now();
    err_t ignored = ERR_OK;
    if (pcb->state == TIME_WAIT && now - pcb->tmr >= 2 * TCP_MSL) {
        tcp_pcb_remove(&tcp_tw_pcbs, pcb);
        tcp_free(pcb);
        return;
    }
    if (pcb->state != TIME_WAIT) {
        if ((pcb->flags & TF_ACK_DELAY) && (int32_t)(now - pcb->ack_due) >= 0)
            send_delayed_ack(pcb);
        if (pcb->flags & TF_CLOSEPEND) {
            tcp_clear_flags(pcb, TF_CLOSEPEND);
            tcp_close_shutdown_fin(pcb);
        }
        if (pcb->refused_data != NULL && tcp_process_refused_data(pcb) == ERR_ABRT) return;
        if (pcb->state == FIN_WAIT_2 && (pcb->flags & TF_RXCLOSED) &&
            now - pcb->tmr >= pcb->fin_wait_timeout) {
            drop(pcb, false);
            return;
        }
        if (pcb->rtime >= 0 && !retransmit(pcb, now)) return;
        if (pcb->persist_backoff > 0 && !probe_window(pcb, now)) return;
        if (keeps_alive(pcb) && !keep_alive(pcb, now)) return;
        if (output_failed(pcb) || (pcb->unsent != NULL && pcb->unacked == NULL)) {
            tcp_clear_flags(pcb, TF_CORK);
            TCP_EVENT_POLL(pcb, ignored);
            tcp_output(pcb);
        }
    }
    (void)ignored;
    tcp_timer_update(pcb);
}
