/* Copy-on-write: changes go to the upper layer, what lies below is only ever read.
 *
 * A file is copied up before its first change; a removed name that a lower layer has gets a marker
 * in data/fs-<n>/whiteouts that hides it and all below it there. Upper content is seen first, so a
 * marker stays when the name is made anew, and then means: nothing from below (an opaque
 * directory). Copies are prepared in data/fs-<n>/work and linked into place, so that of two
 * processes one wins whole. Called by the calls that change something.
 */
#include "stamps.h"

#include <stdio.h>
#include <string.h>

enum { COPY_BYTES = 64 << 10 };
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE  2
#endif

/* What the parent-making and the tree copy do with one rel path, without disturbing the caller. */
static int find_in_mount(const struct fs_mount *mount, const char *rel, struct fs_where *out)
{
    out->mount = mount;
    int length = snprintf(out->path, PATH_MAX, "%.*s%s%s", (int)mount->length, mount->path,
                          rel[0] ? "/" : "", rel);
    if (length >= PATH_MAX) return -ENAMETOOLONG;
    out->rel = out->path + mount->length + (out->path[mount->length] == '/');
    int found = fs_lookup(out);
    return found > 0 ? -ENOTDIR : found;
}

/* Whether a layer below the upper one would show this name if nothing hid it. */
static bool lower_has(const struct fs_mount *mount, const char *rel)
{
    struct fs_where below;
    below.mount = mount;
    snprintf(below.path, PATH_MAX, "%.*s%s%s", (int)mount->length, mount->path, rel[0] ? "/" : "",
             rel);
    below.rel = below.path + mount->length + (below.path[mount->length] == '/');
    return fs_lookup_below(&below, 1) == 0;
}

static int hide(const struct fs_mount *mount, const char *rel)
{
    char path[PATH_MAX];
    struct stat status;
    if (!lower_has(mount, rel)) return 0;
    if (snprintf(path, sizeof path, "%s/%s", mount->layers[0].whiteouts, rel) >= PATH_MAX)
        return -ENAMETOOLONG;
    if (raw_lstat(path, &status) == 0) {
        if (S_ISREG(status.st_mode)) return 0;
        int error = fs_remove_tree(path); /* markers below it, now implied */
        if (error != 0) return error;
    }
    char *slash = strrchr(path, '/');
    *slash = '\0';
    int error = fs_make_directories(path, 0777);
    *slash = '/';
    if (error == -ENOTDIR) return 0; /* a parent is hidden already */
    if (error != 0) return error;
    int fd = raw_open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return fd == -ENOTDIR ? 0 : fd;
    raw_close(fd);
    return 0;
}

/* ---- copying up
 * ---------------------------------------------------------------------------------- */

static int copy_bytes(const char *from, int to)
{
    char block[COPY_BYTES / 4];
    int source = raw_open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (source < 0) return source;
    long result = 0;
    for (;;) {
        result = raw(SYS_sendfile, to, source, NULL, 1 << 30);
        if (result <= 0) break;
    }
    if (result == -EINVAL || result == -ENOSYS)
        while ((result = raw(SYS_read, source, block, sizeof block)) > 0) {
            long put = raw(SYS_write, to, block, result);
            if (put != result) {
                result = put < 0 ? put : -ENOSPC;
                break;
            }
        }
    raw_close(source);
    return (int)result;
}

static void give_attributes(const char *path, const struct stat *status, bool times)
{
    struct timespec both[2] = {status->st_atim, status->st_mtim};
    raw(SYS_fchownat, AT_FDCWD, path, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW);
    if (!S_ISLNK(status->st_mode)) raw(SYS_fchmodat, AT_FDCWD, path, status->st_mode & 07777);
    if (times) raw(SYS_utimensat, AT_FDCWD, path, both, AT_SYMLINK_NOFOLLOW);
}

uint64_t fs_upper_device;

struct origin {
    uint64_t device, inode;
};

