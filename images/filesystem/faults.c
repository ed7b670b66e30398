/* Faults of files, to order: which operation meets one, and what becomes of it.
 *
 * Theory of operation. The agent keeps one file, <run dir>/filesystem.faults, that every process of
 * the application maps read-only when it starts: a word that says which operations any fault is
 * about, and a row for each fault. A change of it is seen by all of them at once, after fork and
 * exec too, with no connection, thread or signal; a row has the moment of its end, which is looked
 * at here, so that a fault ends whether or not the agent lives. What has become of the n-th
 * operation that a fault meets is a function of its seed and n. n, and the bytes written so far,
 * are counted in <run dir>/data/filesystem.counted, mapped by all processes and read by the agent.
 *
 * An operation that names a path is matched by that name, made absolute; one on an open file by the
 * path that the file has in the program's view. Called by calls_*.c where fs_faulty says so.
 */
#include "faults.h"

#include "fs.h"

#include <string.h>
#include <sys/mman.h>
#include <time.h>

CSE_BEFORE_SANITIZERS

enum { WHOLE_PPM = 1000000, RESETTING = 1, PATIENCE = 10000 };

static const struct fs_fault_table none;
const struct fs_fault_table *fs_fault_table = &none;
__thread int fs_shielded;

/* One for each fault, at its row's number; the agent reads them (app/agent/file_faults.py). */
struct counted {
    uint64_t serial; /* whose these are; 1: being set to zero */
    uint64_t operations, failed, delayed, shortened, bytes;
    uint64_t reserved[2];
};
static struct counted own_counted[FS_FAULTS_MAX]; /* where there is no file: this process's */
static struct counted *counted;

static void *map_file(const char *name, int flags, int protection, size_t size)
{
    char path[PATH_MAX];
    struct stat status;
    snprintf(path, sizeof path, "%.4000s/%s", cse_run_dir(), name);
    int fd = raw_open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) return NULL;
    if (flags & O_CREAT) {
        raw(SYS_fchmod, fd, 0666); /* whatever the umask: for every user of the application */
        /* Room for all of it, or none: a page that finds no room when touched is a SIGBUS. */
        if (raw(SYS_fallocate, fd, 0, 0, size) == -EOPNOTSUPP) raw(SYS_ftruncate, fd, size);
    }
    void *mapped = NULL;
    if (raw_fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size >= (off_t)size) {
        mapped = raw_map(fd, size, protection);
        if (mapped == MAP_FAILED) mapped = NULL;
    }
    raw_close(fd);
    return mapped;
}

__attribute__((constructor(102))) static void start(void)
{
    int saved_errno = errno;
    const struct fs_fault_table *table =
        map_file("filesystem.faults", O_RDONLY, PROT_READ, sizeof *table);
    if (table != NULL && table->version == FS_FAULTS_VERSION)
        __atomic_store_n(&fs_fault_table, table, __ATOMIC_RELEASE);
    errno = saved_errno;
}

