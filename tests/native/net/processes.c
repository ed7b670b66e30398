/* Programs of several processes, one role each, for test_net_processes.py.
 *
 *   processes fork       forks right after its first socket, twice; prints the child's status
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <pthread.h>
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

int main(int count, char **words)
{
    if (count == 2 && strcmp(words[1], "fork") == 0) return fork_at_once();
    return 64;
}
