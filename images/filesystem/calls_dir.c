/* Directories: opening them, the working directory, and the functions that walk trees inside libc.
 *
 * Reading needs no wrapper: a directory of a mount is a real directory. glob and nftw call libc's
 * own opendir from inside, which nobody can take over: glob accepts other functions, nftw is
 * written anew for trees that begin inside a mount.
 */
#include "calls.h"

#include <dirent.h>
#include <ftw.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

CALL(opendir, DIR *, const char *path)
{
    WITH_PATH(path, FS_FOLLOW, FS_USE_CONTENT, where, NULL)
    return libc(opendir)(path);
}

CALL(closedir, int, DIR *directory)
{
    if (directory != NULL) cse_fd_forget(dirfd(directory));
    return libc(closedir)(directory);
}

typedef int chosen(const struct dirent *);
typedef int ordered(const struct dirent **, const struct dirent **);

CALL(scandir, int, const char *path, struct dirent ***list, chosen *choose, ordered *order)
{
    WITH_PATH(path, FS_FOLLOW, FS_USE_CONTENT, where, -1)
    return NEXT(scandir, int, const char *, struct dirent ***, chosen *, ordered *)(path, list,
                                                                                    choose, order);
}

#ifdef __GLIBC__
CALL(scandir64, int, const char *path, struct dirent ***list, chosen *choose, ordered *order)
{
    WITH_PATH(path, FS_FOLLOW, FS_USE_CONTENT, where, -1)
    return NEXT(scandir64, int, const char *, struct dirent ***, chosen *,
                ordered *)(path, list, choose, order);
}

CALL(scandirat, int, int dirfd, const char *path, struct dirent ***list, chosen *choose,
     ordered *order)
{
    WITH_PATH_AT(dirfd, path, FS_FOLLOW, FS_USE_CONTENT, where, -1)
    return NEXT(scandirat, int, int, const char *, struct dirent ***, chosen *,
                ordered *)(dirfd, path, list, choose, order);
}

CALL(scandirat64, int, int dirfd, const char *path, struct dirent ***list, chosen *choose,
     ordered *order)
{
    WITH_PATH_AT(dirfd, path, FS_FOLLOW, FS_USE_CONTENT, where, -1)
    return NEXT(scandirat64, int, int, const char *, struct dirent ***, chosen *,
                ordered *)(dirfd, path, list, choose, order);
}
#endif

/* ---- the working directory
 * ---------------------------------------------------------------------------- */

CALL(chdir, int, const char *path)
{
    WITH_PATH(path, FS_FOLLOW, FS_USE_CONTENT, where, -1)
    int result = libc(chdir)(path);
    fs_cwd_changed();
    return result;
}

CALL(fchdir, int, int fd)
{
    int result = libc(fchdir)(fd);
    fs_cwd_changed();
    return result;
}

/* The program's view of the working directory when it is inside a mount. */
static bool cwd_inside(char *out)
{
    char real[PATH_MAX];
    return fs_ready() && raw(SYS_getcwd, real, sizeof real) > 0 && real[0] == '/' &&
           fs_virtual_of(real, FS_DIRECTORY, out);
}

static char *give(const char *path, char *out, size_t size)
{
    size_t length = strlen(path) + 1;
    if (out == NULL) {
        if (size == 0) size = length;
        if (size >= length) out = malloc(size);
        if (size >= length && out == NULL) return NULL;
    } else if (size == 0) {
        errno = EINVAL;
        return NULL;
    }
    if (size < length) {
        errno = ERANGE;
        return NULL;
    }
    return memcpy(out, path, length);
}

CALL(getcwd, char *, char *out, size_t size)
{
    char path[PATH_MAX];
    if (!cwd_inside(path)) return libc(getcwd)(out, size);
    return give(path, out, size);
}

#ifdef __GLIBC__
CALL(__getcwd_chk, char *, char *out, size_t size, size_t room)
{
    char path[PATH_MAX];
    if (!cwd_inside(path))
        return NEXT(__getcwd_chk, char *, char *, size_t, size_t)(out, size, room);
    return give(path, out, size < room ? size : room);
}
#endif

