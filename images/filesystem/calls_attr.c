/* Attributes: permissions, owners, times, sizes, extended attributes, and facts of the file system.
 */
#include "calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

/* A merged directory has its attributes twice: in the upper layer, where they last, and on its
 * shadow, where they show. */
static bool shadow_of(const struct fs_where *where, bool inside, char *out)
{
    return inside && S_ISDIR(where->mode) && where->mount->cow &&
           fs_shadow_path(where->mount, where->rel, out);
}

/* A change through a descriptor that was opened for reading may meet the shared lower file: it has
 * to go by name. True when *path was set to the name. */
static bool by_name(int fd, char *path)
{
    struct fs_where where;
    if (!fs_ready() || !fs_virtual_of_fd(fd, FS_ANY, path)) return false;
    return fs_find_absolute(path, FS_NOFOLLOW, &where) == FS_INSIDE && where.layer >= 0 &&
           (where.mount->layers[0].encrypted != NULL ||
            ((where.mount->cow || where.mount->read_only) &&
             (where.layer > 0 || S_ISDIR(where.mode) || where.mount->read_only)));
}

/* ---- the mask of new files
 * --------------------------------------------------------------------- */

static int known_umask = -1;

CALL(umask, mode_t, mode_t mask)
{
    mode_t before = libc(umask)(mask);
    __atomic_store_n(&known_umask, (int)(mask & 0777), __ATOMIC_RELAXED);
    return before;
}

/* Asked of the kernel once; who sets it by a raw call makes us wrong, but only by permissions that
 * fs_archive_fix shows right. */
