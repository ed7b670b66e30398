/* open and its relatives: the descriptor or FILE that the program gets is one of a real file.
 *
 * fs_prepare_open does what a call asks for (fill, copy up, make room for a new file) and names
 * the real path; the next definition of the function then opens that.
 */
#include "calls.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fs_fail(int negative_errno)
{
    errno = -negative_errno;
    return -1;
}

bool fs_argument(int *dirfd, const char **path, int follow, enum fs_use use, struct fs_where *where,
                 bool *inside)
{
    *inside = false;
    if (!fs_maybe(*dirfd, *path)) return true;
    int found = fs_find(*dirfd, *path, follow, where);
    if (found == FS_OUTSIDE) return true;
    if (found < 0) return fs_fail(found) == 0;
    *dirfd = AT_FDCWD;
    if (found == FS_REWRITTEN) {
        *path = where->path;
        return true;
    }
    int error = use == FS_USE_NAME      ? fs_real(where)
                : use == FS_USE_CONTENT ? fs_real_content(where)
                                        : fs_for_change(where, false);
    if (error != 0) return fs_fail(error) == 0;
    fs_count(use == FS_USE_NAME     ? FS_COUNT_STATS
             : use == FS_USE_CHANGE ? FS_COUNT_CHANGES
             : S_ISDIR(where->mode) ? FS_COUNT_LISTS
                                    : FS_COUNT_OPENS,
             1);
    *inside = true;
    *path = where->real;
    return true;
}

static int prepare_existing(struct fs_where *where, int flags)
{
    bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
    if (S_ISLNK(where->mode)) return (flags & O_PATH) ? fs_real(where) : -ELOOP;
    if (flags & O_PATH) return S_ISDIR(where->mode) ? fs_real_content(where) : fs_real(where);
    if (S_ISDIR(where->mode)) {
        if ((flags & O_TMPFILE) == O_TMPFILE) return fs_for_change(where, false);
        if (writes || (flags & O_CREAT)) return -EISDIR;
        return fs_real_content(where);
    }
    if (flags & O_DIRECTORY) return -ENOTDIR;
    if (!S_ISREG(where->mode)) return fs_real(where);
    if (!writes) return fs_real_content(where);
    return fs_for_change(where, (flags & O_TRUNC) != 0);
}

int fs_prepare_open(int dirfd, const char *path, int flags, struct fs_where *where, bool *creates)
{
    *creates = false;
    if (!fs_maybe(dirfd, path)) return FS_OUTSIDE;
    bool exclusive = (flags & O_CREAT) && (flags & O_EXCL);
    size_t length = path != NULL ? strlen(path) : 0;
    bool slash = (flags & O_CREAT) && length > 0 && path[length - 1] == '/';
    int follow = !(flags & O_NOFOLLOW) && !exclusive ? FS_FOLLOW : FS_NOFOLLOW;
    int found = fs_find(dirfd, path, slash ? FS_ITSELF : follow, where);
    if (found != FS_INSIDE) return found;
    int error;
    if (slash) return where->layer >= 0 || fs_has_parent(where) ? -EISDIR : -ENOENT;
    if (where->layer >= 0) {
        error = exclusive && (flags & O_TMPFILE) != O_TMPFILE ? -EEXIST
                                                              : prepare_existing(where, flags);
    } else if (flags & O_CREAT) {
        *creates = true;
        error = where->must_be_directory ? -EISDIR : fs_for_creation(where, false);
    } else {
        error = -ENOENT;
    }
    if (error == 0)
        fs_count(!*creates && S_ISDIR(where->mode) ? FS_COUNT_LISTS : FS_COUNT_OPENS, 1);
    return error != 0 ? error : FS_INSIDE;
}

/* errno is kept: the call has succeeded. */
static void opened(const struct fs_where *where, int fd, int flags, bool creates)
{
    int saved_errno = errno;
    cse_fd_forget(fd); /* its number may have been closed where nobody saw it */
    if (creates) fs_created(where, S_IFREG);
    if (where->mount->layers[0].encrypted != NULL) fs_encrypted_opened(where, fd, flags);
    errno = saved_errno;
}