CALL(get_current_dir_name, char *, void)
{
    char path[PATH_MAX];
    if (!cwd_inside(path)) return NEXT(get_current_dir_name, char *, void)();
    const char *pwd = getenv("PWD"); /* its links are kept, where it is true */
    struct stat here, there;
    if (pwd != NULL && pwd[0] == '/' && stat(pwd, &there) == 0 && stat(".", &here) == 0 &&
        here.st_dev == there.st_dev && here.st_ino == there.st_ino)
        return strdup(pwd);
    return strdup(path);
}

CALL(getwd, char *, char *out)
{
    char path[PATH_MAX];
    if (cwd_inside(path)) return strcpy(out, path);
    return NEXT(getwd, char *, char *)(out);
}

/* ---- glob
 * ------------------------------------------------------------------------------------------------
 */

#ifdef __GLIBC__
static void *glob_open(const char *path)
{
    return opendir(path);
}

static struct dirent *glob_read(void *directory)
{
    return readdir(directory);
}

static void glob_close(void *directory)
{
    closedir(directory);
}

static int glob_stat(const char *path, struct stat *status)
{
    return stat(path, status);
}

static int glob_lstat(const char *path, struct stat *status)
{
    return lstat(path, status);
}

typedef int glob_failed(const char *, int);

static int do_glob(int (*next)(const char *, int, glob_failed *, glob_t *), const char *pattern,
                   int flags, glob_failed *failed, glob_t *found)
{
    if (!fs_ready() || (flags & GLOB_ALTDIRFUNC)) return next(pattern, flags, failed, found);
    found->gl_opendir = glob_open;
    found->gl_readdir = glob_read;
    found->gl_closedir = glob_close;
    found->gl_stat = glob_stat;
    found->gl_lstat = glob_lstat;
    int result = next(pattern, flags | GLOB_ALTDIRFUNC, failed, found);
    found->gl_flags &= ~GLOB_ALTDIRFUNC;
    return result;
}

CALL(glob, int, const char *pattern, int flags, glob_failed *failed, glob_t *found)
{
    return do_glob(NEXT(glob, int, const char *, int, glob_failed *, glob_t *), pattern, flags,
                   failed, found);
}

CALL(glob64, int, const char *pattern, int flags, glob_failed *failed, glob_t *found)
{
    return do_glob(NEXT(glob64, int, const char *, int, glob_failed *, glob_t *), pattern, flags,
                   failed, found);
}
#endif

/* libc's fts reads directories by calls of its own; GNU programs bring theirs, which is served. */
CALL(fts_open, void *, char *const *paths, int options, int (*compare)(const void *, const void *))
{
    for (int i = 0; paths != NULL && paths[i] != NULL; i++)
        if (fs_maybe(AT_FDCWD, paths[i])) cse_escape("fts_open of libc");
    void *(*next)(char *const *, int, int (*)(const void *, const void *)) =
        (void *(*)(char *const *, int, int (*)(const void *, const void *)))cse_next("fts_open");
    if (next != NULL) return next(paths, options, compare);
    errno = ENOSYS;
    return NULL;
}

/* ---- nftw
 * --------------------------------------------------------------------------------------------------
 */

typedef int visit_nftw(const char *, const struct stat *, int, struct FTW *);
typedef int visit_ftw(const char *, const struct stat *, int);

struct visitor {
    visit_nftw *nftw;
    visit_ftw *ftw;
    int flags;
    dev_t device;
};

struct ancestor { /* to notice loops of links */
    const struct ancestor *above;
    dev_t device;
    ino_t inode;
};

static int visit(const struct visitor *visitor, const char *path, const struct stat *status,
                 int kind, int base, int level)
{
    struct FTW place = {.base = base, .level = level};
    if (visitor->ftw == NULL) return visitor->nftw(path, status, kind, &place);
    if (kind == FTW_SLN) kind = FTW_SL;
    return visitor->ftw(path, status, kind == FTW_DP ? FTW_D : kind);
}

