/* Programs of several processes, one role each, for test_net_processes.py.
 *
 *   processes fork       forks right after its first socket, twice; prints the child's status
 *   processes crowd child|parent ADDRESS PORT
 *                        two processes: one serves TCP and UDP echo on PORT and has a connect to
 *                        ADDRESS under way, the one named calls into the stack without end
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sockaddr_in at(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* Binds to a port of the system's choice and listens there; the port. */
static int listen_on(int fd)
{
    struct sockaddr_in address = at(0);
    socklen_t length = sizeof address;
    if (bind(fd, (struct sockaddr *)&address, length) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        exit(9);
    return ntohs(address.sin_port);
}

/* ---- fork ----------------------------------------------------------------------------------- */

/* A runtime, as sanitizers are, that takes a lock of its own while a thread begins and that has
 * no handlers for fork: a child forked just then has the lock taken for good. */
static pthread_mutex_t runtime = PTHREAD_MUTEX_INITIALIZER;
struct beginning {
    void *(*run)(void *);
    void *argument;
};

static void *begin(void *given)
{
    struct beginning mine = *(struct beginning *)given;
    pthread_mutex_lock(&runtime);
    free(given);
    usleep(20000);
    pthread_mutex_unlock(&runtime);
    return mine.run(mine.argument);
}

/* Found before libc's by every library of this program. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *argument)
{
    int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
        dlsym(RTLD_NEXT, "pthread_create");
    struct beginning *new = malloc(sizeof *new);
    *new = (struct beginning){run, argument};
    return create(thread, attributes, begin, new);
}

/* The child forked while the first socket's helper thread begins, and the child of that. */
static int fork_at_once(void)
{
    int status = -1;
    int l = socket(AF_INET, SOCK_STREAM, 0);
    pid_t child = fork();
    if (child == 0) {
        pid_t grandchild = fork();
        alarm(20);
        pthread_mutex_lock(&runtime);
        pthread_mutex_unlock(&runtime);
        int c = socket(AF_INET, SOCK_STREAM, 0);
        if (grandchild == 0) _exit(0);
        struct sockaddr_in to = at(listen_on(l));
        if (connect(c, (struct sockaddr *)&to, sizeof to) != 0) _exit(2);
        waitpid(grandchild, &status, 0);
        _exit(status == 0 && accept(l, NULL, NULL) >= 0 ? 0 : 3);
    }
    waitpid(child, &status, 0);
    printf("status %d\n", status);
    return 0;
}

/* ---- crowd ---------------------------------------------------------------------------------- */

static int echo_port;
static const char *silent_address;

static struct sockaddr_in any(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
}

static void say(const char *what, long result)
{
    printf("%s: %s\n", what, result >= 0 ? "ok" : strerrorname_np(errno));
    fflush(stdout);
}

static void *connect_to_nobody(void *unused)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = any(9);
    inet_pton(AF_INET, silent_address, &to.sin_addr);
    say("connect", connect(fd, (struct sockaddr *)&to, sizeof to));
    return unused;
}

static void *echo_stream(void *given)
{
    int fd = (int)(long)given;
    char bytes[4096];
    ssize_t got;
    while ((got = read(fd, bytes, sizeof bytes)) > 0 && write(fd, bytes, (size_t)got) == got) {}
    if (got < 0) say("read", got);
    close(fd);
    return NULL;
}

static void *echo_datagrams(void *given)
{
    int fd = (int)(long)given;
    char bytes[4096];
    for (;;) {
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        ssize_t got = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &length);
        if (got < 0) return NULL;
        sendto(fd, bytes, (size_t)got, 0, (struct sockaddr *)&from, length);
    }
}

static void serve_echo(int l, int u)
{
    pthread_t thread;
    pthread_create(&thread, NULL, connect_to_nobody, NULL);
    pthread_create(&thread, NULL, echo_datagrams, (void *)(long)u);
    for (;;) {
        int fd = accept(l, NULL, NULL);
        if (fd < 0) break;
        say("accept", fd);
        pthread_create(&thread, NULL, echo_stream, (void *)(long)fd);
    }
    say("accept", -1);
}

static void call_without_end(int fd)
{
    struct sockaddr_in name;
    socklen_t length = sizeof name;
    printf("calls: %d\n", (int)getpid());
    fflush(stdout);
    while (getsockname(fd, (struct sockaddr *)&name, &length) == 0) {}
}

static int crowd(bool child_calls)
{
    int l = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in here = any(echo_port);
    if (bind(l, (struct sockaddr *)&here, sizeof here) != 0 || listen(l, 64) != 0 ||
        bind(u, (struct sockaddr *)&here, sizeof here) != 0)
        return 9;
    bool child = fork() == 0;
    if (child == child_calls)
        call_without_end(l);
    else
        serve_echo(l, u);
    return 1;
}

int main(int count, char **words)
{
    if (count == 2 && strcmp(words[1], "fork") == 0) return fork_at_once();
    if (count == 5 && strcmp(words[1], "crowd") == 0) {
        silent_address = words[3];
        echo_port = atoi(words[4]);
        return crowd(strcmp(words[2], "child") == 0);
    }
    return 64;
}
