/* TCP sockets' options and the ends of connections, each case printing what it saw. Run once on the
 * kernel's stack and once under the overlay by test_net_connections.py: the lines must be the same.
 * Both ends are in this program, over 127.0.0.1.
 *
 *   connections CASE
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SHOW(call)                                                                                 \
    do {                                                                                           \
        long value_ = (long)(call);                                                                \
        if (value_ < 0)                                                                            \
            printf("%s: %s\n", #call, strerrorname_np(errno));                                     \
        else                                                                                       \
            printf("%s: %ld\n", #call, value_);                                                    \
    } while (0)

static int server, client; /* the two ends */

static void pause_ms(int ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int set(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value);
}

static int get(int fd, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(fd, level, name, &value, &length) == 0 ? value : -1;
}

static int port_of(int fd)
{
    struct sockaddr_in address = {0};
    socklen_t length = sizeof address;
    getsockname(fd, (struct sockaddr *)&address, &length);
    return ntohs(address.sin_port);
}

static struct sockaddr_in at(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int stream(int flags)
{
    return socket(AF_INET, SOCK_STREAM | flags, 0);
}

static int connect_to(int fd, int port)
{
    struct sockaddr_in address = at(port);
    return connect(fd, (struct sockaddr *)&address, sizeof address);
}

static int disconnect(int fd)
{
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    return connect(fd, &none, sizeof none);
}

static int bind_to(int fd, int port)
{
    struct sockaddr_in address = at(port);
    return bind(fd, (struct sockaddr *)&address, sizeof address);
}

static int listener(int backlog)
{
    int fd = stream(0);
    if (bind_to(fd, 0) || listen(fd, backlog)) exit(2);
    return fd;
}

/* A port that nobody listens on. */
static int closed_port(void)
{
    int fd = stream(0);
    if (bind_to(fd, 0)) exit(2);
    int port = port_of(fd);
    close(fd);
    return port;
}

static void make_pair(void)
{
    int l = listener(8);
    client = stream(0);
    if (connect_to(client, port_of(l))) exit(3);
    server = accept(l, NULL, NULL);
    if (server < 0) exit(4);
    close(l);
}

static int poll_for(int fd, short events, int wait_ms)
{
    struct pollfd p = {fd, events, 0};
    return poll(&p, 1, wait_ms) < 0 ? -1 : p.revents;
}

/* Until the sender has been told for a while that there is no more room. */
static long fill(int fd)
{
    static char block[65536];
    long total = 0;
    for (int idle = 0; idle < 3;) {
        ssize_t sent = send(fd, block, sizeof block, MSG_DONTWAIT);
        if (sent > 0)
            total += sent, idle = 0;
        else
            idle++, pause_ms(100);
    }
    return total;
}

static void *drain(void *fd)
{
    static char block[65536];
    long total = 0, got;
    while ((got = read(*(int *)fd, block, sizeof block)) > 0) total += got;
    return (void *)total;
}

static void *drain_later(void *fd)
{
    pause_ms(400);
    return drain(fd);
}

static int linger(int fd, int seconds)
{
    struct linger how = {1, seconds};
    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &how, sizeof how);
}

/* ---- the end of connections ------------------------------------------------------------------ */

static void case_linger_time_over(void)
{
    for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
        make_pair();
        fcntl(client, F_SETFL, nonblocking ? O_NONBLOCK : 0);
        long sent = fill(client), start = now_ms();
        SHOW(linger(client, 1));
        SHOW(close(client));
        printf("waited: %d\n", now_ms() - start >= 900);
        printf("all came: %d\n", (long)drain(&server) == sent); /* it went on by itself */
        SHOW(close(server));
    }
}

static void case_linger_acknowledged(void)
{
    pthread_t thread;
    void *total;
    make_pair();
    long sent = fill(client), start = now_ms();
    pthread_create(&thread, NULL, drain_later, &server);
    SHOW(linger(client, 50));
    SHOW(close(client));
    long past = now_ms() - start;
    printf("waited: %d, not for the time: %d\n", past >= 300, past < 40000);
    pthread_join(thread, &total);
    printf("all came: %d\n", (long)total == sent);
    make_pair(); /* nothing is on its way */
    start = now_ms();
    SHOW(linger(client, 50));
    SHOW(close(client));
    printf("not for the time: %d\n", now_ms() - start < 40000);
}

