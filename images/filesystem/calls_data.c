/* Reading, writing and syncing open files: theirs is the kernel's work, unless a fault holds.
 *
 * Each function is one load and one branch in front of libc's own (ARCHITECTURE.md, decisions, has
 * what that costs); only where fs_faulty says that some fault is about such an operation, the path
 * behind the descriptor is looked at. Not seen here: memory that a file is mapped to, io_uring, and
 * the calls that libc's streams make inside libc (calls_stream.c takes the outer functions).
 */
#include "calls.h"
#include "faults.h"

#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

CSE_BEFORE_SANITIZERS

enum { PARTS = 64, FICLONE_NUMBER = 0x40049409, FICLONERANGE_NUMBER = 0x4020940d };

/* ---- one buffer ------------------------------------------------------------------------------ */

/* `name(fd, buffer, size …)`: reads or writes at most what the faults leave of `size`. */
#define MOVE(name, operation, buffer_type, parameters, types, arguments)                           \
    typedef ssize_t name##_call(int, buffer_type, size_t EXPAND types);                            \
    static __attribute__((noinline)) ssize_t name##_met(int fd, buffer_type buffer,                \
                                                        size_t size EXPAND parameters)             \
    {                                                                                              \
        struct fs_meeting meeting;                                                                 \
        if (!fs_meet_fd(&meeting, operation, fd, &size)) return -1;                                \
        return fs_met(&meeting, libc_as(name##_call *, #name)(fd, buffer, size EXPAND arguments)); \
    }                                                                                              \
    CALL(name, ssize_t, int fd, buffer_type buffer, size_t size EXPAND parameters)                 \
    {                                                                                              \
        if (fs_faulty(operation)) return name##_met(fd, buffer, size EXPAND arguments);            \
        return libc_as(name##_call *, #name)(fd, buffer, size EXPAND arguments);                   \
    }
#define EXPAND(...) __VA_ARGS__

MOVE(read, FS_OP_READ, void *, (), (), ())
MOVE(write, FS_OP_WRITE, const void *, (), (), ())
MOVE(pread, FS_OP_READ, void *, (, off_t at), (, off_t), (, at))
MOVE(pwrite, FS_OP_WRITE, const void *, (, off_t at), (, off_t), (, at))
#ifdef __GLIBC__
MOVE(pread64, FS_OP_READ, void *, (, off_t at), (, off_t), (, at))
MOVE(pwrite64, FS_OP_WRITE, const void *, (, off_t at), (, off_t), (, at))
MOVE(__read_chk, FS_OP_READ, void *, (, size_t room), (, size_t), (, room))
MOVE(__pread_chk, FS_OP_READ, void *, (, off_t at, size_t room), (, off_t, size_t), (, at, room))
MOVE(__pread64_chk, FS_OP_READ, void *, (, off_t at, size_t room), (, off_t, size_t), (, at, room))
#endif

/* ---- several buffers ------------------------------------------------------------------------- */

/* The first `size` bytes of `count` buffers, in `out`; how many buffers that are. */
static int first_bytes(const struct iovec *all, int count, size_t size, struct iovec *out)
{
    int used = 0;
    for (; used < count && used < PARTS; used++) {
        out[used] = all[used];
        if (out[used].iov_len >= size) {
            out[used].iov_len = size;
            return used + 1;
        }
        size -= out[used].iov_len;
    }
    return used;
}

static size_t sum(const struct iovec *all, int count)
{
    size_t bytes = 0;
    for (int i = 0; i < count && i < PARTS; i++) bytes += all[i].iov_len;
    return bytes;
}

#define MOVE_PARTS(name, operation, parameters, types, arguments)                                  \
    typedef ssize_t name##_call(int, const struct iovec *, int EXPAND types);                      \
    static __attribute__((noinline)) ssize_t name##_met(int fd, const struct iovec *parts,         \
                                                        int count EXPAND parameters)               \
    {                                                                                              \
        struct iovec fewer[PARTS];                                                                 \
        struct fs_meeting meeting;                                                                 \
        if (parts == NULL || count <= 0)                                                           \
            return libc_as(name##_call *, #name)(fd, parts, count EXPAND arguments);               \
        size_t size = sum(parts, count);                                                           \
        if (!fs_meet_fd(&meeting, operation, fd, &size)) return -1;                                \
        count = first_bytes(parts, count, size, fewer);                                            \
        return fs_met(&meeting, libc_as(name##_call *, #name)(fd, fewer, count EXPAND arguments)); \
    }                                                                                              \
    CALL(name, ssize_t, int fd, const struct iovec *parts, int count EXPAND parameters)            \
    {                                                                                              \
        if (fs_faulty(operation)) return name##_met(fd, parts, count EXPAND arguments);            \
        return libc_as(name##_call *, #name)(fd, parts, count EXPAND arguments);                   \
    }

MOVE_PARTS(readv, FS_OP_READ, (), (), ())
MOVE_PARTS(writev, FS_OP_WRITE, (), (), ())
MOVE_PARTS(preadv, FS_OP_READ, (, off_t at), (, off_t), (, at))
MOVE_PARTS(pwritev, FS_OP_WRITE, (, off_t at), (, off_t), (, at))
MOVE_PARTS(preadv2, FS_OP_READ, (, off_t at, int flags), (, off_t, int), (, at, flags))
MOVE_PARTS(pwritev2, FS_OP_WRITE, (, off_t at, int flags), (, off_t, int), (, at, flags))
#ifdef __GLIBC__
MOVE_PARTS(preadv64, FS_OP_READ, (, off_t at), (, off_t), (, at))
MOVE_PARTS(pwritev64, FS_OP_WRITE, (, off_t at), (, off_t), (, at))
MOVE_PARTS(preadv64v2, FS_OP_READ, (, off_t at, int flags), (, off_t, int), (, at, flags))
MOVE_PARTS(pwritev64v2, FS_OP_WRITE, (, off_t at, int flags), (, off_t, int), (, at, flags))
#endif

/* ---- from one file to another ---------------------------------------------------------------- */

static bool both(struct fs_meeting met[2], int from, int to, size_t *size)
{
    met[0] = met[1] = (struct fs_meeting){0, 0};
    if (fs_faulty(FS_OP_READ) && !fs_meet_fd(&met[0], FS_OP_READ, from, size)) return false;
    return !fs_faulty(FS_OP_WRITE) || fs_meet_fd(&met[1], FS_OP_WRITE, to, size);
}

/* `name` with descriptors `from`, `to` and `size` among its parameters. */
#define COPY(name, parameters, types, arguments)                                                   \
    typedef ssize_t name##_call types;                                                             \
    CALL(name, ssize_t, EXPAND parameters)                                                         \
    {                                                                                              \
        struct fs_meeting met[2] = {{0, 0}, {0, 0}};                                               \
        if (fs_faulty(FS_OP_READ | FS_OP_WRITE) && !both(met, from, to, &size)) return -1;         \
        return fs_met(&met[1], libc_as(name##_call *, #name) arguments);                           \
    }

COPY(sendfile, (int to, int from, off_t *at, size_t size), (int, int, off_t *, size_t),
     (to, from, at, size))
COPY(copy_file_range, (int from, off_t *from_at, int to, off_t *to_at, size_t size, unsigned flags),
     (int, off_t *, int, off_t *, size_t, unsigned), (from, from_at, to, to_at, size, flags))
COPY(splice, (int from, off_t *from_at, int to, off_t *to_at, size_t size, unsigned flags),
     (int, off_t *, int, off_t *, size_t, unsigned), (from, from_at, to, to_at, size, flags))
#ifdef __GLIBC__
COPY(sendfile64, (int to, int from, off_t *at, size_t size), (int, int, off_t *, size_t),
     (to, from, at, size))
#endif

/* Files that share their blocks: `cp` asks for that first. A fault makes it copy. */
static bool refused_clone(int fd, unsigned long request)
{
    if (!fs_faulty(FS_OP_WRITE) || (request != FICLONE_NUMBER && request != FICLONERANGE_NUMBER))
        return false;
    errno = EOPNOTSUPP;
    return fd >= 0;
}

#ifdef __GLIBC__
CALL(ioctl, int, int fd, unsigned long request, ...)
#else
CALL(ioctl, int, int fd, int request, ...)
#endif
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (refused_clone(fd, (unsigned long)request)) return -1;
    return libc(ioctl)(fd, request, argument);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

#define RESIZE(name)                                                                               \
    CALL(name, int, int fd, off_t size)                                                            \
    {                                                                                              \
        FAULT_FD(FS_OP_TRUNCATE, fd, -1);                                                          \
        return libc_as(int (*)(int, off_t), #name)(fd, size);                                      \
    }

#define ALLOCATE(name)                                                                             \
    CALL(name, int, int fd, int mode, off_t at, off_t size)                                        \
    {                                                                                              \
        FAULT_FD(FS_OP_WRITE, fd, -1);                                                             \
        return libc_as(int (*)(int, int, off_t, off_t), #name)(fd, mode, at, size);                \
    }

/* Its result is the error; errno stays. */
#define ALLOCATE_POSIX(name)                                                                       \
    CALL(name, int, int fd, off_t at, off_t size)                                                  \
    {                                                                                              \
        int saved_errno = errno;                                                                   \
        if (fs_faulty(FS_OP_WRITE) && !fs_fault_fd(FS_OP_WRITE, fd)) {                             \
            int error = errno;                                                                     \
            errno = saved_errno;                                                                   \
            return error;                                                                          \
        }                                                                                          \
        return libc_as(int (*)(int, off_t, off_t), #name)(fd, at, size);                           \
    }

RESIZE(ftruncate)
ALLOCATE(fallocate)
ALLOCATE_POSIX(posix_fallocate)
#ifdef __GLIBC__
RESIZE(ftruncate64)
ALLOCATE(fallocate64)
ALLOCATE_POSIX(posix_fallocate64)
#endif

CALL(sync_file_range, int, int fd, off_t at, off_t size, unsigned flags)
{
    FAULT_FD(FS_OP_FSYNC, fd, -1);
    return libc_as(int (*)(int, off_t, off_t, unsigned), "sync_file_range")(fd, at, size, flags);
}

/* ---- closing --------------------------------------------------------------------------------- */

/* fdguard.c asks before it closes: the descriptor is closed in any case, as Linux does. */
int cse_close_error(int fd)
{
    if (!fs_faulty(FS_OP_CLOSE)) return 0;
    int saved_errno = errno, error = fs_fault_fd(FS_OP_CLOSE, fd) ? 0 : errno;
    errno = saved_errno;
    return error;
}

/* ---- by number ------------------------------------------------------------------------------- */

long fs_data_by_number(long number, const long a[6], bool *done)
{
    *done = true;
    // NOLINTBEGIN(performance-no-int-to-ptr): syscall() takes addresses as numbers
    switch (number) {
    case SYS_read: return taken_read((int)a[0], (void *)a[1], (size_t)a[2]);
    case SYS_write: return taken_write((int)a[0], (const void *)a[1], (size_t)a[2]);
    case SYS_pread64: return taken_pread((int)a[0], (void *)a[1], (size_t)a[2], a[3]);
    case SYS_pwrite64: return taken_pwrite((int)a[0], (const void *)a[1], (size_t)a[2], a[3]);
    case SYS_readv: return taken_readv((int)a[0], (const struct iovec *)a[1], (int)a[2]);
    case SYS_writev: return taken_writev((int)a[0], (const struct iovec *)a[1], (int)a[2]);
    case SYS_ftruncate: return taken_ftruncate((int)a[0], a[1]);
    case SYS_fsync: return fsync((int)a[0]);
    case SYS_fdatasync: return fdatasync((int)a[0]);
    case SYS_copy_file_range:
        return taken_copy_file_range((int)a[0], (off_t *)a[1], (int)a[2], (off_t *)a[3],
                                     (size_t)a[4], (unsigned)a[5]);
    case 425: /* io_uring_setup */
    case 426: /* io_uring_enter */ cse_escape("io_uring while faults hold"); break;
    default: break;
    }
    // NOLINTEND(performance-no-int-to-ptr)
    *done = false;
    return 0;
}

/* Bound early: a signal handler may be the first to write. */
__attribute__((constructor(102))) static void bind(void)
{
    int saved_errno = errno;
    taken_read(-1, NULL, 0);
    taken_write(-1, NULL, 0);
    errno = saved_errno;
}

CSE_BEFORE_SANITIZERS_END
