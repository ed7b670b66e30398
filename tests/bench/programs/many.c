/* Many open connections of one server: what a round trip takes on one of them, and what they cost.
 *
 *   many server PORT
 *   many client ADDRESS PORT FEW MANY
 *
 * The client opens FEW connections, prints a line, opens the rest, prints two more: on FEW of them,
 * and on all of them. In each, the median round trip on connections picked at random in
 * nanoseconds, the server's own dirty memory in KiB, and the memory that the whole kernel has
 * allocated in KiB. Called by network/many.py.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 60000, ROUND_TRIPS = 4000, BYTES = 64 };

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The sum of a file's lines `KEY: number kB`. */
static long kib(const char *path, const char *key)
{
    char line[256];
    long total = 0;
    FILE *file = fopen(path, "r");
    if (file == NULL) die(path);
    while (fgets(line, sizeof line, file) != NULL)
        if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':')
            total += atol(line + strlen(key) + 1);
    fclose(file);
    return total;
}

static void raise_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* Everything back; a message that begins with 'm' is answered with this process's memory. */
static int answer(int fd)
{
    char buffer[BYTES];
    ssize_t n = read(fd, buffer, sizeof buffer);
    if (n <= 0) return 0;
    if (buffer[0] == 'm') {
        memset(buffer, 0, sizeof buffer);
        snprintf(buffer, sizeof buffer, "%ld", kib("/proc/self/smaps_rollup", "Pss_Dirty"));
        n = BYTES;
    }
    return write(fd, buffer, (size_t)n) == n;
}

static void serve(int port)
{
    int one = 1;
    struct epoll_event events[64];
    int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
    if (listen(listener, 4096) < 0) die("listen");
    if (epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event) < 0) die("epoll_ctl");
    for (;;) {
        int count = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                if (!answer(fd)) close(fd);
                continue;
            }
            if ((fd = accept(listener, NULL, NULL)) < 0) die("accept");
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            event.data.fd = fd;
            if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
        }
    }
}

static void exchange(int fd, char *buffer)
{
    if (write(fd, buffer, BYTES) != BYTES) die("write");
    for (ssize_t got = 0, n; got < BYTES; got += n)
        if ((n = read(fd, buffer + got, (size_t)(BYTES - got))) <= 0) die("read");
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void report(const int *fds, int count)
{
    static int64_t took[ROUND_TRIPS];
    char buffer[BYTES] = "e";
    for (int i = -ROUND_TRIPS / 4; i < ROUND_TRIPS; i++) {
        int fd = fds[random() % count];
        int64_t start = now_ns();
        exchange(fd, buffer);
        if (i >= 0) took[i] = now_ns() - start;
    }
    qsort(took, ROUND_TRIPS, sizeof *took, by_value);
    sleep(1); /* what is pending settles */
    buffer[0] = 'm';
    exchange(fds[0], buffer);
    printf("%lld %ld %ld\n", (long long)took[ROUND_TRIPS / 2], atol(buffer),
           kib("/proc/meminfo", "SUnreclaim") + kib("/proc/meminfo", "SReclaimable"));
}

static int client(const char *host, int port, int few, int all)
{
    static int fds[CONNECTIONS_MAX];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1, open = 0;
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 || all > CONNECTIONS_MAX) return 2;
    for (int part = 0; part < 2; part++) {
        for (int wanted = part == 0 ? few : all; open < wanted; open++) {
            char buffer[BYTES] = "e";
            int fd = fds[open] = socket(AF_INET, SOCK_STREAM, 0);
            if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
                fprintf(stderr, "connection %d: ", open + 1);
                die(fd < 0 ? "socket" : "connect");
            }
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            exchange(fd, buffer);
        }
        report(fds + open - few, few); /* the youngest: none of those that idled meanwhile */
    }
    report(fds, all);
    return 0;
}

int main(int argc, char **argv)
{
    raise_limit();
    if (argc == 3 && !strcmp(argv[1], "server")) serve(atoi(argv[2]));
    if (argc == 6 && !strcmp(argv[1], "client"))
        return client(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
    fprintf(stderr, "see the head of many.c\n");
    return 2;
}
