/* Computed files: the output of a command, as a file with a size that can be seeked.
 *
 * private/fs/c<n>/content is what the command of mount n last wrote. It is made when somebody
 * looks at the name first, and anew when it is opened and no longer counts (setting `cache`); each
 * version is a file of its own, renamed into place, so whoever has one open keeps it. One process
 * of the application computes at a time, the others wait for it.
 *
 * The program must not notice a child of ours: a process without exit signal, invisible to its
 * wait(), starts the command, watches its time and dies with it. Called by layers.c.
 */
#include "fs.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { WORDS_MAX = 256, SAID_BYTES = 160, GUARD_BYTES = 2048, COMPUTED_MAX = 64 };
#define AT_ONCE_NS INT64_C(5000000000)
static const char GUARD[] = "CSE_FS_COMPUTING=";
extern char **environ;

struct fs_computed {
    const char *mount;
    char directory[PATH_MAX];
    char *command[WORDS_MAX + 1];
    int64_t fresh_ns; /* how long a version counts; INT64_MAX: for ever */
    uint64_t timeout_ms, max_bytes;
};

static struct fs_computed *all[COMPUTED_MAX];
static int count;

/* ---- settings -------------------------------------------------------------------------------- */

static const char *setting(const char *prefix, const char *name)
{
    char key[160];
    snprintf(key, sizeof key, "%s.%s", prefix, name);
    return cse_setting(key);
}

/* Seconds with decimals, as nanoseconds; `otherwise` where it is no number. */
static int64_t seconds_ns(const char *text, int64_t otherwise)
{
    if (text == NULL || *text < '0' || *text > '9') return otherwise;
    char *end;
    double seconds = strtod(text, &end);
    return *end == '\0' && seconds < 1e9 ? (int64_t)(seconds * 1e9) : otherwise;
}

struct fs_computed *fs_computed_new(const char *mount, const char *prefix)
{
    char name[32];
    if (count == COMPUTED_MAX) return NULL;
    struct fs_computed *computed =
        mmap(NULL, sizeof *computed, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (computed == MAP_FAILED) return NULL;
    computed->mount = mount;
    snprintf(computed->directory, sizeof computed->directory, "%.4000s/c%d", fs_private(), count);
    for (int i = 0; i < WORDS_MAX; i++) {
        snprintf(name, sizeof name, "command.%d", i);
        const char *word = setting(prefix, name);
        if (word == NULL) break;
        computed->command[i] = (char *)(uintptr_t)word;
    }
    const char *cache = setting(prefix, "cache");
    computed->fresh_ns = cache != NULL && strcmp(cache, "always") == 0 ? INT64_MAX
                         : cache != NULL && strcmp(cache, "never") == 0
                             ? 0
                             : seconds_ns(cache, INT64_MAX);
    computed->timeout_ms =
        (uint64_t)seconds_ns(setting(prefix, "timeout"), INT64_C(30000000000)) / 1000000;
    const char *bytes = setting(prefix, "max_bytes");
    computed->max_bytes = bytes != NULL ? strtoull(bytes, NULL, 10) : UINT64_C(256) << 20;
    if (computed->command[0] == NULL) return NULL;
    return all[count++] = computed;
}

const char *fs_computed_root(const struct fs_computed *computed)
{
    static char room[COMPUTED_MAX][PATH_MAX];
    for (int i = 0; i < count; i++)
        if (all[i] == computed) {
            snprintf(room[i], sizeof room[i], "%.4000s/content", computed->directory);
            return room[i];
        }
    return NULL;
}

/* ---- the command ------------------------------------------------------------------------------
 */

/* What the process in between tells: written by it, read after its end. */
struct outcome {
    int error;  /* errno of starting it */
    int status; /* of wait() */
    bool timed_out;
};

/* The program of the command, looked for as a shell would; false with errno. */
static bool find_program(const char *name, char *out)
{
    if (strchr(name, '/') != NULL) {
        snprintf(out, PATH_MAX, "%s", name);
        return true;
    }
    const char *path = getenv("PATH");
    for (const char *at = path ? path : "/usr/local/bin:/usr/bin:/bin"; at != NULL;) {
        const char *end = strchrnul(at, ':');
        int length = snprintf(out, PATH_MAX, "%.*s/%s", (int)(end - at), at, name);
        if (length < PATH_MAX && access(out, X_OK) == 0) return true;
        at = *end != '\0' ? end + 1 : NULL;
    }
    errno = ENOENT;
    return false;
}

/* The environment of the command: the program's, and what is being computed. NULL: no memory. */
static char **environment(const struct fs_computed *computed, size_t *bytes)
{
    size_t variables = 0;
    while (environ != NULL && environ[variables] != NULL) variables++;
    *bytes = (variables + 2) * sizeof(char *) + GUARD_BYTES;
    char **made = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED) return NULL;
    char *guard = (char *)(made + variables + 2);
    const char *outer = getenv("CSE_FS_COMPUTING");
    snprintf(guard, GUARD_BYTES, "%s%s%s:", GUARD, outer ? outer : ":", computed->mount);
    size_t used = 0;
    made[used++] = guard;
    for (size_t i = 0; i < variables; i++)
        if (strncmp(environ[i], GUARD, sizeof GUARD - 1) != 0) made[used++] = environ[i];
    return made;
}

