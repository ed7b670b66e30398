/* Waiting for TCP sockets in all the ways there are, each case printing what it saw. Run once on
 * the kernel's stack and once under the overlay by test_net_waiting.py: the lines must be the same.
 * Both ends are in this program, over 127.0.0.1.
 *
 *   waiting CASE
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* For what comes: a loaded machine may take long. What must not come is waited for shortly. */
enum { PATIENT_MS = 10000 };

static int a, b; /* the two ends */

static void pause_ms(int ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

static void tell(const char *what, long result)
{
    if (result < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %ld\n", what, result);
}

static void connect_pair(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 8)) exit(2);
    a = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(a, (struct sockaddr *)&at, sizeof at)) exit(3);
    b = accept(listener, NULL, NULL);
    if (b < 0) exit(4);
    close(listener);
    setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(b, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void say(const char *text)
{
    if (write(b, text, strlen(text)) < 0) perror("write");
}

/* Until so many bytes wait to be read. */
static void arrived(ssize_t bytes)
{
    char seen[64];
    for (int i = 0; i < PATIENT_MS / 10; i++) {
        if (recv(a, seen, sizeof seen, MSG_PEEK | MSG_DONTWAIT) >= bytes) return;
        pause_ms(10);
    }
}

/* Until one of the events is so. */
static void until(int fd, short events)
{
    poll(&(struct pollfd){fd, events, 0}, 1, PATIENT_MS);
}

static void get(const char *what)
{
    char bytes[64] = {0};
    ssize_t got = recv(a, bytes, sizeof bytes - 1, MSG_DONTWAIT);
    if (got < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %zd '%s'\n", what, got, bytes);
}

static void show_events(const char *what, int count, const struct epoll_event *events)
{
    printf("%s: %d", what, count);
    for (int i = 0; i < count; i++)
        printf(" [%d%s%s%s%s%s]", events[i].data.fd, events[i].events & EPOLLIN ? " in" : "",
               events[i].events & EPOLLOUT ? " out" : "",
               events[i].events & EPOLLRDHUP ? " rdhup" : "",
               events[i].events & EPOLLHUP ? " hup" : "",
               events[i].events & EPOLLERR ? " err" : "");
    printf("\n");
}

static void wait_show(const char *what, int set, int timeout)
{
    struct epoll_event events[8];
    int count = epoll_wait(set, events, 8, timeout);
    if (count < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        show_events(what, count, events);
}

static int set_with(int fd, uint32_t wanted, int tag)
{
    int set = epoll_create1(0);
    struct epoll_event event = {.events = wanted, .data.fd = tag};
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event)) perror("epoll_ctl");
    return set;
}

static void change(int set, int operation, int fd, uint32_t wanted, int tag)
{
    struct epoll_event event = {.events = wanted, .data.fd = tag};
    tell("epoll_ctl", epoll_ctl(set, operation, fd, &event));
}

static void *say_later(void *text)
{
    pause_ms(60);
    say(text);
    return NULL;
}

static pthread_t later(char *text)
{
    pthread_t thread;
    pthread_create(&thread, NULL, say_later, text);
    return thread;
}

#define CASE(name) static void name(void)

CASE(level_triggered)
{
    int set = set_with(a, EPOLLIN, 7);
    wait_show("nothing", set, 20);
    say("hello");
    wait_show("readable", set, PATIENT_MS);
    wait_show("still readable", set, PATIENT_MS);
    get("read");
    wait_show("drained", set, 20);
    change(set, EPOLL_CTL_MOD, a, EPOLLIN | EPOLLOUT, 8);
    wait_show("writable", set, PATIENT_MS);
    say("more");
    arrived(4);
    wait_show("both", set, PATIENT_MS);
    change(set, EPOLL_CTL_DEL, a, 0, 0);
    wait_show("gone", set, 20);
    change(set, EPOLL_CTL_DEL, a, 0, 0);
    change(set, EPOLL_CTL_ADD, a, EPOLLIN, 9);
    change(set, EPOLL_CTL_ADD, a, EPOLLIN, 9);
    wait_show("again", set, PATIENT_MS);
}

CASE(edge_triggered)
{
    int set = set_with(a, EPOLLIN | EPOLLET, 7);
    wait_show("nothing", set, 20);
    say("one");
    wait_show("edge", set, PATIENT_MS);
    wait_show("no new edge", set, 20);
    say("two");
    wait_show("edge again", set, PATIENT_MS);
    get("both");
    wait_show("none", set, 20);
    say("three");
    pause_ms(30);
    change(set, EPOLL_CTL_MOD, a, EPOLLIN | EPOLLET, 8);
    wait_show("armed again", set, PATIENT_MS);
    get("read");
    wait_show("once", set, 20);
}

CASE(one_shot)
{
    int set = set_with(a, EPOLLIN | EPOLLONESHOT, 7);
    say("one");
    wait_show("fires", set, PATIENT_MS);
    wait_show("only once", set, 20);
    say("two");
    wait_show("still not", set, 20);
    change(set, EPOLL_CTL_MOD, a, EPOLLIN | EPOLLONESHOT, 8);
    wait_show("armed", set, PATIENT_MS);
    wait_show("only once", set, 20);
}

CASE(end_of_file)
{
    int set = set_with(a, EPOLLIN | EPOLLRDHUP, 7);
    say("last");
    shutdown(b, SHUT_WR);
    until(a, POLLRDHUP);
    wait_show("data and end", set, PATIENT_MS);
    get("data");
    get("end");
    wait_show("end", set, PATIENT_MS);
    tell("still writable", write(a, "x", 1));
    shutdown(a, SHUT_WR);
    until(a, 0);
    wait_show("both ways", set, PATIENT_MS);
}

CASE(reset)
{
    struct linger now = {1, 0};
    int set = set_with(a, EPOLLIN, 7);
    setsockopt(b, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(b);
    until(a, 0);
    struct epoll_event event;
    int count = epoll_wait(set, &event, 1, PATIENT_MS);
    printf("%d err %d hup %d\n", count, (event.events & EPOLLERR) != 0,
           (event.events & EPOLLHUP) != 0);
    get("read");
    signal(SIGPIPE, SIG_IGN);
    tell("write", write(a, "x", 1));
}

CASE(nested_sets)
{
    int inner = set_with(a, EPOLLIN, 7), outer = set_with(inner, EPOLLIN, 1);
    wait_show("nothing", outer, 20);
    say("deep");
    wait_show("outer", outer, PATIENT_MS);
    wait_show("inner", inner, PATIENT_MS);
    get("read");
    wait_show("outer quiet", outer, 20);
    struct pollfd asked = {inner, POLLIN, 0};
    say("more");
    tell("poll of a set", poll(&asked, 1, PATIENT_MS));
    get("read");
}

static void show_poll(const char *what, short events)
{
    struct pollfd p = {a, events, 0};
    printf("%s: %d", what, poll(&p, 1, 100));
    printf(" %x\n", (unsigned)p.revents);
}

static void show_select(const char *what)
{
    fd_set in, out, except;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_ZERO(&except);
    FD_SET(a, &in), FD_SET(a, &out), FD_SET(a, &except);
    struct timeval limit = {0, 100000};
    int ready = select(a + 1, &in, &out, &except, &limit);
    printf("%s: %d %d%d%d\n", what, ready, FD_ISSET(a, &in) != 0, FD_ISSET(a, &out) != 0,
           FD_ISSET(a, &except) != 0);
}

/* A socket that was never connected looks hung up, until it connects or listens. */
CASE(never_connected)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    a = socket(AF_INET, SOCK_STREAM, 0);
    int set = epoll_create1(0), edge = epoll_create1(0);
    struct epoll_event level = {EPOLLIN | EPOLLRDHUP, {.fd = 1}},
                       edges = {EPOLLIN | EPOLLOUT | EPOLLET, {.fd = 2}};
    epoll_ctl(set, EPOLL_CTL_ADD, a, &level);
    epoll_ctl(edge, EPOLL_CTL_ADD, a, &edges);
    for (int bound = 0; bound < 2; bound++) {
        show_poll("poll", POLLIN | POLLOUT | POLLRDHUP);
        show_poll("poll for input", POLLIN);
        show_poll("poll for nothing", 0);
        show_select("select");
        wait_show("level", set, 100);
        wait_show("level again", set, 100);
        wait_show("edge", edge, 100);
        wait_show("edge again", edge, 100);
        bind(a, (struct sockaddr *)&any, sizeof any);
    }
    listen(a, 8);
    show_poll("poll a listener", POLLIN | POLLOUT);
    show_select("select a listener");
    wait_show("level", set, 100);
    struct sockaddr_in at;
    socklen_t length = sizeof at;
    getsockname(a, (struct sockaddr *)&at, &length);
    b = socket(AF_INET, SOCK_STREAM, 0);
    int late = epoll_create1(0);
    struct epoll_event wanted = {EPOLLIN | EPOLLOUT, {.fd = 3}};
    epoll_ctl(late, EPOLL_CTL_ADD, b, &wanted);
    wait_show("before", late, 100);
    connect(b, (struct sockaddr *)&at, sizeof at);
    wait_show("connected", late, PATIENT_MS);
    a = b;
    show_poll("poll", POLLIN | POLLOUT | POLLRDHUP);
}

CASE(mixed_descriptors)
{
    int pipes[2], set = set_with(a, EPOLLIN, 1);
    if (pipe(pipes)) return;
    change(set, EPOLL_CTL_ADD, pipes[0], EPOLLIN, 2);
    wait_show("nothing", set, 20);
    tell("pipe", write(pipes[1], "p", 1));
    wait_show("pipe", set, PATIENT_MS);
    say("sock");
    pause_ms(30);
    struct epoll_event events[4];
    int seen = 0;
    for (int i = 0; i < 20 && seen != 3; i++) {
        int count = epoll_wait(set, events, 4, 100);
        for (int k = 0; k < count; k++) seen |= events[k].data.fd;
    }
    printf("both seen: %d\n", seen);
    get("read");
    wait_show("pipe alone", set, PATIENT_MS);
}

static void caught(int number)
{
    (void)number;
}

static void alarm_in(int ms)
{
    struct sigaction action = {.sa_handler = caught};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = {{0, ms * 1000}, {0, ms * 1000}}; /* the first may come too early */
    setitimer(ITIMER_REAL, &timer, NULL);
}

CASE(signals_interrupt)
{
    int set = set_with(a, EPOLLIN, 7);
    char byte;
    alarm_in(40);
    wait_show("epoll_wait", set, PATIENT_MS);
    alarm_in(40);
    struct pollfd asked = {a, POLLIN, 0};
    tell("poll", poll(&asked, 1, PATIENT_MS));
    alarm_in(40);
    tell("recv", recv(a, &byte, 1, 0));
    fd_set in;
    FD_ZERO(&in);
    FD_SET(a, &in);
    alarm_in(40);
    tell("select", select(a + 1, &in, NULL, NULL, NULL));
    struct sigaction action = {.sa_handler = caught, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = {{0, 0}, {0, 40000}};
    setitimer(ITIMER_REAL, &timer, NULL);
    pthread_t thread = later("x");
    tell("recv, restarted", recv(a, &byte, 1, 0));
    pthread_join(thread, NULL);
}

static int counted;

static void count(int number)
{
    (void)number;
    counted++;
}

CASE(handlers_are_kept)
{
    struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART}, old;
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR1, NULL, &old);
    printf("mine %d info %d restart %d\n", old.sa_handler == count,
           (old.sa_flags & SA_SIGINFO) != 0, (old.sa_flags & SA_RESTART) != 0);
    pid_t child = vfork();
    if (child == 0) {
        signal(SIGUSR1, SIG_DFL);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    raise(SIGUSR1);
    printf("after a vfork child's change: %d\n", counted);
    action.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    sigaction(SIGUSR1, NULL, &old);
    printf("once: %d default %d\n", counted, old.sa_handler == SIG_DFL);
    printf("before: %d\n", signal(SIGUSR1, SIG_IGN) == SIG_DFL);
    raise(SIGUSR1);
    printf("ignored: %d\n", counted);
}

static void answer(int number)
{
    (void)number;
    if (write(b, "s", 1) == 1) counted++;
}

/* A handler that itself uses private sockets, while the thread does nothing else. */
CASE(handlers_use_sockets)
{
    struct sigaction action = {.sa_handler = answer, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 500}, {0, 500}};
    setitimer(ITIMER_REAL, &often, NULL);
    char bytes[256];
    size_t total = 0;
    while (total < 1000) {
        ssize_t got = read(a, bytes, sizeof bytes);
        if (got <= 0) break;
        total += (size_t)got;
        if (write(b, "m", 1) == 1) counted++;
    }
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    while (total < (size_t)counted) {
        until(a, POLLIN);
        ssize_t got = recv(a, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got <= 0) break;
        total += (size_t)got;
    }
    printf("all arrived: %d\n", total == (size_t)counted);
}