static void case_linger_copies(void)
{
    make_pair();
    fill(client);
    int copy = dup(client);
    long start = now_ms();
    SHOW(linger(client, 50));
    SHOW(close(client));
    printf("the other copy is open: %d\n", now_ms() - start < 40000);
    SHOW(get(copy, SOL_SOCKET, SO_ERROR));
    SHOW(linger(copy, 0)); /* now a reset */
    SHOW(close(copy));
    char bytes[16];
    drain(&server);
    SHOW(read(server, bytes, sizeof bytes));
}

static int by_dup2(int fd)
{
    return dup2(1, fd) == fd ? 0 : -1;
}

static int by_dup3(int fd)
{
    return dup3(1, fd, O_CLOEXEC) == fd ? 0 : -1;
}

static int by_fclose(int fd)
{
    return fclose(fdopen(fd, "r"));
}

static int by_close_range(int fd)
{
    return close_range((unsigned)fd, (unsigned)fd + 10, 0);
}

static int by_closefrom(int fd)
{
    closefrom(fd);
    return 0;
}

static void *drain_soon(void *fd)
{
    pause_ms(200);
    return drain(fd);
}

/* All that close a descriptor wait as close does. */
static void case_linger_without_close(void)
{
    int (*const ways[])(int) = {by_dup2, by_dup3, by_fclose, by_close_range, by_closefrom};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        pthread_t thread;
        void *total;
        make_pair();
        int high = fcntl(client, F_DUPFD, 900);
        close(client);
        long sent = fill(high), start = now_ms();
        pthread_create(&thread, NULL, drain_soon, &server);
        linger(high, 50);
        SHOW(ways[i](high));
        long past = now_ms() - start;
        printf("waited: %d, not for the time: %d\n", past >= 150, past < 40000);
        pthread_join(thread, &total);
        printf("all came: %d\n", (long)total == sent);
        close(server);
    }
}

static void on_alarm(int signal)
{
    (void)signal;
}

static void case_linger_interrupted(void)
{
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    make_pair();
    fill(client);
    linger(client, 50);
    struct itimerval soon = {{0, 0}, {0, 300000}};
    setitimer(ITIMER_REAL, &soon, NULL);
    long start = now_ms();
    SHOW(close(client));
    printf("not for the time: %d\n", now_ms() - start < 40000);
}

static void case_user_timeout(void)
{
    make_pair();
    char bytes[16];
    SHOW(set(client, IPPROTO_TCP, TCP_USER_TIMEOUT, -1));
    SHOW(set(client, IPPROTO_TCP, TCP_USER_TIMEOUT, 1000));
    SHOW(get(client, IPPROTO_TCP, TCP_USER_TIMEOUT));
    fill(client); /* and nobody reads: the window stays closed */
    printf("poll: %d\n", (poll_for(client, POLLIN, 30000) & (POLLERR | POLLHUP)) != 0);
    SHOW(recv(client, bytes, sizeof bytes, 0));
    SHOW(recv(client, bytes, sizeof bytes, 0));
    SHOW(send(client, bytes, sizeof bytes, MSG_NOSIGNAL));
}

static void case_errors_are_told_once(void)
{
    char bytes[16] = {0};
    make_pair();
    linger(server, 0);
    close(server);
    poll_for(client, POLLIN, 10000);
    SHOW(send(client, bytes, 4, MSG_NOSIGNAL));
    SHOW(send(client, bytes, 4, MSG_NOSIGNAL));
    SHOW(recv(client, bytes, 4, 0));
    SHOW(get(client, SOL_SOCKET, SO_ERROR));
    make_pair();
    linger(server, 0);
    close(server);
    poll_for(client, POLLIN, 10000);
    SHOW(recv(client, bytes, 4, 0));
    SHOW(get(client, SOL_SOCKET, SO_ERROR));
    SHOW(recv(client, bytes, 4, 0));
    SHOW(connect_to(client, closed_port())); /* it was connected: not again */
}

/* ---- connecting again ------------------------------------------------------------------------ */

static void exchange(int l, int fd)
{
    char bytes[16] = {0};
    int taken = accept(l, NULL, NULL);
    SHOW(write(fd, "hello", 5));
    SHOW(read(taken, bytes, sizeof bytes));
    SHOW(write(taken, "answer", 6));
    SHOW(read(fd, bytes, sizeof bytes));
    close(taken);
}

