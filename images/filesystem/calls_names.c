/* Making, removing and renaming names. */
#include "calls.h"

#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* A name that is to be made, found. A slash behind it is for directories alone. */
static int may_create(struct fs_where *where, bool directory)
{
    if (where->layer < 0 && where->must_be_directory && !directory) return -ENOENT;
    return fs_for_creation(where, false);
}

/* Where a new name is to be made: FS_OUTSIDE, FS_REWRITTEN (where->path), FS_INSIDE
 * (where->real) or negative errno. */
static int new_name(enum fs_op operation, int dirfd, const char *path, struct fs_where *where)
{
    if (fs_faulty(operation) && !fs_fault_path(operation, dirfd, path)) return -errno;
    if (!fs_maybe(dirfd, path)) return FS_OUTSIDE;
    int found = fs_find(dirfd, path, FS_ITSELF, where);
    if (found == FS_INSIDE) {
        int error = may_create(where, operation == FS_OP_MKDIR);
        if (error != 0) return error;
    }
    return found;
}

static const char *new_path(int found, int *dirfd, const char *path, const struct fs_where *where)
{
    if (found == FS_OUTSIDE) return path;
    *dirfd = AT_FDCWD;
    return found == FS_INSIDE ? where->real : where->path;
}

CALL(mkdirat, int, int dirfd, const char *path, mode_t mode)
{
    struct fs_where where;
    int found = new_name(FS_OP_MKDIR, dirfd, path, &where);
    if (found < 0) return fs_fail(found);
    path = new_path(found, &dirfd, path, &where);
    int result = libc(mkdirat)(dirfd, path, mode);
    if (result == 0 && found == FS_INSIDE && where.mount->layers[0].encrypted != NULL) {
        int error = fs_encrypted_created(&where);
        if (error != 0) return fs_fail(error);
    }
    if (result == 0 && found == FS_INSIDE && where.mount->cow) {
        /* Its shadow at once, with the right attributes. */
        struct fs_where made;
        memcpy(made.path, where.path, sizeof made.path);
        int saved_errno = errno;
        if (fs_find_absolute(where.path, FS_NOFOLLOW, &made) == FS_INSIDE && made.layer >= 0) {
            fs_shadow_add(where.mount, where.rel, S_IFDIR);
            char shadow[PATH_MAX];
            if (fs_shadow_path(where.mount, where.rel, shadow))
                raw(SYS_fchmodat, AT_FDCWD, shadow,
                    (made.mode & 07777) | (raw(SYS_geteuid) == 0 ? 0777 : 0700));
        }
        errno = saved_errno;
    }
    return result;
}

CALL(mkdir, int, const char *path, mode_t mode)
{
    return taken_mkdirat(AT_FDCWD, path, mode);
}

static int make_node(int dirfd, const char *path, mode_t mode, dev_t device)
{
    struct fs_where where;
    int found = new_name(FS_OP_OPEN, dirfd, path, &where);
    if (found < 0) return fs_fail(found);
    path = new_path(found, &dirfd, path, &where);
    long result = raw(SYS_mknodat, dirfd, path, mode, device);
    if (result < 0) return fs_fail((int)result);
    if (found == FS_INSIDE) fs_created(&where, mode & S_IFMT ? mode : S_IFREG);
    return 0;
}

CALL(mknod, int, const char *path, mode_t mode, dev_t device)
{
    return make_node(AT_FDCWD, path, mode, device);
}

CALL(mknodat, int, int dirfd, const char *path, mode_t mode, dev_t device)
{
    return make_node(dirfd, path, mode, device);
}

CALL(mkfifo, int, const char *path, mode_t mode)
{
    return make_node(AT_FDCWD, path, (mode & 07777) | S_IFIFO, 0);
}

CALL(mkfifoat, int, int dirfd, const char *path, mode_t mode)
{
    return make_node(dirfd, path, (mode & 07777) | S_IFIFO, 0);
}