void fs_origin(int fd, const char *path, struct stat *status)
{
    struct origin origin;
    if ((uint64_t)status->st_dev != fs_upper_device || !S_ISREG(status->st_mode)) return;
    long got = path != NULL ? raw(SYS_lgetxattr, path, FS_ORIGIN, &origin, sizeof origin)
                            : raw(SYS_fgetxattr, fd, FS_ORIGIN, &origin, sizeof origin);
    if (got != (long)sizeof origin) return;
    status->st_dev = (dev_t)origin.device;
    status->st_ino = (ino_t)origin.inode;
}

static void work_path(const struct fs_mount *mount, char *out)
{
    static unsigned turn;
    snprintf(out, PATH_MAX, "%.4000s/%ld.%u", mount->work, raw(SYS_gettid),
             __atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED));
}

/* Nobody sees it with other permissions or times. */
static int copy_directory(const struct fs_mount *mount, const char *to, const struct stat *status)
{
    char fresh[PATH_MAX];
    work_path(mount, fresh);
    long result = raw(SYS_mkdirat, AT_FDCWD, fresh, 0700);
    if (result != 0) return (int)result;
    give_attributes(fresh, status, true);
    result = raw(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, to, RENAME_NOREPLACE);
    if (result == 0) return 0;
    raw(SYS_unlinkat, AT_FDCWD, fresh, AT_REMOVEDIR);
    if (result != -EEXIST) { /* one that its owner may not write to is not moved */
        result = raw(SYS_mkdirat, AT_FDCWD, to, 0700);
        if (result == 0) give_attributes(to, status, true);
    }
    return result == -EEXIST ? 0 : (int)result; /* another process was first */
}

static int copy_file(const struct fs_mount *mount, const char *from, const char *to,
                     const struct stat *status, bool content)
{
    char fresh[PATH_MAX];
    work_path(mount, fresh);
    long result;
    if (S_ISREG(status->st_mode)) {
        raw(SYS_unlinkat, AT_FDCWD, fresh, 0);
        int fd = raw_open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0) return fd;
        struct origin origin = {(uint64_t)status->st_dev, (uint64_t)status->st_ino};
        raw(SYS_fsetxattr, fd, FS_ORIGIN, &origin, sizeof origin, 0);
        result = content ? copy_bytes(from, fd) : 0;
        raw_close(fd);
    } else if (S_ISLNK(status->st_mode)) {
        char text[PATH_MAX];
        result = raw(SYS_readlinkat, AT_FDCWD, from, text, sizeof text - 1);
        if (result >= 0) {
            text[result] = '\0';
            result = raw(SYS_symlinkat, text, AT_FDCWD, fresh);
        }
    } else {
        result = raw(SYS_mknodat, AT_FDCWD, fresh, status->st_mode, status->st_rdev);
    }
    if (result == 0) {
        give_attributes(fresh, status, true);
        result = raw(SYS_linkat, AT_FDCWD, fresh, AT_FDCWD, to, 0);
        if (result == -EEXIST) result = 0; /* another process was first */
    }
    raw(SYS_unlinkat, AT_FDCWD, fresh, 0);
    return (int)result;
}

static int copy_up(struct fs_where *where, bool content);

/* The directories above rel exist in the upper layer. */
static int raise_parents(const struct fs_mount *mount, const char *rel)
{
    const char *slash = strrchr(rel, '/');
    if (slash == NULL) return 0;
    char path[PATH_MAX];
    struct stat status;
    if (snprintf(path, sizeof path, "%s/%.*s", mount->layers[0].root, (int)(slash - rel), rel) >=
        PATH_MAX)
        return -ENAMETOOLONG;
    if (raw_lstat(path, &status) == 0) return S_ISDIR(status.st_mode) ? 0 : -ENOTDIR;
    struct fs_where parent;
    snprintf(path, sizeof path, "%.*s", (int)(slash - rel), rel);
    int error = find_in_mount(mount, path, &parent);
    if (error == 0 && !S_ISDIR(parent.mode)) error = -ENOTDIR;
    return error == 0 ? copy_up(&parent, true) : error;
}

