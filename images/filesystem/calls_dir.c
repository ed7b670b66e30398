/* Directories: opening them, the working directory, and glob.
 *
 * glob calls libc's own opendir from inside, which nobody can take over, but it accepts other
 * functions. calls_list.c reads directories; calls_walk.c and calls_fts.c walk trees.
 */
#include "calls.h"

#include <dirent.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

CALL(opendir, DIR *, const char *path)
{
    FAULT(FS_OP_READDIR, AT_FDCWD, path, NULL);
    WITH_PATH(path, FS_FOLLOW, FS_USE_CONTENT, where, NULL)
    return libc(opendir)(path);
}

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

#ifdef __GLIBC__
CALL(__getwd_chk, char *, char *out, size_t room)
{
    char path[PATH_MAX];
    if (!cwd_inside(path)) return NEXT(__getwd_chk, char *, char *, size_t)(out, room);
    return give(path, out, room);
}
#endif

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
