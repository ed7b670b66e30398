/* Every way to list a tree, as lines that do not depend on order or device: run bare on a real tree
 * and under the overlay on one whose directories are mount points, it must print the same. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <ftw.h>
#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *top;
static char *lines[65536];
static int line_count;

static void line(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vasprintf(&lines[line_count++], format, arguments);
    va_end(arguments);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void flush(const char *title)
{
    printf("== %s\n", title);
    qsort(lines, line_count, sizeof *lines, by_text);
    for (int i = 0; i < line_count; i++) puts(lines[i]);
    line_count = 0;
}

static const char *below(const char *path)
{
    return strncmp(path, top, strlen(top)) == 0 ? path + strlen(top) : path;
}

static unsigned long size_of(const struct stat *status)
{
    return S_ISDIR(status->st_mode) ? 0 : (unsigned long)status->st_size;
}

/* readdir, with each entry's type against what stat says of it. */
static void read_all(const char *path, DIR *directory)
{
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        struct stat status, by_path;
        char whole[4096];
        if (strcmp(entry->d_name, "..") == 0) continue;
        snprintf(whole, sizeof whole, "%s/%s", path, entry->d_name);
        int at = fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW);
        int named = lstat(whole, &by_path);
        line("%s %s type %d stat %d/%d mode %o size %lu agree %d ino %d", below(path),
             entry->d_name, entry->d_type, at, named, status.st_mode, size_of(&status),
             at == 0 && IFTODT(status.st_mode) == entry->d_type,
             at == 0 && status.st_ino == by_path.st_ino && status.st_dev == by_path.st_dev &&
                 entry->d_ino != 0);
    }
}

static void directories(const char *path)
{
    DIR *directory = opendir(path);
    if (directory == NULL) return line("%s opendir errno %d", below(path), errno);
    read_all(path, directory);
    rewinddir(directory);
    errno = 77;
    int count = 0, same = 1;
    long places[1000];
    char names[1000][256];
    struct dirent *entry;
    for (places[0] = telldir(directory); (entry = readdir(directory)) != NULL;) {
        strcpy(names[count++], entry->d_name);
        places[count] = telldir(directory);
    }
    line("%s rewound %d errno %d", below(path), count, errno);
    for (int i = count; i-- > 0;) {
        seekdir(directory, places[i]);
        entry = readdir(directory);
        same &= entry != NULL && strcmp(entry->d_name, names[i]) == 0;
    }
    line("%s places %d", below(path), same);
    rewinddir(directory);
    struct dirent room, *result;
    while (readdir_r(directory, &room, &result) == 0 && result != NULL)
        line("%s readdir_r %s %d", below(path), room.d_name, room.d_type);
    closedir(directory);
}

static void by_descriptor(const char *path, const char *inside)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY), pathfd = open(path, O_PATH | O_DIRECTORY);
    for (int turn = 0; turn < 2; turn++) { /* the second time from what is remembered */
        int found = openat(fd, inside, O_RDONLY), by_path = openat(pathfd, inside, O_RDONLY);
        struct stat status;
        line("openat %s %d %d fstatat %d faccessat %d", inside, found >= 0, by_path >= 0,
             fstatat(fd, inside, &status, 0), faccessat(fd, inside, R_OK, 0));
        close(found);
        close(by_path);
    }
    int again = openat(pathfd, ".", O_RDONLY | O_DIRECTORY), copy = dup(again);
    read_all(path, fdopendir(again));
    read_all(path, fdopendir(fcntl(fd, F_DUPFD, 200)));
    close(copy);
    chdir(path);
    read_all(path, opendir("."));
    line("chdir stat %d", access(inside, R_OK));
}

static int all(const struct dirent *entry)
{
    return 1;
}

static void scanned(const char *path)
{
    struct dirent **list;
    int count = scandir(path, &list, all, alphasort);
    for (int i = 0; i < count; i++) line("%03d %s %d", i, list[i]->d_name, list[i]->d_type);
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    count = scandirat(fd, ".", &list, NULL, versionsort);
    for (int i = 0; i < count; i++) line("at %03d %s %d", i, list[i]->d_name, list[i]->d_type);
    close(fd);
}

