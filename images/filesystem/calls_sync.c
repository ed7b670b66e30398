/* Descriptors of encrypted mounts: fsync and its like, close, exec and the end of the process.
 *
 * Nothing here costs a program without such a mount more than a look at one variable. Which
 * descriptors matter is remembered in the core's table where they are opened, and found out by
 * their path where they were inherited.
 */
#include "calls.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAPPED_MAX = 256 };

CSE_BEFORE_SANITIZERS

/* Files that are, or were, mapped for writing: they may change after their last close. */
static uint64_t mapped[MAPPED_MAX];

bool fs_encrypted_is_mapped(uint64_t inode)
{
    for (int i = 0; i < MAPPED_MAX && mapped[i] != 0; i++)
        if (mapped[i] == inode) return true;
    return false;
}

static void remember_mapped(uint64_t inode)
{
    for (int i = 0; i < MAPPED_MAX; i++) {
        uint64_t expected = 0;
        if (__atomic_compare_exchange_n(&mapped[i], &expected, inode, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED) ||
            expected == inode)
            return;
    }
}

/* Whether this descriptor can write a file of an encrypted mount. */
static bool writes(int fd)
{
    uintptr_t value;
    char path[PATH_MAX];
    if (fd < 0 || !fs_encrypted_any() || !fs_ready()) return false;
    if (cse_fd_recall(fd, &value) && value != FS_FD_INSIDE) return value == FS_FD_WRITES;
    long flags = raw(SYS_fcntl, fd, F_GETFL, 0);
    if (flags < 0 || (flags & O_PATH) || (flags & O_ACCMODE) == O_RDONLY) return false;
    if (!fs_virtual_of_fd(fd, FS_ANY, path)) return false;
    const struct fs_mount *mount = fs_mount_of(path);
    if (mount == NULL || mount->layers[0].encrypted == NULL) return false;
    cse_fd_remember(fd, 0, cse_identity_of(fd), FS_FD_WRITES);
    return true;
}

/* fdguard.c asks before a descriptor is closed, or replaced; `stream` is that of an fclose. */
void cse_before_close(int fd, void *stream)
{
    if (!writes(fd)) return;
    int saved_errno = errno;
    if (stream != NULL) fflush(stream);
    fs_shielded++;
    fs_encrypted_seal_fd(fd, false);
    fs_shielded--;
    errno = saved_errno;
}

static void seal_open_files(void)
{
    char block[4096] __attribute__((aligned(8)));
    int list = raw_open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (list < 0) return;
    long got;
    while ((got = raw(SYS_getdents64, list, block, sizeof block)) > 0)
        for (long at = 0; at < got;) {
            uint16_t length;
            memcpy(&length, block + at + 16, sizeof length);
            int fd = atoi(block + at + 19);
            if (block[at + 19] != '.' && fd != list && !cse_is_own_fd(fd) && writes(fd))
                fs_encrypted_seal_fd(fd, false);
            at += length;
        }
    raw_close(list);
}

void fs_encrypted_leaving(void)
{
    fs_batch_finish();
    if (!fs_encrypted_any() || !fs_ready()) return;
    int saved_errno = errno;
    fs_shielded++;
    seal_open_files();
    fs_encrypted_seal_dirty(FS_DIRTY_MINE, false);
    fs_shielded--;
    errno = saved_errno;
}

__attribute__((destructor)) static void end(void)
{
    if (fs_encrypted_any()) fflush(NULL); /* libc does so after us */
    fs_encrypted_leaving();
}

#define LEAVE(name)                                                                                \
    __attribute__((noreturn)) CALL(name, void, int status)                                         \
    {                                                                                              \
        fs_encrypted_leaving();                                                                    \
        raw(SYS_exit_group, status);                                                               \
        __builtin_unreachable();                                                                   \
    }

LEAVE(_exit)
LEAVE(_Exit)

/* ---- on disk ------------------------------------------------------------------------------------
 */