#ifdef __GLIBC__
CALL(__xmknod, int, int version, const char *path, mode_t mode, const dev_t *device)
{
    return make_node(AT_FDCWD, path, mode, *device);
}

CALL(__xmknodat, int, int version, int dirfd, const char *path, mode_t mode, const dev_t *device)
{
    return make_node(dirfd, path, mode, *device);
}
#endif

CALL(symlinkat, int, const char *target, int dirfd, const char *path)
{
    struct fs_where where;
    int found = new_name(FS_OP_LINK, dirfd, path, &where);
    if (found < 0) return fs_fail(found);
    path = new_path(found, &dirfd, path, &where);
    /* The kernel follows links outside, and knows no mount that one leads to (resolve.c). */
    if (found != FS_INSIDE && target != NULL && target[0] == '/' && fs_maybe(AT_FDCWD, target))
        cse_escape("symlink from outside into a mount");
    int result = libc(symlinkat)(target, dirfd, path);
    if (result == 0 && found == FS_INSIDE) fs_created(&where, S_IFLNK);
    return result;
}

CALL(symlink, int, const char *target, const char *path)
{
    return taken_symlinkat(target, AT_FDCWD, path);
}

CALL(linkat, int, int from_dirfd, const char *from, int to_dirfd, const char *to, int flags)
{
    struct fs_where source, target;
    FAULT(FS_OP_LINK, from_dirfd, from, -1);
    FAULT(FS_OP_LINK, to_dirfd, to, -1);
    if (!fs_maybe(from_dirfd, from) && !fs_maybe(to_dirfd, to))
        return libc(linkat)(from_dirfd, from, to_dirfd, to, flags);
    int first = fs_find(from_dirfd, from, (flags & AT_SYMLINK_FOLLOW) != 0, &source);
    if (first == FS_INSIDE && source.layer < 0) first = -ENOENT;
    int second = first < 0 ? first : fs_find(to_dirfd, to, FS_ITSELF, &target);
    if (second < 0) return fs_fail(second);
    if (second == FS_INSIDE && target.layer >= 0) return fs_fail(-EEXIST);
    if (second == FS_INSIDE && target.must_be_directory) return fs_fail(-ENOENT);
    if (first == FS_INSIDE && second == FS_INSIDE) {
        int error = fs_link(&source, &target);
        return error != 0 ? fs_fail(error) : 0;
    }
    if (first == FS_INSIDE) return fs_fail(-EXDEV);
    if (first == FS_REWRITTEN) from_dirfd = AT_FDCWD, from = source.path;
    if (second == FS_INSIDE) { /* a file opened with O_TMPFILE gets its name: /proc/self/fd/N */
        int error = fs_for_creation(&target, false);
        if (error != 0) return fs_fail(error);
        int result = libc(linkat)(from_dirfd, from, AT_FDCWD, target.real, flags);
        if (result == 0) fs_created(&target, S_IFREG);
        return result;
    }
    if (second == FS_REWRITTEN) to_dirfd = AT_FDCWD, to = target.path;
    return libc(linkat)(from_dirfd, from, to_dirfd, to, flags);
}

