/* Encrypted directories: names and contents hidden in the store, plain on private tmpfs.
 *
 * The program works on real files of private/fs/e<n>/tree, which shows as much of the store as has
 * been looked at: directories are listed when they are, files have the right size and are *hollow*
 * until they are first opened. What is known of a file or directory of the tree is a mark by its
 * inode's number beside it (listed/, hollow/, dirty/), so renaming changes no mark. Changes go back
 * through sealing.c.
 *
 * In the store a directory is a directory with a random identity in its file `.id`; a file is one
 * sealed file; a link is a link with a hidden text. Modes, owners, times and sizes are not hidden.
 * A name is the hidden one, or `~` and a digest where that is too long, with the hidden name in
 * `~digest.n`. How a store is unlocked: unlock.c. Called by layers.c and the calls that change
 * something.
 */
#include "encrypted.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>

enum { ENCRYPTED_MAX = 16 };

static struct fs_encrypted *all[ENCRYPTED_MAX];
static int count;

bool fs_encrypted_any(void)
{
    return count > 0;
}

struct fs_encrypted *fs_encrypted_number(int n)
{
    return n < count ? all[n] : NULL;
}

/* ---- settings -------------------------------------------------------------------------------- */

static const char *setting(const char *prefix, const char *name)
{
    char key[160];
    snprintf(key, sizeof key, "%s.%s", prefix, name);
    return cse_setting(key);
}

struct fs_encrypted *fs_encrypted_new(const char *mount, const char *prefix)
{
    const char *store = setting(prefix, "store");
    if (count == ENCRYPTED_MAX || store == NULL) return NULL;
    struct fs_encrypted *encrypted =
        mmap(NULL, sizeof *encrypted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (encrypted == MAP_FAILED) return NULL;
    encrypted->mount = mount;
    snprintf(encrypted->store, sizeof encrypted->store, "%s", store);
    encrypted->key_file = setting(prefix, "key_file");
    encrypted->key_environment = setting(prefix, "key_environment");
    snprintf(encrypted->directory, sizeof encrypted->directory, "%.4000s/e%d", fs_private(), count);
    snprintf(encrypted->tree, sizeof encrypted->tree, "%.4000s/tree", encrypted->directory);
    return all[count++] = encrypted;
}

const char *fs_encrypted_root(const struct fs_encrypted *encrypted)
{
    return encrypted->tree;
}

/* ---- marks ------------------------------------------------------------------------------------
 */

void fs_encrypted_mark_path(const struct fs_encrypted *encrypted, const char *property,
                            uint64_t inode, char *out)
{
    snprintf(out, PATH_MAX, "%.4000s/%s/%llx", encrypted->directory, property,
             (unsigned long long)inode);
}

bool fs_encrypted_marked(const struct fs_encrypted *encrypted, const char *property, uint64_t inode)
{
    char path[PATH_MAX];
    struct stat status;
    fs_encrypted_mark_path(encrypted, property, inode, path);
    return raw_lstat(path, &status) == 0;
}

int fs_encrypted_mark(const struct fs_encrypted *encrypted, const char *property, uint64_t inode,
                      const char *text)
{
    char path[PATH_MAX];
    fs_encrypted_mark_path(encrypted, property, inode, path);
    int fd = raw_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return fd;
    if (text != NULL) raw(SYS_write, fd, text, strlen(text));
    raw_close(fd);
    return 0;
}

void fs_encrypted_unmark(const struct fs_encrypted *encrypted, const char *property, uint64_t inode)
{
    char path[PATH_MAX];
    fs_encrypted_mark_path(encrypted, property, inode, path);
    raw(SYS_unlinkat, AT_FDCWD, path, 0);
}

/* ---- paths in the store ------------------------------------------------------------------------
 */

int fs_encrypted_id(const char *directory, uint8_t id[CSE_CRYPT_ID])
{
    char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s/.id", directory);
    int fd = raw_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0) return fd;
    long got = raw(SYS_read, fd, id, CSE_CRYPT_ID);
    raw_close(fd);
    return got == CSE_CRYPT_ID ? 0 : -EIO;
}

int fs_encrypted_new_id(const struct fs_encrypted *encrypted, const char *directory)
{
    char path[PATH_MAX + 8];
    uint8_t id[CSE_CRYPT_ID];
    snprintf(path, sizeof path, "%s/.id", directory);
    if (!encrypted->crypt->new_id(id)) return -EIO;
    int fd = raw_open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return fd == -EEXIST ? 0 : fd;
    long put = raw(SYS_write, fd, id, CSE_CRYPT_ID);
    raw(SYS_fsync, fd);
    raw_close(fd);
    return put == CSE_CRYPT_ID ? 0 : -ENOSPC;
}