CASE(masks_while_waiting)
{
    int set = set_with(a, EPOLLIN, 7);
    sigset_t alarm_only, none;
    struct epoll_event event;
    struct sigaction action = {.sa_handler = caught};
    sigaction(SIGALRM, &action, NULL);
    sigemptyset(&none);
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarm_only, NULL);
    raise(SIGALRM);
    wait_show("blocked", set, 50);
    tell("epoll_pwait lets it in", epoll_pwait(set, &event, 1, PATIENT_MS, &none));
    raise(SIGALRM);
    struct pollfd asked = {a, POLLIN, 0};
    struct timespec limit = {PATIENT_MS / 1000, 0};
    tell("ppoll lets it in", ppoll(&asked, 1, &limit, &none));
    raise(SIGALRM);
    fd_set in;
    FD_ZERO(&in);
    FD_SET(a, &in);
    tell("pselect lets it in", pselect(a + 1, &in, NULL, NULL, &limit, &none));
}

static long spent_ms(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - start->tv_sec) * 1000 + (now.tv_nsec - start->tv_nsec) / 1000000;
}

#define NOT_EARLY(what, least, call)                                                               \
    do {                                                                                           \
        struct timespec start_;                                                                    \
        clock_gettime(CLOCK_MONOTONIC, &start_);                                                   \
        long result_ = (long)(call);                                                               \
        tell(what, result_);                                                                       \
        printf("%s not early: %d\n", what, spent_ms(&start_) >= (least) - 1);                      \
    } while (0)

