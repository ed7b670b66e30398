/* libFuzzer target: frames as the device gives them, with their virtio headers, up to lwIP and the
 * sockets. Built by `make -C images fuzz`, run by tests/native/test_net_fuzz.py.
 *
 * The device is a pair of datagram sockets, so that frames are read as from a tap; the one answer
 * that such a pair cannot give (TUNGETIFF) is given by __wrap_syscall. Each input is run on an
 * instance that has just been reset, by the stack's own means: a thread dies with the lock.
 *
 * An input is a row of frames: length (2), what to do (1), virtio header (10), Ethernet frame.
 * What a fuzzer cannot guess is put right where `what to do` says so: checksums, the numbers that
 * the peer of a connection would know.
 */
#include "../../_core/core.h"
#include "../lwip/instance.h"

#include "lwip/priv/tcp_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { VIRTIO_HEADER = 10, ETHERNET = 14, FRAME_MAX = 65536 + VIRTIO_HEADER, FRAMES_MAX = 64 };
enum { FIX_IP = 1, VOUCH = 2, FIX_TCP = 4, TICK = 8, TO_US = 16 };

static int device = -1; /* the kernel's side of it */
static const struct cse_stack *stack;
static const uint8_t own_mac[] = {0x02, 0xc5, 0x0a, 0, 0, 2}; /* as in `setting` */
static uint8_t frame[FRAME_MAX], answer[FRAME_MAX];
static long time_us = 1000000000;
static struct {
    uint32_t sequence, acknowledged;
    uint16_t ports[2];
} last; /* TCP segment that the stack sent */

/* ---- what the overlay and the kernel would do ----------------------------------------------- */

long __real_syscall(long number, ...);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);

long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    if (number == SYS_ioctl && (unsigned long)b == TUNGETIFF) {
        ((struct ifreq *)c)->ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        return 0;
    }
    return __real_syscall(number, a, b, c, d, e, f);
}

/* Time passes only where an input says so. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    now->tv_sec = time_us / 1000000;
    now->tv_nsec = time_us % 1000000 * 1000;
    return 0;
}

static int own_fd(int fd)
{
    return fd;
}

static void own_close(int fd)
{
    close(fd);
}

static const char *setting(const char *key)
{
    static const char *const known[][2] = {
        {"name", "fuzzed"},           {"address", "10.0.0.2"}, {"prefix", "24"},
        {"gateway", "10.0.0.1"},      {"address6", "fd00::2"}, {"prefix6", "64"},
        {"mac", "02:c5:0a:00:00:02"}, {"mtu", "65520"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i][0], key) == 0) return known[i][1];
    return NULL;
}

static long setting_number(const char *key, long otherwise)
{
    const char *text = setting(key);
    return text != NULL ? atol(text) : otherwise;
}

static void trace_nothing(const char *function, const char *format, ...)
{
    (void)function, (void)format;
}

static bool not_tracing(void)
{
    return false;
}

/* An assertion of lwIP that fails ends up here: that is a finding. */
static void escape(const char *what)
{
    fprintf(stderr, "escape: %s\n", what);
    abort();
}

static int connect_broker(int timeout_ms)
{
    return open("/dev/null", O_RDWR);
}

static bool send_broker(int broker, const char *text, const int *fds, int count)
{
    return true;
}

static int receive_broker(int broker, void *out, int timeout_ms)
{
    struct cse_message *message = out;
    int pair[2];
    if (device >= 0) return 0;
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) != 0) abort();
    int room = 1 << 20;
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    device = pair[1];
    snprintf(message->text, sizeof message->text, "create vnet_hdr=1");
    message->fds[0] = pair[0];
    message->fd_count = 1;
    return 1;
}

static bool no_field(const char *text, const char *key, char *out, size_t size)
{
    return false;
}

static void nothing(void) {}

static bool nobody_waits(cse_socket s, uint32_t mask)
{
    return false;
}

static const struct cse_host fuzzing_host = {
    .own_fd = own_fd,
    .own_close = own_close,
    .setting = setting,
    .setting_number = setting_number,
    .trace = trace_nothing,
    .tracing = not_tracing,
    .escape = escape,
    .broker_connect = connect_broker,
    .broker_send = send_broker,
    .broker_receive = receive_broker,
    .message_field = no_field,
    .hold_signals = nothing,
    .release_signals = nothing,
    .ready = nobody_waits,
};

/* ---- the instance --------------------------------------------------------------------------- */

/* The reset would make sockets again that are not connected: it finds none. */
static void *die_with_lock(void *unused)
{
    pthread_mutex_lock(&instance->lock);
    for (uint32_t i = 0; i < instance->socket_top; i++) instance->sockets[i] = NULL;
    return unused;
}

static cse_socket make_socket(int family, enum sock_kind kind, uint16_t port)
{
    sigset_t saved;
    union cse_address here = {.family = (sa_family_t)family};
    socklen_t size = family == AF_INET ? sizeof here.in : sizeof here.in6;
    here.in.sin_port = htons(port); /* at the same place in both */
    instance_lock(&saved);
    struct sock *s = sock_new(kind, family);
    if (s == NULL || sock_make_pair(s, SOCK_NONBLOCK) < 0) abort();
    cse_socket handle = sock_handle(s);
    instance_unlock(&saved);
    if (stack->bind(handle, &here, size) != 0) abort();
    return handle;
}