/* Whether we are called by the command of this very file. */
static bool within_itself(const struct fs_computed *computed)
{
    char wanted[GUARD_BYTES];
    const char *outer = getenv("CSE_FS_COMPUTING");
    snprintf(wanted, sizeof wanted, ":%s:", computed->mount);
    return outer != NULL && strstr(outer, wanted) != NULL;
}

static void default_signals(void)
{
    uint64_t none = 0;
    struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        uint64_t mask;
    } standard = {.handler = NULL};
    raw(SYS_rt_sigaction, SIGCHLD, &standard, NULL, sizeof none);
    raw(SYS_rt_sigaction, SIGPIPE, &standard, NULL, sizeof none);
    raw(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
}

/* True when it ended in time. */
static bool ends_in_time(pid_t child, uint64_t timeout_ms)
{
    struct timespec left = {(time_t)(timeout_ms / 1000), (long)(timeout_ms % 1000) * 1000000};
    struct pollfd wait = {.fd = (int)raw(SYS_pidfd_open, child, 0), .events = POLLIN};
    if (wait.fd >= 0) return raw(SYS_ppoll, &wait, 1, &left, NULL, 0) == 1;
    struct timespec pause = {0, 2000000};
    for (uint64_t waited = 0; waited < timeout_ms; waited += 2) {
        siginfo_t info = {.si_pid = 0};
        raw(SYS_waitid, P_PID, child, &info, WEXITED | WNOHANG | WNOWAIT, NULL);
        if (info.si_pid == child) return true;
        raw(SYS_nanosleep, &pause, NULL);
    }
    return false;
}

static void execute(const struct fs_computed *computed, const char *program, char **variables)
{
    struct rlimit most = {.rlim_cur = computed->max_bytes, .rlim_max = computed->max_bytes};
    raw(SYS_setpgid, 0, 0);
    raw(SYS_prlimit64, 0, RLIMIT_FSIZE, &most, NULL);
    execve(program, computed->command, variables);
    raw(SYS_exit_group, errno == ENOENT ? 127 : 126);
}

/* The process in between: a copy of the program with this thread alone; system calls only. */
static void stand_between(const struct fs_computed *computed, const char *program, char **variables,
                          const int fds[3], struct outcome *outcome)
{
    default_signals();
    /* To high numbers first: the program may have closed its own 0 to 2, and ours lie there. */
    int high[3];
    for (int i = 0; i < 3; i++) high[i] = (int)raw(SYS_fcntl, fds[i], F_DUPFD, 10);
    for (int i = 0; i < 3; i++) raw(SYS_dup3, high[i], i, 0);
    raw(SYS_close_range, 3, ~0u, 0);
    pid_t child = (pid_t)raw(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0) execute(computed, program, variables);
    if (child < 0) outcome->error = -child;
    if (child > 0) {
        raw(SYS_setpgid, child, child);
        outcome->timed_out = !ends_in_time(child, computed->timeout_ms);
        if (outcome->timed_out) raw(SYS_kill, -child, SIGKILL);
        while (raw(SYS_wait4, child, &outcome->status, 0, NULL) == -EINTR) {}
    }
    raw(SYS_exit_group, 0);
}

/* Output to fds[1], what it says to fds[2]. 0 or negative errno. */
static int run(const struct fs_computed *computed, const int fds[3], struct outcome *result)
{
    char program[PATH_MAX];
    size_t bytes;
    if (!find_program(computed->command[0], program)) return -errno;
    char **variables = environment(computed, &bytes);
    struct outcome *outcome =
        mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (variables == NULL || outcome == MAP_FAILED) return -ENOMEM;
    pid_t between = (pid_t)raw(SYS_clone, 0, NULL, NULL, NULL, NULL);
    if (between == 0) stand_between(computed, program, variables, fds, outcome);
    if (between > 0)
        while (raw(SYS_wait4, between, NULL, __WCLONE, NULL) == -EINTR) {}
    *result = *outcome;
    munmap(outcome, sizeof *outcome);
    munmap(variables, bytes);
    return between < 0 ? between : -result->error;
}

/* ---- versions ---------------------------------------------------------------------------------
 */