static void case_again_after_refusal(void)
{
    int l = listener(8), fd = stream(0);
    SHOW(connect_to(fd, closed_port()));
    SHOW(connect_to(fd, closed_port()));
    SHOW(connect_to(fd, port_of(l)));
    exchange(l, fd);
    SHOW(connect_to(fd, port_of(l)));
    int bound = stream(0);
    int port = closed_port();
    bind_to(bound, port);
    SHOW(connect_to(bound, closed_port()));
    printf("same port: %d\n", port_of(bound) == port);
    SHOW(connect_to(bound, port_of(l)));
    printf("same port: %d\n", port_of(bound) == port);
    exchange(l, bound);
}

/* Over, one way or the other: a refusal on this host may come before connect returns. */
static void refused(int fd)
{
    if (connect_to(fd, closed_port()) == 0 || (errno != EINPROGRESS && errno != ECONNREFUSED))
        printf("connect: %s\n", strerrorname_np(errno));
    printf("poll: %d\n", (poll_for(fd, POLLOUT, 10000) & (POLLERR | POLLHUP)) != 0);
}

static void case_again_nonblocking(void)
{
    int l = listener(8), fd = stream(SOCK_NONBLOCK), e = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLOUT, .data.fd = 77}, got;
    refused(fd);
    SHOW(get(fd, SOL_SOCKET, SO_ERROR));
    SHOW(connect_to(fd, port_of(l))); /* tells that the first has ended */
    SHOW(epoll_ctl(e, EPOLL_CTL_ADD, fd, &event));
    SHOW(connect_to(fd, port_of(l)) == 0 || errno == EINPROGRESS);
    printf("poll: %d\n", (poll_for(fd, POLLOUT, 10000) & (POLLOUT | POLLERR | POLLHUP)));
    SHOW(epoll_wait(e, &got, 1, 10000));
    printf("epoll: %d %d\n", got.data.fd, (got.events & EPOLLOUT) != 0);
    SHOW(get(fd, SOL_SOCKET, SO_ERROR));
    SHOW(connect_to(fd, port_of(l)));
    SHOW(connect_to(fd, port_of(l)));
    fcntl(fd, F_SETFL, 0);
    exchange(l, fd);
    int other = stream(SOCK_NONBLOCK | SOCK_CLOEXEC);
    event.data.fd = 78;
    struct timeval limit = {7, 0};
    setsockopt(other, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    set(other, IPPROTO_TCP, TCP_KEEPIDLE, 33);
    refused(other);
    SHOW(epoll_ctl(e, EPOLL_CTL_ADD, other, &event)); /* is in the set while it starts anew */
    SHOW(connect_to(other, port_of(l)));
    SHOW(connect_to(other, port_of(l)) == 0 || errno == EINPROGRESS);
    for (int i = 0; i < 200 && get(other, IPPROTO_TCP, TCP_MAXSEG) < 600; i++) pause_ms(50);
    got.events = 0;
    SHOW(epoll_wait(e, &got, 1, 10000) > 0);
    printf("kept: %d %d %d %d\n", fcntl(other, F_GETFD), (fcntl(other, F_GETFL) & O_NONBLOCK) != 0,
           get(other, IPPROTO_TCP, TCP_KEEPIDLE), get(other, SOL_SOCKET, SO_RCVTIMEO));
}

static void case_again_after_timeout(void)
{
    int l = listener(1), fd = stream(0), first = stream(0), second = stream(0);
    SHOW(connect_to(first, port_of(l)));
    SHOW(connect_to(second, port_of(l)));
    pause_ms(100);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 1500);
    long start = now_ms();
    SHOW(connect_to(fd, port_of(l))); /* the queue is full: nobody answers */
    printf("waited: %d\n", now_ms() - start >= 1400);
    close(accept(l, NULL, NULL));
    close(accept(l, NULL, NULL));
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 0);
    SHOW(connect_to(fd, port_of(l)));
    exchange(l, fd);
}

static void case_interrupted_connect(void)
{
    int l = listener(1), fd = stream(0), first = stream(0), second = stream(0);
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval soon = {{0, 0}, {0, 300000}};
    connect_to(first, port_of(l));
    connect_to(second, port_of(l));
    pause_ms(100);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    SHOW(connect_to(fd, port_of(l)));
    printf("writable: %d\n", poll_for(fd, POLLOUT, 100));
    struct timeval limit = {0, 300000}, none = {0, 0};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    SHOW(connect_to(fd, port_of(l)));
    close(accept(l, NULL, NULL));
    close(accept(l, NULL, NULL));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
    SHOW(connect_to(fd, port_of(l))); /* waits for what is under way */
    exchange(l, fd);
}

