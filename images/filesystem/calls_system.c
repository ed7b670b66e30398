/* Calls of administrators: what they hand to the kernel for good lies behind our tree.
 *
 * Accounting, swap and quotas would go on with the real file, and mounts would be made over
 * directories that are not what the program sees. Refused in a mounted tree as to a program without
 * the capability, and counted. Called by the program; the raw system calls come from
 * calls_syscall.c.
 */
#include "calls.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifndef SYS_open_tree
#define SYS_open_tree  428
#define SYS_move_mount 429
#define SYS_fspick     433
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

/* True, with errno, where the call is refused. */
static bool refused(const char *what, int dirfd, const char *path)
{
    char text[64];
    if (path == NULL || path[0] == '\0' || !fs_maybe(dirfd, path)) return false;
    snprintf(text, sizeof text, "%s (refused)", what);
    cse_escape(text);
    errno = EPERM;
    return true;
}

/* Mounts are at paths of the root that the program began with: under another one nothing of them
 * could be reached, nor the files behind them. */
CALL(chroot, int, const char *path)
{
    struct stat status;
    char normal[PATH_MAX];
    if (!fs_ready() || path == NULL ||
        (path[0] == '/' && fs_normal(path, normal) == 0 && strcmp(normal, "/") == 0))
        return libc(chroot)(path);
    if (stat(path, &status) != 0) return -1;
    if (!S_ISDIR(status.st_mode)) return fs_fail(-ENOTDIR);
    cse_escape("chroot (refused)");
    return fs_fail(-EPERM);
}

CALL(mount, int, const char *source, const char *target, const char *type, unsigned long flags,
     const void *data)
{
    if (refused("mount in a mounted tree", AT_FDCWD, target) ||
        refused("mount in a mounted tree", AT_FDCWD, source))
        return -1;
    return NEXT(mount, int, const char *, const char *, const char *, unsigned long,
                const void *)(source, target, type, flags, data);
}

#define ONE_PATH(name, parameters, types, arguments)                                               \
    CALL(name, int, const char *path EXPAND parameters)                                            \
    {                                                                                              \
        if (refused(#name " in a mounted tree", AT_FDCWD, path)) return -1;                        \
        return NEXT(name, int, const char *EXPAND types)(path EXPAND arguments);                   \
    }
#define EXPAND(...) __VA_ARGS__

ONE_PATH(umount, (), (), ())
ONE_PATH(umount2, (, int flags), (, int), (, flags))
ONE_PATH(acct, (), (), ())
ONE_PATH(swapon, (, int flags), (, int), (, flags))
ONE_PATH(swapoff, (), (), ())

CALL(quotactl, int, int command, const char *special, int id, void *address)
{
    if (refused("quotactl in a mounted tree", AT_FDCWD, special)) return -1;
    return NEXT(quotactl, int, int, const char *, int, void *)(command, special, id, address);
}

/* ---- mounts by descriptors: by number, for few a libc has them ---------------------------------
 */

static int answer(long result)
{
    return result < 0 ? fs_fail((int)result) : (int)result;
}

CALL(open_tree, int, int dirfd, const char *path, unsigned flags)
{
    if (refused("open_tree in a mounted tree", dirfd, path)) return -1;
    return answer(raw(SYS_open_tree, dirfd, path, flags));
}

CALL(move_mount, int, int from_dirfd, const char *from, int to_dirfd, const char *to,
     unsigned flags)
{
    if (refused("move_mount in a mounted tree", from_dirfd, from) ||
        refused("move_mount in a mounted tree", to_dirfd, to))
        return -1;
    return answer(raw(SYS_move_mount, from_dirfd, from, to_dirfd, to, flags));
}

CALL(fspick, int, int dirfd, const char *path, unsigned flags)
{
    if (refused("fspick in a mounted tree", dirfd, path)) return -1;
    return answer(raw(SYS_fspick, dirfd, path, flags));
}

CALL(mount_setattr, int, int dirfd, const char *path, unsigned flags, void *attributes, size_t size)
{
    if (refused("mount_setattr in a mounted tree", dirfd, path)) return -1;
    return answer(raw(SYS_mount_setattr, dirfd, path, flags, attributes, size));
}

/* The handle of the real file: what is opened by it is that, as by any descriptor of it. */
CALL(name_to_handle_at, int, int dirfd, const char *path, void *handle, int *mount_id, int flags)
{
    WITH_PATH_AT(dirfd, path, flags & AT_SYMLINK_FOLLOW, FS_USE_CONTENT, where, -1)
    return answer(raw(SYS_name_to_handle_at, dirfd, path, handle, mount_id, flags));
}