CASE(timeouts)
{
    int set = set_with(a, EPOLLIN, 7);
    struct epoll_event event;
    struct pollfd asked = {a, POLLIN, 0};
    struct timeval limit = {0, 50000};
    char byte;
    fd_set in;
    NOT_EARLY("epoll_wait", 50, epoll_wait(set, &event, 1, 50));
    NOT_EARLY("poll", 50, poll(&asked, 1, 50));
    FD_ZERO(&in);
    FD_SET(a, &in);
    struct timeval left = limit;
    NOT_EARLY("select", 50, select(a + 1, &in, NULL, NULL, &left));
    printf("left: %ld %ld set: %d\n", (long)left.tv_sec, (long)left.tv_usec, FD_ISSET(a, &in) != 0);
    setsockopt(a, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    NOT_EARLY("recv", 50, recv(a, &byte, 1, 0));
    NOT_EARLY("at once", 0, epoll_wait(set, &event, 1, 0));
    NOT_EARLY("at once", 0, poll(&asked, 1, 0));
}

CASE(poll_and_select)
{
    int pipes[2];
    if (pipe(pipes)) return;
    struct pollfd asked[3] = {{a, POLLIN | POLLOUT, 0}, {pipes[0], POLLIN, 0}, {-1, POLLIN, 0}};
    tell("writable", poll(asked, 3, PATIENT_MS));
    printf("%x %x %x\n", asked[0].revents, asked[1].revents, asked[2].revents);
    say("in");
    tell("pipe", write(pipes[1], "p", 1));
    arrived(2);
    tell("all", poll(asked, 3, PATIENT_MS));
    printf("%x %x %x\n", asked[0].revents, asked[1].revents, asked[2].revents);
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(a, &in);
    FD_SET(pipes[0], &in);
    FD_SET(a, &out);
    FD_SET(pipes[1], &out);
    int top = (pipes[1] > a ? pipes[1] : a) + 1;
    tell("select", select(top, &in, &out, NULL, NULL));
    printf("%d%d%d%d\n", FD_ISSET(a, &in) != 0, FD_ISSET(pipes[0], &in) != 0,
           FD_ISSET(a, &out) != 0, FD_ISSET(pipes[1], &out) != 0);
    get("read");
    asked[0].events = POLLIN;
    asked[1].fd = -1;
    pthread_t thread = later("late");
    tell("waited", poll(asked, 3, PATIENT_MS));
    printf("%x\n", asked[0].revents);
    pthread_join(thread, NULL);
    asked[1].fd = 9999;
    tell("not open", poll(asked, 3, PATIENT_MS));
    printf("%x\n", asked[1].revents);
}

CASE(receive_flags)
{
    char bytes[16] = {0};
    say("abcdef");
    arrived(6);
    tell("peek", recv(a, bytes, 3, MSG_PEEK));
    tell("peek", recv(a, bytes, 6, MSG_PEEK));
    printf("%s\n", bytes);
    tell("none", recv(a, bytes, 0, 0));
    tell("part", recv(a, bytes, 2, 0));
    memset(bytes, 0, sizeof bytes);
    pthread_t thread = later("ghij");
    tell("all", recv(a, bytes, 8, MSG_WAITALL));
    printf("%s\n", bytes);
    pthread_join(thread, NULL);
    get("empty");
    say("xyz");
    arrived(3);
    struct iovec parts[3] = {{bytes, 1}, {bytes + 4, 0}, {bytes + 8, 4}};
    tell("readv", readv(a, parts, 3));
    printf("%c%c%c\n", bytes[0], bytes[8], bytes[9]);
}

CASE(send_and_sendfile)
{
    char path[] = "/tmp/waiting-XXXXXX", bytes[8192];
    int file = mkstemp(path);
    unlink(path);
    memset(bytes, 'f', sizeof bytes);
    tell("file", write(file, bytes, sizeof bytes));
    off_t offset = 4000;
    tell("sendfile", sendfile(b, file, &offset, 4000));
    printf("offset %ld\n", (long)offset);
    lseek(file, 8000, SEEK_SET);
    tell("to its end", sendfile(b, file, NULL, 1000));
    tell("at its end", sendfile(b, file, NULL, 1000));
    size_t total = 0;
    while (total < 4192) {
        ssize_t got = read(a, bytes, sizeof bytes);
        if (got <= 0) break;
        total += (size_t)got;
    }
    printf("%zu\n", total);
    struct iovec parts[2] = {{"ab", 2}, {"cd", 2}};
    tell("writev", writev(b, parts, 2));
    tell("more", send(b, "ef", 2, MSG_MORE));
    tell("last", send(b, "gh", 2, 0));
    arrived(8);
    get("read");
}

static void *flood(void *unused)
{
    static char bytes[4 << 20];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)(i * 31 >> 3);
    ssize_t sent = write(b, bytes, sizeof bytes);
    printf("sent %zd\n", sent);
    close(b);
    return unused;
}