/* Puts what `where` found in a lower layer into the upper one; its real path in where->real. */
static int copy_up(struct fs_where *where, bool content)
{
    char upper[PATH_MAX];
    struct stat status;
    int error = fs_layer_path(where->mount, 0, where->rel, upper);
    if (error != 0 || where->layer == 0) {
        if (error == 0) memcpy(where->real, upper, strlen(upper) + 1);
        return error;
    }
    error = raise_parents(where->mount, where->rel);
    if (error == 0 && content && !S_ISDIR(where->mode))
        error = fs_real_content(where);
    else if (error == 0)
        error = fs_real(where);
    if (error == 0) error = (int)raw_lstat(where->real, &status);
    if (error != 0) return error;
    fs_fix_status(where, &status);
    if (S_ISDIR(where->mode)) {
        error = copy_directory(where->mount, upper, &status);
    } else {
        error = copy_file(where->mount, where->real, upper, &status, content);
    }
    if (error == 0) {
        fs_count(FS_COUNT_COPIES_UP, 1);
        if (content && S_ISREG(where->mode))
            fs_count(FS_COUNT_COPIED_BYTES, (uint64_t)status.st_size);
        where->layer = 0;
        memcpy(where->real, upper, strlen(upper) + 1);
    }
    return error;
}

/* ---- what the calls ask for
 * ------------------------------------------------------------------------- */

int fs_for_change(struct fs_where *where, bool truncate)
{
    if (where->layer < 0) return -ENOENT;
    if (where->mount->read_only) return -EROFS;
    if (where->mount->cow) return copy_up(where, !truncate);
    struct fs_encrypted *encrypted = where->mount->layers[0].encrypted;
    if (encrypted == NULL || !S_ISREG(where->mode)) return fs_real(where);
    if (!truncate) return fs_real_content(where);
    int error = fs_real(where);
    return error == 0 ? fs_encrypted_truncating(encrypted, where->real) : error;
}

int fs_for_creation(struct fs_where *where, bool over)
{
    if (where->layer >= 0 && !over) return -EEXIST;
    if (where->mount->read_only) return -EROFS;
    int error = fs_layer_path(where->mount, 0, where->rel, where->real);
    if (error != 0 || !where->mount->cow) return error;
    error = raise_parents(where->mount, where->rel);
    return error;
}

void fs_created(const struct fs_where *where, mode_t mode)
{
    fs_count(FS_COUNT_CHANGES, 1);
    if (where->mount->cow) fs_shadow_add(where->mount, where->rel, mode);
    if (where->mount->layers[0].encrypted != NULL) fs_encrypted_created(where);
    if (S_ISLNK(mode)) fs_forget_plain();
}

static int is_not_empty(const char *name, unsigned char type, void *context)
{
    return -ENOTEMPTY;
}

static int remove_name(const struct fs_where *where, const char *upper, int flags)
{
    int error = hide(where->mount, where->rel);
    if (error == 0 && where->layer == 0) error = (int)raw(SYS_unlinkat, AT_FDCWD, upper, flags);
    if (error == 0) fs_shadow_remove(where->mount, where->rel);
    return error;
}

