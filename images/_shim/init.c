/* Process 1 of the sandbox: starts the program, tells the shim what became of it, reaps orphans.
 *
 * bubblewrap executes it (--as-pid-1). When the program ends with an error, init ends and the
 * kernel ends everything else of the sandbox; when it ends with 0 and has left processes behind
 * (a daemon that went to the background), the application lives until the last one is gone.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void tell(int what, int value, const char *step)
{
    struct report report = {.what = what, .value = value};
    if (step) strncpy(report.step, step, sizeof report.step - 1);
    while (send(FD_REPORT, &report, sizeof report, MSG_NOSIGNAL) < 0 && errno == EINTR) continue;
}

static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}, {0}};
    syscall(SYS_capset, &header, none);
}

const char *become_program(const struct spec *spec)
{
    for (int capability = 0; capability < 64; capability++)
        prctl(PR_CAPBSET_DROP, capability); /* fails where there is nothing to drop */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (spec->set_user) {
        if (setgroups((size_t)spec->group_count, spec->groups) != 0) return "setting groups";
        if (setresgid(spec->gid, spec->gid, spec->gid) != 0) return "setting the group";
        if (setresuid(spec->uid, spec->uid, spec->uid) != 0) return "setting the user";
    }
    drop_capabilities();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return "no_new_privs";
    struct rlimit files;
    if (spec->open_files && getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = (rlim_t)spec->open_files;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (spec->cwd && chdir(spec->cwd) != 0) return "entering the working directory";
    return NULL;
}

/* execvpe with the program's own PATH; errno says why when it returns. */
void exec_in_path(char **args, char **env)
{
    environ = env;
    execvp(args[0], args);
}

static void reset_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < 65; number++) signal(number, SIG_DFL);
}

/* False, with errno, where whoever holds the program has gone, or is too long in coming. */
static bool let_go(void)
{
    enum { PATIENCE_MS = 10000 };
    struct pollfd gate = {.fd = FD_GATE, .events = POLLIN};
    char byte;
    if (poll(&gate, 1, PATIENCE_MS) == 1 && read(FD_GATE, &byte, 1) == 1) return true;
    return errno = GIVEN_UP, false;
}

static void run_program(const struct spec *spec, int pipe_fd, bool held)
{
    struct {
        int error;
        char step[60];
    } failure = {0};
    tell(REPORT_PROGRAM, 0, NULL);
    reset_signals();
    take_short_turns(0);
    const char *step = become_program(spec);
    if (!step && held && !let_go()) step = "gate";
    if (!step) {
        step = "exec";
        exec_in_path(spec->args, spec->env);
    }
    failure.error = errno;
    strncpy(failure.step, step, sizeof failure.step - 1);
    if (write(pipe_fd, &failure, sizeof failure) < 0) _exit(126);
    _exit(127);
}

/* True when the program has been executed; tells the shim either way. */
static bool executed(int pipe_fd)
{
    struct {
        int error;
        char step[60];
    } failure;
    ssize_t got;
    while ((got = read(pipe_fd, &failure, sizeof failure)) < 0 && errno == EINTR) continue;
    close(pipe_fd);
    if (got == (ssize_t)sizeof failure)
        return tell(REPORT_FAILED, failure.error, failure.step), false;
    return tell(REPORT_STARTED, 0, NULL), true;
}

static int code_of(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int init_main(bool held)
{
    struct spec spec;
    char error[256];
    int ends[2];
    close(FD_EXE);
    fcntl(FD_REPORT, F_SETFD, FD_CLOEXEC);
    if (held) fcntl(FD_GATE, F_SETFD, FD_CLOEXEC);
    tell(REPORT_INIT, 0, NULL);
    if (!spec_read(FD_SPEC, &spec, error, sizeof error))
        return tell(REPORT_FAILED, EINVAL, error), 1;
    close(FD_SPEC);
    if (pipe2(ends, O_CLOEXEC) != 0) return tell(REPORT_FAILED, errno, "pipe"), 1;
    pid_t program = fork();
    if (program < 0) return tell(REPORT_FAILED, errno, "fork"), 1;
    if (program == 0) run_program(&spec, ends[1], held);
    close(ends[1]);
    if (held) close(FD_GATE);
    drop_capabilities();
    if (!executed(ends[0])) return 1;
    int null = open("/dev/null", O_RDWR); /* not to hold the program's pipes or terminal open */
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    if (chdir("/") != 0) return 1;
    for (;;) {
        int status;
        pid_t ended = wait(&status);
        if (ended < 0 && errno == EINTR) continue;
        if (ended < 0) return 0;
        if (ended != program) continue;
        tell(REPORT_ENDED, code_of(status), NULL);
        if (code_of(status) != 0) return 1;
    }
}