static void case_disconnect(void)
{
    char bytes[16];
    make_pair();
    int l = listener(8), flags = fcntl(client, F_GETFD);
    SHOW(disconnect(client));
    SHOW(read(server, bytes, sizeof bytes)); /* is told by a reset */
    SHOW(get(client, SOL_SOCKET, SO_ERROR));
    SHOW(recv(client, bytes, sizeof bytes, 0));
    SHOW(getpeername(client, (struct sockaddr *)bytes, &(socklen_t){0}));
    SHOW(connect_to(client, port_of(l)));
    exchange(l, client);
    printf("flags: %d\n", fcntl(client, F_GETFD) == flags);
    SHOW(disconnect(l)); /* no longer listens, keeps its port if that was chosen */
    SHOW(accept(l, NULL, NULL));
    SHOW(connect_to(stream(0), port_of(l)));
    SHOW(disconnect(stream(0)));
    make_pair();
    SHOW(disconnect(client));
    SHOW(bind_to(client, 0));
    SHOW(listen(client, 8)); /* now the other way round */
    int fd = stream(0);
    SHOW(connect_to(fd, port_of(client)));
    exchange(client, fd);
}

static int pipes;
static void on_pipe(int signal)
{
    (void)signal;
    pipes++;
}

static void case_not_connected(void)
{
    char bytes[16] = {0};
    struct iovec part = {bytes, 4};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    struct sigaction action = {.sa_handler = on_pipe};
    sigaction(SIGPIPE, &action, NULL);
    int sockets[] = {stream(0), listener(8), stream(SOCK_NONBLOCK)};
    for (int i = 0; i < 3; i++) {
        SHOW(read(sockets[i], bytes, sizeof bytes));
        SHOW(recv(sockets[i], bytes, sizeof bytes, MSG_PEEK));
        SHOW(recvmsg(sockets[i], &message, MSG_WAITALL));
        SHOW(write(sockets[i], bytes, 4));
        SHOW(send(sockets[i], bytes, 4, MSG_NOSIGNAL));
        SHOW(sendmsg(sockets[i], &message, MSG_DONTWAIT));
        printf("signals: %d\n", pipes);
    }
    int fd = stream(SOCK_NONBLOCK);
    refused(fd);
    SHOW(recv(fd, bytes, sizeof bytes, 0));
    SHOW(recv(fd, bytes, sizeof bytes, 0));
    SHOW(send(fd, bytes, 4, MSG_NOSIGNAL));
}

/* ---- options --------------------------------------------------------------------------------- */

static void case_defer_accept(void)
{
    int l = listener(8), fd = stream(0);
    char bytes[16];
    for (int seconds = -1; seconds < 300; seconds = seconds * 3 + 4) {
        SHOW(set(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, seconds));
        SHOW(get(l, IPPROTO_TCP, TCP_DEFER_ACCEPT));
    }
    SHOW(set(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, 30));
    SHOW(connect_to(fd, port_of(l)));
    printf("without data: %d\n", poll_for(l, POLLIN, 300));
    SHOW(write(fd, "data", 4));
    printf("with data: %d\n", poll_for(l, POLLIN, 20000));
    int taken = accept(l, NULL, NULL);
    SHOW(recv(taken, bytes, sizeof bytes, MSG_DONTWAIT));
    SHOW(set(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1));
    fd = stream(0);
    long start = now_ms();
    SHOW(connect_to(fd, port_of(l)));
    int came = poll_for(l, POLLIN, 20000);
    printf("after the time: %d %d\n", came, now_ms() - start >= 900);
    taken = accept(l, NULL, NULL);
    SHOW(recv(taken, bytes, sizeof bytes, MSG_DONTWAIT));
}

static void case_discard(void)
{
    char bytes[64];
    make_pair();
    SHOW(write(server, "0123456789abcdef", 16));
    poll_for(client, POLLIN, 10000);
    pause_ms(100);
    memset(bytes, '-', sizeof bytes);
    SHOW(recv(client, bytes, 4, MSG_PEEK | MSG_TRUNC));
    SHOW(recv(client, bytes, 4, MSG_TRUNC));
    SHOW(recv(client, NULL, 3, MSG_TRUNC));
    printf("untouched: %d\n", bytes[0] == '-');
    SHOW(recv(client, bytes, 3, 0));
    printf("%.4s\n", bytes);
    SHOW(recv(client, bytes, 60, MSG_TRUNC | MSG_DONTWAIT));
    SHOW(recv(client, bytes, 60, MSG_TRUNC | MSG_DONTWAIT));
    SHOW(fill(server) > 60000);
    SHOW(recv(client, NULL, 60000, MSG_TRUNC | MSG_WAITALL));
    close(server);
    drain(&client);
    SHOW(recv(client, bytes, 60, MSG_TRUNC));
}

