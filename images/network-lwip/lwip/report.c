/* Reports: sockets, faults and counters of this instance, written as lines into a file the agent
 * gives.
 *
 * Asked for by `report id=N what=… serial=…` with a memfd; `reported id=N bytes=…` answers. Lines
 * are words `key=value` like the broker's messages. The leader answers, for all processes: it lists
 * every connection of the stack, also those without a program (TIME_WAIT, closed and still
 * sending).
 */
#include "core.h"
#include "instance.h"

#include "lwip/priv/tcp_priv.h"
#include "lwip/stats.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BUFFER = 32768, LINE_MAX_BYTES = 640 };

static struct {
    int fd;
    size_t used, written;
    bool failed;
    char bytes[BUFFER];
} sheet;

static void flush(void)
{
    size_t done = 0;
    while (done < sheet.used && !sheet.failed) {
        long put = syscall(SYS_pwrite64, sheet.fd, sheet.bytes + done, sheet.used - done,
                           (long)sheet.written);
        if (put <= 0) sheet.failed = true; /* the file is sealed at its size: enough */
        if (put > 0) done += (size_t)put, sheet.written += (size_t)put;
    }
    sheet.used = 0;
}

__attribute__((format(printf, 1, 2))) static void line(const char *format, ...)
{
    if (sheet.used + LINE_MAX_BYTES > BUFFER) flush();
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(sheet.bytes + sheet.used, LINE_MAX_BYTES - 1, format, arguments);
    va_end(arguments);
    if (length < 0) return;
    sheet.used += length < LINE_MAX_BYTES - 1 ? (size_t)length : LINE_MAX_BYTES - 2;
    sheet.bytes[sheet.used++] = '\n';
}

/* ---- sockets ------------------------------------------------------------------------------- */

static const char *const state_names[] = {"CLOSED",  "LISTEN",     "SYN-SENT",   "SYN-RECV",
                                          "ESTAB",   "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT",
                                          "CLOSING", "LAST-ACK",   "TIME-WAIT"};

/* What lies in the pair and was not read by the program; known where the leader holds both ends. */
static uint32_t unread_in_pair(const struct sock *s)
{
    const struct end *end = &me.ends[s->index];
    struct stat status;
    int waiting = 0;
    if (sock_end(s) < 0 || end->program_fd <= 0 || fstat(end->program_fd, &status) != 0 ||
        status.st_ino != s->inode || s->kind != KIND_TCP)
        return 0;
    return syscall(SYS_ioctl, end->program_fd, FIONREAD, &waiting) == 0 ? (uint32_t)waiting : 0;
}

static int owner_pid(const struct sock *s)
{
    return s != NULL && s->owner != NO_PROCESS ? instance->processes[s->owner].pid : 0;
}

static void owner_words(const struct sock *s, char *out, size_t size)
{
    char path[40], name[20] = "";
    int pid = owner_pid(s);
    out[0] = '\0';
    if (pid == 0) return;
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    long got = fd >= 0 ? syscall(SYS_read, fd, name, sizeof name - 1) : 0;
    if (fd >= 0) syscall(SYS_close, fd);
    if (got > 0) name[got - 1] = '\0';
    for (char *c = name; *c != '\0'; c++)
        if (*c <= ' ' || *c == '%' || *c > '~') *c = '_';
    snprintf(out, size, " pid=%d program=%s", pid, name);
}

static void address_words(char *out, size_t size, const ip_addr_t *address, uint16_t port)
{
    char text[48];
    ipaddr_ntoa_r(address, text, sizeof text);
    snprintf(out, size, strchr(text, ':') != NULL ? "[%s]:%u" : "%s:%u", text, port);
}

static void tell_connection(const struct tcp_pcb *pcb)
{
    const struct sock *s = pcb->callback_arg;
    char local[64], peer[64], owner[64];
    address_words(local, sizeof local, &pcb->local_ip, pcb->local_port);
    address_words(peer, sizeof peer, &pcb->remote_ip, pcb->remote_port);
    owner_words(s, owner, sizeof owner);
    uint64_t unread = s != NULL ? s->rx_bytes + unread_in_pair(s) : 0;
    uint64_t unsent = s != NULL && s->stash != NULL ? s->stash_length - s->stash_offset : 0;
    uint32_t queued = pcb->state >= ESTABLISHED ? pcb->snd_lbb - pcb->lastack : 0;
    line("socket kind=tcp state=%s recvq=%lu sendq=%lu local=%s peer=%s%s mss=%u cwnd=%lu "
         "ssthresh=%lu rtt_ms=%.3f rto_ms=%lu retransmits=%u send_window=%lu receive_window=%lu",
         state_names[pcb->state], unread, unsent + queued, local, peer, owner, pcb->mss,
         (unsigned long)pcb->cwnd, (unsigned long)pcb->ssthresh, pcb->srtt / 8e3,
         (unsigned long)pcb->rto, pcb->nrtx, (unsigned long)pcb->snd_wnd,
         (unsigned long)pcb->rcv_wnd);
}

