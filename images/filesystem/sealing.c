/* The way back into an encrypted store: what the program changed in the plain tree.
 *
 * Names change in the store at once, after the tree. A file is sealed whole into a new file of the
 * store and renamed into its place: when the program calls fsync or its like (then it is on disk
 * before the call returns), when it closes a descriptor that it could write with, when it executes
 * another program and when it ends. So at any moment the store holds of each file one whole
 * version. A file open for writing is marked dirty, with process and path; what a killed process
 * left dirty is sealed by the next program of the application that uses the store.
 *
 * Called by the calls that change something, and for descriptors by calls_sync.c.
 */
#include "encrypted.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A path in the store and what belongs to it. */
struct place {
    char path[PATH_MAX], sidecar[PATH_MAX], hidden[CSE_CRYPT_TEXT];
};

static int find_place(const struct fs_encrypted *encrypted, const char *rel, struct place *place)
{
    return fs_encrypted_path(encrypted, rel, place->path, place->sidecar, place->hidden);
}

/* A name for something half-made, which no listing shows. */
static void fresh_name(const struct fs_encrypted *encrypted, char *out)
{
    static unsigned turn;
    snprintf(out, PATH_MAX, "%.4000s/.t%ld.%u", encrypted->store, raw(SYS_gettid),
             __atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED));
}

static int sync_directory_of(const char *path)
{
    char above[PATH_MAX];
    snprintf(above, sizeof above, "%s", path);
    *strrchr(above, '/') = '\0';
    int fd = raw_open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) return fd;
    int error = (int)raw(SYS_fsync, fd);
    raw_close(fd);
    return error;
}