static void case_congestion(void)
{
    char name[16];
    int l = listener(8), fd = stream(0);
    socklen_t length = sizeof name;
    SHOW(setsockopt(l, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
    SHOW(getsockopt(l, IPPROTO_TCP, TCP_CONGESTION, name, &length));
    printf("%s %u\n", name, length);
    SHOW(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5));
    SHOW(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "no-such", 7));
    SHOW(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "", 0));
    SHOW(connect_to(fd, port_of(l)));
    int taken = accept(l, NULL, NULL);
    getsockopt(taken, IPPROTO_TCP, TCP_CONGESTION, name, &length);
    printf("accepted %s\n", name);
    getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length);
    printf("connected %s\n", name);
    SHOW(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
    getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length);
    printf("changed %s\n", name);
    length = 3;
    SHOW(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length));
    printf("%u\n", length);
}

static void case_maxseg(void)
{
    int l = listener(8), fd = stream(0);
    SHOW(get(fd, IPPROTO_TCP, TCP_MAXSEG));
    SHOW(set(fd, IPPROTO_TCP, TCP_MAXSEG, 87));
    SHOW(set(fd, IPPROTO_TCP, TCP_MAXSEG, 40000));
    SHOW(set(fd, IPPROTO_TCP, TCP_MAXSEG, 1200));
    SHOW(get(fd, IPPROTO_TCP, TCP_MAXSEG));
    SHOW(connect_to(fd, port_of(l)));
    int taken = accept(l, NULL, NULL);
    SHOW(get(fd, IPPROTO_TCP, TCP_MAXSEG));    /* less what each segment's options take */
    SHOW(get(taken, IPPROTO_TCP, TCP_MAXSEG)); /* it was announced */
    SHOW(set(l, IPPROTO_TCP, TCP_MAXSEG, 800));
    fd = stream(0);
    SHOW(connect_to(fd, port_of(l)));
    taken = accept(l, NULL, NULL);
    SHOW(get(fd, IPPROTO_TCP, TCP_MAXSEG));
    SHOW(get(taken, IPPROTO_TCP, TCP_MAXSEG));
    SHOW(get(l, IPPROTO_TCP, TCP_MAXSEG));
}

static void *write_more(void *text)
{
    pause_ms(200);
    if (write(server, text, strlen(text)) < 0) exit(5);
    return NULL;
}

static void case_receive_low_water(void)
{
    char bytes[64];
    pthread_t thread;
    make_pair();
    int e = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN}, got;
    SHOW(set(client, SOL_SOCKET, SO_RCVLOWAT, 10));
    SHOW(get(client, SOL_SOCKET, SO_RCVLOWAT));
    epoll_ctl(e, EPOLL_CTL_ADD, client, &event);
    SHOW(write(server, "12345", 5));
    printf("too few: %d\n", poll_for(client, POLLIN, 200));
    SHOW(epoll_wait(e, &got, 1, 100));
    SHOW(recv(client, bytes, sizeof bytes, MSG_DONTWAIT | MSG_PEEK));
    pthread_create(&thread, NULL, write_more, "67890");
    SHOW(epoll_wait(e, &got, 1, 10000));
    printf("enough: %d\n", poll_for(client, POLLIN, 10000));
    pthread_join(thread, NULL);
    SHOW(read(client, bytes, sizeof bytes));
    pthread_create(&thread, NULL, write_more, "1234567890ab");
    SHOW(read(client, bytes, sizeof bytes));
    pthread_join(thread, NULL);
    SHOW(write(server, "123", 3));
    SHOW(read(client, bytes, 2)); /* it wants no more */
    close(server);
    SHOW(read(client, bytes, sizeof bytes));
    SHOW(read(client, bytes, sizeof bytes));
}