CASE(blocking_write_of_much)
{
    pthread_t thread;
    static char bytes[100000];
    size_t total = 0, wrong = 0;
    pthread_create(&thread, NULL, flood, NULL);
    pause_ms(100);
    for (;;) {
        ssize_t got = read(a, bytes, sizeof bytes);
        if (got <= 0) break;
        for (ssize_t i = 0; i < got; i++)
            wrong += bytes[i] != (char)((total + (size_t)i) * 31 >> 3);
        total += (size_t)got;
    }
    pthread_join(thread, NULL);
    printf("%zu bytes, %zu wrong\n", total, wrong);
}

CASE(nonblocking_until_full)
{
    static char bytes[65536];
    fcntl(b, F_SETFL, O_NONBLOCK);
    size_t total = 0;
    ssize_t sent;
    struct pollfd room = {b, POLLOUT, 0};
    do /* buffers on the way fill as well */
        while ((sent = write(b, bytes, sizeof bytes)) > 0) total += (size_t)sent;
    while (poll(&room, 1, 500) == 1);
    tell("full", sent);
    int set = set_with(b, EPOLLOUT, 5);
    wait_show("not writable", set, 30);
    size_t taken = 0;
    while (taken < total) {
        ssize_t got = read(a, bytes, sizeof bytes);
        if (got <= 0) break;
        taken += (size_t)got;
    }
    printf("all %d\n", taken == total);
    wait_show("writable", set, PATIENT_MS);
}