static int walk(const struct visitor *visitor, char *path, size_t length, int base, int level,
                const struct ancestor *above)
{
    struct stat status;
    int kind = FTW_F;
    bool physical = visitor->flags & FTW_PHYS;
    if ((physical ? lstat(path, &status) : stat(path, &status)) != 0) {
        if (physical || lstat(path, &status) != 0) {
            if (level == 0) return -1;
            kind = FTW_NS;
        } else {
            kind = FTW_SLN;
        }
    } else if (S_ISLNK(status.st_mode)) {
        kind = FTW_SL;
    } else if (S_ISDIR(status.st_mode)) {
        kind = FTW_D;
    }
    if (kind != FTW_D) return visit(visitor, path, &status, kind, base, level);
    if ((visitor->flags & FTW_MOUNT) && status.st_dev != visitor->device) return 0;
    struct ancestor self = {above, status.st_dev, status.st_ino};
    for (const struct ancestor *at = above; at != NULL; at = at->above)
        if (at->device == self.device && at->inode == self.inode) return 0;
    DIR *directory = opendir(path);
    if (directory == NULL) return visit(visitor, path, &status, FTW_DNR, base, level);
    int result = visitor->flags & FTW_DEPTH ? 0 : visit(visitor, path, &status, FTW_D, base, level);
    struct dirent *entry;
    while (result == 0 && (entry = readdir(directory)) != NULL) {
        size_t name = strlen(entry->d_name);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (length + name + 2 > PATH_MAX) continue;
        bool slash = path[length - 1] != '/';
        if (slash) path[length] = '/';
        memcpy(path + length + slash, entry->d_name, name + 1);
        result =
            walk(visitor, path, length + slash + name, (int)(length + slash), level + 1, &self);
        path[length] = '\0';
    }
    int saved_errno = errno;
    closedir(directory);
    errno = saved_errno;
    if (result == 0 && (visitor->flags & FTW_DEPTH))
        result = visit(visitor, path, &status, FTW_DP, base, level);
    return result;
}

static int walk_from(const char *path, struct visitor *visitor)
{
    char whole[PATH_MAX];
    struct stat status;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof whole) return fs_fail(length ? -ENAMETOOLONG : -ENOENT);
    memcpy(whole, path, length + 1);
    while (length > 1 && whole[length - 1] == '/') whole[--length] = '\0';
    if (stat(whole, &status) == 0) visitor->device = status.st_dev;
    if (visitor->flags & FTW_CHDIR) cse_escape("nftw with FTW_CHDIR");
    const char *slash = strrchr(whole, '/');
    int base = slash != NULL && slash[1] != '\0' ? (int)(slash + 1 - whole) : 0;
    return walk(visitor, whole, length, base, 0, NULL);
}

/* The tree may begin outside and hold a mount point deeper down: then parents are listed by the
 * kernel, which does not show it, so libc's own function does as well. */
#define TREE_WALK(name, visit_type, field, extra_parameter, extra_type, extra_argument,            \
                  flag_value)                                                                      \
    CALL(name, int, const char *path, visit_type *visit_one, int room extra_parameter)             \
    {                                                                                              \
        if (!fs_maybe(AT_FDCWD, path))                                                             \
            return NEXT(name, int, const char *, visit_type *,                                     \
                        int extra_type)(path, visit_one, room extra_argument);                     \
        struct visitor visitor = {.field = visit_one, .flags = flag_value};                        \
        return walk_from(path, &visitor);                                                          \
    }
#define NOTHING
#define FLAGS_PARAMETER , int flags
#define FLAGS_TYPE      , int
#define FLAGS_ARGUMENT  , flags

TREE_WALK(nftw, visit_nftw, nftw, FLAGS_PARAMETER, FLAGS_TYPE, FLAGS_ARGUMENT, flags)
TREE_WALK(ftw, visit_ftw, ftw, NOTHING, NOTHING, NOTHING, 0)
#ifdef __GLIBC__
TREE_WALK(nftw64, visit_nftw, nftw, FLAGS_PARAMETER, FLAGS_TYPE, FLAGS_ARGUMENT, flags)
TREE_WALK(ftw64, visit_ftw, ftw, NOTHING, NOTHING, NOTHING, 0)
#endif
