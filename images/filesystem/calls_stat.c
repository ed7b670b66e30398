/* stat and its relatives, access, readlink, realpath: questions about a name. */
#include "calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#if defined(__x86_64__)
enum { STAT_VERSION = 1 };
#else
enum { STAT_VERSION = 0 };
#endif

typedef int fstatat_call(int, const char *, struct stat *, int);
typedef int fxstatat_call(int, int, const char *, struct stat *, int);
typedef int fstat_call(int, struct stat *);
typedef int fxstat_call(int, int, struct stat *);

int fs_next_fstatat(int dirfd, const char *path, struct stat *status, int flags)
{
    static void *known, *older;
    void *next = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (next == NULL && __atomic_load_n(&older, __ATOMIC_RELAXED) == NULL) {
        next = cse_next("fstatat");
        if (next != NULL)
            __atomic_store_n(&known, next, __ATOMIC_RELAXED);
        else
            __atomic_store_n(&older, cse_next("__fxstatat"), __ATOMIC_RELAXED);
    }
    if (next != NULL) return ((fstatat_call *)next)(dirfd, path, status, flags);
    return ((fxstatat_call *)older)(STAT_VERSION, dirfd, path, status, flags);
}

static int next_fstat(int fd, struct stat *status)
{
    static void *known, *older;
    void *next = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (next == NULL && __atomic_load_n(&older, __ATOMIC_RELAXED) == NULL) {
        next = cse_next("fstat");
        if (next != NULL)
            __atomic_store_n(&known, next, __ATOMIC_RELAXED);
        else
            __atomic_store_n(&older, cse_next("__fxstat"), __ATOMIC_RELAXED);
    }
    if (next != NULL) return ((fstat_call *)next)(fd, status);
    return ((fxstat_call *)older)(STAT_VERSION, fd, status);
}

/* A descriptor of a skeleton or shadow: what the archive says instead of what makes sharing work.
 */
static void fix_by_fd(int fd, struct stat *status)
{
    if (fs_upper_device != 0) fs_origin(fd, NULL, status);
    uint64_t device = (uint64_t)status->st_dev;
    if (!fs_ready() || (device != fs_private_device && device != fs_shared_device)) return;
    if (S_ISREG(status->st_mode) && (status->st_mode & 0222) != 0222) return;
    char path[PATH_MAX];
    struct fs_where where;
    int saved_errno = errno;
    if (fs_virtual_of_fd(fd, FS_ANY, path) &&
        fs_find_absolute(path, FS_NOFOLLOW, &where) == FS_INSIDE)
        fs_fix_status(&where, status);
    errno = saved_errno;
}

static int stat_outside(int dirfd, const char *path, struct stat *status, int flags)
{
    int result = fs_next_fstatat(dirfd, path, status, flags);
    if (result == 0 && (flags & AT_EMPTY_PATH) && path != NULL && path[0] == '\0')
        fix_by_fd(dirfd, status);
    if (result == 0 && fs_owner_any && path != NULL && path[0] == '\0')
        fs_show_owner_of_fd(dirfd, status);
    return result;
}

static int do_stat(int dirfd, const char *path, struct stat *status, int flags)
{
    FAULT(FS_OP_STAT, dirfd, path, -1);
    if (!fs_maybe(dirfd, path)) return stat_outside(dirfd, path, status, flags);
    WITH_PATH_AT(dirfd, path, !(flags & AT_SYMLINK_NOFOLLOW), FS_USE_NAME, where, -1)
    if (!where_inside) return stat_outside(dirfd, path, status, flags);
    dirfd = fs_nearest(&where, &path);
    int result = fs_next_fstatat(dirfd, path, status, flags | AT_SYMLINK_NOFOLLOW);
    if (result == 0) fs_fix_status(&where, status);
    if (result == 0) fs_show_owner(where.mount, status);
    if (result == 0 && where.mount->cow && where.layer == 0) fs_origin(-1, where.real, status);
    return result;
}

static int do_fstat(int fd, struct stat *status)
{
    FAULT_FD(FS_OP_STAT, fd, -1);
    int result = next_fstat(fd, status);
    if (result == 0) fix_by_fd(fd, status);
    if (result == 0 && fs_owner_any) fs_show_owner_of_fd(fd, status);
    return result;
}

