/* The fts family, written anew: libc's own open directories by calls that nobody can take over.
 *
 * Serves walks with a root inside a mount or above a mount point; all others are libc's own, and
 * a private bit in fts_options tells them apart. It never changes the working directory, which
 * fts(3) permits: each entry has its whole path, which is its access path as well. musl has no fts.
 */
#include "calls.h"

#ifdef __GLIBC__
#include <dirent.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FTS_OURS = 0x100000 };

typedef int sorted(const void *, const void *);

/* Each entry is one allocation: the entry with its name, the status, the path. */
static FTSENT *new_entry(FTSENT *parent, const char *before, const char *name)
{
    size_t named = strlen(name), length = before ? strlen(before) : 0;
    bool slash = length > 0 && before[length - 1] != '/';
    size_t head = (sizeof(FTSENT) + named + 16) & ~(size_t)15;
    char *room = calloc(1, head + sizeof(struct stat) + length + slash + named + 1);
    if (room == NULL) return NULL;
    FTSENT *entry = (FTSENT *)(void *)room;
    entry->fts_parent = parent;
    entry->fts_statp = (struct stat *)(void *)(room + head);
    entry->fts_path = room + head + sizeof(struct stat);
    entry->fts_accpath = entry->fts_path;
    entry->fts_instr = 3; /* FTS_NOINSTR */
    entry->fts_level = (short)(parent != NULL ? parent->fts_level + 1 : FTS_ROOTPARENTLEVEL);
    entry->fts_namelen = (unsigned short)named;
    entry->fts_pathlen = (unsigned short)(length + slash + named);
    if (length > 0) memcpy(entry->fts_path, before, length);
    if (slash) entry->fts_path[length] = '/';
    memcpy(entry->fts_path + length + slash, name, named + 1);
    memcpy(room + offsetof(FTSENT, fts_name), name, named + 1);
    return entry;
}

static void free_list(FTSENT *entry)
{
    while (entry != NULL) {
        FTSENT *next = entry->fts_link;
        free(entry);
        entry = next;
    }
}