int fs_encrypted_path(const struct fs_encrypted *encrypted, const char *rel, char *out,
                      char *sidecar, char *hidden)
{
    uint8_t id[CSE_CRYPT_ID];
    char name[NAME_MAX + 1];
    size_t length = strlen(encrypted->store);
    memcpy(out, encrypted->store, length + 1);
    sidecar[0] = hidden[0] = '\0';
    while (*rel != '\0') {
        size_t part = strcspn(rel, "/");
        if (part > NAME_MAX) return -ENAMETOOLONG;
        memcpy(name, rel, part);
        name[part] = '\0';
        int error = fs_encrypted_id(out, id);
        if (error != 0) return error;
        if (!encrypted->crypt->hide(encrypted->keys, id, 'n', name, hidden)) return -ENAMETOOLONG;
        sidecar[0] = '\0';
        if (length + NAME_MAX + 4 > PATH_MAX) return -ENAMETOOLONG;
        if (strlen(hidden) <= NAME_MAX) {
            length += (size_t)snprintf(out + length, PATH_MAX - length, "/%.255s", hidden);
        } else {
            char digest[CSE_CRYPT_DIGEST];
            encrypted->crypt->digest(hidden, digest);
            snprintf(sidecar, PATH_MAX, "%.*s/~%s.n", (int)length, out, digest);
            length += (size_t)snprintf(out + length, PATH_MAX - length, "/~%s", digest);
        }
        rel += part + (rel[part] == '/');
    }
    return 0;
}

/* ---- the plain tree -----------------------------------------------------------------------------
 */

struct listing {
    const struct fs_encrypted *encrypted;
    const char *store, *tree;
    uint8_t id[CSE_CRYPT_ID];
};

/* The plain name of one entry of the store; false where it is none of ours. */
static bool plain_name(const struct listing *listing, const char *entry, char *name)
{
    const struct fs_encrypted *encrypted = listing->encrypted;
    char path[PATH_MAX * 2], hidden[CSE_CRYPT_TEXT];
    if (entry[0] == '~') {
        snprintf(path, sizeof path, "%s/%s.n", listing->store, entry);
        int fd = raw_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
        long got = fd >= 0 ? raw(SYS_read, fd, hidden, sizeof hidden - 1) : -1;
        if (fd >= 0) raw_close(fd);
        if (got <= 0) return false;
        hidden[got] = '\0';
    } else {
        snprintf(hidden, sizeof hidden, "%.255s", entry);
    }
    return encrypted->crypt->show(encrypted->keys, listing->id, 'n', hidden, name, NAME_MAX + 1) &&
           name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static int show_link(const struct listing *listing, const char *from, const char *to)
{
    char hidden[CSE_CRYPT_TEXT], text[PATH_MAX];
    long length = raw(SYS_readlinkat, AT_FDCWD, from, hidden, sizeof hidden - 1);
    if (length < 0) return (int)length;
    hidden[length] = '\0';
    if (!listing->encrypted->crypt->show(listing->encrypted->keys, listing->id, 'l', hidden, text,
                                         sizeof text))
        return -EBADMSG;
    return (int)raw(SYS_symlinkat, text, AT_FDCWD, to);
}

/* An empty file of the right size, to be filled when it is opened. */
static int show_file(const struct listing *listing, const char *to, const struct stat *sealed)
{
    char fresh[PATH_MAX + 32];
    struct stat status;
    int64_t size = listing->encrypted->crypt->plain_size(listing->encrypted->keys, sealed->st_size);
    /* Elsewhere first: whoever sees it must see that it is hollow. */
    snprintf(fresh, sizeof fresh, "%s/new.%ld", listing->encrypted->directory, raw(SYS_gettid));
    int fd = raw_open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return fd;
    int error = (int)raw_fstat(fd, &status);
    if (error == 0) error = fs_encrypted_mark(listing->encrypted, FS_HOLLOW, status.st_ino, NULL);
    if (error == 0) error = (int)raw(SYS_ftruncate, fd, size < 0 ? 0 : size);
    raw_close(fd);
    if (error == 0) fs_encrypted_copy_attributes(fresh, sealed);
    if (error == 0)
        error = (int)raw(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, to, 1 /* NOREPLACE */);
    if (error != 0) raw(SYS_unlinkat, AT_FDCWD, fresh, 0);
    return error;
}

static int show_entry(const char *entry, unsigned char type, void *context)
{
    const struct listing *listing = context;
    char name[NAME_MAX + 1], from[PATH_MAX * 2], to[PATH_MAX * 2];
    struct stat status, there;
    size_t length = strlen(entry);
    if (entry[0] == '.' || (entry[0] == '~' && length > 2 && strcmp(entry + length - 2, ".n") == 0))
        return 0;
    if (!plain_name(listing, entry, name)) {
        fs_report(listing->encrypted->mount, entry, "is in the store, but not by this key");
        return 0;
    }
    snprintf(from, sizeof from, "%s/%s", listing->store, entry);
    snprintf(to, sizeof to, "%s/%s", listing->tree, name);
    if (raw_lstat(from, &status) != 0 || raw_lstat(to, &there) == 0) return 0;
    int error = S_ISDIR(status.st_mode)   ? (int)raw(SYS_mkdirat, AT_FDCWD, to, 0700)
                : S_ISLNK(status.st_mode) ? show_link(listing, from, to)
                : S_ISREG(status.st_mode) ? show_file(listing, to, &status)
                                          : 1;
    if (error == -EBADMSG) {
        fs_report(listing->encrypted->mount, name, "is a link that is damaged in the store");
        return 0;
    }
    if (error == 0) fs_encrypted_copy_attributes(to, &status);
    return error < 0 && error != -EEXIST ? error : 0;
}

static int open_lock(const struct fs_encrypted *encrypted)
{
    char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s/lock", encrypted->directory);
    int fd = raw_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0) raw(SYS_fchmod, fd, 0666);
    if (fd >= 0)
        while (raw(SYS_flock, fd, LOCK_EX) == -EINTR) {}
    return fd;
}