/* The counters of this fault, at zero when it is met first. */
static struct counted *counted_of(int row, uint64_t serial)
{
    struct counted *table = __atomic_load_n(&counted, __ATOMIC_ACQUIRE);
    if (table == NULL) {
        table = map_file("data/filesystem.counted", O_RDWR | O_CREAT, PROT_READ | PROT_WRITE,
                         sizeof own_counted);
        if (table == NULL) table = own_counted;
        struct counted *expected = NULL;
        if (!__atomic_compare_exchange_n(&counted, &expected, table, false, __ATOMIC_ACQ_REL,
                                         __ATOMIC_ACQUIRE)) {
            if (table != own_counted) raw(SYS_munmap, table, sizeof own_counted);
            table = expected;
        }
    }
    struct counted *mine = &table[row];
    for (int tries = 0;; tries++) {
        uint64_t present = __atomic_load_n(&mine->serial, __ATOMIC_ACQUIRE);
        if (present == serial) return mine;
        if (present == RESETTING && tries < PATIENCE) { /* by another, unless that one was killed */
            raw(SYS_sched_yield);
            continue;
        }
        if (!__atomic_compare_exchange_n(&mine->serial, &present, RESETTING, false,
                                         __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        memset(&mine->operations, 0, sizeof *mine - sizeof mine->serial);
        __atomic_store_n(&mine->serial, serial, __ATOMIC_RELEASE);
    }
}

/* ---- patterns ---------------------------------------------------------------------------------
 */

/* [abc], [a-z], [!a]: whether it takes `c`; *end is behind the bracket. */
static bool in_bracket(const char *at, char c, const char **end)
{
    bool negated = *at == '!' || *at == '^', found = false;
    if (negated) at++;
    for (const char *first = at; *at && (*at != ']' || at == first); at++) {
        if (*at == '\\' && at[1]) at++;
        char low = *at, high = low;
        if (at[1] == '-' && at[2] && at[2] != ']') {
            high = at[2];
            at += 2;
        }
        if ((unsigned char)c >= (unsigned char)low && (unsigned char)c <= (unsigned char)high)
            found = true;
    }
    *end = *at ? at + 1 : at;
    return found != negated && c != '/';
}

/* The pattern behind what takes one character `c`; NULL where it does not take it. */
static const char *one(const char *pattern, char c)
{
    const char *end;
    switch (*pattern) {
    case '\0': return NULL;
    case '?': return c != '/' ? pattern + 1 : NULL;
    case '[': return in_bracket(pattern + 1, c, &end) ? end : NULL;
    case '\\':
        if (pattern[1]) pattern++;
        break;
    default: break;
    }
    return *pattern == c ? pattern + 1 : NULL;
}

/* Stars are widened one character at a time, the last one first: a star stays within its component,
 * two of them pass slashes. A later one never needs an earlier one widened but for the kind. */
bool fs_pattern_matches(const char *pattern, const char *path)
{
    const char *star = NULL, *star_path = NULL, *stars = NULL, *stars_path = NULL;
    if (*pattern != '/') return false;
    for (;;) {
        if (pattern[0] == '*' && pattern[1] == '*') {
            while (*pattern == '*') pattern++;
            /* Between slashes it may be no component at all, and takes whole ones. */
            if (*pattern == '/' && path[-1] == '/') pattern++;
            stars = pattern;
            stars_path = path;
            star = NULL;
            if (*pattern == '\0') return true;
            continue;
        }
        if (*pattern == '*') {
            star = ++pattern;
            star_path = path;
            continue;
        }
        if (*path == '\0' && *pattern == '\0') return true;
        const char *next = *path ? one(pattern, *path) : NULL;
        if (next != NULL) {
            pattern = next;
            path++;
        } else if (star != NULL && *star_path && *star_path != '/') {
            pattern = star;
            path = ++star_path;
        } else if (stars != NULL && *stars_path) {
            do stars_path++;
            while (stars[-1] == '/' && *stars_path && stars_path[-1] != '/');
            if (*stars_path == '\0') return false;
            pattern = stars;
            path = stars_path;
            star = NULL;
        } else {
            return false;
        }
    }
}

/* ---- what the program names -------------------------------------------------------------------
 */

/* The path of an open file in the program's view; false: none that a fault could be about. */
static bool path_behind(int fd, char *out)
{
    static const char gone[] = " (deleted)";
    char real[PATH_MAX], link[40];
    if (fd < 0 || cse_is_own_fd(fd)) return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = raw(SYS_readlinkat, AT_FDCWD, link, real, sizeof real - 1);
    if (length <= 0 || real[0] != '/') return false;
    real[length] = '\0';
    if (length > (long)sizeof gone && strcmp(real + length - sizeof gone + 1, gone) == 0)
        real[length - (long)sizeof gone + 1] = '\0';
    if (fs_ready() && fs_virtual_of(real, FS_ANY, out)) return true;
    size_t run = strlen(cse_run_dir()); /* what lies there is the library's own */
    if (strncmp(real, cse_run_dir(), run) == 0 && real[run] == '/') return false;
    memcpy(out, real, strlen(real) + 1);
    return true;
}

static bool path_named(int dirfd, const char *path, char *out)
{
    char base[PATH_MAX], real[PATH_MAX], whole[PATH_MAX * 2];
    if (path == NULL) return false;
    if (path[0] == '\0') return path_behind(dirfd, out);
    if (path[0] == '/') return fs_normal(path, out) == 0;
    if (dirfd == AT_FDCWD) {
        if (raw(SYS_getcwd, real, sizeof real) <= 0 || real[0] != '/') return false;
        if (!fs_ready() || !fs_virtual_of(real, FS_DIRECTORY, base)) memcpy(base, real, PATH_MAX);
    } else if (!path_behind(dirfd, base)) {
        return false;
    }
    snprintf(whole, sizeof whole, "%s/%s", base, path);
    return fs_normal(whole, out) == 0;
}

/* ---- meeting a fault --------------------------------------------------------------------------
 */

static uint64_t mixed(uint64_t x) /* splitmix64 */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static bool ended(const struct fs_fault *fault)
{
    struct timespec now;
    if (fault->until_ms == 0) return false;
    raw(SYS_clock_gettime, CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u >= fault->until_ms;
}

/* Like a slow disk: signal handlers run meanwhile, the call goes on afterwards. */
static void wait_us(uint64_t us)
{
    struct timespec until;
    if (us == 0) return;
    raw(SYS_clock_gettime, CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + us % 1000000 * 1000;
    until.tv_sec += (time_t)(us / 1000000 + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    while (raw(SYS_clock_nanosleep, CLOCK_MONOTONIC, 1 /* absolute */, &until, NULL) == -EINTR) {}
}

static uint64_t delay_of(const struct fs_fault *fault, uint64_t random)
{
    if (fault->jitter_us == 0) return fault->delay_us;
    uint64_t low = fault->delay_us > fault->jitter_us ? fault->delay_us - fault->jitter_us : 0;
    return low + mixed(random) % (fault->delay_us + fault->jitter_us - low + 1);
}

/* Takes room for *size bytes below the fault's limit, less where less is left. */
static bool take_room(const struct fs_fault *fault, struct counted *count, size_t *size)
{
    uint64_t used = __atomic_load_n(&count->bytes, __ATOMIC_RELAXED), taken;
    do {
        uint64_t left = used < fault->full_after ? fault->full_after - used : 0;
        taken = *size < left ? *size : left;
    } while (!__atomic_compare_exchange_n(&count->bytes, &used, used + taken, false,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    bool room = taken > 0 || (*size == 0 && used < fault->full_after);
    *size = taken;
    return room;
}

// NOLINTNEXTLINE(readability-non-const-parameter): the builtin writes
static void add(uint64_t *counter)
{
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* 0 or an errno. */
static int meet(struct fs_meeting *meeting, unsigned operation, const char *path, size_t *size)
{
    struct fs_fault fault;
    uint64_t delay = 0;
    int error = 0;
    size_t none_moved = 0;
    *meeting = (struct fs_meeting){0, 0};
    for (int i = 0; i < FS_FAULTS_MAX && error == 0; i++) {
        const struct fs_fault *row = &fs_fault_table->faults[i];
        uint64_t serial = __atomic_load_n(&row->serial, __ATOMIC_ACQUIRE);
        if (serial == 0 || !(row->operations & operation)) continue;
        memcpy(&fault, row, sizeof fault);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(&row->serial, __ATOMIC_RELAXED) != serial) continue; /* just ended */
        fault.pattern[FS_FAULT_PATTERN - 1] = '\0';
        if (!fs_pattern_matches(fault.pattern, path) || ended(&fault)) continue;
        struct counted *count = counted_of(i, serial);
        uint64_t n = __atomic_fetch_add(&count->operations, 1, __ATOMIC_RELAXED);
        uint64_t random = mixed(fault.seed ^ mixed(n));
        bool hit = random % WHOLE_PPM < fault.rate_ppm;
        if (hit) fs_count(FS_COUNT_FAULTS, 1);
        if (hit && (fault.delay_us | fault.jitter_us)) {
            delay += delay_of(&fault, random);
            add(&count->delayed);
        }
        if (hit && fault.error != 0) error = fault.error;
        bool divisible = size != NULL && *size > 1 && !(operation & FS_OP_WHOLE);
        if (error == 0 && hit && fault.shorten && divisible) {
            *size = 1 + (size_t)(mixed(random + 1) % (*size - 1));
            add(&count->shortened);
        }
        if (error == 0 && fault.full_after != UINT64_MAX && (operation & FS_OP_WRITE)) {
            size_t *wanted = size != NULL ? size : &none_moved;
            size_t before = *wanted;
            if (!take_room(&fault, count, wanted)) error = ENOSPC;
            if (error == 0 && *wanted < before) add(&count->shortened);
            meeting->full |= 1u << i;
            meeting->size = *wanted;
        }
        if (error != 0) add(&count->failed);
    }
    wait_us(delay);
    return error;
}

static bool met_by(struct fs_meeting *meeting, unsigned operation, const char *path, size_t *size)
{
    int saved_errno = errno;
    int error = meet(meeting, operation, path, size);
    errno = error != 0 ? error : saved_errno;
    if (error != 0) fs_met(meeting, -1);
    return error == 0;
}

bool fs_meet_fd(struct fs_meeting *meeting, unsigned operation, int fd, size_t *size)
{
    char path[PATH_MAX];
    *meeting = (struct fs_meeting){0, 0};
    if (fs_shielded || !path_behind(fd, path)) return true;
    return met_by(meeting, operation, path, size);
}

ssize_t fs_met(const struct fs_meeting *meeting, ssize_t result)
{
    size_t moved = result > 0 ? (size_t)result : 0;
    for (int i = 0; meeting->full >> i != 0 && moved < meeting->size; i++)
        if (meeting->full >> i & 1)
            __atomic_fetch_sub(&counted[i].bytes, meeting->size - moved, __ATOMIC_RELAXED);
    return result;
}

bool fs_fault_fd(unsigned operation, int fd)
{
    struct fs_meeting meeting;
    return fs_meet_fd(&meeting, operation, fd, NULL);
}

bool fs_fault_path(unsigned operation, int dirfd, const char *path)
{
    struct fs_meeting meeting;
    char whole[PATH_MAX];
    if (fs_shielded || !path_named(dirfd, path, whole)) return true;
    return met_by(&meeting, operation, whole, NULL);
}

void fs_fault_mapped(int fd)
{
    char path[PATH_MAX];
    if (fs_shielded || !path_behind(fd, path)) return;
    for (int i = 0; i < FS_FAULTS_MAX; i++) {
        const struct fs_fault *fault = &fs_fault_table->faults[i];
        if (fault->serial != 0 && (fault->operations & (FS_OP_READ | FS_OP_WRITE)) &&
            fs_pattern_matches(fault->pattern, path) && !ended(fault))
            cse_escape("mmap of a file with a fault");
    }
}

CSE_BEFORE_SANITIZERS_END
