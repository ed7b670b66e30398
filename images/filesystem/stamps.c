/* Whether the shadow of a merged directory is still what its layers make: a stamp of their inodes
 * and times, kept beside the shadow as the text of a link, so that it is replaced whole. And the
 * lock of a shadow: a byte of one file for each directory, which the kernel takes from a process
 * that dies.
 *
 * Called by shadow.c before and after it lists a directory, and by cow.c where one is removed or
 * renamed.
 */
#include "stamps.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { SETTLED_NS = 40 * 1000 * 1000, STAMP_BYTES = 32 };

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash ^= value + 0x9e3779b97f4a7c15u + (hash << 6) + (hash >> 2);
    return hash * 0xff51afd7ed558ccdu;
}

static int64_t age_ns(const struct timespec *now, const struct stat *status)
{
    return (now->tv_sec - status->st_ctim.tv_sec) * 1000000000L + now->tv_nsec -
           status->st_ctim.tv_nsec;
}

int fs_stamp_of(const struct fs_where *where, const char *shadow, struct fs_stamp *stamp)
{
    char real[PATH_MAX];
    struct stat status;
    struct timespec now;
    uint64_t hash = 1;
    int error = (int)raw_lstat(shadow, &status);
    if (error != 0) return error;
    stamp->times[0] = status.st_atim;
    stamp->times[1] = status.st_mtim;
    snprintf(stamp->path, PATH_MAX, "%.4000s.stamps/%llx", where->mount->shadow,
             (unsigned long long)status.st_ino);
    raw(SYS_clock_gettime, CLOCK_REALTIME, &now);
    stamp->settled = true;
    for (int i = 0; i < where->mount->layer_count; i++) {
        const struct fs_layer *layer = &where->mount->layers[i];
        if (layer->archive != NULL || fs_layer_path(where->mount, i, where->rel, real) != 0)
            continue;
        if (raw_lstat(real, &status) == 0) {
            hash = mix(mix(hash, status.st_ino), (uint64_t)status.st_ctim.tv_nsec);
            hash = mix(mix(hash, (uint64_t)status.st_ctim.tv_sec), (uint64_t)i);
            if (age_ns(&now, &status) < SETTLED_NS) stamp->settled = false;
        }
        if (layer->whiteouts == NULL) continue;
        snprintf(real, sizeof real, "%.2000s/%.2000s", layer->whiteouts, where->rel);
        if (raw_lstat(real, &status) != 0) continue;
        hash = mix(mix(hash, (uint64_t)status.st_ctim.tv_nsec), (uint64_t)status.st_ctim.tv_sec);
        if (age_ns(&now, &status) < SETTLED_NS) stamp->settled = false;
    }
    stamp->value = hash;
    return 0;
}

bool fs_stamp_holds(const struct fs_stamp *stamp)
{
    char text[STAMP_BYTES], wanted[STAMP_BYTES];
    long length = raw(SYS_readlinkat, AT_FDCWD, stamp->path, text, sizeof text);
    int expected = snprintf(wanted, sizeof wanted, "%llx", (unsigned long long)stamp->value);
    return length == expected && memcmp(text, wanted, (size_t)expected) == 0;
}

void fs_stamp_write(const struct fs_mount *mount, const struct fs_stamp *stamp)
{
    char text[STAMP_BYTES], directory[PATH_MAX], fresh[PATH_MAX + 32];
    snprintf(text, sizeof text, "%llx", (unsigned long long)stamp->value);
    snprintf(directory, sizeof directory, "%.4000s.stamps", mount->shadow);
    snprintf(fresh, sizeof fresh, "%s.%ld", stamp->path, raw(SYS_gettid));
    fs_make_directories(directory, 01777);
    if (raw(SYS_symlinkat, text, AT_FDCWD, fresh) != 0) return;
    if (raw(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, stamp->path, 0) != 0)
        raw(SYS_unlinkat, AT_FDCWD, fresh, 0);
}

/* ---- locks
 * -----------------------------------------------------------------------------------------------
 */

#ifndef F_OFD_SETLKW
#define F_OFD_SETLKW 38
#endif

static int open_lock(const struct fs_mount *mount)
{
    char path[PATH_MAX], directory[PATH_MAX];
    snprintf(path, sizeof path, "%.4000s.stamps/lock", mount->shadow);
    int fd = raw_open(path, O_RDWR | O_CLOEXEC, 0);
    if (fd != -ENOENT) return fd;
    snprintf(directory, sizeof directory, "%.4000s.stamps", mount->shadow);
    fs_make_directories(directory, 01777);
    fd = raw_open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd == -EEXIST) return raw_open(path, O_RDWR | O_CLOEXEC, 0);
    if (fd >= 0) raw(SYS_fchmod, fd, 0666); /* whatever the umask is */
    return fd;
}

/* 0 where there is no shadow. */
static uint64_t inode_of(const struct fs_mount *mount, const char *rel)
{
    char path[PATH_MAX];
    struct stat status;
    bool there = fs_shadow_path(mount, rel, path) && raw_lstat(path, &status) == 0;
    return there ? status.st_ino : 0;
}

/* A range of this open file alone: another thread's is another open file, and a forked child's
 * copy of it goes with what we unlock. */
static void lock_range(int fd, short type, uint64_t from, off_t length)
{
    struct flock range = {.l_type = type, .l_start = (off_t)(from & INT64_MAX), .l_len = length};
    while (raw(SYS_fcntl, fd, F_OFD_SETLKW, &range) == -EINTR) {}
}

/* Signals wait: a handler may list the same directory. */
static void lock_both(const struct fs_mount *mount, const char *rel, const char *other,
                      struct fs_shadow_lock *lock)
{
    uint64_t all = UINT64_MAX;
    raw(SYS_rt_sigprocmask, SIG_SETMASK, &all, &lock->signals, sizeof all);
    lock->fd = open_lock(mount);
    while (lock->fd >= 0) {
        uint64_t first = inode_of(mount, rel), second = other ? inode_of(mount, other) : first;
        lock_range(lock->fd, F_WRLCK, first < second ? first : second, 1);
        if (first != second) lock_range(lock->fd, F_WRLCK, first < second ? second : first, 1);
        if (inode_of(mount, rel) == first && (!other || inode_of(mount, other) == second)) return;
        lock_range(lock->fd, F_UNLCK, 0, 0); /* another directory has come there meanwhile */
    }
}

void fs_shadow_lock(const struct fs_mount *mount, const char *rel, struct fs_shadow_lock *lock)
{
    lock_both(mount, rel, NULL, lock);
}

void fs_shadow_lock_parents(const struct fs_mount *mount, const char *rel, const char *other,
                            struct fs_shadow_lock *lock)
{
    char parents[2][PATH_MAX];
    const char *names[2] = {rel, other};
    for (int i = 0; i < 2 && names[i] != NULL; i++) {
        const char *slash = strrchr(names[i], '/');
        snprintf(parents[i], PATH_MAX, "%.*s", slash ? (int)(slash - names[i]) : 0, names[i]);
    }
    lock_both(mount, parents[0], other ? parents[1] : NULL, lock);
}

void fs_shadow_unlock(struct fs_shadow_lock *lock)
{
    if (lock->fd >= 0) lock_range(lock->fd, F_UNLCK, 0, 0);
    if (lock->fd >= 0) raw_close(lock->fd);
    raw(SYS_rt_sigprocmask, SIG_SETMASK, &lock->signals, NULL, sizeof lock->signals);
}