int fs_remove(struct fs_where *where, bool directory)
{
    fs_count(FS_COUNT_CHANGES, 1);
    const struct fs_mount *mount = where->mount;
    char upper[PATH_MAX];
    if (where->layer < 0) return -ENOENT;
    if (mount->read_only) return -EROFS;
    if (where->rel[0] == '\0') return -EBUSY;
    if (directory && !S_ISDIR(where->mode)) return -ENOTDIR;
    if (!directory && S_ISDIR(where->mode)) return -EISDIR;
    int error = fs_layer_path(mount, 0, where->rel, upper);
    if (error != 0) return error;
    if (mount->layers[0].encrypted != NULL) return fs_encrypted_remove(where, upper, directory);
    if (!mount->cow) return (int)raw(SYS_unlinkat, AT_FDCWD, upper, directory ? AT_REMOVEDIR : 0);
    if (!directory) return remove_name(where, upper, 0);
    error = fs_shadow(where, true);
    if (error == 0) error = fs_each_name(where->real, is_not_empty, NULL);
    if (error != 0) return error;
    struct fs_shadow_lock lock;
    fs_shadow_lock_parents(mount, where->rel, NULL, &lock);
    error = remove_name(where, upper, AT_REMOVEDIR);
    fs_shadow_unlock(&lock);
    return error;
}

struct tree {
    const struct fs_mount *mount;
    const char *rel;
};

/* Everything below a merged directory, into the upper layer. */
static int raise_tree(struct fs_where *where);

static int raise_name(const char *name, unsigned char type, void *context)
{
    struct tree *tree = context;
    char rel[PATH_MAX];
    struct fs_where child;
    if (snprintf(rel, sizeof rel, "%s/%s", tree->rel, name) >= PATH_MAX) return -ENAMETOOLONG;
    int error = find_in_mount(tree->mount, rel, &child);
    if (error == -ENOENT) return 0; /* removed meanwhile */
    if (error != 0) return error;
    return S_ISDIR(child.mode) ? raise_tree(&child) : copy_up(&child, true);
}

static int raise_tree(struct fs_where *where)
{
    char rel[PATH_MAX];
    memcpy(rel, where->rel, strlen(where->rel) + 1);
    int error = fs_shadow(where, true);
    struct tree tree = {.mount = where->mount, .rel = rel};
    char shadow[PATH_MAX];
    memcpy(shadow, where->real, strlen(where->real) + 1);
    if (error == 0) error = copy_up(where, true);
    if (error == 0) error = fs_each_name(shadow, raise_name, &tree);
    return error;
}

/* rename(2)'s rules for what is at the new name already. */
static int may_replace(const struct fs_where *from, struct fs_where *to, unsigned flags)
{
    if (to->layer < 0) return 0;
    if (flags & RENAME_NOREPLACE) return -EEXIST;
    if (S_ISDIR(to->mode) && !S_ISDIR(from->mode)) return -EISDIR;
    if (!S_ISDIR(to->mode) && S_ISDIR(from->mode)) return -ENOTDIR;
    if (!S_ISDIR(to->mode)) return 0;
    int error = fs_shadow(to, true);
    return error == 0 ? fs_each_name(to->real, is_not_empty, NULL) : error;
}

/* Nothing from below may show in the directory at its new name. */
static int replace_directory(const struct fs_where *from, const struct fs_where *to,
                             const char *fresh)
{
    char old[PATH_MAX];
    int error = fs_layer_path(from->mount, 0, from->rel, old);
    if (error == 0) error = hide(from->mount, to->rel);
    if (error != 0) return error;
    error = (int)raw(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, fresh, 0);
    /* An empty directory was there, which is hidden by now. */
    if (error != 0 && to->layer > 0) raw(SYS_mkdirat, AT_FDCWD, fresh, to->mode & 07777);
    return error;
}

static bool within(const char *rel, const char *above)
{
    size_t length = strlen(above);
    return strncmp(rel, above, length) == 0 && (rel[length] == '/' || rel[length] == '\0');
}

