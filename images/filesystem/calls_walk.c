/* ftw and nftw, written anew: libc's own open directories by calls that nobody can take over.
 *
 * Used where the tree begins inside a mount or has a mount point below; libc's own elsewhere.
 */
#include "calls.h"

#include <dirent.h>
#include <ftw.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef FTW_ACTIONRETVAL
enum { FTW_ACTIONRETVAL = 16, FTW_SKIP_SUBTREE = 2, FTW_SKIP_SIBLINGS = 3 };
#endif

typedef int visit_nftw(const char *, const struct stat *, int, struct FTW *);
typedef int visit_ftw(const char *, const struct stat *, int);

struct visitor {
    visit_nftw *nftw;
    visit_ftw *ftw;
    int flags;
    dev_t device;
    void *seen;   /* without FTW_PHYS each directory is walked once: a tree of tsearch */
    size_t start; /* with FTW_CHDIR paths are absolute here; the program's begin there */
};

struct seen {
    dev_t device;
    ino_t inode;
};

static int enter_parent(char *path, size_t base)
{
    if (base <= 1) return chdir("/");
    path[base - 1] = '\0';
    int result = chdir(path);
    path[base - 1] = '/';
    return result;
}

static int visit(struct visitor *visitor, char *path, const struct stat *status, int kind,
                 size_t base, int level)
{
    size_t start = visitor->start;
    if ((visitor->flags & FTW_CHDIR) && enter_parent(path, base) != 0) return -1;
    struct FTW place = {.base = (int)(base > start ? base - start : 0), .level = level};
    if (visitor->ftw == NULL) return visitor->nftw(path + start, status, kind, &place);
    kind = kind == FTW_SLN ? FTW_NS : kind == FTW_SL ? FTW_F : kind == FTW_DP ? FTW_D : kind;
    return visitor->ftw(path + start, status, kind);
}

static int kind_of(struct visitor *visitor, const char *path, struct stat *status)
{
    bool physical = visitor->flags & FTW_PHYS;
    if ((physical ? lstat(path, status) : stat(path, status)) != 0)
        return errno != EACCES && errno != ENOENT     ? -1
               : physical || lstat(path, status) != 0 ? FTW_NS
                                                      : FTW_SLN;
    if (S_ISLNK(status->st_mode)) return FTW_SL;
    return S_ISDIR(status->st_mode) ? FTW_D : FTW_F;
}

static int by_identity(const void *a, const void *b)
{
    const struct seen *one = a, *other = b;
    if (one->inode != other->inode) return one->inode < other->inode ? -1 : 1;
    return one->device < other->device ? -1 : one->device > other->device;
}

static bool first_time(struct visitor *visitor, const struct stat *status)
{
    struct seen *self = malloc(sizeof *self);
    if (self == NULL) return false;
    *self = (struct seen){status->st_dev, status->st_ino};
    struct seen **known = tsearch(self, &visitor->seen, by_identity);
    bool first = known != NULL && *known == self;
    if (!first) free(self);
    return first;
}

static int walk(struct visitor *visitor, char *path, size_t length, size_t base, int level);

static int walk_children(struct visitor *visitor, DIR *directory, char *path, size_t length,
                         int level)
{
    const struct dirent *entry;
    bool acts = visitor->flags & FTW_ACTIONRETVAL;
    int result = 0;
    while (result == 0 && (entry = readdir(directory)) != NULL) {
        size_t name = strlen(entry->d_name), slash = path[length - 1] != '/';
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (length + name + 2 > PATH_MAX) continue;
        if (slash) path[length] = '/';
        memcpy(path + length + slash, entry->d_name, name + 1);
        result = walk(visitor, path, length + slash + name, length + slash, level + 1);
        path[length] = '\0';
        if (acts && result == FTW_SKIP_SUBTREE) result = 0;
    }
    return acts && result == FTW_SKIP_SIBLINGS ? 0 : result;
}

static int walk(struct visitor *visitor, char *path, size_t length, size_t base, int level)
{
    struct stat status;
    int kind = kind_of(visitor, path, &status);
    if (kind < 0 || (kind == FTW_NS && level == 0)) return -1;
    if (level > 0 && (visitor->flags & FTW_MOUNT) && kind != FTW_NS &&
        status.st_dev != visitor->device)
        return 0;
    if (kind != FTW_D) return visit(visitor, path, &status, kind, base, level);
    if (!(visitor->flags & FTW_PHYS) && !first_time(visitor, &status)) return 0;
    DIR *directory = opendir(path);
    if (directory == NULL) return visit(visitor, path, &status, FTW_DNR, base, level);
    int result = visitor->flags & FTW_DEPTH ? 0 : visit(visitor, path, &status, FTW_D, base, level);
    if (result == 0) result = walk_children(visitor, directory, path, length, level);
    int saved_errno = errno;
    closedir(directory);
    errno = saved_errno;
    if (result == 0 && (visitor->flags & FTW_DEPTH))
        result = visit(visitor, path, &status, FTW_DP, base, level);
    return result;
}

static int walk_whole(const char *path, struct visitor *visitor)
{
    char whole[PATH_MAX] = "";
    struct stat status;
    size_t length = strlen(path), before = 0;
    if (length == 0) return fs_fail(-ENOENT);
    if ((visitor->flags & FTW_CHDIR) && path[0] != '/') {
        if (getcwd(whole, sizeof whole) == NULL) return -1;
        before = strlen(whole);
        if (whole[before - 1] != '/' && before + 1 < sizeof whole) whole[before++] = '/';
    }
    if (before + length >= sizeof whole) return fs_fail(-ENAMETOOLONG);
    memcpy(whole + before, path, length + 1);
    visitor->start = before;
    length += before;
    while (length > before + 1 && whole[length - 1] == '/') whole[--length] = '\0';
    if (stat(whole, &status) == 0) visitor->device = status.st_dev;
    const char *slash = strrchr(whole, '/');
    size_t base = slash != NULL && slash[1] != '\0' ? (size_t)(slash + 1 - whole) : 0;
    return walk(visitor, whole, length, base, 0);
}

static int walk_from(const char *path, struct visitor *visitor)
{
    int here = -1;
    if (visitor->flags & FTW_CHDIR) here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if ((visitor->flags & FTW_CHDIR) && here < 0) return -1;
    int result = walk_whole(path, visitor);
    tdestroy(visitor->seen, free);
    if (here >= 0) {
        int saved_errno = errno;
        if (fchdir(here) != 0 && result == 0) result = -1;
        close(here);
        errno = saved_errno;
    }
    return result;
}

#define TREE_WALK(name, visit_type, field, extra_parameter, extra_type, extra_argument,            \
                  flag_value)                                                                      \
    CALL(name, int, const char *path, visit_type *visit_one, int room extra_parameter)             \
    {                                                                                              \
        if (!fs_maybe(AT_FDCWD, path) && !fs_holds(AT_FDCWD, path))                                \
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
