/* From what the program names to a mount and a path in it.
 *
 * Most paths are outside every mount, and fs_maybe says so from the text alone. Inside, links are
 * followed here and not by the kernel, because a link may lead from one layer to another, out of a
 * mount or into one. Outside, the kernel is left to follow its own links: one that leads from
 * outside into a mount is seen only where it is in the parents of the mount point (mounts.c,
 * add_alias). Called by every wrapped function through fs_argument or fs_find.
 */
#include "fs.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { HOPS_MAX = 40, CWD_BUFFERS = 16 };

/* ---- text ------------------------------------------------------------------------------------ */

int fs_normal(const char *path, char *out)
{
    size_t length = 0;
    if (path[0] != '/') return -EINVAL;
    for (const char *at = path; *at;) {
        while (*at == '/') at++;
        const char *end = at;
        while (*end && *end != '/') end++;
        size_t part = (size_t)(end - at);
        if (part == 2 && at[0] == '.' && at[1] == '.') {
            while (length > 0 && out[--length] != '/') {}
        } else if (part > 0 && !(part == 1 && at[0] == '.')) {
            if (length + part + 2 > PATH_MAX) return -ENAMETOOLONG;
            out[length++] = '/';
            memcpy(out + length, at, part);
            length += part;
        }
        at = end;
    }
    if (length == 0) out[length++] = '/';
    out[length] = '\0';
    return 0;
}

/* Whether the text has a component "..", and where (the slash before it, or the start). */
static const char *find_dotdot(const char *path)
{
    for (const char *at = path; (at = strchr(at, '.')) != NULL; at++)
        if (at[1] == '.' && (at == path || at[-1] == '/') && (at[2] == '/' || at[2] == '\0'))
            return at;
    return NULL;
}

/* Whether the first letter of an absolute path says that it is outside: of most paths it does. */
static bool elsewhere(const char *path)
{
    unsigned char first = (unsigned char)path[1];
    return !(fs_first_letters[first / 64] >> first % 64 & 1) && find_dotdot(path) == NULL;
}

/* Whether an absolute path is not in normal form (a name with a leading dot counts, harmlessly). */
static bool looks_odd(const char *path)
{
    for (const char *at = path; *at; at++)
        if (at[0] == '/' && (at[1] == '/' || at[1] == '.')) return true;
    return false;
}

static bool absolute_maybe(const char *path)
{
    if (!looks_odd(path)) return fs_mount_of(path) != NULL;
    char normal[PATH_MAX];
    if (fs_normal(path, normal) != 0) return false;
    if (fs_mount_of(normal) != NULL) return true;
    /* mount/link/../.. may be inside by text and outside in truth, and the other way round. */
    const char *dots = find_dotdot(path);
    if (dots == NULL) return false;
    char before[PATH_MAX];
    snprintf(before, sizeof before, "%.*s", (int)(dots - path), path);
    return fs_normal(before, normal) == 0 && fs_mount_of(normal) != NULL;
}

/* ---- the working directory ---------------------------------------------------------------------
 */

/* NULL: not known. Else the program's view of it; text that starts with '-' stands for one
 * outside every mount and with no mount point below, where only ".." can lead inside. */
static const char *cwd_known;
static pid_t cwd_owner;

void fs_cwd_changed(void)
{
    __atomic_store_n(&cwd_known, NULL, __ATOMIC_RELEASE);
}

/* A vfork child shares this memory but not the directory: it reads its own and stores nothing. */
static bool may_remember(void)
{
    pid_t self = (pid_t)raw(SYS_getpid);
    pid_t owner = __atomic_load_n(&cwd_owner, __ATOMIC_RELAXED);
    if (owner == self) return true;
    if (owner != 0 && raw(SYS_getppid) == owner) return false;
    __atomic_store_n(&cwd_owner, self, __ATOMIC_RELAXED);
    return true;
}

static bool read_cwd(char *out)
{
    char real[PATH_MAX];
    if (raw(SYS_getcwd, real, sizeof real) <= 0 || real[0] != '/') return false;
    if (!fs_virtual_of(real, FS_DIRECTORY, out)) snprintf(out, PATH_MAX, "%s", real);
    return true;
}

static const char *cwd(char *room)
{
    static char buffers[CWD_BUFFERS][PATH_MAX];
    static unsigned turn;
    const char *known = __atomic_load_n(&cwd_known, __ATOMIC_ACQUIRE);
    if (known != NULL) return known;
    room[0] = '-';
    if (!read_cwd(room + 1)) return NULL;
    const char *text = room + 1;
    if (fs_mount_of(text) == NULL && !fs_mount_below(text)) text = room;
    if (may_remember()) {
        char *buffer = buffers[__atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED) % CWD_BUFFERS];
        size_t length = strlen(text);
        if (length < PATH_MAX) {
            memcpy(buffer, text, length + 1);
            __atomic_store_n(&cwd_known, buffer, __ATOMIC_RELEASE);
        }
    }
    return text;
}

