/* Socket calls and their edges, each case printing what it saw. Run once on the kernel's stack and
 * once under the overlay by test_net_sockets.py: the lines must be the same. Server and client are
 * in this program, over 127.0.0.1.
 *
 *   sockets CASE...   (no argument: the names of all cases)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *error_name(long result)
{
    if (result >= 0) return "ok";
    const char *name = strerrorname_np(errno);
    return name != NULL ? name : "?";
}
#define SHOW(call) printf("%s: %s\n", #call, error_name((long)(call)))
#define VALUE(call)                                                                                \
    do {                                                                                           \
        long value_ = (long)(call);                                                                \
        if (value_ < 0)                                                                            \
            printf("%s: %s\n", #call, error_name(value_));                                         \
        else                                                                                       \
            printf("%s: %ld\n", #call, value_);                                                    \
    } while (0)

static void pause_ms(int ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

static struct sockaddr_in at(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int bind_to(int fd, int port)
{
    struct sockaddr_in address = at(port);
    return bind(fd, (struct sockaddr *)&address, sizeof address);
}

static int connect_to(int fd, int port)
{
    struct sockaddr_in address = at(port);
    return connect(fd, (struct sockaddr *)&address, sizeof address);
}

static int local_port(int fd)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    return getsockname(fd, (struct sockaddr *)&address, &length) == 0 ? ntohs(address.sin_port)
                                                                      : -1;
}

static int listener(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind_to(fd, 0) != 0 || listen(fd, 8) != 0) exit(9);
    return fd;
}

/* A connected pair: [0] accepted, [1] connected. */
static void make_pair(int pair[2])
{
    int l = listener();
    pair[1] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect_to(pair[1], local_port(l)) != 0) exit(8);
    pair[0] = accept(l, NULL, NULL);
    close(l);
}

static void show_poll(const char *what, int fd, short events, int wait_ms)
{
    struct pollfd p = {fd, events, 0};
    int ready = poll(&p, 1, wait_ms);
    printf("%s: %d%s%s%s%s%s\n", what, ready, p.revents & POLLIN ? " IN" : "",
           p.revents & POLLOUT ? " OUT" : "", p.revents & POLLRDHUP ? " RDHUP" : "",
           p.revents & POLLHUP ? " HUP" : "", p.revents & POLLERR ? " ERR" : "");
}
enum { EVERY = POLLIN | POLLOUT | POLLRDHUP };

static int get_int(int fd, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(fd, level, name, &value, &length) == 0 ? value : -1;
}

