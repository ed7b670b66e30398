/* cse-shim: one supervisor process per application of the namespace runtime.
 *
 * Theory of operation. The agent may be killed at any moment and the application must go on, with
 * its output and exit status kept; so the program's parent is not the agent but this small
 * process, as in containerd and Podman. It starts bubblewrap, writes the program's output to
 * DIR/log, applies the restart policy, and keeps DIR/status. The agent finds it again by the pid
 * and start time in DIR/status, and stops the application by sending it SIGTERM.
 *
 *   agent --posix_spawn--> cse-shim run DIR --fork--> shim (own session)
 *     shim --fork,exec--> bwrap --clone--> cse-shim init (pid 1 of the sandbox) --fork,exec-->
 * program
 *
 * `init` is this same file, executed through an inherited descriptor, so that nothing of it needs
 * to be visible inside. It reports over a socket when the program has been executed (a
 * close-on-exec pipe tells), why it could not be, and how it ended.
 *
 * Everything it must know is in DIR/shim.spec; see spec.c.
 *
 *   cse-shim run DIR            supervise in the background; one line on stdout when started
 *   cse-shim foreground DIR     the same with this terminal, once, without log; its exit code
 *   cse-shim exec DIR COMMAND…  run a command beside the running program
 *   cse-shim aside DIR COMMAND… run a command in the surroundings of one that does not run
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <unistd.h>

static int usage(void)
{
    fprintf(stderr, "usage: cse-shim run|foreground DIR, or cse-shim exec|aside DIR COMMAND…\n");
    return 64;
}

/* The lock says "a shim lives here" even when a pid was reused. */
static bool take_lock(int directory)
{
    int lock = openat(directory, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0) return false;
    if (flock(lock, LOCK_EX | LOCK_NB) != 0) return false;
    return true; /* held until this process ends */
}

/* Leaves the agent's session, terminal and child list; the caller's process ends here. */
static void go_to_background(void)
{
    pid_t pid = fork();
    if (pid < 0) {
        printf("failed fork: %s\n", strerror(errno));
        exit(1);
    }
    if (pid > 0) _exit(0);
    setsid();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    dup2(null, 2);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "init") == 0) return init_main();
    if (argc < 3) return usage();
    bool run = strcmp(argv[1], "run") == 0, foreground = strcmp(argv[1], "foreground") == 0;
    bool enter = strcmp(argv[1], "exec") == 0, aside = strcmp(argv[1], "aside") == 0;
    if (!run && !foreground && !enter && !aside) return usage();

    int directory = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int spec_fd = directory < 0 ? -1 : openat(directory, "shim.spec", O_RDONLY | O_CLOEXEC);
    if (spec_fd < 0) {
        printf("failed %s/shim.spec: %s\n", argv[2], strerror(errno));
        return 1;
    }
    struct spec spec;
    char error[256];
    if (!spec_read(spec_fd, &spec, error, sizeof error)) {
        printf("failed %s/shim.spec: %s\n", argv[2], error);
        return 1;
    }
    if ((enter || aside) && argc < 4) return usage();
    if (enter) return enter_main(directory, &spec, argv + 3);
    if (aside) return aside_main(&spec, spec_fd, argv + 3);

    int announce = -1;
    if (run) {
        go_to_background();
        announce = fcntl(1, F_DUPFD_CLOEXEC, 20);
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, 1);
    }
    if (!take_lock(directory)) {
        dprintf(run ? announce : 2, "failed it is running already, or DIR cannot be written to\n");
        return 1;
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    return supervise(directory, &spec, spec_fd, foreground, announce);
}
