/* The interposition core, linked into a program of its own: each line printed is one fact.
 *
 * Run by test_core.py with a run directory prepared by it; exits 1 at the first fact that fails.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void closefrom(int first);
int close_range(unsigned first, unsigned last, int flags);

static void fact(bool true_, const char *text)
{
    printf("%s %s\n", true_ ? "ok" : "NOT", text);
    if (!true_) exit(1);
}

static void own_descriptors(void)
{
    struct rlimit before, after;
    getrlimit(RLIMIT_NOFILE, &before);
    int own = cse_own_fd(open("/dev/null", O_RDONLY));
    fact(own >= 0 && cse_is_own_fd(own), "an own descriptor is known as such");
    getrlimit(RLIMIT_NOFILE, &after);
    fact(before.rlim_cur == after.rlim_cur, "the program sees the limit it had");
    fact(fcntl(own, F_GETFD) == -1 && errno == EBADF, "the program cannot use it");
    fact(close(own) == -1 && errno == EBADF, "close refuses it");
    fact(dup2(0, own) == -1 && errno == EBADF, "dup2 does not replace it");
    int other = open("/dev/null", O_RDONLY);
    fact(other < own, "the program's next descriptor is a low one");
    closefrom(3);
    fact(fcntl(other, F_GETFD) == -1, "closefrom closes the program's");
    fact(libc(fcntl)(own, F_GETFD) == FD_CLOEXEC, "closefrom spares ours, which is close-on-exec");
    other = open("/dev/null", O_RDONLY);
    close_range(3, ~0U, 0);
    fact(fcntl(other, F_GETFD) == -1 && libc(fcntl)(own, F_GETFD) >= 0, "so does close_range");
    struct rlimit wanted = {before.rlim_cur < 64 ? before.rlim_cur : 64, before.rlim_max};
    fact(setrlimit(RLIMIT_NOFILE, &wanted) == 0, "the program may lower its limit");
    getrlimit(RLIMIT_NOFILE, &after);
    fact(after.rlim_cur == wanted.rlim_cur, "and then sees the lower one");
    fact(libc(fcntl)(own, F_GETFD) >= 0, "and ours still stands");
    setrlimit(RLIMIT_NOFILE, &before);
    cse_own_close(own);
    fact(!cse_is_own_fd(own) && libc(fcntl)(own, F_GETFD) == -1, "cse_own_close ends it");
}

static void descriptor_table(void)
{
    uintptr_t value = 7;
    uint32_t generation = 0;
    int fd = open("/dev/null", O_RDONLY);
    fact(!cse_fd_lookup(fd, &value, &generation), "nothing is known of a new descriptor");
    cse_fd_remember(fd, generation, cse_identity_of(fd), 42);
    fact(cse_fd_lookup(fd, &value, NULL) && value == 42, "a remembered value is found");
    int copy = dup(fd);
    fact(cse_fd_lookup(copy, &value, NULL) && value == 42, "dup carries it along");
    close(fd);
    fact(!cse_fd_lookup(fd, &value, NULL), "close forgets it");
    /* A close that nobody sees, and another file under the same number. */
    libc(close)(copy);
    int zero = open("/dev/zero", O_RDONLY);
    if (zero != copy) {
        libc(dup2)(zero, copy);
        libc(close)(zero);
    }
    fact(!cse_fd_lookup(copy, &value, NULL), "another file under the number is not taken for it");
    cse_fd_lookup(copy, &value, &generation);
    cse_fd_remember(copy, generation, cse_identity_of(copy), 0);
    fact(cse_fd_lookup(copy, &value, NULL) && value == 0, "known not to be ours is an answer too");
    uint32_t old = generation;
    close(copy);
    int again = open("/dev/null", O_RDONLY);
    if (again != copy) {
        dup2(again, copy);
        close(again);
    }
    cse_fd_lookup(copy, &value, &generation);
    cse_fd_remember(copy, old, cse_identity_of(copy), 9);
    fact(!cse_fd_lookup(copy, &value, NULL), "an answer for an earlier generation is not stored");
    close(copy);
}

