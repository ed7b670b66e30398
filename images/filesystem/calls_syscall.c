/* syscall(): programs that make calls by number, as libuv and systemd do for new ones.
 *
 * Numbers that take a path go to the functions of the other calls_*.c files; all others straight
 * to the next definition.
 */
#include "calls.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/swap.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif
#ifndef SYS_execveat
#define SYS_execveat 322
#endif

extern int taken_statx(int, const char *, int, unsigned, void *) __asm__("statx");
extern int taken_renameat2(int, const char *, int, const char *, unsigned) __asm__("renameat2");
extern int taken_fstatat(int, const char *, struct stat *, int) __asm__("fstatat");
extern int taken_fstat(int, struct stat *) __asm__("fstat");
extern int taken_mknodat(int, const char *, mode_t, dev_t) __asm__("mknodat");

struct open_how_head {
    uint64_t flags, mode, resolve;
};

extern int taken_execveat(int, const char *, char *const *, char *const *, int) __asm__("execveat");
extern int taken_chroot(const char *) __asm__("chroot");

/* -2: the kernel's own affair. */
static long open_by_rules(int dirfd, const char *path, const struct open_how_head *how, size_t size)
{
    struct fs_where where;
    if (!fs_maybe(dirfd, path) && !(how->resolve & FS_IN_ROOT)) return -2;
    /* The kernel looks at the rules before the path: an empty one tells what it thinks of them. */
    long opinion = raw(SYS_openat2, dirfd, "", how, size);
    if (opinion != -ENOENT) return fs_fail((int)opinion);
    int follow =
        !(how->flags & O_NOFOLLOW) && (how->flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL);
    int found = fs_find_by_rules(dirfd, path, follow, how->resolve, &where);
    if (found == FS_OUTSIDE) return -2;
    if (found < 0) return fs_fail(found);
    if (found == FS_REWRITTEN) {
        /* Under FS_BENEATH and FS_IN_ROOT the rest is still below the same directory. */
        char base[PATH_MAX];
        if (!(how->resolve & (FS_BENEATH | FS_IN_ROOT))) {
            long fd = raw(SYS_openat2, AT_FDCWD, where.path, how, size);
            return fd < 0 ? fs_fail((int)fd) : fd;
        }
        bool named =
            dirfd == AT_FDCWD ? getcwd(base, sizeof base) != NULL : fs_path_of_fd(dirfd, base);
        size_t length = named && base[1] != '\0' ? strlen(base) : 0;
        const char *rest = where.path + length + (where.path[length] == '/');
        long fd = raw(SYS_openat2, dirfd, *rest ? rest : ".", how, size);
        return fd < 0 ? fs_fail((int)fd) : fd;
    }
    /* Always an answer to this one: "not from the caches". */
    if (how->resolve & FS_CACHED) return fs_fail(-EAGAIN);
    return fs_open(AT_FDCWD, where.path, (int)how->flags, (mode_t)how->mode);
}

CALL(execveat, int, int dirfd, const char *path, char *const arguments[], char *const environment[],
     int flags)
{
    struct fs_where where;
    if (path != NULL && path[0] != '\0' && fs_maybe(dirfd, path)) {
        int found = fs_find(dirfd, path, !(flags & AT_SYMLINK_NOFOLLOW), &where);
        if (found < 0) return fs_fail(found);
        if (found == FS_INSIDE && where.layer >= 0 && S_ISLNK(where.mode)) return fs_fail(-ELOOP);
        if (found != FS_OUTSIDE) return execve(where.path, arguments, environment);
    }
    long result = raw(SYS_execveat, dirfd, path, arguments, environment, flags);
    return fs_fail((int)result);
}