CASE(forked_child_reads)
{
    char byte = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        ssize_t got = read(a, &byte, 1);
        if (got == 1 && write(a, "answer", 6) == 6) _exit(byte);
        _exit(1);
    }
    close(a);
    pause_ms(50);
    say("Q");
    int status = 0;
    waitpid(child, &status, 0);
    printf("child: %c\n", WEXITSTATUS(status));
    char bytes[16] = {0};
    tell("answer", read(b, bytes, sizeof bytes));
    tell("end", read(b, bytes, sizeof bytes));
}

CASE(passed_over_a_socket)
{
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    char control[CMSG_SPACE(sizeof(int))], byte = 'x';
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &a, sizeof a);
    tell("pass", sendmsg(pair[0], &message, 0));
    close(a);
    tell("take", recvmsg(pair[1], &message, 0));
    memcpy(&a, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof a);
    say("over");
    pause_ms(50); /* nobody of ours looks: the one who holds it serves it */
    arrived(4);
    get("read");
    tell("write", write(a, "back", 4));
    char bytes[8];
    tell("read", read(b, bytes, sizeof bytes));
}

CASE(duplicates)
{
    int copy = dup(a), set = set_with(copy, EPOLLIN, 7);
    say("one");
    wait_show("copy", set, PATIENT_MS);
    get("by the first");
    close(a);
    say("two");
    wait_show("copy", set, PATIENT_MS);
    a = copy;
    get("by the copy");
    dup2(open("/dev/null", O_RDONLY), a);
    get("replaced");
    char byte;
    tell("null", read(a, &byte, 1));
}

