/* How long calls wait once O_NONBLOCK or a time-out was changed, by whatever call and by whomever,
 * after the same socket was waited for before. Run on the kernel's stack and under the overlay by
 * test_net_patience.py: the lines must be the same. Both ends are in this program.
 *
 *   patience [set FD]      the second form: the program that a child executes
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SOON_MS = 20, LATE_MS = 250 };

static int here, there; /* the two ends */
static const char *self;

static void pause_ms(int ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

static void *send_later(void *ms)
{
    pause_ms((int)(long)ms);
    if (write(there, "x", 1) != 1) exit(2);
    return NULL;
}

/* Reads while nothing is there; a byte follows after `ms`, and is read if the call did not. */
static void read_one(const char *what, long ms)
{
    pthread_t thread;
    char byte;
    pthread_create(&thread, NULL, send_later, (void *)ms);
    ssize_t got = read(here, &byte, 1);
    int error = errno;
    pthread_join(thread, NULL);
    printf("%s: %s\n", what, got == 1 ? "waited" : strerrorname_np(error));
    while (got != 1) {
        got = read(here, &byte, 1);
        if (got < 0) pause_ms(1);
    }
}

static void set_flags(int flags)
{
    if (fcntl(here, F_SETFL, flags) != 0) exit(2);
}

/* As often as it takes that a socket which was shared for a moment is direct again. */
static void block_again(void)
{
    char byte;
    set_flags(0);
    for (int i = 0; i < 100; i++)
        if (write(there, "y", 1) != 1 || read(here, &byte, 1) != 1) exit(2);
    read_one("blocking", SOON_MS);
    read_one("still", SOON_MS);
}

static void limit(int ms)
{
    struct timeval time = {ms / 1000, ms % 1000 * 1000};
    if (setsockopt(here, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) != 0) exit(2);
}

static void by_calls(void)
{
    int on = 1, copy = dup(here);
    block_again();
    set_flags(O_NONBLOCK);
    read_one("fcntl", LATE_MS);
    block_again();
    if (fcntl(copy, F_SETFL, O_NONBLOCK) != 0) exit(2);
    read_one("fcntl of a copy", LATE_MS);
    block_again();
    if (ioctl(here, FIONBIO, &on) != 0) exit(2);
    read_one("ioctl", LATE_MS);
    block_again();
    if (syscall(SYS_fcntl, here, F_SETFL, O_NONBLOCK) != 0) exit(2);
    read_one("fcntl by number", LATE_MS);
    block_again();
    if (syscall(SYS_ioctl, here, FIONBIO, &on) != 0) exit(2);
    read_one("ioctl by number", LATE_MS);
    block_again();
    limit(60);
    read_one("time-out", LATE_MS);
    read_one("and again", LATE_MS);
    limit(0);
    read_one("none", LATE_MS);
    close(copy);
}

static void by_a_child(void)
{
    block_again();
    if (fork() == 0) {
        set_flags(O_NONBLOCK);
        _exit(0);
    }
    wait(NULL);
    read_one("a child", LATE_MS);
    block_again();
}

/* Its descriptor is the one it inherited; it does so when it is told to. */
static int run_child(const char *number)
{
    char byte;
    if (write(1, "r", 1) != 1 || read(0, &byte, 1) != 1) return 2;
    if (fcntl(atoi(number), F_SETFL, O_NONBLOCK) != 0) return 2;
    return write(1, "d", 1) == 1 && read(0, &byte, 1) == 0 ? 0 : 2;
}

static void by_a_program(void)
{
    int to[2], from[2], status = -1;
    char number[12], byte;
    snprintf(number, sizeof number, "%d", here);
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) exit(2);
    if (fork() == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        execl(self, self, "set", number, NULL);
        _exit(3);
    }
    if (read(from[0], &byte, 1) != 1) exit(2);
    block_again();
    if (write(to[1], "g", 1) != 1 || read(from[0], &byte, 1) != 1) exit(2);
    read_one("another program", LATE_MS);
    close(to[1]);
    wait(&status);
    printf("it ended with %d\n", WEXITSTATUS(status));
}

static void connect_both(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 1)) exit(2);
    getsockname(listener, (struct sockaddr *)&address, &length);
    there = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(there, (struct sockaddr *)&address, length) != 0) exit(2);
    here = accept(listener, NULL, NULL);
    close(listener);
}

int main(int count, char **words)
{
    self = words[0];
    if (count == 3) return run_child(words[2]);
    setvbuf(stdout, NULL, _IONBF, 0);
    connect_both();
    by_calls();
    by_a_child();
    by_a_program();
    return 0;
}