CALL(stat, int, const char *path, struct stat *status)
{
    return do_stat(AT_FDCWD, path, status, 0);
}

CALL(lstat, int, const char *path, struct stat *status)
{
    return do_stat(AT_FDCWD, path, status, AT_SYMLINK_NOFOLLOW);
}

CALL(fstat, int, int fd, struct stat *status)
{
    return do_fstat(fd, status);
}

CALL(fstatat, int, int dirfd, const char *path, struct stat *status, int flags)
{
    return do_stat(dirfd, path, status, flags);
}

#ifdef __GLIBC__
/* On 64-bit machines struct stat64 is struct stat. */
#define STAT_TWINS(suffix)                                                                         \
    CALL(__xstat##suffix, int, int version, const char *path, struct stat *status)                 \
    {                                                                                              \
        return do_stat(AT_FDCWD, path, status, 0);                                                 \
    }                                                                                              \
    CALL(__lxstat##suffix, int, int version, const char *path, struct stat *status)                \
    {                                                                                              \
        return do_stat(AT_FDCWD, path, status, AT_SYMLINK_NOFOLLOW);                               \
    }                                                                                              \
    CALL(__fxstat##suffix, int, int version, int fd, struct stat *status)                          \
    {                                                                                              \
        return do_fstat(fd, status);                                                               \
    }                                                                                              \
    CALL(__fxstatat##suffix, int, int version, int dirfd, const char *path, struct stat *status,   \
         int flags)                                                                                \
    {                                                                                              \
        return do_stat(dirfd, path, status, flags);                                                \
    }

STAT_TWINS()
STAT_TWINS(64)

CALL(stat64, int, const char *path, struct stat *status)
{
    return do_stat(AT_FDCWD, path, status, 0);
}

CALL(lstat64, int, const char *path, struct stat *status)
{
    return do_stat(AT_FDCWD, path, status, AT_SYMLINK_NOFOLLOW);
}

CALL(fstat64, int, int fd, struct stat *status)
{
    return do_fstat(fd, status);
}

CALL(fstatat64, int, int dirfd, const char *path, struct stat *status, int flags)
{
    return do_stat(dirfd, path, status, flags);
}
#endif

/* ---- statx
 * ------------------------------------------------------------------------------------------ */

/* The head of the kernel's struct statx, as far as it is changed here. */
struct statx_head {
    uint32_t mask, block_size;
    uint64_t attributes;
    uint32_t links, uid, gid;
    uint16_t mode, spare;
    uint64_t inode, size, blocks, attributes_mask;
    struct {
        int64_t seconds;
        uint32_t nanoseconds;
        int32_t reserved;
    } access, birth, change, modify;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
};

static void fix_statx(const struct fs_where *where, struct statx_head *head)
{
    struct stat status = {
        .st_mode = head->mode,
        .st_uid = head->uid,
        .st_gid = head->gid,
        .st_nlink = head->links,
        .st_blocks = (blkcnt_t)head->blocks,
        .st_mtim = {.tv_sec = (time_t)head->modify.seconds, .tv_nsec = head->modify.nanoseconds},
    };
    fs_fix_status(where, &status);
    fs_show_owner(where->mount, &status);
    head->mode = (uint16_t)status.st_mode;
    head->uid = status.st_uid;
    head->gid = status.st_gid;
    head->links = (uint32_t)status.st_nlink;
    head->blocks = (uint64_t)status.st_blocks;
    head->modify.seconds = status.st_mtim.tv_sec;
    head->modify.nanoseconds = (uint32_t)status.st_mtim.tv_nsec;
}

/* As fs_origin, on what statx gave. */
static void fix_statx_origin(int fd, const char *path, struct statx_head *head)
{
    struct stat status = {.st_mode = head->mode,
                          .st_ino = (ino_t)head->inode,
                          .st_dev = makedev(head->dev_major, head->dev_minor)};
    fs_origin(fd, path, &status);
    head->inode = status.st_ino;
    head->dev_major = major(status.st_dev);
    head->dev_minor = minor(status.st_dev);
}

static void fix_statx_owner(int fd, struct statx_head *head)
{
    struct stat status = {.st_uid = head->uid, .st_gid = head->gid};
    fs_show_owner_of_fd(fd, &status);
    head->uid = status.st_uid;
    head->gid = status.st_gid;
}

static int next_statx(int dirfd, const char *path, int flags, unsigned mask, void *out)
{
    static void *next;
    if (next == NULL) next = cse_next("statx");
    if (next != NULL)
        return ((int (*)(int, const char *, int, unsigned, void *))next)(dirfd, path, flags, mask,
                                                                         out);
    long result = raw(SYS_statx, dirfd, path, flags, mask, out);
    return result < 0 ? fs_fail((int)result) : (int)result;
}

CALL(statx, int, int dirfd, const char *path, int flags, unsigned mask, void *out)
{
    FAULT(FS_OP_STAT, dirfd, path, -1);
    WITH_PATH_AT(dirfd, path, !(flags & AT_SYMLINK_NOFOLLOW), FS_USE_NAME, where, -1)
    if (where_inside) {
        dirfd = fs_nearest(&where, &path);
        int result = next_statx(dirfd, path, flags | AT_SYMLINK_NOFOLLOW, mask, out);
        if (result == 0) fix_statx(&where, out);
        if (result == 0 && where.mount->cow && where.layer == 0)
            fix_statx_origin(-1, where.real, out);
        return result;
    }
    int result = next_statx(dirfd, path, flags, mask, out);
    if (result == 0 && (flags & AT_EMPTY_PATH) && (path == NULL || path[0] == '\0') && fs_ready()) {
        struct statx_head *head = out;
        if (fs_upper_device != 0) fix_statx_origin(dirfd, NULL, head);
        char virtual[PATH_MAX];
        bool suspect = S_ISDIR(head->mode) || (head->mode & 0222) == 0222;
        if (suspect && fs_virtual_of_fd(dirfd, FS_ANY, virtual) &&
            fs_find_absolute(virtual, FS_NOFOLLOW, &where) == FS_INSIDE)
            fix_statx(&where, head);
        else if (fs_owner_any)
            fix_statx_owner(dirfd, head);
    }
    return result;
}

/* ---- access
 * ------------------------------------------------------------------------------------------ */

/* Whether the effective user may write, by the permission bits. */
static bool may_write(const struct stat *status)
{
    uid_t user = (uid_t)raw(SYS_geteuid);
    if (user == 0) return true;
    if (status->st_uid == user) return status->st_mode & 0200;
    if (status->st_gid == (gid_t)raw(SYS_getegid)) return status->st_mode & 0020;
    return status->st_mode & 0002;
}

static int do_access(int dirfd, const char *path, int mode, int flags)
{
    FAULT(FS_OP_STAT, dirfd, path, -1);
    WITH_PATH_AT(dirfd, path, !(flags & AT_SYMLINK_NOFOLLOW), FS_USE_NAME, where, -1)
    if (!where_inside) return libc(faccessat)(dirfd, path, mode, flags);
    bool layered = where.mount->cow || where.mount->read_only;
    if (layered && (mode & W_OK)) {
        struct stat status;
        if (where.mount->read_only) return fs_fail(-EROFS);
        long result = raw_lstat(where.real, &status);
        if (result != 0) return fs_fail((int)result);
        fs_fix_status(&where, &status);
        if (!may_write(&status)) return fs_fail(-EACCES);
        mode &= ~W_OK;
    }
    return libc(faccessat)(AT_FDCWD, where.real, mode, flags & ~AT_SYMLINK_NOFOLLOW);
}

CALL(access, int, const char *path, int mode)
{
    return do_access(AT_FDCWD, path, mode, 0);
}

CALL(faccessat, int, int dirfd, const char *path, int mode, int flags)
{
    return do_access(dirfd, path, mode, flags);
}

CALL(euidaccess, int, const char *path, int mode)
{
    return do_access(AT_FDCWD, path, mode, AT_EACCESS);
}

CALL(eaccess, int, const char *path, int mode)
{
    return do_access(AT_FDCWD, path, mode, AT_EACCESS);
}

/* ---- links
 * --------------------------------------------------------------------------------------------- */

/* /proc shows the real path behind a descriptor, the working directory or the program. True when
 * that is in a mount; the program's view of it is in `virtual` then. */
static bool through_proc(const char *path, char *virtual)
{
    char real[PATH_MAX];
    if (path == NULL || strncmp(path, "/proc/", 6) != 0 || !fs_ready()) return false;
    long length = raw(SYS_readlinkat, AT_FDCWD, path, real, sizeof real - 1);
    if (length <= 0 || real[0] != '/') return false;
    real[length] = '\0';
    return fs_virtual_of(real, FS_ANY, virtual);
}

static ssize_t give_text(const char *text, char *out, size_t size)
{
    size_t length = strlen(text);
    if (size == 0) return fs_fail(-EINVAL);
    if (length > size) length = size;
    for (size_t i = 0; i < length; i++) out[i] = text[i]; /* readlink ends it with no NUL */
    return (ssize_t)length;
}

static ssize_t do_readlink(int dirfd, const char *path, char *out, size_t size)
{
    char text[PATH_MAX];
    FAULT(FS_OP_STAT, dirfd, path, -1);
    if (!fs_maybe(dirfd, path))
        return through_proc(path, text) ? give_text(text, out, size)
                                        : libc(readlinkat)(dirfd, path, out, size);
    struct fs_where where;
    int found = fs_find(dirfd, path, FS_NOFOLLOW, &where);
    if (found < 0) return fs_fail(found);
    if (found == FS_OUTSIDE) return libc(readlinkat)(dirfd, path, out, size);
    if (found == FS_REWRITTEN) return libc(readlinkat)(AT_FDCWD, where.path, out, size);
    if (where.layer < 0) return fs_fail(-ENOENT);
    if (!S_ISLNK(where.mode)) return fs_fail(-EINVAL);
    int length = fs_link_text(&where, text, sizeof text);
    return length < 0 ? fs_fail(length) : give_text(text, out, size);
}

CALL(readlink, ssize_t, const char *path, char *out, size_t size)
{
    return do_readlink(AT_FDCWD, path, out, size);
}

CALL(readlinkat, ssize_t, int dirfd, const char *path, char *out, size_t size)
{
    return do_readlink(dirfd, path, out, size);
}

/* realpath inside a mount: what fs_find resolved. NULL with *done false: ask libc about *path. */
static char *resolved_path(const char **path, char *out, struct fs_where *where, bool *done)
{
    *done = false;
    if (!fs_maybe(AT_FDCWD, *path)) return NULL;
    int found = fs_find(AT_FDCWD, *path, FS_FOLLOW, where);
    if (found == FS_OUTSIDE) return NULL;
    if (found == FS_REWRITTEN) {
        *path = where->path;
        return NULL;
    }
    *done = true;
    if (found < 0 || where->layer < 0) {
        fs_fail(found < 0 ? found : -ENOENT);
        return NULL;
    }
    if (out == NULL) return strdup(where->path);
    return memcpy(out, where->path, strlen(where->path) + 1);
}

CALL(realpath, char *, const char *path, char *out)
{
    struct fs_where where;
    bool done;
    char *result = resolved_path(&path, out, &where, &done);
    return done ? result : NEXT(realpath, char *, const char *, char *)(path, out);
}

#ifdef __GLIBC__
CALL(__realpath_chk, char *, const char *path, char *out, size_t size)
{
    struct fs_where where;
    bool done;
    char *result = resolved_path(&path, out, &where, &done);
    return done ? result
                : NEXT(__realpath_chk, char *, const char *, char *, size_t)(path, out, size);
}

CALL(canonicalize_file_name, char *, const char *path)
{
    struct fs_where where;
    bool done;
    char *result = resolved_path(&path, NULL, &where, &done);
    return done ? result : NEXT(canonicalize_file_name, char *, const char *)(path);
}

CALL(__readlink_chk, ssize_t, const char *path, char *out, size_t size, size_t room)
{
    return do_readlink(AT_FDCWD, path, out, size < room ? size : room);
}

CALL(__readlinkat_chk, ssize_t, int dirfd, const char *path, char *out, size_t size, size_t room)
{
    return do_readlink(dirfd, path, out, size < room ? size : room);
}
#endif
