/* Storms of threads, signals and forks over TCP connections whose every byte is checked, for
 * test_net_storms.py: the same lines bare and under the overlay.
 *
 *   storm threads   waves of short-lived threads, each with connections of its own
 *   storm signals   the same, while two kinds of signals rain on every thread
 *   storm forks     children that talk and leave or execute, while threads of the parent talk
 *   storm talk PORT one client, as `forks` executes it
 *
 * Both ends are in this program and its children, over 127.0.0.1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    WAVES = 6,
    WIDE = 24,
    TALKS = 3,
    ROUNDS = 4,
    BLOCK = 9000,
    CHILDREN = 60,
    AT_ONCE = 8,
    SIGNALS = 2000
};

static int port;
static atomic_int good, bad;
static atomic_uint caught;
static atomic_bool over;

/* ---- a connection, and what goes over it -------------------------------------------------------
 */

static struct sockaddr_in here(int number)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)number),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static bool write_all(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        bytes += sent, size -= (size_t)sent;
    }
    return true;
}

static bool read_all(int fd, char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t got = recv(fd, bytes, size, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        bytes += got, size -= (size_t)got;
    }
    return true;
}

/* connect(2): after EINTR the connection goes on being made, and is waited for. */
static int connect_to(int number)
{
    struct sockaddr_in to = here(number);
    int fd = socket(AF_INET, SOCK_STREAM, 0), error = 0;
    socklen_t size = sizeof error;
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0) return fd;
    fd_set out;
    FD_ZERO(&out);
    FD_SET(fd, &out);
    bool interrupted = errno == EINTR;
    while (interrupted && select(fd + 1, NULL, &out, NULL, NULL) < 0 && errno == EINTR) {
        FD_ZERO(&out);
        FD_SET(fd, &out);
    }
    if (interrupted && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0)
        return fd;
    close(fd);
    return -1;
}

/* A few blocks there and back. */
static bool talk(int number, unsigned seed)
{
    char sent[BLOCK], got[BLOCK];
    int fd = connect_to(number);
    bool same = fd >= 0;
    for (int round = 0; round < ROUNDS && same; round++) {
        size_t size = 1 + rand_r(&seed) % BLOCK;
        for (size_t i = 0; i < size; i++) sent[i] = (char)(seed + i * 31);
        memset(got, 0, sizeof got);
        same = write_all(fd, sent, size) && read_all(fd, got, size) && memcmp(sent, got, size) == 0;
    }
    close(fd);
    return same;
}

static void *echo(void *given)
{
    int fd = (int)(intptr_t)given;
    char bytes[BLOCK];
    for (;;) {
        ssize_t got = recv(fd, bytes, sizeof bytes, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0 || !write_all(fd, bytes, (size_t)got)) break;
    }
    close(fd);
    return NULL;
}

static pthread_t start(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 * 1024);
    if (pthread_create(&thread, &small, run, argument) != 0) exit(4);
    pthread_attr_destroy(&small);
    return thread;
}

static void *serve(void *given)
{
    int listener = (int)(intptr_t)given;
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0) pthread_detach(start(echo, (void *)(intptr_t)fd));
        if (fd < 0 && errno != EINTR && errno != ECONNABORTED) return NULL;
    }
}

static void open_server(void)
{
    struct sockaddr_in at = here(0);
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&at, size) || listen(fd, 512)) exit(2);
    if (getsockname(fd, (struct sockaddr *)&at, &size)) exit(3);
    port = ntohs(at.sin_port);
    pthread_detach(start(serve, (void *)(intptr_t)fd));
}

/* ---- storms ------------------------------------------------------------------------------------
 */

static void *talk_some(void *seed)
{
    for (int i = 0; i < TALKS; i++)
        atomic_fetch_add(talk(port, (unsigned)(intptr_t)seed * 100 + i) ? &good : &bad, 1);
    return NULL;
}

static void waves(int count)
{
    pthread_t threads[WIDE];
    for (int wave = 0; wave < count; wave++) {
        for (int i = 0; i < WIDE; i++)
            threads[i] = start(talk_some, (void *)(intptr_t)(wave * WIDE + i + 1));
        for (int i = 0; i < WIDE; i++) pthread_join(threads[i], NULL);
    }
}

static void handler(int number)
{
    int saved_errno = errno;
    (void)number;
    atomic_fetch_add(&caught, 1);
    errno = saved_errno;
}

/* To the process, so that any thread may get it. */
static void *rain(void *unused)
{
    while (!atomic_load(&over)) {
        kill(getpid(), SIGUSR1);
        usleep(300);
    }
    return unused;
}

static void signals(void)
{
    struct sigaction restarts = {.sa_handler = handler, .sa_flags = SA_RESTART};
    struct sigaction interrupts = {.sa_handler = handler};
    struct itimerval often = {{0, 700}, {0, 700}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &restarts, NULL);
    sigaction(SIGUSR1, &interrupts, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    pthread_t thread = start(rain, NULL);
    while (atomic_load(&caught) < SIGNALS) waves(1);
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    setitimer(ITIMER_REAL, &never, NULL);
}

static void *talk_until_over(void *seed)
{
    for (unsigned i = 0; !atomic_load(&over); i++)
        if (!talk(port, (unsigned)(intptr_t)seed + i)) atomic_fetch_add(&bad, 1);
    return NULL;
}

static pid_t child(const char *self, int number)
{
    char text[16];
    pid_t pid = fork();
    if (pid != 0) return pid;
    snprintf(text, sizeof text, "%d", port);
    if (number % 3 == 0) execl(self, self, "talk", text, NULL);
    if (number % 3 == 1 && fork() == 0) _exit(talk(port, (unsigned)number) ? 0 : 1); /* orphan */
    _exit(talk(port, (unsigned)number + 1000) ? 0 : 1);
}

static void forks(const char *self)
{
    pthread_t talkers[4];
    int under_way = 0, status, begun = 0;
    for (int i = 0; i < 4; i++) talkers[i] = start(talk_until_over, (void *)(intptr_t)(i * 10000));
    while (begun < CHILDREN || under_way > 0) {
        if (begun < CHILDREN && under_way < AT_ONCE) {
            if (child(self, begun++) > 0) under_way++;
            continue;
        }
        if (wait(&status) <= 0) break;
        under_way--;
        atomic_fetch_add(WIFEXITED(status) && WEXITSTATUS(status) == 0 ? &good : &bad, 1);
    }
    atomic_store(&over, true);
    for (int i = 0; i < 4; i++) pthread_join(talkers[i], NULL);
}

int main(int count, char **words)
{
    const char *wanted = count > 1 ? words[1] : "";
    setvbuf(stdout, NULL, _IONBF, 0);
    if (count > 2 && strcmp(wanted, "talk") == 0) return talk(atoi(words[2]), 7) ? 0 : 1;
    open_server();
    if (strcmp(wanted, "threads") == 0) waves(WAVES);
    if (strcmp(wanted, "signals") == 0) signals();
    if (strcmp(wanted, "forks") == 0) forks("/proc/self/exe");
    printf("%s: enough %d, broken %d\n", wanted, atomic_load(&good) >= CHILDREN, atomic_load(&bad));
    return 0;
}