/* The directory that a relative path starts from, as the program sees it; NULL: outside, and no
 * such path leads inside. */
static const char *base_of(int dirfd, const char *path, char *room)
{
    if (dirfd == AT_FDCWD) {
        const char *base = cwd(room);
        if (base == NULL) return NULL;
        if (base[0] != '-') return base;
        return find_dotdot(path) ? base + 1 : NULL;
    }
    if (fs_virtual_of_fd(dirfd, FS_DIRECTORY, room)) return room;
    /* An outside directory above a mount point, or a climb. */
    if (!fs_real_of_fd(dirfd, room)) return NULL;
    return fs_mount_below(room) || find_dotdot(path) ? room : NULL;
}

bool fs_maybe(int dirfd, const char *path)
{
    if (path == NULL || (path[0] == '/' && elsewhere(path)) || !fs_ready()) return false;
    if (path[0] == '/') return absolute_maybe(path);
    if (dirfd == AT_FDCWD) {
        const char *known = __atomic_load_n(&cwd_known, __ATOMIC_ACQUIRE);
        return known == NULL || known[0] != '-' || find_dotdot(path) != NULL;
    }
    uintptr_t value;
    return !(cse_fd_recall(dirfd, &value) && value == FS_FD_OUTSIDE && find_dotdot(path) == NULL);
}

bool fs_holds(int dirfd, const char *path)
{
    char room[PATH_MAX + 1], whole[PATH_MAX * 2], normal[PATH_MAX];
    if (path == NULL || path[0] == '\0' || !fs_ready()) return false;
    const char *base = path[0] == '/' ? "" : base_of(dirfd, path, room);
    if (base == NULL) return false;
    int length = snprintf(whole, sizeof whole, "%s/%s", base, path);
    return length < PATH_MAX && fs_normal(whole, normal) == 0 && fs_mount_below(normal);
}

/* ---- the walk
 * ------------------------------------------------------------------------------------ */

struct walk {
    char *text; /* PATH_MAX bytes: what is still to be resolved, absolute, in the program's view */
    int hops;
    const struct fs_mount *confined; /* a link of this mount was followed; it must not lead out */
    uint64_t resolve;                /* openat2's rules, fs.h */
    const char *root;                /* "/", or where FS_BENEATH and FS_IN_ROOT hold */
    const struct fs_mount *start;    /* FS_NO_XDEV: none but this one */
};

/* Where an absolute link or path begins; NULL: it may not be followed. */
static const char *root_of(const struct walk *walk)
{
    if (walk->resolve & FS_BENEATH) return NULL;
    return (walk->resolve & FS_IN_ROOT) && strcmp(walk->root, "/") != 0 ? walk->root : "";
}

/* text := directory of `name` (or "/" when the link is absolute) + link + rest */
static int put_link(struct walk *walk, const char *name, const char *link, const char *rest)
{
    char whole[PATH_MAX * 2];
    const char *slash = strrchr(name, '/'), *root = root_of(walk);
    if (walk->resolve & FS_NO_SYMLINKS) return -ELOOP;
    if (link[0] == '/' && root == NULL) return -EXDEV;
    int length = link[0] == '/'
                     ? snprintf(whole, sizeof whole, "%s%s%s%s", root, link, *rest ? "/" : "", rest)
                     : snprintf(whole, sizeof whole, "%.*s/%s%s%s", (int)(slash - name), name, link,
                                *rest ? "/" : "", rest);
    if (length >= PATH_MAX) return -ENAMETOOLONG;
    memcpy(walk->text, whole, (size_t)length + 1);
    return ++walk->hops > HOPS_MAX ? -ELOOP : 0;
}

static int follow_link(struct walk *walk, struct fs_where *where, const char *rest)
{
    char link[PATH_MAX], target[PATH_MAX * 2], normal[PATH_MAX];
    int length = fs_link_text(where, link, sizeof link);
    if (length < 0) return length;
    if (where->mount->links_inside && where->mount->layers[where->layer].archive != NULL) {
        const char *slash = strrchr(where->path, '/');
        if (link[0] == '/')
            snprintf(target, sizeof target, "%s", link);
        else
            snprintf(target, sizeof target, "%.*s/%s", (int)(slash - where->path), where->path,
                     link);
        if (fs_normal(target, normal) != 0 || fs_mount_of(normal) != where->mount) return -EACCES;
        walk->confined = where->mount;
    }
    return put_link(walk, where->path, link, rest);
}