static int set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value);
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void case_options(void)
{
    int t = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0);
    VALUE(get_int(t, SOL_SOCKET, SO_TYPE));
    VALUE(get_int(u, SOL_SOCKET, SO_TYPE));
    VALUE(get_int(t, SOL_SOCKET, SO_DOMAIN));
    VALUE(get_int(t, SOL_SOCKET, SO_PROTOCOL));
    VALUE(get_int(u, SOL_SOCKET, SO_PROTOCOL));
    VALUE(get_int(t, SOL_SOCKET, SO_ACCEPTCONN));
    VALUE(get_int(t, SOL_SOCKET, SO_ERROR));
    SHOW(set_int(t, SOL_SOCKET, SO_REUSEADDR, 1));
    VALUE(get_int(t, SOL_SOCKET, SO_REUSEADDR));
    SHOW(set_int(t, SOL_SOCKET, SO_REUSEPORT, 1));
    VALUE(get_int(t, SOL_SOCKET, SO_REUSEPORT));
    SHOW(set_int(t, SOL_SOCKET, SO_KEEPALIVE, 1));
    VALUE(get_int(t, SOL_SOCKET, SO_KEEPALIVE));
    VALUE(get_int(t, IPPROTO_TCP, TCP_NODELAY));
    SHOW(set_int(t, IPPROTO_TCP, TCP_NODELAY, 1));
    VALUE(get_int(t, IPPROTO_TCP, TCP_NODELAY));
    VALUE(get_int(t, IPPROTO_TCP, TCP_KEEPIDLE));
    VALUE(get_int(t, IPPROTO_TCP, TCP_KEEPINTVL));
    VALUE(get_int(t, IPPROTO_TCP, TCP_KEEPCNT));
    SHOW(set_int(t, IPPROTO_TCP, TCP_KEEPIDLE, 10));
    VALUE(get_int(t, IPPROTO_TCP, TCP_KEEPIDLE));
    SHOW(set_int(t, IPPROTO_TCP, TCP_KEEPIDLE, 0));
    SHOW(set_int(t, IPPROTO_TCP, TCP_USER_TIMEOUT, 5000));
    VALUE(get_int(t, IPPROTO_TCP, TCP_USER_TIMEOUT));
    SHOW(set_int(t, IPPROTO_TCP, TCP_CORK, 1));
    VALUE(get_int(t, IPPROTO_TCP, TCP_CORK));
    VALUE(get_int(t, IPPROTO_IP, IP_TTL));
    SHOW(set_int(t, IPPROTO_IP, IP_TTL, 9));
    VALUE(get_int(t, IPPROTO_IP, IP_TTL));
    SHOW(set_int(t, IPPROTO_IP, IP_TTL, 300));
    SHOW(set_int(t, IPPROTO_IP, IP_TOS, 0x10));
    VALUE(get_int(t, IPPROTO_IP, IP_TOS));
    SHOW(set_int(u, SOL_SOCKET, SO_BROADCAST, 1));
    VALUE(get_int(u, SOL_SOCKET, SO_BROADCAST));
    SHOW(set_int(t, SOL_SOCKET, SO_RCVBUF, 30000));
    VALUE(get_int(t, SOL_SOCKET, SO_RCVBUF));
    SHOW(set_int(t, SOL_SOCKET, SO_SNDBUF, 30000));
    VALUE(get_int(t, SOL_SOCKET, SO_SNDBUF));
    struct linger linger = {1, 5};
    socklen_t length = sizeof linger;
    SHOW(setsockopt(t, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    memset(&linger, 0, sizeof linger);
    SHOW(getsockopt(t, SOL_SOCKET, SO_LINGER, &linger, &length));
    printf("linger %d %d\n", linger.l_onoff, linger.l_linger);
    struct timeval timeout = {1, 500000};
    SHOW(setsockopt(t, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout));
    length = sizeof timeout;
    memset(&timeout, 0, sizeof timeout);
    SHOW(getsockopt(t, SOL_SOCKET, SO_RCVTIMEO, &timeout, &length));
    printf("timeout %ld.%06ld\n", (long)timeout.tv_sec, (long)timeout.tv_usec);
    SHOW(set_int(t, SOL_SOCKET, 9999, 1));
    SHOW(setsockopt(t, SOL_SOCKET, SO_REUSEADDR, "", 1));
    SHOW(getsockopt(t, IPPROTO_TCP, 9999, &length, &length));
    SHOW(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
    SHOW(set_int(1000, SOL_SOCKET, SO_REUSEADDR, 1));
}

static void case_names(void)
{
    int l = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    SHOW(getpeername(l, (struct sockaddr *)&address, &length));
    SHOW(getsockname(l, (struct sockaddr *)&address, &length));
    printf("%d %d %08x %u\n", address.sin_family, ntohs(address.sin_port),
           ntohl(address.sin_addr.s_addr), length);
    SHOW(bind_to(l, 4001));
    SHOW(bind_to(l, 4002));
    SHOW(listen(l, 5));
    VALUE(local_port(l));
    int c = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(connect_to(c, 4001));
    SHOW(connect_to(c, 4001));
    struct sockaddr_in peer = {0};
    length = sizeof peer;
    int a = accept4(l, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    printf("same port %d, length %u\n", ntohs(peer.sin_port) == local_port(c), length);
    printf("flags %d %d\n", (fcntl(a, F_GETFL) & O_NONBLOCK) != 0, fcntl(a, F_GETFD));
    length = sizeof peer;
    SHOW(getpeername(c, (struct sockaddr *)&peer, &length));
    printf("peer %08x %d\n", ntohl(peer.sin_addr.s_addr), ntohs(peer.sin_port));
    length = 4;
    memset(&peer, 0, sizeof peer);
    SHOW(getsockname(a, (struct sockaddr *)&peer, &length));
    printf("short %u %d %d\n", length, ntohs(peer.sin_port), peer.sin_addr.s_addr == 0);
    int b = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(bind_to(b, 4001));
    SHOW(set_int(b, SOL_SOCKET, SO_REUSEADDR, 1));
    SHOW(bind_to(b, 4001));
    struct sockaddr_in far = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr("192.0.2.9")};
    SHOW(bind(b, (struct sockaddr *)&far, sizeof far));
    SHOW(bind(b, (struct sockaddr *)&far, 4));
    SHOW(accept(b, NULL, NULL));
    SHOW(listen(1000, 1));
    int u = socket(AF_INET, SOCK_DGRAM, 0);
    SHOW(listen(u, 1));
    SHOW(accept(u, NULL, NULL));
    close(l);
    int again = socket(AF_INET, SOCK_STREAM, 0);
    set_int(again, SOL_SOCKET, SO_REUSEADDR, 1);
    SHOW(bind_to(again, 4001));
    SHOW(listen(again, 1));
}

static void case_half_close(void)
{
    int p[2];
    char buffer[100];
    make_pair(p);
    show_poll("fresh", p[0], EVERY, 0);
    VALUE(write(p[1], "hello", 5));
    SHOW(shutdown(p[1], SHUT_WR));
    pause_ms(100);
    show_poll("after peer's FIN", p[0], EVERY, 1000);
    VALUE(read(p[0], buffer, sizeof buffer));
    VALUE(read(p[0], buffer, sizeof buffer));
    show_poll("at the end", p[0], EVERY, 0);
    VALUE(write(p[0], "answer", 6));
    show_poll("other side", p[1], POLLIN, 1000);
    VALUE(read(p[1], buffer, sizeof buffer));
    signal(SIGPIPE, SIG_IGN);
    VALUE(write(p[1], "x", 1));
    SHOW(shutdown(p[0], SHUT_WR));
    pause_ms(100);
    VALUE(read(p[1], buffer, sizeof buffer));
    show_poll("both shut", p[0], EVERY, 0);
    show_poll("both shut, other side", p[1], EVERY, 0);
}

static void case_reset(void)
{
    int p[2];
    char buffer[100];
    signal(SIGPIPE, SIG_IGN);
    make_pair(p);
    struct linger now = {1, 0};
    setsockopt(p[1], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(p[1]);
    pause_ms(200);
    show_poll("after RST", p[0], POLLIN, 1000);
    VALUE(read(p[0], buffer, sizeof buffer));
    VALUE(read(p[0], buffer, sizeof buffer));
    VALUE(write(p[0], "x", 1));
    make_pair(p);
    VALUE(write(p[1], "unread", 6));
    pause_ms(50);
    close(p[0]); /* with unread data */
    pause_ms(200);
    VALUE(read(p[1], buffer, sizeof buffer));
    make_pair(p);
    setsockopt(p[1], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(p[1]);
    pause_ms(200);
    VALUE(get_int(p[0], SOL_SOCKET, SO_ERROR));
    VALUE(get_int(p[0], SOL_SOCKET, SO_ERROR));
}

static void case_refused(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(connect_to(fd, 4999));
    VALUE(get_int(fd, SOL_SOCKET, SO_ERROR));
    int n = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int result = connect_to(n, 4998);
    printf("nonblocking refused: %s\n",
           result < 0 && (errno == EINPROGRESS || errno == ECONNREFUSED) ? "as it should" : "no");
    if (errno == EINPROGRESS) {
        pause_ms(200);
        struct pollfd p = {n, POLLOUT, 0};
        poll(&p, 1, 2000);
        printf("poll %d %d\n", (p.revents & POLLERR) != 0, (p.revents & POLLHUP) != 0);
        VALUE(get_int(n, SOL_SOCKET, SO_ERROR));
    }
    int l = listener();
    SHOW(connect_to(fd, local_port(l))); /* again, on the socket that was refused */
    struct sockaddr_in six = at(1);
    six.sin_family = AF_INET6;
    int f = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(connect(f, (struct sockaddr *)&six, sizeof six));
    SHOW(connect(f, (struct sockaddr *)&six, 3));
}

static void case_nonblocking_connect(void)
{
    int l = listener(), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int result = connect_to(fd, local_port(l));
    printf("%s\n", result == 0 || errno == EINPROGRESS ? "in progress" : strerror(errno));
    show_poll("writable", fd, POLLOUT, 2000);
    VALUE(get_int(fd, SOL_SOCKET, SO_ERROR));
    VALUE(write(fd, "abc", 3));
    int a = accept(l, NULL, NULL);
    char buffer[10];
    VALUE(read(a, buffer, sizeof buffer));
    VALUE(read(fd, buffer, sizeof buffer));
}

static void case_accept_nonblocking(void)
{
    int l = listener();
    fcntl(l, F_SETFL, O_NONBLOCK);
    SHOW(accept(l, NULL, NULL));
    show_poll("nobody", l, POLLIN, 50);
    int c[3];
    for (int i = 0; i < 3; i++) {
        c[i] = socket(AF_INET, SOCK_STREAM, 0);
        connect_to(c[i], local_port(l));
    }
    pause_ms(100);
    for (int i = 0; i < 3; i++) {
        show_poll("one waits", l, POLLIN, 1000);
        SHOW(accept(l, NULL, NULL));
    }
    show_poll("none left", l, POLLIN, 50);
    SHOW(accept(l, NULL, NULL));
}

static void on_alarm(int signal)
{
    (void)signal;
}

static void case_interrupts(void)
{
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval soon = {{0, 0}, {0, 100000}};
    int l = listener(), p[2];
    setitimer(ITIMER_REAL, &soon, NULL);
    SHOW(accept(l, NULL, NULL));
    make_pair(p);
    char buffer[10];
    setitimer(ITIMER_REAL, &soon, NULL);
    VALUE(read(p[0], buffer, sizeof buffer));
    struct timeval limit = {0, 100000};
    setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    VALUE(read(p[0], buffer, sizeof buffer));
    setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    SHOW(accept(l, NULL, NULL));
}

static void case_epoll(void)
{
    int p[2], e = epoll_create1(0);
    make_pair(p);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP}, got[4];
    epoll_ctl(e, EPOLL_CTL_ADD, p[0], &event);
    VALUE(epoll_wait(e, got, 4, 1000));
    printf("first %d %d\n", (got[0].events & EPOLLOUT) != 0, (got[0].events & EPOLLIN) != 0);
    VALUE(epoll_wait(e, got, 4, 50));
    VALUE(write(p[1], "a", 1));
    VALUE(epoll_wait(e, got, 4, 1000));
    printf("then IN %d\n", (got[0].events & EPOLLIN) != 0);
    close(p[1]);
    VALUE(epoll_wait(e, got, 4, 1000));
    printf("then RDHUP %d\n", (got[0].events & EPOLLRDHUP) != 0);
}

static void *drain(void *fd)
{
    static char buffer[65536];
    long total = 0, got;
    while ((got = read(*(int *)fd, buffer, sizeof buffer)) > 0) total += got;
    return (void *)total;
}

static void case_bulk(void)
{
    int p[2];
    static char block[100000];
    pthread_t thread;
    void *total;
    make_pair(p);
    pthread_create(&thread, NULL, drain, &p[0]);
    for (int i = 0; i < 200; i++) {
        for (size_t sent = 0; sent < sizeof block;) {
            ssize_t n = send(p[1], block + sent, sizeof block - sent, 0);
            if (n <= 0) exit(7);
            sent += (size_t)n;
        }
    }
    close(p[1]);
    pthread_join(thread, &total);
    printf("total %ld\n", (long)total);
}

static void case_fork(void)
{
    int l = listener(), port = local_port(l);
    for (int i = 0; i < 3; i++)
        if (fork() == 0) { /* prefork: any of them accepts */
            int a = accept(l, NULL, NULL);
            char text[32];
            ssize_t n = read(a, text, sizeof text);
            (void)!write(a, text, (size_t)n);
            _exit(0);
        }
    for (int i = 0; i < 3; i++) {
        char text[32] = {0};
        int c = socket(AF_INET, SOCK_STREAM, 0);
        SHOW(connect_to(c, port));
        VALUE(write(c, "prefork", 7));
        VALUE(read(c, text, sizeof text));
        VALUE(read(c, text + 8, 8));
        close(c);
    }
    for (int i = 0; i < 3; i++) wait(NULL);
    int p[2];
    make_pair(p);
    if (fork() == 0) { /* a child writes on what the parent made, and goes */
        close(p[0]);
        (void)!write(p[1], "child", 5);
        _exit(0);
    }
    close(p[1]);
    char text[16];
    wait(NULL);
    VALUE(read(p[0], text, sizeof text));
    VALUE(read(p[0], text, sizeof text));
}

static void case_daemon(void)
{
    int l = listener(), port = local_port(l), ready[2];
    (void)!pipe(ready);
    pid_t first = fork();
    if (first == 0) { /* the maker of nothing; its child serves after it has gone */
        if (fork() != 0) _exit(0);
        int a = accept(l, NULL, NULL);
        (void)!write(a, "daemon", 6);
        _exit(0);
    }
    waitpid(first, NULL, 0);
    close(l);
    pause_ms(100);
    int c = socket(AF_INET, SOCK_STREAM, 0);
    char text[16];
    SHOW(connect_to(c, port));
    VALUE(read(c, text, sizeof text));
    VALUE(read(c, text, sizeof text));
}

static void case_exec(void)
{
    int p[2];
    make_pair(p);
    if (fork() == 0) {
        dup2(p[0], 0);
        dup2(p[0], 1);
        execlp("cat", "cat", NULL);
        _exit(1);
    }
    close(p[0]);
    char text[16];
    VALUE(write(p[1], "through cat", 11));
    VALUE(read(p[1], text, sizeof text));
    shutdown(p[1], SHUT_WR);
    VALUE(read(p[1], text, sizeof text));
    wait(NULL);
}

static void case_exec_last(void)
{
    int ports[2], port;
    (void)!pipe(ports);
    if (fork() == 0) { /* the one process that has this connection becomes another program */
        int l = listener();
        port = local_port(l);
        (void)!write(ports[1], &port, sizeof port);
        int a = accept(l, NULL, NULL);
        dup2(a, 0);
        dup2(a, 1);
        close(a);
        close(l);
        execlp("cat", "cat", NULL);
        _exit(1);
    }
    (void)!read(ports[0], &port, sizeof port);
    int c = socket(AF_INET, SOCK_STREAM, 0);
    char text[16];
    SHOW(connect_to(c, port));
    VALUE(write(c, "inherited", 9));
    VALUE(read(c, text, sizeof text));
    SHOW(shutdown(c, SHUT_WR));
    VALUE(read(c, text, sizeof text));
    wait(NULL);
}

static void case_exec_fails(void)
{
    int p[2];
    char text[8];
    make_pair(p);
    SHOW(execl("/nonexistent", "x", NULL));
    VALUE(write(p[0], "still", 5));
    VALUE(read(p[1], text, sizeof text));
    int fd = listener(), c = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(connect_to(c, local_port(fd)));
}

static void case_udp(void)
{
    int s = socket(AF_INET, SOCK_DGRAM, 0), c = socket(AF_INET, SOCK_DGRAM, 0);
    char buffer[64];
    SHOW(bind_to(s, 4003));
    struct sockaddr_in to = at(4003), from;
    socklen_t length = sizeof from;
    VALUE(sendto(c, "one", 3, 0, (struct sockaddr *)&to, sizeof to));
    VALUE(sendto(c, "", 0, 0, (struct sockaddr *)&to, sizeof to));
    VALUE(sendto(c, "longer than that", 16, 0, (struct sockaddr *)&to, sizeof to));
    VALUE(send(c, "x", 1, 0));
    show_poll("readable", s, POLLIN, 1000);
    int waiting = -1;
    SHOW(ioctl(s, FIONREAD, &waiting));
    printf("waiting %d\n", waiting);
    VALUE(recvfrom(s, buffer, sizeof buffer, MSG_PEEK, (struct sockaddr *)&from, &length));
    printf("from %08x %d %u\n", ntohl(from.sin_addr.s_addr),
           from.sin_port == htons((uint16_t)local_port(c)), length);
    VALUE(recvfrom(s, buffer, sizeof buffer, 0, NULL, NULL));
    VALUE(recv(s, buffer, sizeof buffer, 0));
    VALUE(recv(s, buffer, 4, MSG_TRUNC));
    VALUE(recv(s, buffer, 4, MSG_DONTWAIT));
    SHOW(connect_to(c, 4003));
    VALUE(write(c, "connected", 9));
    VALUE(read(s, buffer, 4)); /* the rest is lost */
    VALUE(recv(s, buffer, 4, MSG_DONTWAIT));
    struct iovec parts[2] = {{"ab", 2}, {"cde", 3}};
    VALUE(writev(c, parts, 2));
    struct iovec into[2] = {{buffer, 1}, {buffer + 1, 10}};
    struct msghdr message = {
        .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = into, .msg_iovlen = 2};
    VALUE(recvmsg(s, &message, 0));
    printf("%.5s %u %d\n", buffer, message.msg_namelen, message.msg_flags);
    static char big[70000];
    VALUE(sendto(c, big, sizeof big, 0, (struct sockaddr *)&to, sizeof to));
    VALUE(send(c, big, 65507, 0));
    VALUE(recv(s, big, sizeof big, 0));
    struct mmsghdr many[3] = {{{.msg_iov = parts, .msg_iovlen = 2}, 0},
                              {{.msg_iov = parts, .msg_iovlen = 1}, 0},
                              {{.msg_iov = parts, .msg_iovlen = 2}, 0}};
    VALUE(sendmmsg(c, many, 3, 0));
    struct mmsghdr got[4] = {{{.msg_iov = into, .msg_iovlen = 2}, 0},
                             {{.msg_iov = into, .msg_iovlen = 2}, 0},
                             {{.msg_iov = into, .msg_iovlen = 2}, 0},
                             {{.msg_iov = into, .msg_iovlen = 2}, 0}};
    pause_ms(50);
    VALUE(recvmmsg(s, got, 4, MSG_DONTWAIT, NULL));
    printf("%u %u %u\n", got[0].msg_len, got[1].msg_len, got[2].msg_len);
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    SHOW(connect(c, &none, sizeof none));
    VALUE(send(c, "x", 1, 0));
    struct sockaddr_in broadcast = {
        .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = INADDR_BROADCAST};
    SHOW(sendto(c, "x", 1, 0, (struct sockaddr *)&broadcast, sizeof broadcast) < 0
             ? (errno == EACCES || errno == ENETUNREACH ? 0 : -1)
             : -1);
}

static void case_udp_refused(void)
{
    int c = socket(AF_INET, SOCK_DGRAM, 0);
    char buffer[8];
    SHOW(connect_to(c, 4997));
    VALUE(send(c, "x", 1, 0));
    pause_ms(100);
    VALUE(recv(c, buffer, sizeof buffer, MSG_DONTWAIT));
    VALUE(recv(c, buffer, sizeof buffer, MSG_DONTWAIT));
    VALUE(send(c, "x", 1, 0));
    pause_ms(100);
    VALUE(get_int(c, SOL_SOCKET, SO_ERROR));
    VALUE(recv(c, buffer, sizeof buffer, MSG_DONTWAIT));
}

static void case_pktinfo(void)
{
    int s = socket(AF_INET, SOCK_DGRAM, 0), c = socket(AF_INET, SOCK_DGRAM, 0);
    bind_to(s, 4004);
    SHOW(set_int(s, IPPROTO_IP, IP_PKTINFO, 1));
    SHOW(set_int(s, IPPROTO_IP, IP_RECVTTL, 1));
    connect_to(c, 4004);
    VALUE(send(c, "x", 1, 0));
    char buffer[8], control[256];
    struct iovec part = {buffer, sizeof buffer};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    VALUE(recvmsg(s, &message, 0));
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h != NULL; h = CMSG_NXTHDR(&message, h)) {
        if (h->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo *info = (struct in_pktinfo *)CMSG_DATA(h);
            printf("pktinfo %d %08x\n", info->ipi_ifindex, ntohl(info->ipi_addr.s_addr));
        } else {
            printf("control %d %d\n", h->cmsg_type, *(int *)CMSG_DATA(h));
        }
    }
}

static void case_dup(void)
{
    int p[2];
    char text[8];
    make_pair(p);
    int copy = dup(p[1]);
    close(p[1]);
    VALUE(write(copy, "dup", 3));
    VALUE(read(p[0], text, sizeof text));
    printf("known %d\n", local_port(copy) > 0);
    VALUE(dup2(copy, 40));
    close(copy);
    printf("known %d\n", local_port(40) > 0);
    close(40);
    VALUE(read(p[0], text, sizeof text));
    SHOW(getpeername(40, (struct sockaddr *)text, &(socklen_t){0}));
}

static void case_shutdown_read(void)
{
    int p[2];
    char text[8];
    make_pair(p);
    SHOW(shutdown(p[0], SHUT_RD));
    VALUE(read(p[0], text, sizeof text));
    VALUE(write(p[0], "still", 5));
    VALUE(read(p[1], text, sizeof text));
    SHOW(shutdown(p[0], SHUT_RDWR));
    VALUE(read(p[1], text, sizeof text));
    int fresh = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(shutdown(fresh, SHUT_RDWR));
    SHOW(shutdown(p[0], 7));
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
#define CASE(name) {#name, case_##name}
    CASE(options),
    CASE(names),
    CASE(half_close),
    CASE(reset),
    CASE(refused),
    CASE(nonblocking_connect),
    CASE(accept_nonblocking),
    CASE(interrupts),
    CASE(epoll),
    CASE(bulk),
    CASE(fork),
    CASE(daemon),
    CASE(exec),
    CASE(exec_last),
    CASE(exec_fails),
    CASE(udp),
    CASE(udp_refused),
    CASE(pktinfo),
    CASE(dup),
    CASE(shutdown_read),
};

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (count < 2) puts(cases[i].name);
        for (int n = 1; n < count; n++)
            if (strcmp(words[n], cases[i].name) == 0) cases[i].run();
    }
    return 0;
}
