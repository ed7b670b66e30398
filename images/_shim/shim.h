/* Shared by the files of cse-shim; shim.c says what the program is for. */
#ifndef CSE_SHIM_H
#define CSE_SHIM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Descriptors that bubblewrap hands through to `init`. */
enum { FD_EXE = 9, FD_SPEC = 10, FD_REPORT = 11, FD_GATE = 12 };

/* ---- spec.c: STATE/apps/NAME/shim.spec, written by app/runtimes/namespace ---------------- */

enum restart_policy { RESTART_NO, RESTART_ON_FAILURE, RESTART_ALWAYS };

struct spec {
    char **bwrap; /* argv of bubblewrap, without what comes after `--` */
    char **args;  /* argv of the program */
    char **env;
    char **cgroups; /* cgroup.procs files to join */
    const char *netns;
    const char *cwd;
    bool set_user;
    uid_t uid;
    gid_t gid;
    gid_t groups[64];
    int group_count;
    enum restart_policy restart;
    long max_retries; /* -1: no bound */
    long delay_ms;
    int stop_signal;
    long grace_ms;
    long log_bytes;
    long open_files; /* soft limit of RLIMIT_NOFILE; 0: as inherited */
};
/* Reads from `fd` at offset 0; false with a message in `error`. The texts live for ever. */
bool spec_read(int fd, struct spec *spec, char *error, size_t size);
char **spec_list(void); /* an empty list, for a caller that adds to it */
bool spec_append(char ***list, const char *text);

/* ---- init.c: process 1 inside the sandbox ------------------------------------------------- */

/* What init tells the shim, one packet each; the kernel adds the sender's pid (SCM_CREDENTIALS).*/
struct report {
    enum { REPORT_INIT = 1, REPORT_PROGRAM, REPORT_STARTED, REPORT_FAILED, REPORT_ENDED } what;
    int value;     /* FAILED: errno; ENDED: exit code (128 + N for signal N) */
    char step[64]; /* FAILED: which step */
};
/* `held`: the program is executed when a byte comes at FD_GATE; until then all is ready but that.
 */
int init_main(bool held);
enum { GIVEN_UP = ECANCELED }; /* FAILED: no byte came */
/* In the process that becomes the program: become the user, give up everything, enter the working
 * directory. Returns NULL, or the name of the step that failed, with errno. */
const char *become_program(const struct spec *spec);
void exec_in_path(char **args, char **env);

/* ---- logfile.c: the program's output ------------------------------------------------------- */

struct logfile {
    int directory;
    int fd;
    long size;
    long limit; /* rotated above: `log` becomes `log.1` */
};
struct stream {
    const char *name; /* "stdout", "stderr" */
    int fd;
    size_t used;
    char line[8192];
};
/* The file comes with the first line. */
bool logfile_open(struct logfile *log, int directory, long limit);
/* Takes what is there to read; false at end of file. */
bool logfile_take(struct logfile *log, struct stream *stream);
void logfile_flush(struct logfile *log, struct stream *stream);

/* ---- status.c: what the agent reads -------------------------------------------------------- */

struct status {
    int directory;
    const char *state; /* running, restarting, exited, failed */
    pid_t init_pid;
    pid_t pid;
    int exit_code; /* -1: none */
    int restarts;
    int64_t started_ns;  /* since 1970; 0: never */
    int64_t finished_ns; /* 0: not yet */
    char reason[512];
};
int64_t now_ns(void);
/* Replaces DIR/status as a whole. */
bool status_write(const struct status *status);

/* ---- shim.c -------------------------------------------------------------------------------- */

/* A shim's whole life, in this process; see `supervise`. `foreground`: with this terminal. */
int run_main(const char *path, bool foreground, int announce, int gate);

/* ---- launch.c ------------------------------------------------------------------------------ */

/* Forks a shim for each message on fd 0, until there are no more. `argv` becomes their title. */
int launch_main(int argc, char **argv);

/* ---- supervise.c -------------------------------------------------------------------------------
 */

/* Runs the application until it has ended for good. `announce` (or -1) gets one line when it has
 * been executed or has failed to, and is closed. `gate` (or -1): the first start is held there; of
 * one that is given up nothing is written or announced. Returns the last exit code. */
int supervise(int directory, const struct spec *spec, int spec_fd, bool foreground, int announce,
              int gate);
enum { SLICE_NS = 100000 }; /* the shortest there is */
/* The slice of this process and of what it forks from now on; 0: as all others. */
void take_short_turns(long slice_ns);

/* ---- start.c ------------------------------------------------------------------------------------
 */

struct started {
    pid_t bwrap;
    int report; /* SOCK_SEQPACKET with SO_PASSCRED */
    int out, err;
};
/* Forks bubblewrap. `gate`: see `init_main`; -1: not held. False with errno and `*step`. */
bool start_bwrap(const struct spec *spec, int spec_fd, int gate, bool foreground,
                 struct started *started, const char **step);
bool join_cgroups(const struct spec *spec);

/* ---- enter.c ------------------------------------------------------------------------------------
 */

/* Runs a command in the namespaces of the running application; returns its exit code. */
int enter_main(int directory, const struct spec *spec, char **command);

/* ---- aside.c ------------------------------------------------------------------------------------
 */

/* Runs a command in the surroundings of an application that does not run; its exit code, or 1. */
int aside_main(const struct spec *spec, int spec_fd, char **command);

#endif
