/* Reading directories: mount points are listed where they lie.
 *
 * A directory is a real one, listed by the kernel. Where a mount point lies below it, the names
 * that lead there come after the kernel's own, and a name of both has the mount's type. What is
 * known of a DIR is kept here by its address: most are `plain`, nothing to add. Libc's scandir
 * reads without asking us, so it is written anew; raw getdents shows the kernel's names alone and
 * is counted.
 */
#include "calls.h"

#include <dirent.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LISTINGS = 64, PLAIN = 256 };

struct listing {
    DIR *directory; /* claimed by compare-and-swap */
    int next;       /* cursor of fs_mount_name */
    bool at_end;    /* the kernel's own names are through */
    long end;       /* telldir there */
    char path[PATH_MAX];
    struct dirent entry;
};

static struct listing listings[LISTINGS];
static int listing_count; /* high-water mark */
static DIR *plain[PLAIN];

static DIR **plain_slot(DIR *directory)
{
    return &plain[((uintptr_t)directory >> 4 ^ (uintptr_t)directory >> 12) % PLAIN];
}

static struct listing *known_listing(DIR *directory)
{
    int count = __atomic_load_n(&listing_count, __ATOMIC_ACQUIRE);
    for (int i = 0; i < count; i++)
        if (__atomic_load_n(&listings[i].directory, __ATOMIC_ACQUIRE) == directory)
            return &listings[i];
    return NULL;
}