CASE(calls_past_the_library)
{
    char bytes[16] = {0};
    struct pollfd asked = {a, POLLIN, 0};
    struct timespec limit = {PATIENT_MS / 1000, 0};
    say("raw");
    tell("poll", syscall(SYS_ppoll, &asked, 1, &limit, NULL, 0));
    __asm__ volatile("" ::: "memory");
    long got;
#if defined(__x86_64__)
    __asm__ volatile("syscall"
                     : "=a"(got)
                     : "a"(SYS_read), "D"(a), "S"(bytes), "d"(sizeof bytes)
                     : "rcx", "r11", "memory");
#else
    got = syscall(SYS_read, a, bytes, sizeof bytes);
#endif
    printf("%ld %s\n", got, bytes);
    say("then");
    pause_ms(50);
    arrived(4);
    get("by the library");
}

static sigjmp_buf back;

static void jump(int number)
{
    siglongjmp(back, number);
}

CASE(jump_out_of_a_wait)
{
    char byte;
    for (int i = 0; i < 3; i++) {
        if (sigsetjmp(back, 1) == 0) {
            struct sigaction action = {.sa_handler = jump};
            sigaction(SIGALRM, &action, NULL);
            struct itimerval timer = {{0, 0}, {0, 30000}};
            setitimer(ITIMER_REAL, &timer, NULL);
            tell("recv", recv(a, &byte, 1, 0));
        } else {
            printf("out\n");
        }
    }
    pthread_t thread = later("q");
    tell("recv", recv(a, &byte, 1, 0));
    pthread_join(thread, NULL);
}

