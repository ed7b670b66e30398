/* How a function of libc is taken over, for the calls_*.c files. */
#ifndef CSE_FS_CALLS_H
#define CSE_FS_CALLS_H

#include "faults.h"
#include "fs.h"

/* Defines libc's `name`. Under another C name, because headers may declare it in their own way
 * (inline stat of older glibc, nonnull parameters). */
#define CALL(name, type, ...)                                                                      \
    type taken_##name(__VA_ARGS__) __asm__(#name) CSE_EXPORT;                                      \
    type taken_##name(__VA_ARGS__)

/* The next definition of `name`; it must exist in this libc. */
#define NEXT(name, type, ...) libc_as(type (*)(__VA_ARGS__), #name)

/* What an open with `flags` will touch, made ready: FS_OUTSIDE, FS_INSIDE (open where->real),
 * FS_REWRITTEN (open where->path) or negative errno. *creates: call fs_created afterwards. */
int fs_prepare_open(int dirfd, const char *path, int flags, struct fs_where *where, bool *creates);

/* A call whose path is only replaced: `type name(parameters)`, `dirfd` 0 for calls without one. */
#define WITH_PATH(path, follow, use, where, failed)                                                \
    struct fs_where where;                                                                         \
    bool where##_inside;                                                                           \
    int where##_dirfd = AT_FDCWD;                                                                  \
    if (!fs_argument(&where##_dirfd, &path, follow, use, &where, &where##_inside)) return failed;

#define WITH_PATH_AT(dirfd, path, follow, use, where, failed)                                      \
    struct fs_where where;                                                                         \
    bool where##_inside;                                                                           \
    if (!fs_argument(&dirfd, &path, follow, use, &where, &where##_inside)) return failed;

/* fdguard.c (core) calls it before a descriptor is closed or replaced. */
void cse_before_close(int fd, void *stream);

/* fstatat of the next library, also where only __fxstatat exists (glibc before 2.33). */
int fs_next_fstatat(int dirfd, const char *path, struct stat *status, int flags);

#endif