int fs_encrypted_list(struct fs_encrypted *encrypted, const char *rel)
{
    char tree[PATH_MAX], store[PATH_MAX], sidecar[PATH_MAX], hidden[CSE_CRYPT_TEXT];
    struct stat status, from;
    if (snprintf(tree, sizeof tree, "%s%s%s", encrypted->tree, rel[0] ? "/" : "", rel) >= PATH_MAX)
        return -ENAMETOOLONG;
    long result = raw_lstat(tree, &status);
    if (result != 0 || !S_ISDIR(status.st_mode)) return result != 0 ? (int)result : -ENOTDIR;
    if (fs_encrypted_marked(encrypted, FS_LISTED, status.st_ino)) return 0;
    int lock = open_lock(encrypted);
    if (lock < 0) return lock;
    int error = 0;
    if (!fs_encrypted_marked(encrypted, FS_LISTED, status.st_ino)) {
        struct listing listing = {.encrypted = encrypted, .store = store, .tree = tree};
        error = fs_encrypted_path(encrypted, rel, store, sidecar, hidden);
        if (error == 0) error = fs_encrypted_id(store, listing.id);
        if (error == 0) error = fs_each_name(store, show_entry, &listing);
        if (error == 0 && raw_lstat(store, &from) == 0) fs_encrypted_copy_attributes(tree, &from);
        if (error == 0) error = fs_encrypted_mark(encrypted, FS_LISTED, status.st_ino, NULL);
    }
    raw_close(lock);
    return error;
}

int fs_encrypted_reach(struct fs_encrypted *encrypted, const char *rel)
{
    char part[PATH_MAX], tree[PATH_MAX];
    struct stat status;
    int error = fs_encrypted_ready(encrypted);
    if (error != 0) return error;
    if (snprintf(tree, sizeof tree, "%s%s%s", encrypted->tree, rel[0] ? "/" : "", rel) >= PATH_MAX)
        return -ENAMETOOLONG;
    if (raw_lstat(tree, &status) == 0 || rel[0] == '\0') return 0;
    memcpy(part, rel, strlen(rel) + 1);
    for (size_t end = 0; part[end] != '\0' && error == 0; end++) {
        if (end > 0 && part[end] != '/') continue;
        char kept = part[end];
        part[end] = '\0';
        error = fs_encrypted_list(encrypted, part);
        part[end] = kept;
    }
    /* Something missing or no directory on the way: the look at the tree says so. */
    return error == -ENOENT || error == -ENOTDIR || error == -ELOOP ? 0 : error;
}

int fs_encrypted_fill(struct fs_encrypted *encrypted, const char *rel, const char *path)
{
    char store[PATH_MAX], sidecar[PATH_MAX], hidden[CSE_CRYPT_TEXT];
    struct stat status;
    long result = raw_lstat(path, &status);
    if (result != 0) return (int)result;
    if (!fs_encrypted_marked(encrypted, FS_HOLLOW, status.st_ino)) return 0;
    if ((status.st_mode & 0600) != 0600 && raw(SYS_geteuid) == status.st_uid)
        raw(SYS_fchmodat, AT_FDCWD, path, (status.st_mode & 07777) | 0600);
    int plain = raw_open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
    if (plain < 0) return plain;
    while (raw(SYS_flock, plain, LOCK_EX) == -EINTR) {}
    int error = 0;
    if (fs_encrypted_marked(encrypted, FS_HOLLOW, status.st_ino)) {
        error = fs_encrypted_path(encrypted, rel, store, sidecar, hidden);
        int sealed = error == 0 ? raw_open(store, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0) : error;
        error = sealed < 0 ? -sealed : encrypted->crypt->open(encrypted->keys, sealed, plain);
        if (sealed >= 0) raw_close(sealed);
        struct timespec times[2] = {status.st_atim, status.st_mtim};
        if (error != 0) { /* nothing half-made stays */
            raw(SYS_ftruncate, plain, 0);
            raw(SYS_ftruncate, plain, status.st_size);
        } else {
            fs_encrypted_unmark(encrypted, FS_HOLLOW, status.st_ino);
        }
        raw(SYS_fchmod, plain, status.st_mode & 07777);
        raw(SYS_utimensat, plain, NULL, times, 0);
    }
    raw_close(plain);
    if (error == EBADMSG) {
        fs_report(encrypted->mount, rel, "is damaged in the store, or not by this key");
        error = EIO;
    }
    return -error;
}