int fs_open(int dirfd, const char *path, int flags, mode_t mode)
{
    struct fs_where where;
    bool creates;
    FAULT(FS_OP_OPEN, dirfd, path, -1);
    int found = fs_prepare_open(dirfd, path, flags, &where, &creates);
    if (found < 0) return fs_fail(found);
    if (found == FS_OUTSIDE) return libc(openat)(dirfd, path, flags, mode);
    path = found == FS_INSIDE ? where.real : where.path;
    dirfd = AT_FDCWD;
    if (found == FS_INSIDE) flags = fs_sync_flags(where.mount, flags);
    if (found == FS_INSIDE && !creates && S_ISREG(where.mode)) dirfd = fs_nearest(&where, &path);
    int fd = libc(openat)(dirfd, path, flags, mode);
    if (fd >= 0 && found == FS_INSIDE) opened(&where, fd, flags, creates);
    return fd;
}

#define MODE_ARGUMENT(flags, mode)                                                                 \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) {                                        \
        va_list arguments;                                                                         \
        va_start(arguments, flags);                                                                \
        mode = (mode_t)va_arg(arguments, unsigned);                                                \
        va_end(arguments);                                                                         \
    }

CALL(open, int, const char *path, int flags, ...)
{
    MODE_ARGUMENT(flags, mode)
    return fs_open(AT_FDCWD, path, flags, mode);
}

CALL(openat, int, int dirfd, const char *path, int flags, ...)
{
    MODE_ARGUMENT(flags, mode)
    return fs_open(dirfd, path, flags, mode);
}

