/* Tuning: settings that change while the program runs, also for connections that are open.
 *
 * The broker's `set key=value …`, which may come twice and in parts. What a program has set for a
 * socket of its own (setsockopt) stays: a socket follows the setting while it has the setting's
 * former value. Values were checked against element.json; they are clamped here all the same.
 * Called by pump.c, under the lock.
 */
#include "instance.h"
#include "wire.h"

#include "lwip/priv/nd6_priv.h"
#include "lwip/priv/tcp_priv.h"

#include <stdlib.h>

/* False where the message does not have the key. */
static bool number(const char *text, const char *key, long *out)
{
    char value[32], *end;
    if (!host->message_field(text, key, value, sizeof value)) return false;
    *out = strtol(value, &end, 10);
    if (end == value || *end != '\0') return false;
    *out = setting_clamped(key, *out);
    return true;
}

/* ---- sockets ------------------------------------------------------------------------------- */

static void tune_ttl(long ttl)
{
    uint8_t former = (uint8_t)instance->default_ttl;
    instance->default_ttl = (int)ttl;
    for (uint32_t i = 0; i < instance->socket_top; i++) {
        struct sock *s = instance->sockets[i];
        if (s == NULL) continue;
        if (s->hops == former) s->hops = (uint8_t)ttl;
        if (s->ttl != former) continue;
        s->ttl = (uint8_t)ttl;
        if (s->kind == KIND_TCP) tcp_apply_options(s);
    }
}

/* One of the three numbers of keepalive, at the same place in every socket. */
static void tune_keepalive(int *setting, size_t place, long value)
{
    int former = *setting;
    *setting = (int)value;
    for (uint32_t i = 0; i < instance->socket_top; i++) {
        struct sock *s = instance->sockets[i];
        int *own = s != NULL ? (int *)((char *)s + place) : NULL;
        if (own == NULL || s->kind != KIND_TCP || *own != former) continue;
        *own = (int)value;
        tcp_apply_options(s);
    }
}

/* ---- connections --------------------------------------------------------------------------- */

/* Smaller segments at once; larger ones with the next connection: what the peer takes was agreed.
 */
static void tune_mss(long mss)
{
    instance_set_mss(mss);
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        if (pcb->mss > cse_tcp_mss) pcb->mss = (u16_t)cse_tcp_mss;
}

/* As with the MSS; what the peer's family, route and wire make of it is lwIP's to say. */
static void tune_mtu(long mtu)
{
    instance->mtu = (uint16_t)LWIP_MIN(mtu, instance->largest_mtu);
    instance->tap->mtu = instance->mtu;
    for (int i = 0; i < LWIP_ND6_NUM_DESTINATIONS; i++)
        destination_cache[i].pmtu = 0; /* the device's, until a router says less */
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        pcb->mss = tcp_eff_send_mss(pcb->mss, &pcb->local_ip, &pcb->remote_ip);
}

/* Of the sockets that did not set their own; in a handshake the argument is the listener. */
static bool follows(const struct tcp_pcb *pcb, bool receive)
{
    const struct sock *s = pcb->callback_arg;
    return s == NULL || !(receive ? s->receive_fixed : s->send_fixed);
}

/* The limit comes down at once, and up as there is demand. */
static void tune_receive_buffer(long bytes)
{
    instance->receive_buffer = (int)bytes;
    cse_tcp_window = (uint32_t)bytes;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        if (follows(pcb, true) && pcb->rcv_most > cse_tcp_window && pcb->state >= ESTABLISHED)
            buffers_receive_most(pcb, cse_tcp_window);
}

static void tune_send_buffer(long bytes)
{
    instance->send_buffer = (int)bytes;
    cse_tcp_send_buffer = (uint32_t)bytes;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        if (follows(pcb, false) && pcb->snd_most > cse_tcp_send_buffer)
            buffers_send_most(pcb, cse_tcp_send_buffer);
}

static void tune_connections(const char *text)
{
    long value;
    char name[32];
    if (number(text, "mtu", &value)) tune_mtu(value);
    if (number(text, "mss", &value)) tune_mss(value);
    if (number(text, "receive_buffer", &value)) tune_receive_buffer(value);
    if (number(text, "send_buffer", &value)) tune_send_buffer(value);
    if (number(text, "initial_window", &value)) cse_tcp_initial_window = (uint32_t)value;
    if (number(text, "delayed_ack", &value)) cse_tcp_delayed_ack_ms = (uint32_t)value;
    if (number(text, "rto_min", &value)) cse_tcp_rto_least_us = (uint32_t)value * 1000;
    if (host->message_field(text, "congestion", name, sizeof name) && congestion_find(name) >= 0)
        cse_tcp_congestion = (uint32_t)congestion_find(name);
}

void tune_apply(const char *text)
{
    long value;
    if (number(text, "ttl", &value)) tune_ttl(value);
    if (number(text, "keepalive.idle", &value))
        tune_keepalive(&instance->keep_idle, offsetof(struct sock, keep_idle), value);
    if (number(text, "keepalive.interval", &value))
        tune_keepalive(&instance->keep_interval, offsetof(struct sock, keep_interval), value);
    if (number(text, "keepalive.probes", &value))
        tune_keepalive(&instance->keep_count, offsetof(struct sock, keep_count), value);
    if (number(text, "spin", &value)) instance->spin_us = (uint32_t)value;
    tune_connections(text);
}