/* Both come whole into the upper layer; what lies below either name shows no more. */
static int exchange(struct fs_where *from, struct fs_where *to, const char *old, const char *fresh)
{
    const struct fs_mount *mount = from->mount;
    struct fs_where *both[2] = {from, to};
    if (to->layer < 0) return -ENOENT;
    if (within(from->rel, to->rel) || within(to->rel, from->rel))
        return strcmp(from->rel, to->rel) == 0 ? 0 : -EINVAL;
    for (int i = 0; i < 2; i++) {
        int error = S_ISDIR(both[i]->mode) ? raise_tree(both[i]) : copy_up(both[i], true);
        if (error == 0) error = hide(mount, both[i]->rel);
        if (error != 0) return error;
    }
    struct fs_shadow_lock lock;
    fs_shadow_lock_parents(mount, from->rel, to->rel, &lock);
    int error = (int)raw(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, fresh, RENAME_EXCHANGE);
    if (error == 0) fs_shadow_exchange(mount, from, to);
    fs_shadow_unlock(&lock);
    return error;
}

static int rename_directory(struct fs_where *from, struct fs_where *to, const char *fresh)
{
    struct fs_shadow_lock lock;
    fs_shadow_lock_parents(from->mount, from->rel, to->rel, &lock);
    int error = replace_directory(from, to, fresh);
    if (error == 0) fs_shadow_rename(from->mount, from->rel, to->rel, S_IFDIR);
    fs_shadow_unlock(&lock);
    return error;
}

static int rename_name(struct fs_where *from, struct fs_where *to, unsigned flags)
{
    fs_count(FS_COUNT_CHANGES, 1);
    const struct fs_mount *mount = from->mount;
    char old[PATH_MAX], fresh[PATH_MAX];
    if (mount != to->mount) return -EXDEV;
    if (from->layer < 0) return -ENOENT;
    if (mount->read_only) return -EROFS;
    if (from->rel[0] == '\0' || to->rel[0] == '\0') return -EBUSY;
    int error = fs_layer_path(mount, 0, from->rel, old);
    if (error == 0) error = fs_layer_path(mount, 0, to->rel, fresh);
    if (error != 0) return error;
    if (mount->layers[0].encrypted != NULL) return fs_encrypted_rename(from, to, old, fresh, flags);
    if (!mount->cow) return (int)raw(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, fresh, flags);
    if (flags == RENAME_EXCHANGE) return exchange(from, to, old, fresh);
    /* RENAME_WHITEOUT is for layered file systems below; most others refuse it so. */
    if (flags & ~(unsigned)RENAME_NOREPLACE) return -EINVAL;
    if (strcmp(from->rel, to->rel) == 0) return 0;
    if (within(to->rel, from->rel)) return -EINVAL;
    if (within(from->rel, to->rel)) return -ENOTEMPTY;
    error = may_replace(from, to, flags);
    if (error != 0) return error;
    bool directory = S_ISDIR(from->mode);
    error = directory ? raise_tree(from) : copy_up(from, true);
    if (error == 0) error = raise_parents(mount, to->rel);
    /* Before the rename, which may not be undone when the marker finds no room: what is in the
     * upper layer is seen in spite of it. */
    if (error == 0) error = hide(mount, from->rel);
    if (error != 0 || directory) return error != 0 ? error : rename_directory(from, to, fresh);
    error = (int)raw(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, fresh, 0);
    if (error == 0) fs_shadow_rename(mount, from->rel, to->rel, from->mode);
    return error;
}

int fs_rename(struct fs_where *from, struct fs_where *to, unsigned flags)
{
    int error = rename_name(from, to, flags);
    fs_forget_plain(); /* looks on the way have seen the names as they were */
    return error;
}

int fs_link(struct fs_where *from, struct fs_where *to)
{
    if (from->mount != to->mount) return -EXDEV;
    if (from->layer < 0) return -ENOENT;
    int error = fs_for_creation(to, false);
    /* In an encrypted store a file has one name, as on file systems without links. */
    if (error == 0 && (S_ISDIR(from->mode) || from->mount->layers[0].encrypted != NULL))
        error = fs_has_parent(to) ? -EPERM : -ENOENT;
    if (error == 0) error = fs_for_change(from, false);
    if (error == 0) error = (int)raw(SYS_linkat, AT_FDCWD, from->real, AT_FDCWD, to->real, 0);
    if (error == 0) fs_created(to, from->mode);
    return error;
}
