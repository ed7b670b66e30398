/* A program that puts a filter of system calls on itself, in each of the ways there are, and goes
 * on with connections that it has. Run bare and under the overlay by test_net_confined.py.
 *
 *   confined prctl | syscall | syscall-prctl | all-threads
 *
 * The filter kills at every call but those that the program makes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int a, b; /* the two ends */

static void connect_pair(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&at, length) || listen(listener, 8)) exit(2);
    getsockname(listener, (struct sockaddr *)&at, &length);
    a = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(a, (struct sockaddr *)&at, sizeof at)) exit(3);
    b = accept(listener, NULL, NULL);
}

#define LET(name)                                                                                  \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1),                                         \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static int confine(const char *way)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        LET(read),
        LET(write),
        LET(close),
        LET(exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog filter = {sizeof rules / sizeof *rules, rules};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (strcmp(way, "prctl") == 0) return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
    if (strcmp(way, "syscall-prctl") == 0)
        return (int)syscall(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
    int flags = strcmp(way, "all-threads") == 0 ? SECCOMP_FILTER_FLAG_TSYNC : 0;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
}

static void say(const char *text)
{
    if (write(1, text, strlen(text)) < 0) _exit(8);
}

int main(int count, char **words)
{
    char bytes[64] = "";
    if (count != 2) return 64;
    connect_pair();
    if (confine(words[1]) != 0) return 4;
    for (int i = 0; i < 100; i++) {
        if (write(a, "ping ", 5) != 5 || read(b, bytes, sizeof bytes) != 5) return 5;
        if (write(b, "pong ", 5) != 5 || read(a, bytes, sizeof bytes) != 5) return 6;
    }
    say(bytes);
    close(a);
    say(read(b, bytes, sizeof bytes) == 0 ? "end\n" : "no end\n");
    close(b);
    _exit(0);
}