/* A long name's own file, before what it names. */
static int write_sidecar(const struct place *place, bool durable)
{
    if (place->sidecar[0] == '\0') return 0;
    int fd = raw_open(place->sidecar, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return fd;
    long length = (long)strlen(place->hidden), put = raw(SYS_write, fd, place->hidden, length);
    int error = put == length ? 0 : -ENOSPC;
    if (error == 0 && durable) error = (int)raw(SYS_fsync, fd);
    raw_close(fd);
    return error;
}

static void drop_sidecar(const struct place *place)
{
    if (place->sidecar[0] != '\0') raw(SYS_unlinkat, AT_FDCWD, place->sidecar, 0);
}

static void give_attributes(const char *path, const struct stat *status)
{
    struct timespec times[2] = {status->st_atim, status->st_mtim};
    if (raw(SYS_geteuid) == 0)
        raw(SYS_fchownat, AT_FDCWD, path, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW);
    if (!S_ISLNK(status->st_mode))
        raw(SYS_fchmodat, AT_FDCWD, path,
            (status->st_mode & 07777) | (S_ISDIR(status->st_mode) ? 0700 : 0600));
    raw(SYS_utimensat, AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
}

static int tree_path(const struct fs_encrypted *encrypted, const char *rel, char *out)
{
    int length = snprintf(out, PATH_MAX, "%s%s%s", encrypted->tree, rel[0] ? "/" : "", rel);
    return length < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* ---- contents ----------------------------------------------------------------------------------
 */

static int seal_into(const struct fs_encrypted *encrypted, int plain, const struct stat *status,
                     const struct place *place, bool durable)
{
    char fresh[PATH_MAX];
    fresh_name(encrypted, fresh);
    int sealed = raw_open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (sealed < 0) return sealed;
    int error = -encrypted->crypt->seal(encrypted->keys, plain, sealed);
    if (error == 0) give_attributes(fresh, status);
    if (error == 0 && durable) error = (int)raw(SYS_fsync, sealed);
    raw_close(sealed);
    if (error == 0) error = write_sidecar(place, durable);
    if (error == 0) error = (int)raw(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, place->path, 0);
    if (error == 0 && durable) error = sync_directory_of(place->path);
    if (error != 0) raw(SYS_unlinkat, AT_FDCWD, fresh, 0);
    return error;
}

/* The file at `rel`, if it is `inode` (0: whichever). One that is no more has nothing to seal. */
static int seal_file(struct fs_encrypted *encrypted, const char *rel, uint64_t inode, bool durable)
{
    char path[PATH_MAX];
    struct stat status;
    struct place place;
    int error = tree_path(encrypted, rel, path);
    if (error != 0) return error;
    int plain = raw_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
    if (plain == -EACCES && raw_lstat(path, &status) == 0) { /* ours to read, whatever its mode */
        raw(SYS_fchmodat, AT_FDCWD, path, (status.st_mode & 07777) | 0400);
        plain = raw_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
        raw(SYS_fchmodat, AT_FDCWD, path, status.st_mode & 07777);
    }
    if (plain < 0) return plain == -ENOENT || plain == -ELOOP ? 0 : plain;
    error = (int)raw_fstat(plain, &status);
    if (error == 0 && S_ISREG(status.st_mode) && (inode == 0 || status.st_ino == inode) &&
        !fs_encrypted_marked(encrypted, FS_HOLLOW, status.st_ino)) {
        error = find_place(encrypted, rel, &place);
        if (error == 0) error = seal_into(encrypted, plain, &status, &place, durable);
    }
    raw_close(plain);
    if (error == -ENOSPC) fs_report(encrypted->mount, rel, "finds no room in the store");
    return error;
}

/* The encrypted mount of an open descriptor, and the path in it; NULL: none. */
static struct fs_encrypted *mount_of(int fd, char *path, const char **rel)
{
    if (!fs_virtual_of_fd(fd, FS_ANY, path)) return NULL;
    const struct fs_mount *mount = fs_mount_of(path);
    if (mount == NULL || mount->layers[0].encrypted == NULL) return NULL;
    *rel = path + mount->length + (path[mount->length] == '/');
    return mount->layers[0].encrypted;
}

int fs_encrypted_seal_fd(int fd, bool durable)
{
    char path[PATH_MAX];
    const char *rel;
    struct stat status;
    struct place place;
    struct fs_encrypted *encrypted = mount_of(fd, path, &rel);
    if (encrypted == NULL || fs_encrypted_ready(encrypted) != 0 || raw_fstat(fd, &status) != 0)
        return 0;
    if (S_ISDIR(status.st_mode)) {
        if (!durable || find_place(encrypted, rel, &place) != 0) return 0;
        int store = raw_open(place.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
        int error = store < 0 ? store : (int)raw(SYS_fsync, store);
        if (store >= 0) raw_close(store);
        return error;
    }
    int error = seal_file(encrypted, rel, status.st_ino, durable);
    if (error == 0 && !fs_encrypted_is_mapped(status.st_ino))
        fs_encrypted_unmark(encrypted, FS_DIRTY, status.st_ino);
    return error;
}

void fs_encrypted_opened(const struct fs_where *where, int fd, int flags)
{
    struct fs_encrypted *encrypted = where->mount->layers[0].encrypted;
    char text[PATH_MAX + 32];
    struct stat status;
    if (encrypted == NULL || (flags & O_ACCMODE) == O_RDONLY || raw_fstat(fd, &status) != 0 ||
        !S_ISREG(status.st_mode))
        return;
    snprintf(text, sizeof text, "%ld %s", raw(SYS_getpid), where->rel);
    fs_encrypted_mark(encrypted, FS_DIRTY, status.st_ino, text);
    cse_fd_remember(fd, 0, cse_identity_of(fd), FS_FD_WRITES);
}

/* ---- what is dirty ------------------------------------------------------------------------------
 */

struct dirty {
    struct fs_encrypted *encrypted;
    enum fs_dirty_of whose;
    bool durable;
    int error;
};

static int seal_dirty(const char *name, unsigned char type, void *context)
{
    struct dirty *dirty = context;
    char path[PATH_MAX], text[PATH_MAX + 32];
    uint64_t inode = strtoull(name, NULL, 16);
    fs_encrypted_mark_path(dirty->encrypted, FS_DIRTY, inode, path);
    int fd = raw_open(path, O_RDONLY | O_CLOEXEC, 0);
    long got = fd >= 0 ? raw(SYS_read, fd, text, sizeof text - 1) : -1;
    if (fd >= 0) raw_close(fd);
    if (got <= 0) return 0;
    text[got] = '\0';
    char *rel;
    long pid = strtol(text, &rel, 10);
    bool mine = pid == raw(SYS_getpid), dead = raw(SYS_kill, pid, 0) == -ESRCH;
    bool of_mine = dirty->whose == FS_DIRTY_MINE || dirty->whose == FS_DIRTY_MINE_KEPT;
    if (*rel != ' ' || (of_mine && !mine) || (dirty->whose == FS_DIRTY_OF_THE_DEAD && !dead))
        return 0;
    int error = seal_file(dirty->encrypted, rel + 1, inode, dirty->durable);
    bool done = dirty->whose == FS_DIRTY_MINE || dirty->whose == FS_DIRTY_OF_THE_DEAD;
    if (error == 0 && done) raw(SYS_unlinkat, AT_FDCWD, path, 0);
    if (error != 0) dirty->error = error;
    return 0;
}

int fs_encrypted_seal_dirty(enum fs_dirty_of whose, bool durable)
{
    char path[PATH_MAX + 16];
    int error = 0;
    for (int i = 0; fs_encrypted_number(i) != NULL; i++) {
        struct dirty dirty = {fs_encrypted_number(i), whose, durable, 0};
        if (__atomic_load_n(&dirty.encrypted->state, __ATOMIC_ACQUIRE) != 2 ||
            dirty.encrypted->error != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", dirty.encrypted->directory, FS_DIRTY);
        fs_each_name(path, seal_dirty, &dirty);
        if (dirty.error != 0) error = dirty.error;
    }
    return error;
}

void fs_encrypted_recover(struct fs_encrypted *encrypted)
{
    char path[PATH_MAX + 16];
    struct dirty dirty = {encrypted, FS_DIRTY_OF_THE_DEAD, false, 0};
    snprintf(path, sizeof path, "%s/%s", encrypted->directory, FS_DIRTY);
    fs_each_name(path, seal_dirty, &dirty);
}

/* ---- names --------------------------------------------------------------------------------------
 */

static int make_directory(struct fs_encrypted *encrypted, const struct stat *status,
                          const struct place *place)
{
    char fresh[PATH_MAX];
    fresh_name(encrypted, fresh);
    int error = (int)raw(SYS_mkdirat, AT_FDCWD, fresh, 0700);
    if (error == 0) error = fs_encrypted_new_id(encrypted, fresh);
    if (error == 0) error = write_sidecar(place, false);
    if (error == 0) give_attributes(fresh, status);
    if (error == 0) error = (int)raw(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, place->path, 0);
    if (error != 0) fs_remove_tree(fresh);
    if (error == 0) error = fs_encrypted_mark(encrypted, FS_LISTED, status->st_ino, NULL);
    return error;
}

static int make_link(struct fs_encrypted *encrypted, const char *from, const struct place *place)
{
    char text[PATH_MAX], hidden[CSE_CRYPT_TEXT], above[PATH_MAX];
    uint8_t id[CSE_CRYPT_ID];
    long length = raw(SYS_readlinkat, AT_FDCWD, from, text, sizeof text - 1);
    if (length < 0) return (int)length;
    text[length] = '\0';
    snprintf(above, sizeof above, "%s", place->path);
    *strrchr(above, '/') = '\0';
    int error = fs_encrypted_id(above, id);
    if (error == 0 && !encrypted->crypt->hide(encrypted->keys, id, 'l', text, hidden))
        error = -ENAMETOOLONG;
    if (error == 0) error = write_sidecar(place, false);
    return error == 0 ? (int)raw(SYS_symlinkat, hidden, AT_FDCWD, place->path) : error;
}

int fs_encrypted_created(const struct fs_where *where)
{
    struct fs_encrypted *encrypted = where->mount->layers[0].encrypted;
    char path[PATH_MAX];
    struct stat status;
    struct place place;
    int error = tree_path(encrypted, where->rel, path);
    if (error == 0) error = (int)raw_lstat(path, &status);
    if (error == 0) error = find_place(encrypted, where->rel, &place);
    if (error != 0) return error;
    if (S_ISREG(status.st_mode)) return seal_file(encrypted, where->rel, status.st_ino, false);
    if (S_ISDIR(status.st_mode)) error = make_directory(encrypted, &status, &place);
    if (S_ISLNK(status.st_mode)) error = make_link(encrypted, path, &place);
    if (error != 0) /* nothing that is not in the store as well */
        raw(SYS_unlinkat, AT_FDCWD, path, S_ISDIR(status.st_mode) ? AT_REMOVEDIR : 0);
    return error;
}

static int is_foreign(const char *name, unsigned char type, void *context)
{
    return strcmp(name, ".id") == 0 ? 0 : -ENOTEMPTY;
}

static int remove_place(const struct place *place, bool directory)
{
    char id[PATH_MAX + 8];
    int error = 0;
    if (directory) {
        error = fs_each_name(place->path, is_foreign, NULL);
        snprintf(id, sizeof id, "%s/.id", place->path);
        if (error == 0) raw(SYS_unlinkat, AT_FDCWD, id, 0);
    }
    if (error == 0)
        error = (int)raw(SYS_unlinkat, AT_FDCWD, place->path, directory ? AT_REMOVEDIR : 0);
    if (error == 0) drop_sidecar(place);
    return error == -ENOENT ? 0 : error;
}

int fs_encrypted_remove(struct fs_where *where, const char *path, bool directory)
{
    struct fs_encrypted *encrypted = where->mount->layers[0].encrypted;
    struct stat status;
    struct place place;
    int error = directory ? fs_encrypted_list(encrypted, where->rel) : 0;
    if (error == 0) error = find_place(encrypted, where->rel, &place);
    if (error == 0) error = (int)raw_lstat(path, &status);
    if (error == 0) error = (int)raw(SYS_unlinkat, AT_FDCWD, path, directory ? AT_REMOVEDIR : 0);
    if (error != 0) return error;
    fs_encrypted_unmark(encrypted, directory ? FS_LISTED : FS_HOLLOW, status.st_ino);
    if (!directory) fs_encrypted_unmark(encrypted, FS_DIRTY, status.st_ino);
    return remove_place(&place, directory);
}

/* The files of a moved tree that are dirty are known by their old paths: they are sealed first. */
int fs_encrypted_rename(struct fs_where *from, struct fs_where *to, const char *old,
                        const char *fresh, unsigned flags)
{
    struct fs_encrypted *encrypted = from->mount->layers[0].encrypted;
    static __thread struct place source, target;
    struct stat replaced;
    bool over = to->layer >= 0 && raw_lstat(fresh, &replaced) == 0;
    if (over && S_ISDIR(to->mode)) {
        int listed = fs_encrypted_list(encrypted, to->rel);
        if (listed != 0) return listed;
    }
    fs_encrypted_seal_dirty(FS_DIRTY_ALL, false);
    int error = find_place(encrypted, from->rel, &source);
    if (error == 0) error = find_place(encrypted, to->rel, &target);
    if (error == 0 && (flags & 2 /* EXCHANGE */) && (source.sidecar[0] || target.sidecar[0]))
        error = -ENAMETOOLONG;
    if (error == 0) error = (int)raw(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, fresh, flags);
    if (error != 0 || strcmp(from->rel, to->rel) == 0) return error;
    if (over && S_ISDIR(to->mode) && !(flags & 2)) remove_place(&target, true);
    error = write_sidecar(&target, false);
    if (error == 0)
        error = (int)raw(SYS_renameat2, AT_FDCWD, source.path, AT_FDCWD, target.path, flags);
    if (error != 0) { /* as before, in the tree as well */
        raw(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, old, flags & 2);
        return error;
    }
    if (!(flags & 2)) drop_sidecar(&source);
    if (over && !(flags & 2))
        fs_encrypted_unmark(encrypted, S_ISDIR(to->mode) ? FS_LISTED : FS_HOLLOW, replaced.st_ino);
    return 0;
}

void fs_encrypted_attributes(const struct fs_where *where)
{
    struct fs_encrypted *encrypted = where->mount->layers[0].encrypted;
    char path[PATH_MAX];
    struct stat status;
    struct place place;
    if (encrypted != NULL && tree_path(encrypted, where->rel, path) == 0 &&
        raw_lstat(path, &status) == 0 && find_place(encrypted, where->rel, &place) == 0)
        give_attributes(place.path, &status);
}

int fs_encrypted_resized(const struct fs_where *where)
{
    struct fs_encrypted *encrypted = where->mount->layers[0].encrypted;
    return encrypted != NULL ? seal_file(encrypted, where->rel, 0, false) : 0;
}

int fs_encrypted_truncating(struct fs_encrypted *encrypted, const char *path)
{
    struct stat status;
    long result = raw_lstat(path, &status);
    if (result == 0) fs_encrypted_unmark(encrypted, FS_HOLLOW, status.st_ino);
    return (int)result;
}
