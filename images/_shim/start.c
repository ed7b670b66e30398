/* One start of bubblewrap: pipes for the output, a socket for reports, cgroups and network
 * namespace joined before it is executed. Called by supervise.c for each start and restart. */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

bool join_cgroups(const struct spec *spec)
{
    for (char **path = spec->cgroups; *path; path++) {
        int fd = open(*path, O_WRONLY | O_CLOEXEC);
        bool done = fd >= 0 && write(fd, "0", 1) == 1;
        if (fd >= 0) close(fd);
        if (!done) return false;
    }
    return true;
}

/* dup2 that also clears close-on-exec where both numbers are the same. */
static void place(int fd, int number)
{
    if (fd == number)
        fcntl(fd, F_SETFD, 0);
    else
        dup2(fd, number);
}

static void die(const char *step)
{
    dprintf(2, "%s: %s\n", step, strerror(errno));
    _exit(125);
}

static void become_bwrap(const struct spec *spec, int spec_fd, int gate, int report, int out,
                         int err)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* All of these are above 20, so that placing one never overwrites another. */
    int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int high_exe = fcntl(exe, F_DUPFD, 20), high_spec = fcntl(spec_fd, F_DUPFD, 20);
    int high_report = fcntl(report, F_DUPFD, 20), high_gate = fcntl(gate, F_DUPFD, 20);
    if (out >= 0) place(out, 1), place(err, 2);
    if (!join_cgroups(spec)) die("joining the control group");
    if (spec->netns) {
        int netns = open(spec->netns, O_RDONLY | O_CLOEXEC);
        if (netns < 0 || setns(netns, CLONE_NEWNET) != 0) die("entering the network namespace");
    }
    place(high_exe, FD_EXE), place(high_spec, FD_SPEC), place(high_report, FD_REPORT);
    close(high_exe), close(high_spec), close(high_report);
    if (high_gate >= 0) place(high_gate, FD_GATE), close(high_gate);
    char **argv = spec_list(), path[] = "/proc/self/fd/9";
    for (char **each = spec->bwrap; *each; each++) spec_append(&argv, *each);
    spec_append(&argv, "--"), spec_append(&argv, path);
    spec_append(&argv, gate >= 0 ? "held-init" : "init");
    char *env[] = {NULL};
    execve(argv[0], argv, env);
    die(argv[0]);
}

bool start_bwrap(const struct spec *spec, int spec_fd, int gate, bool foreground,
                 struct started *started, const char **step)
{
    int out[2] = {-1, -1}, err[2] = {-1, -1}, sockets[2], on = 1;
    *step = "pipe";
    if (!foreground && (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0)) return false;
    if (!foreground && spec->set_user) { /* so that the program may open /dev/stdout */
        if (fchown(out[1], spec->uid, spec->gid) != 0 || fchown(err[1], spec->uid, spec->gid) != 0)
            return false;
    }
    *step = "socketpair";
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) return false;
    setsockopt(sockets[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    *step = "fork";
    pid_t pid = fork();
    if (pid < 0) return false;
    if (pid == 0) become_bwrap(spec, spec_fd, gate, sockets[1], out[1], err[1]);
    close(sockets[1]);
    if (!foreground) {
        close(out[1]), close(err[1]);
        fcntl(out[0], F_SETFL, O_NONBLOCK), fcntl(err[0], F_SETFL, O_NONBLOCK);
    }
    *started = (struct started){.bwrap = pid, .report = sockets[0], .out = out[0], .err = err[0]};
    return true;
}