/* A child in our memory does as programs do between vfork and exec. */
static void vfork_child(void)
{
    uintptr_t value = 7;
    int fd = open("/dev/null", O_RDONLY), other = open("/dev/zero", O_RDONLY);
    cse_fd_remember(fd, 0, cse_identity_of(fd), 42);
    uint32_t before = cse_fd_generation(fd);
    fact(!cse_in_vfork_child(), "this is no child of vfork");
    pid_t child = vfork();
    if (child == 0) {
        bool known = cse_in_vfork_child();
        dup2(fd, other);
        close(fd);
        close_range(3, ~0U, 0);
        _exit(known ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    fact(status == 0, "but its child is, and knows it");
    fact(cse_fd_lookup(fd, &value, NULL) && value == 42 && cse_fd_generation(fd) == before,
         "what the child closed is known here as before");
    fact(!cse_fd_lookup(other, &value, NULL), "what it replaced is not known to be that");
    child = fork();
    if (child == 0) {
        bool mistaken = cse_in_vfork_child();
        close(fd);
        _exit(mistaken || cse_fd_lookup(fd, &value, NULL));
    }
    waitpid(child, &status, 0);
    fact(status == 0, "a forked child has a table of its own");
    child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(cse_in_vfork_child());
    waitpid(child, &status, 0);
    fact(status == 0, "so has one that was forked unseen");
    close(fd);
    close(other);
}

static void each(const char *key, const char *value, void *context)
{
    char *seen = context;
    strcat(strcat(strcat(strcat(seen, key), "="), value), ";");
}

static void settings(void)
{
    char seen[512] = "";
    cse_settings_load("sample");
    fact(strcmp(cse_setting("plain"), "value") == 0, "a setting is read from the file");
    fact(strcmp(cse_setting("escaped"), "a%b\nc=d") == 0, "escapes are decoded");
    fact(strcmp(cse_setting("empty"), "") == 0, "an empty value is a value");
    fact(cse_setting("absent") == NULL, "an absent one is NULL");
    fact(strcmp(cse_setting("given.by-hand"), "hand") == 0, "the environment goes before the file");
    fact(cse_setting_number("number", 3) == 65520, "a number is read as one");
    fact(cse_setting_number("plain", 3) == 3, "what is no number gives the default");
    fact(cse_setting_number("huge", 3) == 3, "so does one that does not fit");
    cse_settings_each("list.", each, seen);
    fact(strcmp(seen, "list.0.path=/a;list.1.path=/b;") == 0, "lists are visited in order");
}

static void escapes(void)
{
    for (int i = 0; i < 3; i++) cse_escape("socket AF_NETLINK");
    if (fork() == 0) {
        cse_escape("socket AF_NETLINK");
        cse_escape("a name that is far longer than the forty bytes that count");
        _exit(0);
    }
    wait(NULL);
}

static void broker(void)
{
    struct cse_message message;
    int fd = cse_broker_connect(2000);
    fact(fd >= 0 && cse_is_own_fd(fd), "the broker is reached, by a descriptor of our own");
    int pipe_ends[2];
    fact(pipe(pipe_ends) == 0 && cse_broker_send(fd, "hello version=1", pipe_ends, 2),
         "a message and descriptors are sent");
    fact(cse_broker_receive(fd, &message, 2000) == 1, "an answer is received");
    char value[32];
    fact(cse_message_field(message.text, "name", value, sizeof value) && strcmp(value, "a b") == 0,
         "its fields are decoded");
    fact(!cse_message_field(message.text, "ame", value, sizeof value), "by their whole names");
    fact(message.fd_count == 1 && cse_is_own_fd(message.fds[0]), "its descriptor is our own");
    fact(cse_broker_receive(fd, &message, 2000) == -1, "a broker that left is noticed");
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    settings();
    own_descriptors();
    descriptor_table();
    vfork_child();
    escapes();
    broker();
    return 0;
}