CALL(creat, int, const char *path, mode_t mode)
{
    return fs_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

#ifdef __GLIBC__
#define OPEN_TWIN(name)                                                                            \
    CALL(name, int, const char *path, int flags, ...)                                              \
    {                                                                                              \
        MODE_ARGUMENT(flags, mode)                                                                 \
        return fs_open(AT_FDCWD, path, flags, mode);                                               \
    }

OPEN_TWIN(open64)
OPEN_TWIN(__open)
OPEN_TWIN(__open64)

CALL(openat64, int, int dirfd, const char *path, int flags, ...)
{
    MODE_ARGUMENT(flags, mode)
    return fs_open(dirfd, path, flags, mode);
}

CALL(creat64, int, const char *path, mode_t mode)
{
    return fs_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

CALL(__open_2, int, const char *path, int flags)
{
    return fs_open(AT_FDCWD, path, flags, 0);
}

CALL(__open64_2, int, const char *path, int flags)
{
    return fs_open(AT_FDCWD, path, flags, 0);
}

CALL(__openat_2, int, int dirfd, const char *path, int flags)
{
    return fs_open(dirfd, path, flags, 0);
}

CALL(__openat64_2, int, int dirfd, const char *path, int flags)
{
    return fs_open(dirfd, path, flags, 0);
}
#endif

/* ---- streams
 * -------------------------------------------------------------------------------------- */

static int flags_of_mode(const char *mode)
{
    int flags =
        mode[0] == 'r' ? O_RDONLY : O_WRONLY | O_CREAT | (mode[0] == 'w' ? O_TRUNC : O_APPEND);
    for (const char *at = mode; *at && *at != ','; at++) {
        if (*at == '+') flags = (flags & ~O_ACCMODE) | O_RDWR;
        if (*at == 'x') flags |= O_EXCL;
    }
    return flags;
}

/* The path to open instead of `path`; NULL with errno. */
static const char *stream_path(const char *path, const char *mode, struct fs_where *where,
                               bool *creates)
{
    *creates = false;
    where->mount = NULL;
    if (path == NULL) return NULL;
    FAULT(FS_OP_OPEN, AT_FDCWD, path, NULL);
    int found = fs_prepare_open(AT_FDCWD, path, flags_of_mode(mode), where, creates);
    if (found != FS_INSIDE) where->mount = NULL;
    if (found == FS_OUTSIDE) return path;
    if (found < 0) {
        fs_fail(found);
        return NULL;
    }
    return found == FS_INSIDE ? where->real : where->path;
}

/* A stream whose writes are to be on disk when they return: its descriptor is opened by us. */
static FILE *open_synced(const char *path, const char *mode, const struct fs_where *where)
{
    if (where->mount == NULL || where->mount->sync != FS_SYNC_ALWAYS) return NULL;
    int fd = fs_open(AT_FDCWD, path, flags_of_mode(mode), 0666);
    FILE *file = fd >= 0 ? fdopen(fd, mode) : NULL;
    if (file == NULL && fd >= 0) close(fd);
    return file;
}

#define STREAM(name)                                                                               \
    CALL(name, FILE *, const char *path, const char *mode)                                         \
    {                                                                                              \
        struct fs_where where;                                                                     \
        bool creates;                                                                              \
        const char *real = stream_path(path, mode, &where, &creates);                              \
        FILE *synced = real ? open_synced(path, mode, &where) : NULL;                              \
        if (synced != NULL) return synced;                                                         \
        FILE *file = real ? NEXT(name, FILE *, const char *, const char *)(real, mode) : NULL;     \
        if (file != NULL && where.mount != NULL)                                                   \
            opened(&where, fileno(file), flags_of_mode(mode), creates);                            \
        return file;                                                                               \
    }

#define STREAM_AGAIN(name)                                                                         \
    CALL(name, FILE *, const char *path, const char *mode, FILE *stream)                           \
    {                                                                                              \
        struct fs_where where = {.mount = NULL};                                                   \
        bool creates = false;                                                                      \
        const char *real = path ? stream_path(path, mode, &where, &creates) : NULL;                \
        if (path != NULL && real == NULL) {                                                        \
            int saved_errno = errno;                                                               \
            fclose(stream);                                                                        \
            errno = saved_errno;                                                                   \
            return NULL;                                                                           \
        }                                                                                          \
        if (stream != NULL) cse_before_close(fileno(stream), stream);                              \
        FILE *file = NEXT(name, FILE *, const char *, const char *, FILE *)(real, mode, stream);   \
        if (file != NULL && where.mount != NULL)                                                   \
            opened(&where, fileno(file), flags_of_mode(mode), creates);                            \
        return file;                                                                               \
    }

STREAM(fopen)
STREAM_AGAIN(freopen)
#ifdef __GLIBC__
STREAM(fopen64)
STREAM_AGAIN(freopen64)
#endif

/* ---- temporary names
 * -------------------------------------------------------------------------------- */

/* mkstemp and mkdtemp inside a mount; outside, libc's own. `suffix` characters follow the Xs. */
static int make_temporary(char *name, int suffix, int flags, bool directory)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t length = strlen(name);
    if (suffix < 0 || length < 6 + (size_t)suffix ||
        memcmp(name + length - 6 - suffix, "XXXXXX", 6) != 0)
        return fs_fail(-EINVAL);
    char *at = name + length - 6 - suffix;
    for (int tries = 0; tries < 1000; tries++) {
        uint64_t random = 0;
        raw(SYS_getrandom, &random, sizeof random, 0);
        for (int i = 0; i < 6; i++, random /= 62) at[i] = letters[random % 62];
        int result = directory ? mkdir(name, 0700)
                               : fs_open(AT_FDCWD, name, flags | O_RDWR | O_CREAT | O_EXCL, 0600);
        if (result >= 0 || errno != EEXIST) return result;
    }
    return fs_fail(-EEXIST);
}

#define TEMPORARY(name, parameters, next, suffix, flags)                                           \
    CALL(name, int, PARAMETERS parameters)                                                         \
    {                                                                                              \
        FAULT(FS_OP_OPEN, AT_FDCWD, template, -1);                                                 \
        if (!fs_maybe(AT_FDCWD, template)) return next;                                            \
        return make_temporary(template, suffix, flags, false);                                     \
    }
#define PARAMETERS(...) __VA_ARGS__

TEMPORARY(mkstemp, (char *template), NEXT(mkstemp, int, char *)(template), 0, 0)
TEMPORARY(mkostemp, (char *template, int flags), NEXT(mkostemp, int, char *, int)(template, flags),
          0, flags)
TEMPORARY(mkstemps, (char *template, int suffix),
          NEXT(mkstemps, int, char *, int)(template, suffix), suffix, 0)
TEMPORARY(mkostemps, (char *template, int suffix, int flags),
          NEXT(mkostemps, int, char *, int, int)(template, suffix, flags), suffix, flags)
#ifdef __GLIBC__
TEMPORARY(mkstemp64, (char *template), NEXT(mkstemp64, int, char *)(template), 0, 0)
TEMPORARY(mkostemp64, (char *template, int flags),
          NEXT(mkostemp64, int, char *, int)(template, flags), 0, flags)
TEMPORARY(mkstemps64, (char *template, int suffix),
          NEXT(mkstemps64, int, char *, int)(template, suffix), suffix, 0)
TEMPORARY(mkostemps64, (char *template, int suffix, int flags),
          NEXT(mkostemps64, int, char *, int, int)(template, suffix, flags), suffix, flags)
#endif

CALL(mkdtemp, char *, char *template)
{
    FAULT(FS_OP_MKDIR, AT_FDCWD, template, NULL);
    if (!fs_maybe(AT_FDCWD, template)) return NEXT(mkdtemp, char *, char *)(template);
    return make_temporary(template, 0, 0, true) == 0 ? template : NULL;
}
