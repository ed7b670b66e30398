/* A TCP server and the two clients that time it: round trips and a stream.
 *
 *   tcp server PORT
 *   tcp rtt ADDRESS PORT BYTES COUNT     prints the median round trip in nanoseconds
 *   tcp stream ADDRESS PORT MILLISECONDS prints what arrived, in bits per second
 *
 * Called by network/echo.py, stream.py, tap.py and memory.py. Plain blocking calls,
 * as the programs that people have make them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 131072, WARM_UP = 200 };

static char buffer[CHUNK];

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void write_all(int fd, const void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, (const char *)data + done, size - done);
        if (n < 0) die("write");
        done += (size_t)n;
    }
}

static void read_all(int fd, void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, (char *)data + done, size - done);
        if (n <= 0) die("read");
        done += (size_t)n;
    }
}

/* The client's first byte says what it wants: 'r' everything back, 's' the count at the end. */
static void serve_one(int fd)
{
    int one = 1;
    char mode;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (read(fd, &mode, 1) != 1) return;
    uint64_t total = 0;
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0; total += (uint64_t)n)
        if (mode == 'r') write_all(fd, buffer, (size_t)n);
    if (mode == 's') write_all(fd, &total, sizeof total);
}

static void serve(int port)
{
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
    if (listen(listener, 16) < 0) die("listen");
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) die("accept");
        serve_one(fd);
        close(fd);
    }
}

static int connect_to(const char *host, int port, char mode)
{
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) die(host);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    write_all(fd, &mode, 1);
    return fd;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int rtt(const char *host, int port, size_t bytes, int count)
{
    int fd = connect_to(host, port, 'r');
    int64_t *took = calloc((size_t)count, sizeof *took);
    if (took == NULL || bytes > sizeof buffer) die("bad size");
    for (int i = -WARM_UP; i < count; i++) {
        int64_t start = now_ns();
        write_all(fd, buffer, bytes);
        read_all(fd, buffer, bytes);
        if (i >= 0) took[i] = now_ns() - start;
    }
    qsort(took, (size_t)count, sizeof *took, by_value);
    printf("%lld\n", (long long)took[count / 2]);
    return 0;
}

static int stream(const char *host, int port, int milliseconds)
{
    int fd = connect_to(host, port, 's');
    int64_t start = now_ns();
    while (now_ns() - start < milliseconds * 1000000LL) write_all(fd, buffer, sizeof buffer);
    shutdown(fd, SHUT_WR);
    uint64_t total;
    read_all(fd, &total, sizeof total);
    printf("%.0f\n", 8e9 * (double)total / (double)(now_ns() - start));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "server")) serve(atoi(argv[2]));
    if (argc == 6 && !strcmp(argv[1], "rtt"))
        return rtt(argv[2], atoi(argv[3]), (size_t)atoi(argv[4]), atoi(argv[5]));
    if (argc == 5 && !strcmp(argv[1], "stream"))
        return stream(argv[2], atoi(argv[3]), atoi(argv[4]));
    fprintf(stderr, "see the head of tcp.c\n");
    return 2;
}
