/* Connections handed to a program that is started without a fork, for test_net_spawned.py:
 *
 *   spawned HOW FATE   a server accepts one connection, starts `cat` with it as standard input and
 *                      output in the way HOW names, and then ends or is killed (FATE); a client
 *                      talks with what was started
 *
 * HOW: vfork, spawn, spawnp, early (the file actions are older than the connection), clone
 * (glibc's, with the parent's memory), system, popen, inherit (posix_spawn without actions),
 * both (vfork; the server keeps the connection, and reads the first bytes itself).
 * Prints what the client sees, which is the same under the kernel's sockets.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LARGE = 1 << 20, HIGH = 40 };

extern char **environ;
static char *const cat[] = {"cat", NULL};
static const char *how;

static bool is(const char *name)
{
    return strcmp(how, name) == 0;
}

/* ---- the server ----------------------------------------------------------------------------- */

static int become_cat(void *connection)
{
    int fd = *(int *)connection;
    dup2(fd, 0);
    dup2(fd, 1);
    execv("/bin/cat", cat);
    _exit(127);
}

static posix_spawn_file_actions_t actions;

static void describe(int connection)
{
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, connection, 0);
    posix_spawn_file_actions_adddup2(&actions, connection, 1);
}

/* `sh` reads what follows from descriptors of one digit only. */
static void run_by_shell(int connection, bool piped)
{
    dup2(connection, 9);
    close(connection);
    if (!piped && system("cat <&9 >&9 &") != 0) exit(5);
    if (piped && popen("exec cat <&9 >&9", "r") == NULL) exit(5);
    close(9);
}

static void start(int connection)
{
    static char stack[65536];
    pid_t child = 0;
    int failed = 0;
    if (is("vfork") || is("both")) {
        child = vfork();
        if (child == 0) become_cat(&connection);
    } else if (is("clone")) {
        child =
            clone(become_cat, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &connection);
    } else if (is("spawn") || is("spawnp") || is("early")) {
        if (!is("early")) describe(connection);
        failed = is("spawnp") ? posix_spawnp(&child, "cat", &actions, NULL, cat, environ)
                              : posix_spawn(&child, "/bin/cat", &actions, NULL, cat, environ);
    } else if (is("inherit")) {
        dup2(connection, 0);
        dup2(connection, 1);
        failed = posix_spawn(&child, "/bin/cat", NULL, NULL, cat, environ);
    } else {
        run_by_shell(connection, is("popen"));
    }
    if (child < 0 || failed != 0) exit(6);
}

/* `said` is read when the client may go on. */
static void serve(int listener, int said, bool killed)
{
    char word[6];
    if (is("early")) describe(HIGH);
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (is("early")) {
        if (fcntl(connection, F_DUPFD_CLOEXEC, HIGH) != HIGH) exit(4);
        close(connection);
        connection = HIGH;
    }
    if (is("both") && (recv(connection, word, 5, MSG_WAITALL) != 5)) exit(7);
    start(connection);
    if (write(said, "", 1) != 1) exit(8);
    if (killed) pause();
    _exit(0);
}

/* ---- the client ----------------------------------------------------------------------------- */

static void expect(int fd, const char *text)
{
    char got[64] = {0};
    ssize_t length = send(fd, text, strlen(text), 0);
    if (length > 0) length = recv(fd, got, (size_t)length, MSG_WAITALL);
    printf("%s: %zd %s\n", text, length, length > 0 ? got : strerror(errno));
}

static void expect_large(int fd)
{
    static char sent[LARGE], got[LARGE];
    for (int i = 0; i < LARGE; i++) sent[i] = (char)(i * 7 + i / 256);
    pid_t sender = fork();
    if (sender == 0) {
        for (size_t at = 0; at < LARGE;) {
            ssize_t length = send(fd, sent + at, LARGE - at, 0);
            if (length <= 0) _exit(1);
            at += (size_t)length;
        }
        _exit(0);
    }
    size_t have = 0;
    for (ssize_t length; have < LARGE; have += (size_t)length)
        if ((length = recv(fd, got + have, LARGE - have, 0)) <= 0) break;
    int status;
    waitpid(sender, &status, 0);
    printf("%zu bytes, %s\n", have, memcmp(sent, got, LARGE) == 0 ? "the same" : "others");
}

int main(int count, char **words)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int said[2];
    if (count < 3) return 2;
    how = words[1];
    bool killed = strcmp(words[2], "killed") == 0;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 5) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0 ||
        pipe2(said, O_CLOEXEC) != 0)
        return 3;
    alarm(50);
    pid_t server = fork();
    if (server == 0) serve(listener, said[1], killed);
    close(listener);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(client, (struct sockaddr *)&address, length) != 0) return 4;
    if (is("both")) send(client, "first", 5, 0);
    char byte;
    if (read(said[0], &byte, 1) != 1) return 5;
    if (killed) {
        expect(client, "before");
        usleep(300000); /* inside the stack it would take all connections with it */
        kill(server, SIGKILL);
    }
    waitpid(server, NULL, 0);
    expect(client, "hello");
    usleep(100000);
    expect(client, "again");
    expect_large(client);
    shutdown(client, SHUT_WR);
    printf("at the end: %zd\n", recv(client, &byte, 1, 0));
    return 0;
}