static struct listing *new_listing(DIR *directory, const char *path)
{
    for (int i = 0; i < LISTINGS; i++) {
        DIR *expected = NULL;
        if (!__atomic_compare_exchange_n(&listings[i].directory, &expected, directory, false,
                                         __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        listings[i].next = 0;
        listings[i].at_end = false;
        snprintf(listings[i].path, sizeof listings[i].path, "%s", path);
        int count = __atomic_load_n(&listing_count, __ATOMIC_RELAXED);
        while (count <= i && !__atomic_compare_exchange_n(&listing_count, &count, i + 1, false,
                                                          __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {}
        return &listings[i];
    }
    cse_escape("over 64 open directories above mounts");
    return NULL;
}

/* NULL: nothing to add to this directory. */
static struct listing *listing_of(DIR *directory)
{
    if (directory == NULL || !fs_ready()) return NULL;
    DIR **slot = plain_slot(directory);
    if (__atomic_load_n(slot, __ATOMIC_RELAXED) == directory) return NULL;
    struct listing *listing = known_listing(directory);
    if (listing != NULL) return listing;
    char path[PATH_MAX];
    int saved_errno = errno;
    if (fs_listed_above(dirfd(directory), path)) listing = new_listing(directory, path);
    if (listing == NULL) __atomic_store_n(slot, directory, __ATOMIC_RELAXED);
    errno = saved_errno;
    return listing;
}

static unsigned char type_of(const struct listing *listing, const char *name)
{
    char path[PATH_MAX];
    bool root = listing->path[1] == '\0';
    if (snprintf(path, sizeof path, "%s/%s", root ? "" : listing->path, name) >= PATH_MAX)
        return DT_UNKNOWN;
    return (unsigned char)IFTODT(fs_mount_kind(path));
}

/* A mount point hides what lies under it, so the name has the mount's type. */
static void correct(const struct listing *listing, struct dirent *entry)
{
    char path[PATH_MAX];
    bool root = listing->path[1] == '\0';
    if (snprintf(path, sizeof path, "%s/%s", root ? "" : listing->path, entry->d_name) >= PATH_MAX)
        return;
    const struct fs_mount *mount = fs_mount_of(path);
    if (mount != NULL && path[mount->length] == '\0')
        entry->d_type = (unsigned char)IFTODT(fs_mount_kind(path));
}

/* The next name that the kernel does not list, in listing->entry; NULL when there is none. */
static struct dirent *added(struct listing *listing)
{
    struct stat status;
    char name[NAME_MAX + 1];
    while (fs_mount_name(listing->path, &listing->next, name)) {
        if (raw(SYS_newfstatat, dirfd(listing->directory), name, &status, AT_SYMLINK_NOFOLLOW) == 0)
            continue;
        struct dirent *entry = &listing->entry;
        memset(entry, 0, sizeof *entry);
        memcpy(entry->d_name, name, strlen(name) + 1);
        /* As for every mount point, not the number that stat shows. */
        entry->d_ino = cse_index_hash(name, (uint32_t)strlen(name)) | 1;
        entry->d_off = listing->end;
        entry->d_type = type_of(listing, name);
        entry->d_reclen =
            (unsigned short)((offsetof(struct dirent, d_name) + strlen(name) + 8) & ~7u);
        return entry;
    }
    return NULL;
}

typedef struct dirent *read_call(DIR *);

static struct dirent *read_one(DIR *directory, read_call *next)
{
    FAULT_FD(FS_OP_READDIR, dirfd(directory), NULL);
    struct listing *listing = listing_of(directory);
    if (listing == NULL) return next(directory);
    if (!listing->at_end) {
        int saved_errno = errno;
        errno = 0;
        struct dirent *entry = next(directory);
        if (entry != NULL) correct(listing, entry);
        if (entry != NULL || errno != 0) {
            if (errno == 0) errno = saved_errno;
            return entry;
        }
        errno = saved_errno;
        listing->at_end = true;
        listing->end = libc(telldir)(directory);
    }
    return added(listing);
}

CALL(readdir, struct dirent *, DIR *directory)
{
    return read_one(directory, libc(readdir));
}

typedef int read_r_call(DIR *, struct dirent *, struct dirent **);

static int read_one_r(DIR *directory, struct dirent *entry, struct dirent **result,
                      read_r_call *next)
{
    FAULT_FD(FS_OP_READDIR, dirfd(directory), errno);
    struct listing *listing = listing_of(directory);
    if (listing == NULL) return next(directory, entry, result);
    if (!listing->at_end) {
        int error = next(directory, entry, result);
        if (error == 0 && *result != NULL) correct(listing, *result);
        if (error != 0 || *result != NULL) return error;
        listing->at_end = true;
        listing->end = libc(telldir)(directory);
    }
    const struct dirent *more = added(listing);
    if (more != NULL) memcpy(entry, more, more->d_reclen);
    *result = more != NULL ? entry : NULL;
    return 0;
}

CALL(readdir_r, int, DIR *directory, struct dirent *entry, struct dirent **result)
{
    return read_one_r(directory, entry, result,
                      NEXT(readdir_r, int, DIR *, struct dirent *, struct dirent **));
}

#ifdef __GLIBC__
CALL(readdir64, struct dirent *, DIR *directory)
{
    return read_one(directory, NEXT(readdir64, struct dirent *, DIR *));
}

CALL(readdir64_r, int, DIR *directory, struct dirent *entry, struct dirent **result)
{
    return read_one_r(directory, entry, result,
                      NEXT(readdir64_r, int, DIR *, struct dirent *, struct dirent **));
}
#endif

/* ---- places
 * ------------------------------------------------------------------------------------------- */

/* Among the added names a place is LONG_MIN + cursor: no kernel gives that, nor -1. */
CALL(telldir, long, DIR *directory)
{
    const struct listing *listing = listing_of(directory);
    if (listing == NULL || !listing->at_end) return libc(telldir)(directory);
    return LONG_MIN + listing->next;
}

CALL(seekdir, void, DIR *directory, long place)
{
    struct listing *listing = listing_of(directory);
    bool ours = listing != NULL && place < LONG_MIN + FS_MOUNTS_MAX + 1;
    if (listing != NULL) {
        listing->at_end = ours;
        listing->next = ours ? (int)(place - LONG_MIN) : 0;
    }
    if (!ours) libc(seekdir)(directory, place);
}

CALL(rewinddir, void, DIR *directory)
{
    struct listing *listing = listing_of(directory);
    if (listing != NULL) {
        listing->at_end = false;
        listing->next = 0;
    }
    libc(rewinddir)(directory);
}

CALL(closedir, int, DIR *directory)
{
    if (directory != NULL) {
        struct listing *listing = known_listing(directory);
        DIR **slot = plain_slot(directory);
        if (listing != NULL) __atomic_store_n(&listing->directory, NULL, __ATOMIC_RELEASE);
        if (__atomic_load_n(slot, __ATOMIC_RELAXED) == directory)
            __atomic_store_n(slot, NULL, __ATOMIC_RELAXED);
        cse_fd_forget(dirfd(directory));
    }
    return libc(closedir)(directory);
}

/* ---- scandir
 * ------------------------------------------------------------------------------------------ */

typedef int chosen(const struct dirent *);
typedef int ordered(const struct dirent **, const struct dirent **);

struct found {
    struct dirent **names;
    size_t count, room;
};

static bool keep(struct found *found, const struct dirent *entry)
{
    if (found->count == found->room) {
        size_t room = found->room ? found->room * 2 : 32;
        struct dirent **grown = realloc(found->names, room * sizeof *grown);
        if (grown == NULL) return false;
        found->names = grown;
        found->room = room;
    }
    struct dirent *copy = malloc(entry->d_reclen);
    if (copy == NULL) return false;
    found->names[found->count++] = memcpy(copy, entry, entry->d_reclen);
    return true;
}

static int collect(DIR *directory, struct found *found, chosen *choose)
{
    for (;;) {
        errno = 0;
        const struct dirent *entry = taken_readdir(directory);
        if (entry == NULL) return errno;
        if (choose != NULL) {
            errno = 0;
            if (!choose(entry)) continue;
        }
        if (!keep(found, entry)) return ENOMEM;
    }
}

static int do_scandir(int from, const char *path, struct dirent ***list, chosen *choose,
                      ordered *order)
{
    int saved_errno = errno;
    int fd = fs_open(from, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    if (directory == NULL) {
        int error = errno;
        if (fd >= 0) close(fd);
        return fs_fail(-error);
    }
    struct found found = {.room = 0};
    int error = collect(directory, &found, choose);
    closedir(directory);
    if (error == 0 && found.names == NULL) found.names = malloc(sizeof *found.names);
    if (error == 0 && found.names == NULL) error = ENOMEM;
    if (error != 0) {
        while (found.names != NULL && found.count > 0) free(found.names[--found.count]);
        free(found.names);
        return fs_fail(-error);
    }
    if (order != NULL && found.count > 1)
        qsort(found.names, found.count, sizeof *found.names,
              (int (*)(const void *, const void *))order);
    *list = found.names;
    errno = saved_errno;
    return (int)found.count;
}

#define SCANDIR(name)                                                                              \
    CALL(name, int, const char *path, struct dirent ***list, chosen *choose, ordered *order)       \
    {                                                                                              \
        if (fs_ready()) return do_scandir(AT_FDCWD, path, list, choose, order);                    \
        return NEXT(name, int, const char *, struct dirent ***, chosen *,                          \
                    ordered *)(path, list, choose, order);                                         \
    }
#define SCANDIRAT(name)                                                                            \
    CALL(name, int, int dirfd, const char *path, struct dirent ***list, chosen *choose,            \
         ordered *order)                                                                           \
    {                                                                                              \
        if (fs_ready()) return do_scandir(dirfd, path, list, choose, order);                       \
        return NEXT(name, int, int, const char *, struct dirent ***, chosen *,                     \
                    ordered *)(dirfd, path, list, choose, order);                                  \
    }

SCANDIR(scandir)
#ifdef __GLIBC__
SCANDIR(scandir64)
SCANDIRAT(scandirat)
SCANDIRAT(scandirat64)

CALL(getdents64, ssize_t, int fd, void *buffer, size_t size)
{
    char path[PATH_MAX];
    FAULT_FD(FS_OP_READDIR, fd, -1);
    if (fs_listed_above(fd, path)) cse_escape("getdents64 above a mount point");
    long result = raw(SYS_getdents64, fd, buffer, size);
    return result < 0 ? fs_fail((int)result) : result;
}
#endif
