/* The surroundings of a fuzzed instance. Linked into each fuzz target that runs the stack.
 *
 * The device is a pair of datagram sockets, so that frames are read as from a tap; the one answer
 * that such a pair cannot give (TUNGETIFF) is given by __wrap_syscall. Each input is run on an
 * instance that has just been reset, by the stack's own means: a thread dies with the lock.
 */
#include "host.h"

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

const struct cse_stack *fuzz_stack;
int fuzz_device = -1;
long fuzz_time_us = 1000000000;

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
    now->tv_sec = fuzz_time_us / 1000000;
    now->tv_nsec = fuzz_time_us % 1000000 * 1000;
    return 0;
}

static int own_fd(int fd)
{
    return fd;
}

static void close_all_but_own(void) {}

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

static void report_nothing(const char *what)
{
    (void)what;
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
    if (fuzz_device >= 0) return 0;
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) != 0) abort();
    int room = 1 << 20;
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    fuzz_device = pair[1];
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

static bool never_crowded(int fd)
{
    return false;
}

static bool nobody_waits(cse_socket s, uint32_t mask)
{
    return false;
}

const struct cse_host fuzz_host = {
    .own_fd = own_fd,
    .own_close = own_close,
    .crowded = never_crowded,
    .close_all_but_own = close_all_but_own,
    .setting = setting,
    .setting_number = setting_number,
    .trace = trace_nothing,
    .tracing = not_tracing,
    .report = report_nothing,
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
    if (fuzz_stack->bind(handle, &here, size) != 0) abort();
    return handle;
}

/* The program's ends, which nobody but this file has. */
static void close_programs_ends(int from)
{
    __real_syscall(SYS_close_range, (long)from, ~0L, 0L, 0L, 0L, 0L);
}

/* A new instance's state, with a listener and a datagram socket of each family. */
void fuzz_start_over(void)
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
    fuzz_stack->listen(make_socket(AF_INET, KIND_TCP, 80), -1, 8);
    fuzz_stack->listen(make_socket(AF_INET6, KIND_TCP, 81), -1, 8);
    make_socket(AF_INET, KIND_UDP, 53);
    make_socket(AF_INET6, KIND_UDP, 54);
}

void fuzz_start(const struct cse_host *host_given)
{
    fuzz_stack = cse_stack_open(host_given);
    int failed = fuzz_stack->start(false);
    if (failed != 0) {
        fprintf(stderr, "the instance does not start: %s\n", strerror(-failed));
        exit(1);
    }
}