static void *block(void *unused)
{
    char byte;
    recv(a, &byte, 1, 0);
    return unused;
}

CASE(cancelled_thread)
{
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, block, NULL);
    pause_ms(50);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    printf("cancelled %d\n", result == PTHREAD_CANCELED);
    thread = later("q");
    char byte;
    tell("recv", recv(a, &byte, 1, 0));
    pthread_join(thread, NULL);
}

static int together;

static void *wait_for_one(void *set)
{
    struct epoll_event event;
    if (epoll_wait(*(int *)set, &event, 1, PATIENT_MS) == 1) {
        char byte;
        if (recv(a, &byte, 1, MSG_DONTWAIT) == 1)
            __atomic_add_fetch(&together, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

CASE(threads_in_one_set)
{
    pthread_t threads[4];
    int set = set_with(a, EPOLLIN, 7);
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, wait_for_one, &set);
    for (int i = 0; i < 4; i++) {
        pause_ms(20);
        say("x");
    }
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    while (together < 4) {
        until(a, POLLIN);
        if (recv(a, &(char){0}, 1, MSG_DONTWAIT) != 1) break;
        together++;
    }
    printf("all bytes %d\n", together);
}

/* Pieces with MSG_MORE, or under TCP_CORK: all but the last is owed by the stack at once, the last
 * after 200 ms. The writer keeps the connection open, so that nothing else sends it. */
static size_t read_all_of_much(int flags)
{
    static char piece[9000], bytes[60000];
    size_t sent = 0, got = 0;
    fcntl(b, F_SETFL, O_NONBLOCK);
    fcntl(a, F_SETFL, O_NONBLOCK);
    int set = set_with(a, EPOLLIN, 7);
    change(set, EPOLL_CTL_ADD, b, EPOLLOUT, 8);
    while (got < 5000000) {
        struct epoll_event events[2];
        int count = epoll_wait(set, events, 2, 20000);
        if (count <= 0) break;
        for (int i = 0; i < count; i++) {
            ssize_t done;
            if (events[i].data.fd == 7) {
                while ((done = read(a, bytes, sizeof bytes)) > 0) got += (size_t)done;
                continue;
            }
            while (sent < 5000000 &&
                   (done = send(b, piece,
                                5000000 - sent < sizeof piece ? 5000000 - sent : sizeof piece,
                                flags)) > 0)
                sent += (size_t)done;
            if (sent == 5000000) epoll_ctl(set, EPOLL_CTL_DEL, b, NULL);
        }
    }
    close(set);
    return got;
}

/* Sent with nothing in flight that an acknowledgement could follow, and after the timers of all
 * that was sent before. */
static void little_arrives(int flags)
{
    struct pollfd readable = {a, POLLIN, 0};
    pause_ms(1500);
    tell("a little", send(b, "xy", 2, flags));
    tell("poll", poll(&readable, 1, 20000));
    get("read");
}

CASE(more_is_always_to_come)
{
    little_arrives(MSG_MORE);
    printf("%zu\n", read_all_of_much(MSG_MORE));
    little_arrives(MSG_MORE);
}

CASE(corked)
{
    int on = 1, off = 0;
    setsockopt(b, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
    little_arrives(0);
    printf("%zu\n", read_all_of_much(0));
    tell("a little", send(b, "xy", 2, 0));
    setsockopt(b, IPPROTO_TCP, TCP_CORK, &off, sizeof off);
    struct pollfd readable = {a, POLLIN, 0};
    tell("poll", poll(&readable, 1, 20000));
    get("uncorked");
}

/* Two servers, each with a set and a thread of its own, hand each connection to the other after
 * each message, as haproxy and Go's runtime do with idle ones. */
enum { HANDED = 6, MESSAGES = 200, LIVES = 4, PIECE = 3000 };
static int server_sets[2];

static void serve(int which, int fd)
{
    char bytes[PIECE];
    ssize_t got = recv(fd, bytes, sizeof bytes, MSG_PEEK);
    if (got < 0) return;
    if (got == 0) {
        epoll_ctl(server_sets[which], EPOLL_CTL_DEL, fd, NULL);
        close(fd);
        return;
    }
    if (got < PIECE) return; /* level-triggered: reported again */
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
    epoll_ctl(server_sets[which], EPOLL_CTL_DEL, fd, NULL);
    recv(fd, bytes, sizeof bytes, 0);
    epoll_ctl(server_sets[!which], EPOLL_CTL_ADD, fd, &event);
    send(fd, bytes, sizeof bytes, MSG_NOSIGNAL);
}

static void *serve_set(void *which)
{
    struct epoll_event events[HANDED];
    for (;;) {
        int count = epoll_wait(server_sets[(long)which], events, HANDED, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == -1) return NULL;
            serve((int)(long)which, events[i].data.fd);
        }
    }
}

static void *ask_often(void *address)
{
    long answered = 0;
    char bytes[PIECE] = {0};
    for (int life = 0; life < LIVES; life++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, address, sizeof(struct sockaddr_in))) break;
        for (int i = 0; i < MESSAGES / LIVES; i++) {
            if (send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) != sizeof bytes) break;
            if (recv(fd, bytes, sizeof bytes, MSG_WAITALL) != sizeof bytes) break;
            answered++;
        }
        close(fd);
    }
    return (void *)answered;
}