/* Looks up walk->text, which has no "..". 0: `where` is final; 1: text has changed, walk on. */
static int step(struct walk *walk, int follow, struct fs_where *where)
{
    int error = fs_normal(walk->text, where->path);
    if (error != 0) return error;
    where->mount = fs_mount_of(where->path);
    where->layer = -1;
    if ((walk->resolve & FS_NO_XDEV) && where->mount != walk->start) return -EXDEV;
    if (where->mount == NULL) return 0;
    const struct fs_mount *mount = where->mount;
    where->rel = where->path + mount->length + (where->path[mount->length] == '/');
    if (mount->error != 0) return mount->error;
    if (mount->case_insensitive) fs_fold(where);
    int found = fs_lookup(where);
    if (found > 0) { /* a link among the parents */
        size_t end = (size_t)(where->rel - where->path) + (size_t)found - 1;
        char rest[PATH_MAX];
        snprintf(rest, sizeof rest, "%s", where->path + end + 1);
        where->path[end] = '\0';
        int again = fs_lookup(where);
        if (again != 0) return again < 0 ? again : -ELOOP;
        if (!S_ISLNK(where->mode)) return -EAGAIN; /* changed under us */
        error = follow_link(walk, where, rest);
        return error != 0 ? error : 1;
    }
    if (found == -ENOENT) found = fs_parent_find(where);
    if (found < 0 && found != -ENOENT) return found;
    if (follow == FS_ITSELF) return 0;
    if (found == 0 && S_ISLNK(where->mode) && (follow || where->must_be_directory)) {
        error = follow_link(walk, where, "");
        return error != 0 ? error : 1;
    }
    if (found == 0 && where->must_be_directory && !S_ISDIR(where->mode)) return -ENOTDIR;
    return 0;
}

/* Takes the first ".." out of walk->text: X/../R becomes dirname(X)/R, with X's links followed. */
static int climb(struct walk *walk, char *dots, struct fs_where *where)
{
    char rest[PATH_MAX];
    snprintf(rest, sizeof rest, "%s", dots + 2 + (dots[2] == '/'));
    bool slash_behind = dots[2] == '/' && rest[0] == '\0';
    dots[-1] = '\0';
    struct walk inner = *walk;
    char text[PATH_MAX];
    inner.text = text;
    snprintf(text, sizeof text, "%s", walk->text[0] ? walk->text : "/");
    int result;
    bool must = where->must_be_directory;
    where->must_be_directory = true;
    while ((result = step(&inner, FS_FOLLOW, where)) == 1)
        if (find_dotdot(inner.text) != NULL &&
            (result = climb(&inner, (char *)find_dotdot(inner.text), where)) != 0)
            break;
    where->must_be_directory = must;
    if (result < 0) return result;
    walk->hops = inner.hops;
    walk->confined = inner.confined;
    if (where->mount != NULL && where->layer < 0) return -ENOENT;
    if (walk->confined != NULL && where->mount == walk->confined && where->rel[0] == '\0')
        return -EACCES;
    char *last = strrchr(where->path, '/');
    if ((walk->resolve & (FS_BENEATH | FS_IN_ROOT)) && strcmp(where->path, walk->root) == 0) {
        if (walk->resolve & FS_BENEATH) return -EXDEV;
        last = where->path + strlen(where->path); /* the root's parent is the root */
    }
    int length =
        snprintf(walk->text, PATH_MAX, "%.*s/%s", (int)(last - where->path), where->path, rest);
    if (length >= PATH_MAX) return -ENAMETOOLONG;
    if (slash_behind || rest[0] == '\0') where->must_be_directory = true;
    return 0;
}

static int walk_on(struct walk *walk, int follow, struct fs_where *where)
{
    int tries = 0;
    for (;;) {
        const char *dots = find_dotdot(walk->text);
        int result = dots != NULL ? climb(walk, (char *)dots, where) : step(walk, follow, where);
        if (result == -EAGAIN && tries++ < 3) continue;
        if (result < 0) return result;
        if (dots == NULL && result == 0) break;
    }
    if (where->mount != NULL) return FS_INSIDE;
    return FS_REWRITTEN;
}

/* Whether the last component makes the path one of a directory: "x/", "x/.", "". */
static bool ends_as_directory(const char *path)
{
    size_t length = strlen(path);
    return length > 0 && (path[length - 1] == '/' ||
                          (path[length - 1] == '.' && (length == 1 || path[length - 2] == '/')));
}