int fs_sync_flags(const struct fs_mount *mount, int flags)
{
    bool writes = (flags & O_ACCMODE) != O_RDONLY;
    if (mount->sync == FS_SYNC_NEVER) return flags & ~O_SYNC;
    return mount->sync == FS_SYNC_ALWAYS && writes ? flags | O_DSYNC : flags;
}

/* The mount of a file whose syncs are not the kernel's affair alone; NULL: they are. */
static const struct fs_mount *policy_of(int fd)
{
    char path[PATH_MAX];
    bool any = false;
    for (int i = 0; i < fs_mount_count && !any; i++)
        any = fs_mounts[i].sync == FS_SYNC_NEVER || fs_mounts[i].sync == FS_SYNC_BATCH;
    if (!any || !fs_ready() || !fs_virtual_of_fd(fd, FS_ANY, path)) return NULL;
    return fs_mount_of(path);
}

static int seal(int fd)
{
    fs_shielded++;
    int error = fs_encrypted_any() && fs_ready() ? fs_encrypted_seal_fd(fd, true) : 0;
    fs_shielded--;
    return error;
}

int fs_sync_now(int fd)
{
    int error = seal(fd);
    return error != 0 ? error : (int)raw(SYS_fsync, fd);
}

static int sync_one(int fd, int (*next)(int))
{
    FAULT_FD(FS_OP_FSYNC, fd, -1);
    const struct fs_mount *mount = policy_of(fd);
    int error = 0;
    if (mount != NULL && mount->sync == FS_SYNC_NEVER) return 0;
    if (mount != NULL && mount->sync == FS_SYNC_BATCH && fs_batch_take(fd, mount->batch_ms, &error))
        return error != 0 ? fs_fail(error) : 0;
    error = seal(fd);
    return error != 0 ? fs_fail(error) : next(fd);
}

CALL(fsync, int, int fd)
{
    return sync_one(fd, libc(fsync));
}

CALL(fdatasync, int, int fd)
{
    return sync_one(fd, libc(fdatasync));
}

CALL(syncfs, int, int fd)
{
    FAULT_FD(FS_OP_FSYNC, fd, -1);
    int error = fs_encrypted_any() && fs_ready() ? fs_encrypted_seal_dirty(FS_DIRTY_ALL, true) : 0;
    int (*next)(int) = NEXT(syncfs, int, int);
    return error != 0 ? fs_fail(error) : next(fd);
}

CALL(sync, void, void)
{
    if (fs_encrypted_any() && fs_ready()) fs_encrypted_seal_dirty(FS_DIRTY_ALL, true);
    libc(sync)();
}

CALL(msync, int, void *address, size_t length, int flags)
{
    int result = libc(msync)(address, length, flags);
    if (result != 0 || !fs_encrypted_any() || !fs_ready()) return result;
    int error = fs_encrypted_seal_dirty(FS_DIRTY_MINE_KEPT, (flags & MS_SYNC) != 0);
    return error != 0 ? fs_fail(error) : 0;
}

/* By number: this is called before anything can be bound. */
static void *map(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    struct stat status;
    if (fs_faulty(FS_OP_READ | FS_OP_WRITE) && fd >= 0) fs_fault_mapped(fd);
    if (fs_encrypted_any() && fd >= 0 && (flags & MAP_SHARED) && fs_ready() && writes(fd) &&
        raw_fstat(fd, &status) == 0)
        remember_mapped(status.st_ino);
    long result = raw(SYS_mmap, address, length, protection, flags, fd, offset);
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return MAP_FAILED;
    }
    return (void *)result; // NOLINT(performance-no-int-to-ptr): an address is what it is
}

CALL(mmap, void *, void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return map(address, length, protection, flags, fd, offset);
}

#ifdef __GLIBC__
CALL(mmap64, void *, void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return map(address, length, protection, flags, fd, offset);
}
#endif

CSE_BEFORE_SANITIZERS_END