CASE(handed_between_sets_of_threads)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(7312), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0), end = eventfd(1, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 64)) exit(2);
    pthread_t servers[2], askers[HANDED];
    for (int i = 0; i < 2; i++) server_sets[i] = epoll_create1(0);
    for (long i = 0; i < 2; i++) pthread_create(&servers[i], NULL, serve_set, (void *)i);
    for (int i = 0; i < HANDED; i++) pthread_create(&askers[i], NULL, ask_often, &at);
    for (int i = 0; i < HANDED * LIVES; i++) {
        int fd = accept(listener, NULL, NULL);
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
        epoll_ctl(server_sets[i % 2], EPOLL_CTL_ADD, fd, &event);
    }
    for (int i = 0; i < HANDED; i++) {
        void *answered;
        pthread_join(askers[i], &answered);
        printf("answered %ld\n", (long)answered);
    }
    for (int i = 0; i < 2; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = -1};
        epoll_ctl(server_sets[i], EPOLL_CTL_ADD, end, &event);
    }
    for (int i = 0; i < 2; i++) pthread_join(servers[i], NULL);
}

#define RUN(name)                                                                                  \
    if (strcmp(wanted, #name) == 0) name()

int main(int count, char **words)
{
    const char *wanted = count > 1 ? words[1] : "";
    setvbuf(stdout, NULL, _IONBF, 0);
    connect_pair(7311);
    RUN(level_triggered);
    RUN(edge_triggered);
    RUN(one_shot);
    RUN(end_of_file);
    RUN(reset);
    RUN(nested_sets);
    RUN(never_connected);
    RUN(mixed_descriptors);
    RUN(signals_interrupt);
    RUN(handlers_are_kept);
    RUN(handlers_use_sockets);
    RUN(masks_while_waiting);
    RUN(timeouts);
    RUN(poll_and_select);
    RUN(receive_flags);
    RUN(send_and_sendfile);
    RUN(blocking_write_of_much);
    RUN(nonblocking_until_full);
    RUN(forked_child_reads);
    RUN(passed_over_a_socket);
    RUN(duplicates);
    RUN(calls_past_the_library);
    RUN(jump_out_of_a_wait);
    RUN(cancelled_thread);
    RUN(threads_in_one_set);
    RUN(more_is_always_to_come);
    RUN(corked);
    RUN(handed_between_sets_of_threads);
    return 0;
}