/* The program's ends, which nobody but this file has. */
static void close_programs_ends(int from)
{
    __real_syscall(SYS_close_range, (long)from, ~0L, 0L, 0L, 0L, 0L);
}

/* A new instance's state, with a listener and a datagram socket of each family. */
static void start_over(void)
{
    static int first_free;
    pthread_t thread;
    sigset_t saved;
    if (first_free == 0) {
        first_free = dup(0);
        close(first_free);
    }
    if (pthread_create(&thread, NULL, die_with_lock, NULL) != 0) abort();
    pthread_join(thread, NULL);
    instance_lock(&saved);
    instance->random[0] = instance->random[1] = 1;
    instance_unlock(&saved);
    close_programs_ends(first_free);
    stack->listen(make_socket(AF_INET, KIND_TCP, 80), 8);
    stack->listen(make_socket(AF_INET6, KIND_TCP, 81), 8);
    make_socket(AF_INET, KIND_UDP, 53);
    make_socket(AF_INET6, KIND_UDP, 54);
}

/* ---- frames --------------------------------------------------------------------------------- */

static uint16_t sum_of(const uint8_t *at, size_t size)
{
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < size; i += 2) sum += (uint32_t)(at[i] << 8 | at[i + 1]);
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, (uint16_t)(value >> 16));
    put16(at + 2, (uint16_t)value);
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Where TCP's header is in an Ethernet frame, or NULL. */
static uint8_t *tcp_in(uint8_t *ethernet, size_t size)
{
    uint8_t *ip = ethernet + ETHERNET;
    if (size >= ETHERNET + 40 && ethernet[12] == 8 && ip[0] == 0x45 && ip[9] == 6) return ip + 20;
    if (size >= ETHERNET + 60 && ethernet[12] == 0x86 && ip[6] == 6) return ip + 40;
    return NULL;
}

/* Everything that the stack has sent; the last TCP segment's numbers are kept. */
static void drain(void)
{
    for (;;) {
        ssize_t got = read(device, answer, sizeof answer);
        if (got <= VIRTIO_HEADER) return;
        const uint8_t *tcp = tcp_in(answer + VIRTIO_HEADER, (size_t)got - VIRTIO_HEADER);
        if (tcp == NULL) continue;
        last.sequence = get32(tcp + 4);
        last.acknowledged = get32(tcp + 8);
        if (tcp[13] & (TCP_SYN | TCP_FIN)) last.sequence++;
        memcpy(last.ports, tcp, sizeof last.ports);
    }
}

static void put_right(uint8_t *bytes, size_t size, uint8_t what)
{
    uint8_t *ethernet = bytes + VIRTIO_HEADER;
    size_t length = size - VIRTIO_HEADER;
    if (what & VOUCH) bytes[0] |= 2; /* DATA_VALID */
    if (length < ETHERNET) return;
    if (what & TO_US) memcpy(ethernet, own_mac, sizeof own_mac);
    uint8_t *tcp = (what & FIX_TCP) != 0 ? tcp_in(ethernet, length) : NULL;
    if (tcp != NULL) { /* relative to what the stack expects */
        put32(tcp + 4, last.acknowledged + get32(tcp + 4));
        put32(tcp + 8, last.sequence + get32(tcp + 8));
        memcpy(tcp, &last.ports[1], 2);
        memcpy(tcp + 2, &last.ports[0], 2);
    }
    uint8_t *ip = ethernet + ETHERNET;
    size_t header = length >= ETHERNET + 20 ? (size_t)(ip[0] & 15) * 4 : 0;
    if ((what & FIX_IP) && ethernet[12] == 8 && header >= 20 && length >= ETHERNET + header) {
        put16(ip + 10, 0);
        put16(ip + 10, sum_of(ip, header));
    }
}

static void feed(size_t size, uint8_t what)
{
    sigset_t saved;
    put_right(frame, size, what);
    if (write(device, frame, size) != (ssize_t)size) return;
    instance_lock(&saved);
    device_read(4);
    if (what & TICK) time_us += 300 * 1000;
    if (what & TICK) clock_run();
    instance_unlock(&saved);
    drain();
}

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    stack = cse_stack_open(&fuzzing_host);
    int failed = stack->start(false);
    if (failed != 0) {
        fprintf(stderr, "the instance does not start: %s\n", strerror(-failed));
        exit(1);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    start_over();
    drain();
    memset(&last, 0, sizeof last);
    for (int i = 0; i < FRAMES_MAX && size >= 3 + VIRTIO_HEADER; i++) {
        size_t length = (size_t)(data[0] << 8 | data[1]) + VIRTIO_HEADER;
        uint8_t what = data[2];
        data += 3, size -= 3;
        if (length > size) length = size;
        memcpy(frame, data, length);
        feed(length, what);
        data += length, size -= length;
    }
    return 0;
}