mode_t fs_umask(void)
{
    char text[512];
    int known = __atomic_load_n(&known_umask, __ATOMIC_RELAXED);
    if (known >= 0) return (mode_t)known;
    int fd = raw_open("/proc/self/status", O_RDONLY | O_CLOEXEC, 0);
    long got = fd >= 0 ? raw(SYS_read, fd, text, sizeof text - 1) : -1;
    if (fd >= 0) raw_close(fd);
    text[got > 0 ? got : 0] = '\0';
    const char *line = strstr(text, "\nUmask:");
    if (line == NULL) return 07777;
    known = (int)strtol(line + 7, NULL, 8);
    int none = -1;
    __atomic_compare_exchange_n(&known_umask, &none, known, false, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
    return (mode_t)known;
}

/* ---- permissions and owners
 * ------------------------------------------------------------------------------ */

static int do_chmod(int dirfd, const char *path, mode_t mode, int flags)
{
    FAULT(FS_OP_ATTRIBUTES, dirfd, path, -1);
    WITH_PATH_AT(dirfd, path, !(flags & AT_SYMLINK_NOFOLLOW), FS_USE_CHANGE, where, -1)
    int result = libc(fchmodat)(dirfd, path, mode, flags);
    if (result == 0 && where_inside) fs_encrypted_attributes(&where);
    char shadow[PATH_MAX];
    if (result == 0 && shadow_of(&where, where_inside, shadow))
        raw(SYS_fchmodat, AT_FDCWD, shadow, mode | (raw(SYS_geteuid) == 0 ? 0777 : 0700));
    return result;
}

CALL(chmod, int, const char *path, mode_t mode)
{
    return do_chmod(AT_FDCWD, path, mode, 0);
}

CALL(fchmodat, int, int dirfd, const char *path, mode_t mode, int flags)
{
    return do_chmod(dirfd, path, mode, flags);
}

#ifdef __GLIBC__
CALL(lchmod, int, const char *path, mode_t mode)
{
    return do_chmod(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW);
}
#endif

CALL(fchmod, int, int fd, mode_t mode)
{
    char path[PATH_MAX];
    FAULT_FD(FS_OP_ATTRIBUTES, fd, -1);
    return by_name(fd, path) ? do_chmod(AT_FDCWD, path, mode, 0) : libc(fchmod)(fd, mode);
}

static int do_chown(int dirfd, const char *path, uid_t user, gid_t group, int flags)
{
    FAULT(FS_OP_ATTRIBUTES, dirfd, path, -1);
    if (fs_owner_answers(dirfd, path, !(flags & AT_SYMLINK_NOFOLLOW), user, group)) return 0;
    WITH_PATH_AT(dirfd, path, !(flags & AT_SYMLINK_NOFOLLOW), FS_USE_CHANGE, where, -1)
    int result = libc(fchownat)(dirfd, path, user, group, flags);
    if (result == 0 && where_inside) fs_encrypted_attributes(&where);
    char shadow[PATH_MAX];
    if (result == 0 && shadow_of(&where, where_inside, shadow))
        raw(SYS_fchownat, AT_FDCWD, shadow, user, group, AT_SYMLINK_NOFOLLOW);
    return result;
}

CALL(chown, int, const char *path, uid_t user, gid_t group)
{
    return do_chown(AT_FDCWD, path, user, group, 0);
}

CALL(lchown, int, const char *path, uid_t user, gid_t group)
{
    return do_chown(AT_FDCWD, path, user, group, AT_SYMLINK_NOFOLLOW);
}

CALL(fchownat, int, int dirfd, const char *path, uid_t user, gid_t group, int flags)
{
    return do_chown(dirfd, path, user, group, flags);
}

CALL(fchown, int, int fd, uid_t user, gid_t group)
{
    char path[PATH_MAX];
    FAULT_FD(FS_OP_ATTRIBUTES, fd, -1);
    if (fs_owner_answers_fd(fd, user, group)) return 0;
    return by_name(fd, path) ? do_chown(AT_FDCWD, path, user, group, 0)
                             : libc(fchown)(fd, user, group);
}

/* ---- times
 * ---------------------------------------------------------------------------------------------------
 */

static int do_utimens(int dirfd, const char *path, const struct timespec times[2], int flags)
{
    if (path == NULL) return libc(utimensat)(dirfd, path, times, flags);
    FAULT(FS_OP_ATTRIBUTES, dirfd, path, -1);
    WITH_PATH_AT(dirfd, path, !(flags & AT_SYMLINK_NOFOLLOW), FS_USE_CHANGE, where, -1)
    int result = libc(utimensat)(dirfd, path, times, flags);
    if (result == 0 && where_inside) fs_encrypted_attributes(&where);
    char shadow[PATH_MAX];
    if (result == 0 && shadow_of(&where, where_inside, shadow))
        raw(SYS_utimensat, AT_FDCWD, shadow, times, 0);
    return result;
}

CALL(utimensat, int, int dirfd, const char *path, const struct timespec times[2], int flags)
{
    return do_utimens(dirfd, path, times, flags);
}

CALL(futimens, int, int fd, const struct timespec times[2])
{
    char path[PATH_MAX];
    FAULT_FD(FS_OP_ATTRIBUTES, fd, -1);
    return by_name(fd, path) ? do_utimens(AT_FDCWD, path, times, 0) : libc(futimens)(fd, times);
}

static const struct timespec *from_micro(const struct timeval times[2], struct timespec out[2])
{
    if (times == NULL) return NULL;
    for (int i = 0; i < 2; i++)
        out[i] = (struct timespec){times[i].tv_sec, times[i].tv_usec * 1000};
    return out;
}

CALL(utimes, int, const char *path, const struct timeval times[2])
{
    struct timespec exact[2];
    return do_utimens(AT_FDCWD, path, from_micro(times, exact), 0);
}

CALL(lutimes, int, const char *path, const struct timeval times[2])
{
    struct timespec exact[2];
    return do_utimens(AT_FDCWD, path, from_micro(times, exact), AT_SYMLINK_NOFOLLOW);
}

CALL(futimesat, int, int dirfd, const char *path, const struct timeval times[2])
{
    struct timespec exact[2];
    return do_utimens(dirfd, path, from_micro(times, exact), 0);
}

CALL(utime, int, const char *path, const struct utimbuf *times)
{
    struct timespec exact[2];
    if (times == NULL) return do_utimens(AT_FDCWD, path, NULL, 0);
    exact[0] = (struct timespec){times->actime, 0};
    exact[1] = (struct timespec){times->modtime, 0};
    return do_utimens(AT_FDCWD, path, exact, 0);
}

/* ---- size
 * ------------------------------------------------------------------------------------------------------
 */

CALL(truncate, int, const char *path, off_t size)
{
    FAULT(FS_OP_TRUNCATE, AT_FDCWD, path, -1);
    WITH_PATH(path, FS_FOLLOW, FS_USE_CHANGE, where, -1)
    int result = libc(truncate)(path, size);
    int error = result == 0 && where_inside ? fs_encrypted_resized(&where) : 0;
    return error != 0 ? fs_fail(error) : result;
}

#ifdef __GLIBC__
CALL(truncate64, int, const char *path, off_t size)
{
    FAULT(FS_OP_TRUNCATE, AT_FDCWD, path, -1);
    WITH_PATH(path, FS_FOLLOW, FS_USE_CHANGE, where, -1)
    int result = libc(truncate)(path, size);
    int error = result == 0 && where_inside ? fs_encrypted_resized(&where) : 0;
    return error != 0 ? fs_fail(error) : result;
}
#endif

/* ---- extended attributes
 * ---------------------------------------------------------------------------------------- */

#define XATTR(name, type, follow, use, parameters, types, arguments)                               \
    CALL(name, type, const char *path EXPAND parameters)                                           \
    {                                                                                              \
        WITH_PATH(path, follow, use, where, -1)                                                    \
        return NEXT(name, type, const char *EXPAND types)(path EXPAND arguments);                  \
    }
#define EXPAND(...) __VA_ARGS__

XATTR(getxattr, ssize_t, FS_FOLLOW, FS_USE_NAME, (, const char *name, void *value, size_t size),
      (, const char *, void *, size_t), (, name, value, size))
XATTR(lgetxattr, ssize_t, FS_NOFOLLOW, FS_USE_NAME, (, const char *name, void *value, size_t size),
      (, const char *, void *, size_t), (, name, value, size))
/* What is kept of a copied file's origin is nobody's to see, or to copy to another file. */
static ssize_t without_origin(char *list, ssize_t length)
{
    if (fs_upper_device == 0 || list == NULL) return length;
    for (ssize_t at = 0; at < length;) {
        ssize_t part = (ssize_t)strnlen(list + at, (size_t)(length - at)) + 1;
        if (strcmp(list + at, FS_ORIGIN) != 0) {
            at += part;
            continue;
        }
        memmove(list + at, list + at + part, (size_t)(length - at - part));
        length -= part;
    }
    return length;
}

CALL(listxattr, ssize_t, const char *path, char *list, size_t size)
{
    WITH_PATH(path, FS_FOLLOW, FS_USE_NAME, where, -1)
    return without_origin(list, libc(listxattr)(path, list, size));
}

CALL(llistxattr, ssize_t, const char *path, char *list, size_t size)
{
    WITH_PATH(path, FS_NOFOLLOW, FS_USE_NAME, where, -1)
    return without_origin(list, libc(llistxattr)(path, list, size));
}

CALL(flistxattr, ssize_t, int fd, char *list, size_t size)
{
    return without_origin(list, libc(flistxattr)(fd, list, size));
}

/* An encrypted store keeps what lists of access rights say of the mode, and no other attribute. */
static bool keeps(const struct fs_encrypted *encrypted, const char *name)
{
    return encrypted == NULL || strncmp(name, "system.posix_acl_", 17) == 0;
}

static int do_setxattr(const char *path, int follow, const char *name, const void *value,
                       size_t size, int flags,
                       int (*next)(const char *, const char *, const void *, size_t, int))
{
    FAULT(FS_OP_ATTRIBUTES, AT_FDCWD, path, -1);
    WITH_PATH(path, follow, FS_USE_CHANGE, where, -1)
    if (where_inside && !keeps(where.mount->layers[0].encrypted, name)) return fs_fail(-EOPNOTSUPP);
    int result = next(path, name, value, size, flags);
    if (result == 0 && where_inside) fs_encrypted_attributes(&where);
    return result;
}

CALL(setxattr, int, const char *path, const char *name, const void *value, size_t size, int flags)
{
    return do_setxattr(path, FS_FOLLOW, name, value, size, flags, libc(setxattr));
}

CALL(lsetxattr, int, const char *path, const char *name, const void *value, size_t size, int flags)
{
    return do_setxattr(path, FS_NOFOLLOW, name, value, size, flags, libc(lsetxattr));
}

CALL(fsetxattr, int, int fd, const char *name, const void *value, size_t size, int flags)
{
    char path[PATH_MAX];
    if (fs_encrypted_any() && by_name(fd, path))
        return do_setxattr(path, FS_FOLLOW, name, value, size, flags, libc(setxattr));
    return libc(fsetxattr)(fd, name, value, size, flags);
}

XATTR(removexattr, int, FS_FOLLOW, FS_USE_CHANGE, (, const char *name), (, const char *), (, name))
XATTR(lremovexattr, int, FS_NOFOLLOW, FS_USE_CHANGE, (, const char *name), (, const char *),
      (, name))

/* ---- the file system
 * ---------------------------------------------------------------------------------------------- */

XATTR(statfs, int, FS_FOLLOW, FS_USE_NAME, (, struct statfs *out), (, struct statfs *), (, out))
XATTR(statvfs, int, FS_FOLLOW, FS_USE_NAME, (, struct statvfs *out), (, struct statvfs *), (, out))
#ifdef __GLIBC__
XATTR(statfs64, int, FS_FOLLOW, FS_USE_NAME, (, struct statfs *out), (, struct statfs *), (, out))
XATTR(__statfs, int, FS_FOLLOW, FS_USE_NAME, (, struct statfs *out), (, struct statfs *), (, out))
XATTR(statvfs64, int, FS_FOLLOW, FS_USE_NAME, (, struct statvfs *out), (, struct statvfs *),
      (, out))
#endif
XATTR(pathconf, long, FS_FOLLOW, FS_USE_NAME, (, int name), (, int), (, name))

CALL(inotify_add_watch, int, int fd, const char *path, uint32_t mask)
{
    WITH_PATH(path, !(mask & IN_DONT_FOLLOW), FS_USE_CONTENT, where, -1)
    return libc(inotify_add_watch)(fd, path, mask);
}

CALL(fanotify_mark, int, int fd, unsigned flags, uint64_t mask, int dirfd, const char *path)
{
    WITH_PATH_AT(dirfd, path, FS_FOLLOW, FS_USE_CONTENT, where, -1)
    return NEXT(fanotify_mark, int, int, unsigned, uint64_t, int, const char *)(fd, flags, mask,
                                                                                dirfd, path);
}