CALL(link, int, const char *from, const char *to)
{
    return taken_linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* ---- removing
 * --------------------------------------------------------------------------------------- */

CALL(unlinkat, int, int dirfd, const char *path, int flags)
{
    FAULT(FS_OP_UNLINK, dirfd, path, -1);
    /* A mount point lies in it, which the kernel does not know. */
    if ((flags & AT_REMOVEDIR) && fs_holds(dirfd, path)) return fs_fail(-ENOTEMPTY);
    if (!fs_maybe(dirfd, path)) return libc(unlinkat)(dirfd, path, flags);
    struct fs_where where;
    int found = fs_find(dirfd, path, FS_ITSELF, &where);
    if (found < 0) return fs_fail(found);
    if (found == FS_OUTSIDE) return libc(unlinkat)(dirfd, path, flags);
    if (found == FS_REWRITTEN) return libc(unlinkat)(AT_FDCWD, where.path, flags);
    if (where.layer >= 0 && where.must_be_directory && !S_ISDIR(where.mode))
        return fs_fail(-ENOTDIR);
    int error = fs_remove(&where, (flags & AT_REMOVEDIR) != 0);
    return error != 0 ? fs_fail(error) : 0;
}

CALL(unlink, int, const char *path)
{
    return taken_unlinkat(AT_FDCWD, path, 0);
}

CALL(rmdir, int, const char *path)
{
    return taken_unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

CALL(remove, int, const char *path)
{
    int saved_errno = errno;
    if (taken_unlinkat(AT_FDCWD, path, 0) == 0) return 0;
    if (errno != EISDIR && errno != EPERM) return -1;
    errno = saved_errno;
    return taken_unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

/* ---- renaming
 * ----------------------------------------------------------------------------------------- */

/* What the kernel asks before a file system does, in its order. */
static int may_rename(const struct fs_where *from, const struct fs_where *to, unsigned flags)
{
    bool exchange = flags & RENAME_EXCHANGE;
    if (from->layer < 0) return -ENOENT;
    if ((flags & RENAME_NOREPLACE) && to->layer >= 0) return -EEXIST;
    if (exchange && to->layer < 0) return -ENOENT;
    if (exchange && to->must_be_directory && !S_ISDIR(to->mode)) return -ENOTDIR;
    bool slash = from->must_be_directory || (!exchange && to->must_be_directory);
    if (S_ISDIR(from->mode) || !slash) return 0;
    return to->layer < 0 && !fs_has_parent(to) ? -ENOENT : -ENOTDIR;
}

static int do_rename(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags)
{
    struct fs_where source, target;
    FAULT(FS_OP_RENAME, from_dirfd, from, -1);
    FAULT(FS_OP_RENAME, to_dirfd, to, -1);
    /* Mount points would have to move along. */
    if (fs_holds(from_dirfd, from) || fs_holds(to_dirfd, to)) return fs_fail(-EBUSY);
    int first = fs_find(from_dirfd, from, FS_ITSELF, &source);
    if (first == FS_INSIDE && source.layer < 0 && !fs_has_parent(&source)) first = -ENOENT;
    int second = first < 0 ? first : fs_find(to_dirfd, to, FS_ITSELF, &target);
    if (second < 0) return fs_fail(second);
    if ((first == FS_INSIDE) != (second == FS_INSIDE)) return fs_fail(-EXDEV);
    if (first == FS_INSIDE) {
        fs_fold_rename(&source, &target, to);
        int error = source.mount != target.mount ? -EXDEV : may_rename(&source, &target, flags);
        if (error == 0) error = fs_rename(&source, &target, flags);
        return error != 0 ? fs_fail(error) : 0;
    }
    if (first == FS_REWRITTEN) from_dirfd = AT_FDCWD, from = source.path;
    if (second == FS_REWRITTEN) to_dirfd = AT_FDCWD, to = target.path;
    long result = raw(SYS_renameat2, from_dirfd, from, to_dirfd, to, flags);
    return result != 0 ? fs_fail((int)result) : 0;
}

static bool concerned(int dirfd, const char *path)
{
    return fs_maybe(dirfd, path) || fs_holds(dirfd, path) || fs_faulty(FS_OP_RENAME);
}

CALL(rename, int, const char *from, const char *to)
{
    if (!concerned(AT_FDCWD, from) && !concerned(AT_FDCWD, to)) return libc(rename)(from, to);
    return do_rename(AT_FDCWD, from, AT_FDCWD, to, 0);
}

CALL(renameat, int, int from_dirfd, const char *from, int to_dirfd, const char *to)
{
    if (!concerned(from_dirfd, from) && !concerned(to_dirfd, to))
        return libc(renameat)(from_dirfd, from, to_dirfd, to);
    return do_rename(from_dirfd, from, to_dirfd, to, 0);
}

CALL(renameat2, int, int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags)
{
    return do_rename(from_dirfd, from, to_dirfd, to, flags);
}