/* *done false: not a call that concerns a path. */
static long by_number(long number, const long a[6], bool *done)
{
    *done = true;
    switch (number) {
    case SYS_openat: return fs_open((int)a[0], (const char *)a[1], (int)a[2], (mode_t)a[3]);
    case SYS_openat2: {
        int dirfd = (int)a[0];
        const char *path = (const char *)a[1];
        const struct open_how_head *how = (const void *)a[2];
        if (path == NULL || path[0] == '\0' || how == NULL || (size_t)a[3] < sizeof *how) break;
        long result = open_by_rules(dirfd, path, how, (size_t)a[3]);
        if (result != -2) return result;
        break;
    }
    case SYS_statx:
        return taken_statx((int)a[0], (const char *)a[1], (int)a[2], (unsigned)a[3], (void *)a[4]);
    case SYS_newfstatat:
        return taken_fstatat((int)a[0], (const char *)a[1], (struct stat *)a[2], (int)a[3]);
    case SYS_fstat: return taken_fstat((int)a[0], (struct stat *)a[1]);
    case SYS_faccessat: return faccessat((int)a[0], (const char *)a[1], (int)a[2], 0);
    case SYS_faccessat2: return faccessat((int)a[0], (const char *)a[1], (int)a[2], (int)a[3]);
    case SYS_readlinkat:
        return readlinkat((int)a[0], (const char *)a[1], (char *)a[2], (size_t)a[3]);
    case SYS_mkdirat: return mkdirat((int)a[0], (const char *)a[1], (mode_t)a[2]);
    case SYS_mknodat:
        return taken_mknodat((int)a[0], (const char *)a[1], (mode_t)a[2], (dev_t)a[3]);
    case SYS_unlinkat: return unlinkat((int)a[0], (const char *)a[1], (int)a[2]);
    case SYS_symlinkat: return symlinkat((const char *)a[0], (int)a[1], (const char *)a[2]);
    case SYS_linkat:
        return linkat((int)a[0], (const char *)a[1], (int)a[2], (const char *)a[3], (int)a[4]);
    case SYS_renameat2:
        return taken_renameat2((int)a[0], (const char *)a[1], (int)a[2], (const char *)a[3],
                               (unsigned)a[4]);
    case SYS_fchmodat: return fchmodat((int)a[0], (const char *)a[1], (mode_t)a[2], 0);
    case SYS_fchownat:
        return fchownat((int)a[0], (const char *)a[1], (uid_t)a[2], (gid_t)a[3], (int)a[4]);
    case SYS_utimensat:
        return utimensat((int)a[0], (const char *)a[1], (const struct timespec *)a[2], (int)a[3]);
    case SYS_truncate: return truncate((const char *)a[0], (off_t)a[1]);
    case SYS_chdir: return chdir((const char *)a[0]);
    case SYS_fchdir: return fchdir((int)a[0]);
    case SYS_chroot: return taken_chroot((const char *)a[0]);
    case SYS_pivot_root: /* libc has no function for it; refused for the reason that chroot has */
        cse_escape("pivot_root (refused)");
        return fs_fail(-EPERM);
    case SYS_mount:
        return mount((const char *)a[0], (const char *)a[1], (const char *)a[2],
                     (unsigned long)a[3], (const void *)a[4]);
    case SYS_umount2: return umount2((const char *)a[0], (int)a[1]);
    case SYS_acct: return acct((const char *)a[0]);
    case SYS_swapon: return swapon((const char *)a[0], (int)a[1]);
    case SYS_swapoff: return swapoff((const char *)a[0]);
    case SYS_execveat:
        return taken_execveat((int)a[0], (const char *)a[1], (char *const *)a[2],
                              (char *const *)a[3], (int)a[4]);
    case SYS_execve: return execve((const char *)a[0], (char *const *)a[1], (char *const *)a[2]);
#ifdef __x86_64__
    case SYS_open: return fs_open(AT_FDCWD, (const char *)a[0], (int)a[1], (mode_t)a[2]);
    case SYS_creat:
        return fs_open(AT_FDCWD, (const char *)a[0], O_CREAT | O_WRONLY | O_TRUNC, (mode_t)a[1]);
    case SYS_stat: return taken_fstatat(AT_FDCWD, (const char *)a[0], (struct stat *)a[1], 0);
    case SYS_lstat:
        return taken_fstatat(AT_FDCWD, (const char *)a[0], (struct stat *)a[1],
                             AT_SYMLINK_NOFOLLOW);
    case SYS_access: return access((const char *)a[0], (int)a[1]);
    case SYS_readlink: return readlink((const char *)a[0], (char *)a[1], (size_t)a[2]);
    case SYS_mkdir: return mkdir((const char *)a[0], (mode_t)a[1]);
    case SYS_rmdir: return rmdir((const char *)a[0]);
    case SYS_unlink: return unlink((const char *)a[0]);
    case SYS_rename: return rename((const char *)a[0], (const char *)a[1]);
    case SYS_link: return link((const char *)a[0], (const char *)a[1]);
    case SYS_symlink: return symlink((const char *)a[0], (const char *)a[1]);
    case SYS_chmod: return chmod((const char *)a[0], (mode_t)a[1]);
    case SYS_chown: return chown((const char *)a[0], (uid_t)a[1], (gid_t)a[2]);
    case SYS_lchown: return lchown((const char *)a[0], (uid_t)a[1], (gid_t)a[2]);
#endif
    default: break;
    }
    *done = false;
    return 0;
}

/* Callers pass as many arguments as their call has; all six are read, as libc's own version does.
 */
long taken_syscall(long number, ...) __asm__("syscall") CSE_EXPORT;
__attribute__((no_sanitize("address"))) long taken_syscall(long number, ...)
{
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(arguments, long);
    va_end(arguments);
    if (fs_ready()) {
        bool done;
        long result = by_number(number, a, &done);
        if (done) return result;
        if (fs_faulty(FS_OP_DATA)) {
            result = fs_data_by_number(number, a, &done);
            if (done) return result;
        }
        char path[PATH_MAX];
        if (number == SYS_getdents64 && fs_listed_above((int)a[0], path))
            cse_escape("getdents64 above a mount point");
    }
    return NEXT(syscall, long, long, ...)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
