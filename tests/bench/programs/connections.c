/* New TCP connections per second: each is opened, carries one byte either way, and is closed by
 * the server first, so that the client's ports are free again at once.
 *
 *   connections server PORT
 *   connections client ADDRESS PORT AT_A_TIME MILLISECONDS     prints connections per second
 *
 * Called by network/connections.py. The server is one plain loop; the client waits in epoll.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { AT_A_TIME_MAX = 1024 };

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

static void serve(int port)
{
    int one = 1;
    char byte;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
    if (listen(listener, 4096) < 0) die("listen");
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) die("accept");
        if (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) != 1) perror("write");
        close(fd);
    }
}

static void open_one(int poll, const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) die("socket");
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 && errno != EINPROGRESS)
        die("connect");
    struct epoll_event event = {.events = EPOLLOUT, .data.fd = fd};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

/* True when the connection has done its work: byte sent, byte received, end of file. */
static int advance(int poll, const struct epoll_event *event)
{
    int fd = event->data.fd;
    char byte = 'x';
    if (event->events & EPOLLOUT) {
        struct epoll_event wanted = {.events = EPOLLIN, .data.fd = fd};
        if (write(fd, &byte, 1) != 1) die("write");
        if (epoll_ctl(poll, EPOLL_CTL_MOD, fd, &wanted) < 0) die("epoll_ctl");
        return 0;
    }
    for (;;) {
        ssize_t n = read(fd, &byte, 1);
        if (n == 1) continue;
        if (n < 0 && errno == EAGAIN) return 0;
        if (n < 0) die("read");
        close(fd);
        return 1;
    }
}

static int client(const char *host, int port, int at_a_time, int milliseconds)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct epoll_event events[64];
    long done = 0;
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 || at_a_time > AT_A_TIME_MAX) return 2;
    int poll = epoll_create1(0);
    int64_t start = now_ns(), end = start + milliseconds * 1000000LL;
    for (int i = 0; i < at_a_time; i++) open_one(poll, &address);
    while (now_ns() < end) {
        int count = epoll_wait(poll, events, 64, 5000);
        if (count < 0) die("epoll_wait");
        if (count == 0) {
            fprintf(stderr, "nothing happened for 5 s after %ld connections\n", done);
            return 1;
        }
        for (int i = 0; i < count; i++)
            if (advance(poll, &events[i])) {
                done++;
                open_one(poll, &address);
            }
    }
    printf("%.1f\n", (double)done * 1e9 / (double)(now_ns() - start));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "server")) serve(atoi(argv[2]));
    if (argc == 6 && !strcmp(argv[1], "client"))
        return client(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
    fprintf(stderr, "see the head of connections.c\n");
    return 2;
}
