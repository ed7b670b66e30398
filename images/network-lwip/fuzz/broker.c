/* libFuzzer target: what a broker says, whatever it says: settings, wires, faults, captures,
 * reports, names. Built by `make -C images fuzz`, run by tests/native/test_net_fuzz.py.
 *
 * Messages go through a real socket with real descriptors, so that _core/broker.c reads them, and
 * are heard by the pump as in a program. An input is a row of steps: what (1), descriptors (1), how
 * much (2), text.
 */
#include "../../_core/core.h"
#include "host.h"

#include "../lwip/pump.h"
#include "../lwip/wire.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STEP_BYTES = 4, STEPS_MAX = 64, DESCRIPTORS = 7, TIME_MOST_MS = 20000 };
enum step { MESSAGE, PACKET, TIME, NAME, STEPS };
enum given { WIRE_MEMORY, SMALL_MEMORY, BELL, SOCKET, GIVEN_KINDS };

static int given[GIVEN_KINDS], far_ends[2]; /* what is handed over; the broker's ends of two */
static int broker_end = -1, asked_end = -1;
static char asked[CSE_BROKER_MESSAGE_MAX]; /* the answer to the next look-up of a name */
static bool started;

/* ---- what broker.c needs of the core --------------------------------------------------------- */

int cse_own_fd(int fd)
{
    return fd;
}

void cse_own_close(int fd)
{
    close(fd);
}

/* ---- the broker -------------------------------------------------------------------------------
 */

static int pair_with(int *other)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) abort();
    *other = pair[1];
    syscall(SYS_fcntl, pair[1], F_SETFL, (long)O_NONBLOCK);
    return pair[0];
}

/* The first is that of the start, all others ask for a name and find the answers there already. */
static int connect_again(int timeout_ms)
{
    if (!started) return fuzz_host.broker_connect(timeout_ms);
    if (timeout_ms != 0 || asked[0] == '\0') return -1;
    int fd = pair_with(&asked_end);
    cse_broker_send(asked_end, "refused", NULL, 0);
    cse_broker_send(asked_end, asked, NULL, 0);
    return fd;
}

static int receive(int broker, void *out, int timeout_ms)
{
    if (!started) return fuzz_host.broker_receive(broker, out, timeout_ms);
    return cse_broker_receive(broker, out, 0); /* nobody will say more */
}

static bool send_away(int broker, const char *text, const int *fds, int count)
{
    return !started || cse_broker_send(broker, text, fds, count);
}

static void drain(int fd)
{
    static char bytes[1 << 16];
    while (read(fd, bytes, sizeof bytes) > 0) {}
}

static void drain_all(void)
{
    drain(broker_end);
    drain(fuzz_device);
    drain(far_ends[0]);
    drain(far_ends[1]);
}

static int memory_of(size_t size, int seals)
{
    int fd = (int)syscall(SYS_memfd_create, "fuzz", MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0) abort();
    if (fcntl(fd, F_ADD_SEALS, seals) != 0) abort();
    return fd;
}

static void make_descriptors(void)
{
    int bell[2];
    given[WIRE_MEMORY] = memory_of(WIRE_BYTES, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    given[SMALL_MEMORY] = memory_of(4096, F_SEAL_SHRINK);
    if (pipe2(bell, O_NONBLOCK) != 0) abort();
    given[BELL] = bell[1];
    far_ends[0] = bell[0];
    given[SOCKET] = pair_with(&far_ends[1]);
    fcntl(given[SOCKET], F_SETFL, O_NONBLOCK);
}

/* ---- steps ------------------------------------------------------------------------------------
 */

static void say(const char *text, uint8_t which)
{
    int fds[DESCRIPTORS], count = which & DESCRIPTORS;
    for (int i = 0; i < count; i++) fds[i] = given[(which >> 3) + i & (GIVEN_KINDS - 1)];
    if (which >> 3 == 31) /* a wire as it should be */
        count = 3, fds[0] = given[WIRE_MEMORY], fds[1] = fds[2] = given[BELL];
    cse_broker_send(broker_end, text, fds, count);
}

/* A datagram to a neighbour: the reason to ask for a wire. */
static void send_packet(uint8_t to)
{
    cse_socket s;
    union cse_address peer = {.in = {.sin_family = AF_INET, .sin_port = htons(7)}};
    struct iovec part = {"x", 1};
    struct cse_sending how = {.to = &peer, .to_length = sizeof peer.in, .ttl = -1, .tos = -1};
    peer.in.sin_addr.s_addr = htonl(0x0a000000U + to);
    int fd = fuzz_stack->socket(AF_INET, SOCK_DGRAM, 0, 0, &s);
    if (fd < 0) return;
    fuzz_stack->send(s, &part, 1, &how);
    close(fd);
}

static void ask_name(const char *text)
{
    union cse_address list[3];
    snprintf(asked, sizeof asked, "resolved %s", text);
    fuzz_stack->resolve("peer", list, 1 + (uint8_t)text[0] % 3);
    asked[0] = '\0';
    if (asked_end >= 0) close(asked_end);
    asked_end = -1;
}

/* All that outlives a reset. */
static void forget(void)
{
    for (uint32_t i = 0; i < WIRES_MAX; i++) wire_let_go(i);
    memset(&instance->wires, 0, sizeof instance->wires);
    instance->wires.wanted = true;
    memset(&instance->instruments, 0, sizeof instance->instruments);
    instance->packet_hooks = 0;
    tune_apply("set ttl=64 mss=65535 receive_buffer=1048576 send_buffer=1048576 initial_window=10 "
               "delayed_ack=40 rto_min=200 congestion=cubic keepalive.idle=7200 "
               "keepalive.interval=75 keepalive.probes=9");
}

static void new_broker(void)
{
    if (me.broker >= 0) close(me.broker);
    if (broker_end >= 0) close(broker_end);
    me.broker = pair_with(&broker_end);
    pump_watch_fd(me.broker, PUMP_BROKER);
}

static void start_over(void)
{
    sigset_t saved;
    fuzz_start_over();
    instance_lock(&saved);
    forget();
    new_broker();
    instance_unlock(&saved);
}

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    static struct cse_host host;
    host = fuzz_host;
    host.broker_connect = connect_again;
    host.broker_receive = receive;
    host.broker_send = send_away;
    host.message_field = cse_message_field;
    make_descriptors();
    fuzz_start(&host);
    me.epoll = epoll_create1(0);
    started = true;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[CSE_BROKER_MESSAGE_MAX + 64];
    start_over();
    for (int i = 0; i < STEPS_MAX && size >= STEP_BYTES; i++) {
        enum step step = data[0] % STEPS;
        uint8_t which = data[1];
        size_t length = (size_t)(data[2] << 8 | data[3]);
        data += STEP_BYTES, size -= STEP_BYTES;
        size_t taken = step == PACKET || step == TIME ? 0 : length < size ? length : size;
        if (taken >= sizeof text) taken = sizeof text - 1;
        memcpy(text, data, taken);
        text[taken] = '\0';
        data += taken, size -= taken;
        if (step == MESSAGE) say(text, which);
        if (step == PACKET) send_packet(which);
        if (step == TIME) fuzz_time_us += (long)(length % TIME_MOST_MS) * 1000;
        if (step == NAME) ask_name(text);
        pump_once(0);
        drain_all();
    }
    return 0;
}