static void tell_listener(const struct tcp_pcb_listen *pcb)
{
    const struct sock *s = pcb->callback_arg;
    char local[64], owner[64];
    address_words(local, sizeof local, &pcb->local_ip, pcb->local_port);
    owner_words(s, owner, sizeof owner);
    line("socket kind=tcp state=LISTEN recvq=%u sendq=%u local=%s peer=*:*%s",
         s != NULL ? s->queued : 0, s != NULL ? s->backlog : 0, local, owner);
}

static void tell_datagrams(const struct udp_pcb *pcb, const struct sock *s)
{
    char local[64], peer[64] = "*:*", owner[64];
    address_words(local, sizeof local, &pcb->local_ip, pcb->local_port);
    if (pcb->flags & UDP_FLAGS_CONNECTED)
        address_words(peer, sizeof peer, &pcb->remote_ip, pcb->remote_port);
    owner_words(s, owner, sizeof owner);
    line("socket kind=udp state=%s recvq=%lu sendq=0 local=%s peer=%s%s",
         pcb->flags & UDP_FLAGS_CONNECTED ? "ESTAB" : "UNCONN", s->rx_bytes, local, peer, owner);
}

static void tell_sockets(void)
{
    for (struct tcp_pcb_listen *pcb = tcp_listen_pcbs.listen_pcbs; pcb != NULL; pcb = pcb->next)
        tell_listener(pcb);
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next) tell_connection(pcb);
    for (struct tcp_pcb *pcb = tcp_tw_pcbs; pcb != NULL; pcb = pcb->next) tell_connection(pcb);
    for (uint32_t i = 0; i < instance->socket_top; i++) {
        const struct sock *s = instance->sockets[i];
        if (s != NULL && s->kind == KIND_UDP && s->udp != NULL) tell_datagrams(s->udp, s);
    }
}

/* ---- counters and faults ------------------------------------------------------------------- */

static uint32_t established(void)
{
    uint32_t count = 0;
    for (const struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        count += pcb->state == ESTABLISHED || pcb->state == CLOSE_WAIT;
    return count;
}

size_t report_counters(char *out, size_t size)
{
    const struct stats_mib2 *m = &lwip_stats.mib2;
    const struct wires *w = &instance->wires;
    int length = snprintf(
        out, size,
        "counters rx_packets=%lu tx_packets=%lu rx_bytes=%lu tx_bytes=%lu rx_dropped=%lu "
        "tx_dropped=%lu checksum_errors=%lu sockets=%u established=%u tcp_connected=%u "
        "tcp_accepted=%u tcp_failed=%u tcp_resets_received=%u tcp_resets_sent=%u "
        "tcp_segments_in=%u "
        "tcp_segments_out=%u tcp_retransmits=%u tcp_errors=%u udp_in=%u udp_out=%u udp_no_port=%u "
        "udp_errors=%u heap_bytes=%lu wire_rx_packets=%lu wire_tx_packets=%lu wire_rx_bytes=%lu "
        "wire_tx_bytes=%lu wire_spoofed=%lu wire_errors=%lu wires=%u",
        instance->rx_packets, instance->tx_packets, instance->rx_bytes, instance->tx_bytes,
        instance->rx_dropped, instance->tx_dropped, instance->checksum_errors,
        instance->sockets_live, established(), m->tcpactiveopens, m->tcppassiveopens,
        m->tcpattemptfails, m->tcpestabresets, m->tcpoutrsts, m->tcpinsegs, m->tcpoutsegs,
        m->tcpretranssegs, m->tcpinerrs, m->udpindatagrams, m->udpoutdatagrams, m->udpnoports,
        m->udpinerrors, heap_used(), w->rx_packets, w->tx_packets, w->rx_bytes, w->tx_bytes,
        w->spoofed, w->errors, w->up);
    if (length <= 0 || (size_t)length >= size) return 0;
    if (instance->uses_ring) {
        ring_count();
        length += snprintf(out + length, size - (size_t)length,
                           " ring_packets=%lu ring_dropped=%lu ring_large=%lu filters_attached=%lu",
                           instance->ring_packets, instance->ring_dropped, instance->ring_large,
                           instance->filters_attached);
    }
    return (size_t)length < size ? (size_t)length : 0;
}

static void tell_faults(void)
{
    char text[LINE_MAX_BYTES - 2];
    for (int i = 0; i < FAULTS_MAX; i++) {
        const struct fault *f = &instance->instruments.faults[i];
        if (f->id[0] == '\0' || f->ended) continue;
        fault_report(f, text, sizeof text);
        line("%s", text);
    }
}

/* One write may meet a program that was stopped for long: the file is the agent's, it waits. */
void report_hear(const char *text, int fd)
{
    char what[16], id[24], answer[96];
    if (!host->message_field(text, "what", what, sizeof what) ||
        !host->message_field(text, "id", id, sizeof id))
        return;
    sheet.fd = fd;
    sheet.used = sheet.written = 0;
    sheet.failed = false;
    if (strcmp(what, "sockets") == 0) {
        tell_sockets();
    } else if (strcmp(what, "faults") == 0) {
        tell_faults();
    } else if (strcmp(what, "counters") == 0) {
        sheet.used = report_counters(sheet.bytes, BUFFER - 1);
        sheet.bytes[sheet.used++] = '\n';
    }
    flush();
    snprintf(answer, sizeof answer, "reported id=%s bytes=%zu", id, sheet.written);
    host->broker_send(me.broker, answer, NULL, 0);
}
