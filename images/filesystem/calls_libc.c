/* Functions of libc that open or look at a file by calls from inside, which nobody can take over:
 * where the file is in a mount they are done anew here. docs/filesystem.md lists those that are
 * not. */
#include "calls.h"

#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <unistd.h>

/* The kernel sees another file for each name, so the key is made of what stat shows. */
CALL(ftok, key_t, const char *path, int project)
{
    struct stat status;
    if (stat(path, &status) != 0) return (key_t)-1;
    return (key_t)((status.st_ino & 0xffff) | (status.st_dev & 0xff) << 16 |
                   ((unsigned)project & 0xff) << 24);
}

/* ---- names that are not there yet ---------------------------------------------------------------
 */

CALL(mktemp, char *, char *template)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t length = strlen(template);
    struct stat status;
    if (!fs_maybe(AT_FDCWD, template)) return NEXT(mktemp, char *, char *)(template);
    bool shaped = length >= 6 && strcmp(template + length - 6, "XXXXXX") == 0;
    if (!shaped) errno = EINVAL;
    int saved_errno = errno;
    for (int tries = 0; shaped && tries < 1000; tries++) {
        uint64_t random = 0;
        raw(SYS_getrandom, &random, sizeof random, 0);
        for (int i = 0; i < 6; i++, random /= 62) template[length - 6 + i] = letters[random % 62];
        if (lstat(template, &status) == 0) continue;
        if (errno != ENOENT) break;
        errno = saved_errno;
        return template;
    }
    template[0] = '\0';
    return template;
}

static bool is_directory(const char *path)
{
    struct stat status;
    return path != NULL && path[0] != '\0' && stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

CALL(tempnam, char *, const char *directory, const char *prefix)
{
    char path[PATH_MAX];
    const char *asked = secure_getenv("TMPDIR");
    const char *chosen = is_directory(asked) ? asked : directory;
    if (chosen == NULL || !fs_maybe(AT_FDCWD, chosen) || !is_directory(chosen) ||
        snprintf(path, sizeof path, "%s/%.5sXXXXXX", chosen, prefix ? prefix : "file") >= PATH_MAX)
        return NEXT(tempnam, char *, const char *, const char *)(directory, prefix);
    return taken_mktemp(path)[0] != '\0' ? strdup(path) : NULL;
}

#ifdef __GLIBC__

/* ---- databases ----------------------------------------------------------------------------------
 */

#define TABLE_OF_MOUNTS(name)                                                                      \
    CALL(name, FILE *, const char *path, const char *mode)                                         \
    {                                                                                              \
        char exact[16];                                                                            \
        if (!fs_maybe(AT_FDCWD, path))                                                             \
            return NEXT(name, FILE *, const char *, const char *)(path, mode);                     \
        snprintf(exact, sizeof exact, "%.8sce", mode);                                             \
        FILE *file = fopen(path, exact);                                                           \
        if (file != NULL) __fsetlocking(file, FSETLOCKING_BYCALLER);                               \
        return file;                                                                               \
    }

TABLE_OF_MOUNTS(setmntent)
TABLE_OF_MOUNTS(__setmntent)

/* NLSPATH is not searched. */
CALL(catopen, void *, const char *name, int flag)
{
    if (name != NULL && strchr(name, '/') != NULL) {
        WITH_PATH(name, FS_FOLLOW, FS_USE_CONTENT, where, (void *)-1)
        return NEXT(catopen, void *, const char *, int)(name, flag);
    }
    return NEXT(catopen, void *, const char *, int)(name, flag);
}

/* Records of logins: the file is changed under its own name. */
static int name_of_records(const char *path, int (*next)(const char *))
{
    WITH_PATH(path, FS_FOLLOW, FS_USE_CHANGE, where, -1)
    return next(path);
}

CALL(utmpname, int, const char *path)
{
    return name_of_records(path, NEXT(utmpname, int, const char *));
}

CALL(utmpxname, int, const char *path)
{
    return name_of_records(path, NEXT(utmpxname, int, const char *));
}

#define RECORD(name)                                                                               \
    CALL(name, void, const char *path, const void *record)                                         \
    {                                                                                              \
        WITH_PATH(path, FS_FOLLOW, FS_USE_CHANGE, where, )                                         \
        NEXT(name, void, const char *, const void *)(path, record);                                \
    }

RECORD(updwtmp)
RECORD(updwtmpx)

/* ---- other names of functions that programs may call --------------------------------------------
 */

CALL(_IO_fopen, FILE *, const char *path, const char *mode)
{
    return fopen(path, mode);
}
#endif