/* Of "x/." it is x that is meant, links and all, and no name "." in it. */
static int follow_of(const char *path, int follow)
{
    size_t length = strlen(path);
    bool dot = length > 0 && path[length - 1] == '.' && (length == 1 || path[length - 2] == '/');
    return follow == FS_ITSELF && dot ? FS_FOLLOW : follow;
}

int fs_find_absolute(const char *path, int follow, struct fs_where *where)
{
    char text[PATH_MAX];
    struct walk walk = {.text = text};
    size_t length = strlen(path);
    if (length >= PATH_MAX) return -ENAMETOOLONG;
    memcpy(text, path, length + 1);
    where->must_be_directory = ends_as_directory(path);
    return walk_on(&walk, follow_of(path, follow), where);
}

int fs_find(int dirfd, const char *path, int follow, struct fs_where *where)
{
    if (path == NULL || path[0] == '\0' || !fs_ready()) return FS_OUTSIDE;
    if (path[0] == '/') {
        if (!absolute_maybe(path)) return FS_OUTSIDE;
        return fs_find_absolute(path, follow, where);
    }
    char room[PATH_MAX + 1], text[PATH_MAX], normal[PATH_MAX];
    struct walk walk = {.text = text};
    const char *base = base_of(dirfd, path, room);
    if (base == NULL) return FS_OUTSIDE;
    bool inside = fs_mount_of(base) != NULL;
    size_t above = base[1] == '\0' ? 0 : strlen(base), length = strlen(path);
    if (above + 1 + length >= PATH_MAX) return inside ? -ENAMETOOLONG : FS_OUTSIDE;
    memcpy(text, base, above);
    text[above] = '/';
    memcpy(text + above + 1, path, length + 1);
    if (!inside && (fs_normal(text, normal) != 0 || fs_mount_of(normal) == NULL)) return FS_OUTSIDE;
    where->must_be_directory = ends_as_directory(text);
    return walk_on(&walk, follow_of(text, follow), where);
}

bool fs_has_parent(const struct fs_where *where)
{
    struct fs_where parent;
    char path[PATH_MAX];
    const char *slash = strrchr(where->path, '/');
    if (slash == where->path) return true;
    snprintf(path, sizeof path, "%.*s", (int)(slash - where->path), where->path);
    return fs_find_absolute(path, FS_FOLLOW, &parent) != FS_INSIDE || parent.layer >= 0;
}

/* Links among the outside directories that lead to the mount. */
static bool linked_outside(const struct fs_where *where)
{
    char parent[PATH_MAX];
    struct {
        uint64_t flags, mode, resolve;
    } how = {O_PATH | O_CLOEXEC, 0, FS_NO_SYMLINKS};
    const char *slash = strrchr(where->mount->path, '/');
    if (slash == NULL || slash == where->mount->path) return false;
    snprintf(parent, sizeof parent, "%.*s", (int)(slash - where->mount->path), where->mount->path);
    long fd =
        fs_mount_of(parent) == NULL ? raw(SYS_openat2, AT_FDCWD, parent, &how, sizeof how) : 0;
    if (fd > 0) raw_close((int)fd);
    return fd == -ELOOP;
}

int fs_find_by_rules(int dirfd, const char *path, int follow, uint64_t resolve,
                     struct fs_where *where)
{
    char room[PATH_MAX + 1], text[PATH_MAX];
    struct walk walk = {.text = text, .resolve = resolve, .root = "/"};
    bool rooted = resolve & (FS_BENEATH | FS_IN_ROOT), absolute = path[0] == '/';
    if (absolute && (resolve & FS_BENEATH)) return -EXDEV;
    const char *base = "/";
    if (rooted || !absolute) {
        base = dirfd == AT_FDCWD ? cwd(room) : fs_path_of_fd(dirfd, room) ? room : NULL;
        if (base == NULL) return FS_OUTSIDE;
        if (base[0] == '-') base++;
    }
    if (fs_mount_of(base) == NULL && !fs_mount_below(base)) return FS_OUTSIDE;
    if (rooted) walk.root = base;
    walk.start = fs_mount_of(base);
    int length = snprintf(text, sizeof text, "%s/%s", strcmp(base, "/") ? base : "", path);
    if (length >= PATH_MAX) return -ENAMETOOLONG;
    where->must_be_directory = ends_as_directory(path);
    int found = walk_on(&walk, follow, where);
    if (found == FS_INSIDE && (resolve & FS_NO_SYMLINKS) && walk.start == NULL &&
        linked_outside(where))
        return -ELOOP;
    return found;
}