static bool is_dot(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

static unsigned short directory_info(FTSENT *entry)
{
    if (entry->fts_level > FTS_ROOTLEVEL && is_dot(entry->fts_name)) return FTS_DOT;
    for (FTSENT *at = entry->fts_parent; at != NULL && at->fts_level >= FTS_ROOTLEVEL;
         at = at->fts_parent)
        if (at->fts_ino == entry->fts_ino && at->fts_dev == entry->fts_dev) {
            entry->fts_cycle = at;
            return FTS_DC;
        }
    return FTS_D;
}

static unsigned short examine(const FTS *walk, FTSENT *entry, bool follow)
{
    struct stat *status = entry->fts_statp;
    int saved_errno = errno;
    if ((walk->fts_options & FTS_LOGICAL) || follow) {
        if (stat(entry->fts_path, status) != 0) {
            int error = errno;
            errno = saved_errno;
            if (lstat(entry->fts_path, status) == 0) return FTS_SLNONE;
            entry->fts_errno = error;
        }
    } else if (lstat(entry->fts_path, status) != 0) {
        entry->fts_errno = errno;
    }
    errno = saved_errno;
    if (entry->fts_errno != 0) {
        memset(status, 0, sizeof *status);
        return FTS_NS;
    }
    entry->fts_dev = status->st_dev;
    entry->fts_ino = status->st_ino;
    entry->fts_nlink = status->st_nlink;
    if (S_ISDIR(status->st_mode)) return directory_info(entry);
    if (S_ISLNK(status->st_mode)) return FTS_SL;
    return S_ISREG(status->st_mode) ? FTS_F : FTS_DEFAULT;
}

/* The list in the order that the program asks for. */
static FTSENT *in_order(const FTS *walk, FTSENT *list, size_t count)
{
    if (walk->fts_compar == NULL || count < 2) return list;
    FTSENT **all = malloc(count * sizeof *all);
    if (all == NULL) return list;
    size_t at = 0;
    for (FTSENT *entry = list; entry != NULL; entry = entry->fts_link) all[at++] = entry;
    qsort(all, count, sizeof *all, (sorted *)walk->fts_compar);
    for (size_t i = 0; i < count; i++) all[i]->fts_link = i + 1 < count ? all[i + 1] : NULL;
    list = all[0];
    free(all);
    return list;
}

/* The children of a directory; NULL: none, or entry->fts_errno says why there is no telling. */
static FTSENT *children_of(FTS *walk, FTSENT *entry, bool names_only)
{
    bool unasked = (walk->fts_options & FTS_NOSTAT) && (walk->fts_options & FTS_PHYSICAL);
    DIR *directory = opendir(entry->fts_path);
    if (directory == NULL) {
        entry->fts_errno = errno;
        return NULL;
    }
    FTSENT *first = NULL, **last = &first;
    const struct dirent *found;
    size_t count = 0;
    errno = 0;
    while ((found = readdir(directory)) != NULL) {
        if (is_dot(found->d_name) && !(walk->fts_options & FTS_SEEDOT)) continue;
        FTSENT *child = new_entry(entry, entry->fts_path, found->d_name);
        if (child == NULL) {
            walk->fts_options |= FTS_STOP;
            errno = ENOMEM;
            break;
        }
        bool leaf = found->d_type != DT_DIR && found->d_type != DT_UNKNOWN;
        child->fts_info = names_only || (unasked && leaf) ? FTS_NSOK : examine(walk, child, false);
        *last = child;
        last = &child->fts_link;
        count++;
        errno = 0;
    }
    entry->fts_errno = errno;
    closedir(directory);
    errno = entry->fts_errno;
    return in_order(walk, first, count);
}

/* ---- the walk
 * ------------------------------------------------------------------------------------- */

static FTSENT *descend(FTS *walk, FTSENT *entry)
{
    FTSENT *first = walk->fts_child;
    walk->fts_child = NULL;
    if (first != NULL && (walk->fts_options & FTS_NAMEONLY)) {
        walk->fts_options &= ~FTS_NAMEONLY;
        free_list(first);
        first = NULL;
    }
    if (first == NULL) first = children_of(walk, entry, false);
    if (first == NULL) entry->fts_info = entry->fts_errno ? FTS_DNR : FTS_DP;
    return first;
}

/* A root's name is its last component from the moment it is walked. */
static void enter_root(FTS *walk, FTSENT *entry)
{
    char *name = entry->fts_name;
    char *slash = strrchr(name, '/');
    walk->fts_dev = entry->fts_dev;
    if (slash == NULL || (slash == name && slash[1] == '\0')) return;
    entry->fts_namelen = (unsigned short)strlen(slash + 1);
    memmove(name, slash + 1, entry->fts_namelen + 1u);
}

static FTSENT *follow_link(const FTS *walk, FTSENT *entry)
{
    entry->fts_info = examine(walk, entry, true);
    entry->fts_flags |= FTS_SYMFOLLOW;
    return entry;
}

/* The next in the list after `entry`, or its directory for the second time. */
static FTSENT *advance(FTS *walk, FTSENT *entry)
{
    for (;;) {
        FTSENT *next = entry->fts_link, *parent = entry->fts_parent;
        free(entry);
        if (next == NULL) {
            if (parent->fts_level == FTS_ROOTPARENTLEVEL) {
                free(parent);
                errno = 0;
                return walk->fts_cur = NULL;
            }
            parent->fts_info = parent->fts_errno ? FTS_ERR : FTS_DP;
            return walk->fts_cur = parent;
        }
        entry = walk->fts_cur = next;
        if (entry->fts_level == FTS_ROOTLEVEL) enter_root(walk, entry);
        int order = entry->fts_instr;
        if (order == FTS_SKIP) continue;
        entry->fts_instr = 3;
        return order == FTS_FOLLOW ? follow_link(walk, entry) : entry;
    }
}

static FTSENT *read_next(FTS *walk)
{
    FTSENT *entry = walk->fts_cur;
    if (entry == NULL || (walk->fts_options & FTS_STOP)) return NULL;
    int order = entry->fts_instr;
    entry->fts_instr = 3;
    if (order == FTS_AGAIN) {
        entry->fts_errno = 0;
        entry->fts_info = examine(walk, entry, false);
        return entry;
    }
    if (order == FTS_FOLLOW && (entry->fts_info == FTS_SL || entry->fts_info == FTS_SLNONE))
        return follow_link(walk, entry);
    if (entry->fts_info != FTS_D) return advance(walk, entry);
    if (order == FTS_SKIP || ((walk->fts_options & FTS_XDEV) && entry->fts_dev != walk->fts_dev)) {
        free_list(walk->fts_child);
        walk->fts_child = NULL;
        entry->fts_info = FTS_DP;
        return entry;
    }
    FTSENT *first = descend(walk, entry);
    if (walk->fts_options & FTS_STOP) return NULL;
    if (first == NULL) return entry;
    if (first->fts_instr == FTS_SKIP) {
        FTSENT *before = new_entry(entry, NULL, "");
        if (before == NULL) return NULL;
        before->fts_link = first;
        return advance(walk, before);
    }
    walk->fts_cur = first;
    if (first->fts_instr != FTS_FOLLOW) return first;
    first->fts_instr = 3;
    return follow_link(walk, first);
}

static FTSENT *list_children(FTS *walk, int order)
{
    FTSENT *entry = walk->fts_cur;
    if (order != 0 && order != FTS_NAMEONLY) {
        errno = EINVAL;
        return NULL;
    }
    errno = 0;
    if (entry == NULL || (walk->fts_options & FTS_STOP)) return NULL;
    if (entry->fts_info == FTS_INIT) return entry->fts_link;
    if (entry->fts_info != FTS_D) return NULL;
    free_list(walk->fts_child);
    walk->fts_options &= ~FTS_NAMEONLY;
    walk->fts_options |= order;
    return walk->fts_child = children_of(walk, entry, order == FTS_NAMEONLY);
}

static void end_walk(FTS *walk)
{
    FTSENT *entry = walk->fts_cur;
    while (entry != NULL) {
        FTSENT *next = entry->fts_link != NULL ? entry->fts_link : entry->fts_parent;
        free(entry);
        entry = next;
    }
    free_list(walk->fts_child);
    free(walk);
}

static FTS *begin_walk(char *const *paths, int options, sorted *compare)
{
    FTS *walk = calloc(1, sizeof *walk);
    FTSENT *top = new_entry(NULL, NULL, ""), *start = top ? new_entry(top, NULL, "") : NULL;
    size_t count = 0;
    if (walk == NULL || start == NULL) {
        free(walk);
        free(top);
        errno = ENOMEM;
        return NULL;
    }
    walk->fts_options = options | FTS_OURS | (options & FTS_LOGICAL ? FTS_NOCHDIR : 0);
    walk->fts_compar = compare;
    walk->fts_cur = start;
    start->fts_info = FTS_INIT;
    for (FTSENT **last = &start->fts_link; *paths != NULL; paths++, count++) {
        FTSENT *root = **paths != '\0' ? new_entry(top, NULL, *paths) : NULL;
        if (root == NULL) {
            int error = **paths != '\0' ? ENOMEM : ENOENT;
            end_walk(walk);
            errno = error;
            return NULL;
        }
        root->fts_info = examine(walk, root, (options & FTS_COMFOLLOW) != 0);
        *last = root;
        last = &root->fts_link;
    }
    start->fts_link = in_order(walk, start->fts_link, count);
    return walk;
}

/* ---- libc's names
 * --------------------------------------------------------------------------------- */

static bool concerns_us(char *const *paths, int options)
{
    bool ours = false;
    if (!fs_ready() || paths == NULL || (options & ~FTS_OPTIONMASK)) return false;
    for (; *paths != NULL && !ours; paths++)
        ours = fs_maybe(AT_FDCWD, *paths) || fs_holds(AT_FDCWD, *paths);
    return ours;
}

#define IS_OURS(walk) ((walk)->fts_options & FTS_OURS)

#define FAMILY(prefix)                                                                             \
    CALL(prefix##_open, FTS *, char *const *paths, int options, sorted *compare)                   \
    {                                                                                              \
        if (concerns_us(paths, options)) return begin_walk(paths, options, compare);               \
        return NEXT(prefix##_open, FTS *, char *const *, int, sorted *)(paths, options, compare);  \
    }                                                                                              \
    CALL(prefix##_read, FTSENT *, FTS *walk)                                                       \
    {                                                                                              \
        return IS_OURS(walk) ? read_next(walk) : NEXT(prefix##_read, FTSENT *, FTS *)(walk);       \
    }                                                                                              \
    CALL(prefix##_children, FTSENT *, FTS *walk, int order)                                        \
    {                                                                                              \
        return IS_OURS(walk) ? list_children(walk, order)                                          \
                             : NEXT(prefix##_children, FTSENT *, FTS *, int)(walk, order);         \
    }                                                                                              \
    CALL(prefix##_close, int, FTS *walk)                                                           \
    {                                                                                              \
        if (!IS_OURS(walk)) return NEXT(prefix##_close, int, FTS *)(walk);                         \
        end_walk(walk);                                                                            \
        return 0;                                                                                  \
    }

FAMILY(fts)
FAMILY(fts64)
#endif