/* Linux would sleep on: it wakes a reader at SO_RCVLOWAT alone, against socket(7). */
static void case_small_reads_asleep(void)
{
    char bytes[64];
    pthread_t thread;
    make_pair();
    SHOW(set(client, SOL_SOCKET, SO_RCVLOWAT, 10));
    pthread_create(&thread, NULL, write_more, "123");
    SHOW(read(client, bytes, 2));
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, write_more, "456");
    SHOW(recv(client, bytes, 4, MSG_WAITALL));
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, write_more, "1234");
    printf("too few: %d\n", poll_for(client, POLLIN, 500));
    pthread_join(thread, NULL);
}

static void case_unsent_low_water(void)
{
    make_pair();
    SHOW(get(client, IPPROTO_TCP, TCP_NOTSENT_LOWAT));
    SHOW(set(client, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 20000));
    SHOW(get(client, IPPROTO_TCP, TCP_NOTSENT_LOWAT));
    fill(client); /* the window is full, then the unsent bytes are at the mark */
    struct tcp_info info = {0};
    socklen_t length = sizeof info;
    getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &length);
    printf("unsent about the mark: %d\n", info.tcpi_notsent_bytes < 20000 + 65536);
    printf("writable: %d\n", poll_for(client, POLLOUT, 100));
    pthread_t thread;
    pthread_create(&thread, NULL, drain, &server);
    printf("writable: %d\n", poll_for(client, POLLOUT, 20000));
    close(client);
    pthread_join(thread, NULL);
}

static void case_info(void)
{
    struct tcp_info info;
    socklen_t length = sizeof info;
    char bytes[4096];
    int fd = stream(0);
    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
    printf("fresh: %d %u\n", info.tcpi_state, length);
    int l = listener(5);
    getsockopt(l, IPPROTO_TCP, TCP_INFO, &info, &length);
    printf("listens: %d %u %u\n", info.tcpi_state, info.tcpi_unacked, info.tcpi_sacked);
    connect_to(fd, port_of(l));
    pause_ms(50);
    getsockopt(l, IPPROTO_TCP, TCP_INFO, &info, &length);
    printf("one waits: %u\n", info.tcpi_unacked);
    int taken = accept(l, NULL, NULL);
    for (int i = 0; i < 10; i++) {
        (void)!write(fd, bytes, 1000);
        for (long got = 0; got < 1000;) got += read(taken, bytes, 1000 - (size_t)got);
    }
    pause_ms(300);
    length = sizeof info;
    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
    printf("state %d, unacked %u, acked %llu, sent %llu, unsent %u, again %u %llu\n",
           info.tcpi_state, info.tcpi_unacked, (unsigned long long)info.tcpi_bytes_acked - 1,
           (unsigned long long)info.tcpi_bytes_sent, info.tcpi_notsent_bytes,
           info.tcpi_total_retrans, (unsigned long long)info.tcpi_bytes_retrans);
    printf("options %d, rtt %d, rto %d, cwnd %d, data segments %u, all %d\n", info.tcpi_options & 7,
           info.tcpi_rtt > 0 && info.tcpi_rtt < 10000000, info.tcpi_rto >= 200000,
           info.tcpi_snd_cwnd >= 10, info.tcpi_data_segs_out, info.tcpi_segs_out >= 12);
    getsockopt(taken, IPPROTO_TCP, TCP_INFO, &info, &length);
    printf("received %llu, data segments %u\n", (unsigned long long)info.tcpi_bytes_received,
           info.tcpi_data_segs_in);
    printf("last data %d\n", info.tcpi_last_data_recv >= 200 && info.tcpi_last_data_recv < 20000);
    close(fd);
    pause_ms(200);
    getsockopt(taken, IPPROTO_TCP, TCP_INFO, &info, &length);
    printf("closed by the peer: %d\n", info.tcpi_state);
}

/* Sizes that the program sets itself stay, and hold; others grow. */
static void case_buffers(void)
{
    make_pair();
    printf("much: %d\n", fill(client) > 500000);
    int l = listener(8), fd = stream(0);
    SHOW(set(l, SOL_SOCKET, SO_RCVBUF, 20000));
    SHOW(set(fd, SOL_SOCKET, SO_SNDBUF, 20000));
    SHOW(connect_to(fd, port_of(l)));
    int taken = accept(l, NULL, NULL);
    long sent = fill(fd);
    printf("little: %d\n", sent > 10000 && sent < 500000);
    SHOW(get(taken, SOL_SOCKET, SO_RCVBUF));
    SHOW(get(fd, SOL_SOCKET, SO_SNDBUF));
    close(fd);
    printf("all came: %d\n", (long)drain(&taken) == sent);
}

