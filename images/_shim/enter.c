/* `cse-shim exec`: a command in the namespaces, control groups and environment of the running
 * application, so that its elements attach as in the program itself. Called by the agent.
 *
 * Without root the sandbox lies in a user namespace of ours, and the program perhaps in one more
 * inside it: the first one owns the other namespaces and must be entered before them.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int fail(const char *what)
{
    fprintf(stderr, "cse exec: %s: %s\n", what, strerror(errno));
    return 125;
}

/* `key=` of DIR/status as a number; 0 where absent. */
static long status_number(int directory, const char *key)
{
    char text[1400];
    int fd = openat(directory, "status", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (got <= 0) return 0;
    text[got] = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == '=')
            return atol(line + strlen(key) + 1);
    return 0;
}

static int open_namespace(long pid, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/ns/%s", pid, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static bool is_own(int fd, const char *name)
{
    char path[64];
    struct stat theirs, ours;
    snprintf(path, sizeof path, "/proc/self/ns/%s", name);
    return fstat(fd, &theirs) == 0 && stat(path, &ours) == 0 && theirs.st_ino == ours.st_ino;
}

static bool is_same(int one, int other)
{
    struct stat a, b;
    return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_ino == b.st_ino;
}

static bool enter_namespaces(long pid)
{
    static const char *const names[] = {"cgroup", "ipc", "uts", "net", "pid", "mnt"};
    int fds[6], user = open_namespace(pid, "user");
    for (int i = 0; i < 6; i++)
        if ((fds[i] = open_namespace(pid, names[i])) < 0 && i > 0) return false;
    int owner = ioctl(fds[5], NS_GET_USERNS);
    bool enter_owner = owner >= 0 && !is_own(owner, "user"), enter[6];
    bool enter_user = user >= 0 && !is_own(user, "user") && !is_same(user, owner);
    for (int i = 0; i < 6; i++) enter[i] = fds[i] >= 0 && !is_own(fds[i], names[i]);
    if (enter_owner && setns(owner, CLONE_NEWUSER) != 0) return false;
    for (int i = 0; i < 6; i++) /* from here on /proc is another one */
        if (enter[i] && setns(fds[i], 0) != 0) return false;
    return !enter_user || setns(user, CLONE_NEWUSER) == 0;
}

int enter_main(int directory, const struct spec *spec, char **command)
{
    long pid = status_number(directory, "init_pid");
    if (pid <= 0) return errno = ESRCH, fail("the application is not running");
    if (!join_cgroups(spec)) return fail("joining the control group");
    if (!enter_namespaces(pid)) return fail("entering the namespaces");
    pid_t child = fork();
    if (child < 0) return fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (isatty(0)) { /* job control needs a session whose leader is in there, too */
            setsid();
            ioctl(0, TIOCSCTTY, 0);
        }
        const char *step = become_program(spec);
        if (step) _exit(fail(step));
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* changing the user cleared it */
        exec_in_path(command, spec->env);
        int code = errno == ENOENT ? 127 : 126;
        fprintf(stderr, "cse exec: %s: %s\n", command[0], strerror(errno));
        _exit(code);
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return fail("wait");
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