static void globbed(const char *pattern)
{
    char whole[4096];
    glob_t found;
    snprintf(whole, sizeof whole, "%s/%s", top, pattern);
    int result = glob(whole, GLOB_MARK, NULL, &found);
    line("%s result %d", pattern, result);
    for (size_t i = 0; result == 0 && i < found.gl_pathc; i++) line("%s", below(found.gl_pathv[i]));
}

static int walk_flags;

static int walked(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    char here[4096];
    int reached = walk_flags & FTW_CHDIR ? access(path + place->base, F_OK) : 0;
    line("%s kind %d level %d base %s mode %o size %lu reached %d", below(path), kind, place->level,
         path + place->base, status->st_mode, size_of(status), reached);
    if ((walk_flags & 16) && strcmp(path + place->base, "sub") == 0) return 2;
    return 0;
}

static int walked_simply(const char *path, const struct stat *status, int kind)
{
    /* Each directory is walked once, by the name that happens to come first. */
    const char *name = strrchr(path, '/') + 1;
    if (kind != FTW_D) line("%s kind %d mode %o", name, kind, status->st_mode);
    return 0;
}

static void walk(int flags, const char *title)
{
    walk_flags = flags;
    line("result %d", nftw(top, walked, 20, flags));
    flush(title);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static void fts_walk(int options, const char *title, const char *skip)
{
    char *roots[] = {(char *)top, NULL};
    FTS *walk = fts_open(roots, options, by_name);
    FTSENT *entry;
    int order = 0;
    while ((entry = fts_read(walk)) != NULL) {
        struct stat *status = entry->fts_statp;
        int known = entry->fts_info != FTS_NSOK && entry->fts_info != FTS_NS;
        /* libc shows the mode of what it left out of stat as it finds it in memory. */
        line("%04d %s info %d level %d name %s errno %d parent %s mode %o len %d %d reach %d",
             order++, below(entry->fts_path), entry->fts_info, entry->fts_level, entry->fts_name,
             entry->fts_errno, entry->fts_level > 0 ? entry->fts_parent->fts_name : "",
             known ? status->st_mode : 0, entry->fts_pathlen - (int)strlen(top), entry->fts_namelen,
             entry->fts_info == FTS_DP ? 0 : access(entry->fts_accpath, F_OK) == 0);
        if (skip != NULL && strcmp(entry->fts_name, skip) == 0) fts_set(walk, entry, FTS_SKIP);
        if (entry->fts_info == FTS_SL && strcmp(entry->fts_name, "dirlink") == 0)
            fts_set(walk, entry, FTS_FOLLOW);
        if (entry->fts_info == FTS_D && entry->fts_level == 0) {
            FTSENT *child = fts_children(walk, skip ? FTS_NAMEONLY : 0);
            for (; child != NULL; child = child->fts_link) line("child %s", child->fts_name);
        }
    }
    line("errno %d close %d", errno, fts_close(walk));
    flush(title);
}

int main(int count, char **arguments)
{
    char path[4096];
    top = arguments[1];
    for (int i = 2; i < count; i++) {
        snprintf(path, sizeof path, "%s%s", top, arguments[i]);
        directories(path);
        flush("directories");
        scanned(path);
        flush("scandir");
    }
    globbed("*");
    globbed("*/*");
    globbed("w*/data/*");
    globbed("*/*/f0[0-3]");
    flush("glob");
    walk(FTW_PHYS, "nftw physical");
    walk(FTW_PHYS | FTW_DEPTH, "nftw depth");
    walk(FTW_PHYS | FTW_CHDIR, "nftw chdir");
    walk(FTW_PHYS | 16, "nftw actions");
    snprintf(path, sizeof path, "%s/www/data/many", top);
    line("result %d", ftw(path, walked_simply, 20));
    flush("ftw");
    fts_walk(FTS_PHYSICAL, "fts physical", NULL);
    fts_walk(FTS_PHYSICAL | FTS_NOCHDIR | FTS_SEEDOT, "fts nochdir, dots", NULL);
    fts_walk(FTS_PHYSICAL | FTS_NOCHDIR, "fts skip", "sub");
    fts_walk(FTS_LOGICAL, "fts logical", "deep");
    by_descriptor(top, arguments[count - 1] + 1);
    flush("descriptor");
    return 0;
}
