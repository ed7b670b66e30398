/* `prefetch`: files of an archive that an earlier run opened soon after its start are filled before
 * they are asked for.
 *
 * While the first seconds of a run last, names that are opened are noted in the application's
 * data/prefetch-<mount>.new; the next run begins by making that its list (or has one from the
 * settings), and a thread of one of its programs fills what is in it, in that order. Which program
 * that is, is decided by a lock on a file in private/fs: it is lost with the process, or at exec,
 * and the next program goes on. Called by layers.c, and at the start of each program.
 */
#include "faults.h"
#include "fs.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { SEEN = 4096, LIST_BYTES = 1 << 20, STACK_BYTES = 512 << 10 };

static int64_t begun_s[FS_MOUNTS_MAX]; /* of this run, by the wall clock; 0: not known */
static uint64_t seen[SEEN];

static int number_of(const struct fs_mount *mount)
{
    return (int)(mount - fs_mounts);
}

static void marker_of(int number, const char *ending, char *out)
{
    snprintf(out, PATH_MAX, "%.4000s/prefetch-%d%s", fs_private(), number, ending);
}

static void list_of(int number, const char *ending, char *out)
{
    snprintf(out, PATH_MAX, "%.4000s/data/prefetch-%d%s", cse_run_dir(), number, ending);
}

static int64_t now_s(void)
{
    struct timespec now;
    raw(SYS_clock_gettime, CLOCK_REALTIME, &now);
    return now.tv_sec;
}

/* ---- noting -----------------------------------------------------------------------------------
 */

void fs_prefetch_opened(const struct fs_where *where)
{
    int number = number_of(where->mount);
    char path[PATH_MAX], line[PATH_MAX + 1];
    struct stat status;
    if (where->mount->prefetch_s == 0 || number < 0 || number >= FS_MOUNTS_MAX) return;
    int64_t begun = __atomic_load_n(&begun_s[number], __ATOMIC_RELAXED);
    if (begun == 0 || now_s() - begun > where->mount->prefetch_s) return;
    size_t length = strlen(where->rel);
    uint64_t hash = (uint64_t)number << 32 | cse_index_hash(where->rel, (uint32_t)length);
    uint64_t *slot = &seen[hash % SEEN];
    if (__atomic_exchange_n(slot, hash | 1u << 31, __ATOMIC_RELAXED) == (hash | 1u << 31)) return;
    if (strchr(where->rel, '\n') != NULL) return; /* a list has a name in each line */
    list_of(number, ".new", path);
    int fd = raw_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) return;
    memcpy(line, where->rel, length);
    line[length++] = '\n';
    if (raw_fstat(fd, &status) == 0 && status.st_size < LIST_BYTES)
        raw(SYS_write, fd, line, length);
    raw_close(fd);
}

/* ---- filling ----------------------------------------------------------------------------------
 */

static void fill(const struct fs_mount *mount, const char *rel)
{
    struct fs_where where;
    char path[PATH_MAX];
    if (rel[0] == '\0' || snprintf(path, sizeof path, "%.*s/%s", (int)mount->length, mount->path,
                                   rel) >= (int)sizeof path)
        return;
    if (fs_find_absolute(path, FS_FOLLOW, &where) != FS_INSIDE || where.mount != mount ||
        where.layer < 0 || !S_ISREG(where.mode))
        return;
    struct fs_archive *archive = mount->layers[where.layer].archive;
    if (archive != NULL) fs_archive_fill(archive, where.entry);
}

static void fill_list(const struct fs_mount *mount)
{
    char own[PATH_MAX];
    struct stat status;
    list_of(number_of(mount), "", own);
    const char *path = mount->prefetch_list != NULL ? mount->prefetch_list : own;
    int fd = raw_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return;
    size_t size = raw_fstat(fd, &status) == 0 && status.st_size > 0 ? (size_t)status.st_size : 0;
    if (size > LIST_BYTES) size = LIST_BYTES;
    size_t room = size + 1;
    char *text = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long got = text != MAP_FAILED ? raw(SYS_pread64, fd, text, size, 0) : -1;
    raw_close(fd);
    for (char *at = text; got > 0 && at < text + got;) {
        char *end = memchr(at, '\n', (size_t)(text + got - at));
        if (end == NULL) end = text + got;
        *end = '\0';
        fill(mount, at);
        at = end + 1;
    }
    if (text != MAP_FAILED) munmap(text, room);
}

/* The lock of a mount's marker, as a descriptor of ours; negative: another has it, or all is done.
 * A lock of the process: a forked child does not have it. */
static int claim(int number)
{
    char path[PATH_MAX];
    struct stat status;
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    marker_of(number, "", path);
    int fd = raw_open(path, O_RDWR | O_CLOEXEC, 0);
    if (fd >= 0) fd = cse_own_fd(fd);
    if (fd < 0) return -1;
    marker_of(number, ".done", path);
    if (raw(SYS_fcntl, fd, F_SETLK, &whole) == 0 && raw_lstat(path, &status) != 0) return fd;
    cse_own_close(fd);
    return -1;
}

static void *work(void *unused)
{
    char path[PATH_MAX];
    fs_shielded++;
    for (int i = 0; i < fs_mount_count; i++) {
        if (begun_s[i] == 0) continue;
        int fd = claim(i);
        if (fd < 0) continue;
        fill_list(&fs_mounts[i]);
        marker_of(i, ".done", path);
        raw_close(raw_open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
        cse_own_close(fd);
    }
    return NULL;
}

static void start_thread(void)
{
    sigset_t all, before;
    pthread_t thread;
    pthread_attr_t attributes;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_create(&thread, &attributes, work, NULL);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* The first program of a run makes the marker, and what the last run noted its list. */
static bool begin(const struct fs_mount *mount)
{
    char marker[PATH_MAX], fresh[PATH_MAX], list[PATH_MAX];
    struct stat status;
    int number = number_of(mount);
    marker_of(number, "", marker);
    int fd = raw_open(marker, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) {
        raw(SYS_fchmod, fd, 0666);
        raw_close(fd);
        list_of(number, ".new", fresh);
        list_of(number, "", list);
        raw(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, list, 0);
    }
    if (raw_lstat(marker, &status) != 0) return false;
    begun_s[number] = status.st_mtim.tv_sec > 0 ? status.st_mtim.tv_sec : 1;
    marker_of(number, ".done", marker);
    return raw_lstat(marker, &status) != 0;
}

void fs_prefetch_start(void)
{
    bool wanted = false;
    int saved_errno = errno;
    for (int i = 0; i < fs_mount_count; i++) {
        const struct fs_mount *mount = &fs_mounts[i];
        if ((mount->prefetch_s > 0 || mount->prefetch_list != NULL) && mount->error == 0)
            wanted |= begin(mount);
    }
    if (wanted) start_thread();
    errno = saved_errno;
}

__attribute__((constructor(103))) static void start(void)
{
    if (fs_ready()) fs_prefetch_start();
}
