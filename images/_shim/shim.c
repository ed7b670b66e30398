/* cse-shim: one supervisor process per application of the namespace runtime.
 *
 * Theory of operation. The agent may be killed at any moment and the application must go on, with
 * its output and exit status kept; so the program's parent is not the agent but this small
 * process, as in containerd and Podman. It starts bubblewrap, writes the program's output to
 * DIR/log, applies the restart policy, and keeps DIR/status. The agent finds it again by the pid
 * and start time in DIR/status, and stops the application by sending it SIGTERM.
 *
 *   agent --message--> cse-shim launch --fork--> shim (own session)
 *     shim --fork,exec--> bwrap --clone--> cse-shim init (pid 1 of the sandbox) --fork,exec-->
 * program
 *
 * `init` is this same file, executed through an inherited descriptor, so that nothing of it needs
 * to be visible inside. It reports over a socket when the program has been executed (a
 * close-on-exec pipe tells), why it could not be, and how it ended. Where the agent is not ready
 * yet, all is made but that: `init` holds the program until a byte comes through a pipe. Where the
 * pipe ends instead, or for too long nothing comes, all is undone.
 *
 * Everything it must know is in DIR/shim.spec; see spec.c.
 *
 *   cse-shim launch             fork shims as asked for on stdin; see launch.c
 *   cse-shim foreground DIR     a shim with this terminal, once, without log; its exit code
 *   cse-shim exec DIR COMMAND…  run a command beside the running program
 *   cse-shim aside DIR COMMAND… run a command in the surroundings of one that does not run
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static int usage(void)
{
    fprintf(stderr, "usage: cse-shim launch, cse-shim foreground DIR, "
                    "or cse-shim exec|aside DIR COMMAND…\n");
    return 64;
}

struct application {
    int directory, spec_fd;
    struct spec spec;
};

/* False, and a line to `out`, where DIR does not say what it must. */
static bool read_application(const char *path, struct application *found, int out)
{
    char error[256];
    found->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    found->spec_fd =
        found->directory < 0 ? -1 : openat(found->directory, "shim.spec", O_RDONLY | O_CLOEXEC);
    if (found->spec_fd < 0)
        snprintf(error, sizeof error, "%s", strerror(errno));
    else if (spec_read(found->spec_fd, &found->spec, error, sizeof error))
        return true;
    dprintf(out, "failed %s/shim.spec: %s\n", path, error);
    return false;
}

/* On DIR itself; it says "a shim lives here" even when a pid was reused. */
static bool take_lock(int directory)
{
    enum { ATTEMPTS = 200, PAUSE_NS = 5000000 }; /* one that has been given up may be ending */
    for (int attempt = 0; flock(directory, LOCK_EX | LOCK_NB) != 0; attempt++) {
        if (errno != EWOULDBLOCK || attempt == ATTEMPTS) return false;
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
    }
    return true; /* held until this process ends */
}

int run_main(const char *path, bool foreground, int announce, int gate)
{
    struct application found;
    int out = foreground ? 2 : announce;
    if (!read_application(path, &found, out)) return 1;
    if (!take_lock(found.directory)) return dprintf(out, "failed it is running already\n"), 1;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    return supervise(found.directory, &found.spec, found.spec_fd, foreground, announce, gate);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    struct application found;
    if (strcmp(what, "init") == 0) return init_main(false);
    if (strcmp(what, "held-init") == 0) return init_main(true);
    if (strcmp(what, "launch") == 0) return launch_main(argc, argv);
    if (strcmp(what, "foreground") == 0 && argc == 3) {
        take_short_turns(SLICE_NS);
        return run_main(argv[2], true, -1, -1);
    }
    bool enter = strcmp(what, "exec") == 0;
    if ((!enter && strcmp(what, "aside") != 0) || argc < 4) return usage();
    if (!read_application(argv[2], &found, 1)) return 1;
    return enter ? enter_main(found.directory, &found.spec, argv + 3)
                 : aside_main(&found.spec, found.spec_fd, argv + 3);
}