/* The first line of what the command said, for people. */
static void report(const struct fs_computed *computed, const char *what, int said)
{
    char text[SAID_BYTES * 2], line[SAID_BYTES];
    long got = said >= 0 ? raw(SYS_pread64, said, line, sizeof line - 1, 0) : 0;
    line[got > 0 ? got : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    snprintf(text, sizeof text, "its command '%.60s' %s%s%s", computed->command[0], what,
             line[0] ? ": " : "", line);
    fs_report(computed->mount, "", text);
}

/* What the end of the command means: 0 or negative errno, told to people. */
static int judge(const struct fs_computed *computed, const struct outcome *outcome, int content,
                 int said)
{
    char what[64];
    if (outcome->timed_out) {
        snprintf(what, sizeof what, "took longer than %llu ms",
                 (unsigned long long)computed->timeout_ms);
        report(computed, what, said);
        return -ETIMEDOUT;
    }
    struct stat written;
    if (outcome->status != 0 && raw_fstat(content, &written) == 0 &&
        (uint64_t)written.st_size >= computed->max_bytes) {
        report(computed, "wrote more than max_bytes", said);
        return -EFBIG;
    }
    if (outcome->status == 0) return 0;
    if (WIFSIGNALED(outcome->status))
        snprintf(what, sizeof what, "was ended by signal %d", WTERMSIG(outcome->status));
    else
        snprintf(what, sizeof what, "ended with status %d", WEXITSTATUS(outcome->status));
    report(computed, what, said);
    return -EIO;
}

static int open_in(const struct fs_computed *computed, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", computed->directory, name);
    int fd = raw_open(path, flags | O_CLOEXEC, mode);
    if (fd >= 0 && (flags & O_CREAT)) raw(SYS_fchmod, fd, mode); /* whatever the umask is */
    return fd;
}

/* A new version in the place of the present one. */
static int compute(const struct fs_computed *computed)
{
    char fresh[PATH_MAX + 64], content[PATH_MAX + 64];
    struct outcome outcome = {.error = 0};
    snprintf(fresh, sizeof fresh, "%s/content.new", computed->directory);
    snprintf(content, sizeof content, "%s/content", computed->directory);
    raw(SYS_unlinkat, AT_FDCWD, fresh, 0);
    int fds[3] = {raw_open("/dev/null", O_RDONLY | O_CLOEXEC, 0),
                  open_in(computed, "content.new", O_WRONLY | O_CREAT | O_EXCL, 0644),
                  open_in(computed, "said", O_RDWR | O_CREAT | O_TRUNC, 0666)};
    int error = fds[1] < 0 ? fds[1] : run(computed, fds, &outcome);
    if (error == 0)
        error = judge(computed, &outcome, fds[1], fds[2]);
    else
        report(computed, "cannot be started", -1);
    if (error == 0) error = (int)raw(SYS_fchmod, fds[1], 0444);
    if (error == 0) error = (int)raw(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, content, 0);
    if (error != 0) raw(SYS_unlinkat, AT_FDCWD, fresh, 0);
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0) raw_close(fds[i]);
    return error;
}

/* Whether the present version still counts. One that was made for a look at the name serves the
 * open that follows at once (stat, then open), whatever the policy: `unread` marks it. */
static bool counts(const struct fs_computed *computed, bool opened)
{
    struct stat status;
    struct timespec now;
    char unread[PATH_MAX + 64];
    if (raw_lstat(fs_computed_root(computed), &status) != 0) return false;
    if (computed->fresh_ns == INT64_MAX || (computed->fresh_ns == 0 && !opened)) return true;
    raw(SYS_clock_gettime, CLOCK_REALTIME, &now);
    int64_t age = (now.tv_sec - status.st_mtim.tv_sec) * INT64_C(1000000000) + now.tv_nsec -
                  status.st_mtim.tv_nsec;
    if (computed->fresh_ns > 0) return age >= 0 && age < computed->fresh_ns;
    snprintf(unread, sizeof unread, "%s/unread", computed->directory);
    return raw(SYS_unlinkat, AT_FDCWD, unread, 0) == 0 && age >= 0 && age < AT_ONCE_NS;
}

int fs_computed_ready(const struct fs_computed *computed, bool opened)
{
    if (counts(computed, opened)) return 0;
    if (within_itself(computed)) return -EDEADLK;
    int saved_errno = errno;
    int error = fs_make_directories(computed->directory, 0777);
    int lock = error == 0 ? open_in(computed, "lock", O_RDWR, 0) : error;
    if (lock == -ENOENT) lock = open_in(computed, "lock", O_RDWR | O_CREAT, 0666);
    if (lock < 0) return lock;
    while (raw(SYS_flock, lock, LOCK_EX) == -EINTR) {}
    if (!counts(computed, opened)) {
        error = compute(computed);
        int unread =
            error == 0 && !opened ? open_in(computed, "unread", O_RDWR | O_CREAT, 0666) : -1;
        if (unread >= 0) raw_close(unread);
    }
    raw_close(lock);
    errno = saved_errno;
    return error;
}