/* What a receiver takes that does not read, in bytes beside the sender's own buffer. */
static void case_small_receiver(void)
{
    for (int late = 0; late < 2; late++) {
        int l = stream(0);
        if (late == 0) SHOW(set(l, SOL_SOCKET, SO_RCVBUF, 16384));
        if (bind_to(l, 0) || listen(l, 8)) exit(2);
        client = stream(0);
        SHOW(set(client, SOL_SOCKET, SO_SNDBUF, 16384));
        SHOW(connect_to(client, port_of(l)));
        server = accept(l, NULL, NULL);
        if (late == 1) SHOW(set(server, SOL_SOCKET, SO_RCVBUF, 16384));
        long sent = fill(client);
        printf("enough: %d, not too much: %d\n", sent >= 16384, sent <= 3 * 32768);
        SHOW(shutdown(client, SHUT_WR));
        printf("all came: %d\n", (long)drain(&server) == sent);
    }
}

static void case_others(void)
{
    int fd = stream(0);
    SHOW(get(fd, IPPROTO_TCP, TCP_QUICKACK));
    SHOW(set(fd, IPPROTO_TCP, TCP_SYNCNT, 0));
    SHOW(set(fd, IPPROTO_TCP, TCP_SYNCNT, 3));
    SHOW(get(fd, IPPROTO_TCP, TCP_SYNCNT));
    SHOW(get(fd, IPPROTO_TCP, TCP_LINGER2));
    SHOW(set(fd, IPPROTO_TCP, TCP_LINGER2, 5));
    SHOW(get(fd, IPPROTO_TCP, TCP_LINGER2));
    SHOW(set(fd, IPPROTO_TCP, TCP_LINGER2, 5000));
    SHOW(get(fd, IPPROTO_TCP, TCP_LINGER2));
    SHOW(set(fd, IPPROTO_TCP, TCP_LINGER2, -3));
    SHOW(get(fd, IPPROTO_TCP, TCP_LINGER2));
    SHOW(set(fd, SOL_SOCKET, SO_OOBINLINE, 1));
    SHOW(get(fd, SOL_SOCKET, SO_OOBINLINE));
    SHOW(set(fd, SOL_SOCKET, SO_PRIORITY, 5));
    SHOW(get(fd, SOL_SOCKET, SO_PRIORITY));
    SHOW(set(fd, SOL_SOCKET, SO_BUSY_POLL, -1));
    SHOW(get(fd, SOL_SOCKET, SO_BUSY_POLL));
    SHOW(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "none", 5));
    SHOW(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
    char name[16] = {0};
    socklen_t length = sizeof name;
    SHOW(getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &length));
    printf("%s %u\n", name, length);
    int l = listener(8);
    SHOW(connect_to(fd, port_of(l)));
    exchange(l, fd);
    SHOW(set(fd, IPPROTO_TCP, TCP_QUICKACK, 0));
    SHOW(get(fd, IPPROTO_TCP, TCP_QUICKACK));
    SHOW(set(fd, IPPROTO_TCP, TCP_QUICKACK, 1));
    SHOW(get(fd, IPPROTO_TCP, TCP_QUICKACK));
    struct linger how = {1, -1};
    length = sizeof how;
    SHOW(setsockopt(fd, SOL_SOCKET, SO_LINGER, &how, 4));
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
#define CASE(name) {#name, case_##name}
#define OURS(name) {#name, case_##name} /* not as the kernel has it */
    CASE(linger_time_over),
    CASE(linger_acknowledged),
    CASE(linger_copies),
    CASE(linger_without_close),
    CASE(linger_interrupted),
    CASE(user_timeout),
    CASE(errors_are_told_once),
    CASE(again_after_refusal),
    CASE(again_nonblocking),
    CASE(again_after_timeout),
    CASE(interrupted_connect),
    CASE(disconnect),
    CASE(not_connected),
    CASE(defer_accept),
    CASE(discard),
    CASE(congestion),
    CASE(maxseg),
    CASE(receive_low_water),
    OURS(small_reads_asleep),
    CASE(unsent_low_water),
    CASE(info),
    CASE(buffers),
    CASE(small_receiver),
    CASE(others),
};

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (count > 1 && strcmp(words[1], cases[i].name) == 0) cases[i].run();
    return 0;
}
