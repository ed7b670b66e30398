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
 * `~digest.n`. One application at a time has a store: its file `.cse` is locked. Called by layers.c
 * and the calls that change something.
 */
#include "encrypted.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>

enum { ENCRYPTED_MAX = 16, KEY_ROOM = 256 };

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

/* ---- unlocking ---------------------------------------------------------------------------------
 */

static const struct cse_crypt_provider *provider(void)
{
    static const struct cse_crypt_provider *known;
    const struct cse_crypt_provider *found = __atomic_load_n(&known, __ATOMIC_ACQUIRE);
    if (found != NULL) return found;
    Dl_info self;
    char path[PATH_MAX];
    if (dladdr((void *)(uintptr_t)fs_encrypted_new, &self) == 0 || self.dli_fname == NULL)
        return NULL;
    const char *slash = strrchr(self.dli_fname, '/');
    snprintf(path, sizeof path, "%.*slibcse-crypt.so",
             slash ? (int)(slash + 1 - self.dli_fname) : 0, self.dli_fname);
    void *library = libc(dlopen)(path, RTLD_NOW | RTLD_LOCAL);
    found = library ? dlsym(library, CSE_CRYPT_PROVIDER_SYMBOL) : NULL;
    if (found == NULL || found->version != CSE_CRYPT_VERSION) return NULL;
    __atomic_store_n(&known, found, __ATOMIC_RELEASE);
    return found;
}

static int hex_digit(char letter)
{
    if (letter >= '0' && letter <= '9') return letter - '0';
    letter |= 'a' - 'A';
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

/* 32 bytes as they are, or 64 hexadecimal digits. */
static bool parse_key(const char *text, size_t length, uint8_t key[CSE_CRYPT_KEY])
{
    if (length == CSE_CRYPT_KEY) {
        memcpy(key, text, CSE_CRYPT_KEY);
        return true;
    }
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r')) length--;
    if (length != 2 * CSE_CRYPT_KEY) return false;
    for (int i = 0; i < CSE_CRYPT_KEY; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        key[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* NULL, or what is wrong with the key; never the key itself. */
static const char *read_key(const struct fs_encrypted *encrypted, uint8_t key[CSE_CRYPT_KEY])
{
    static const char SHAPE[] =
        "has a key that is neither 32 bytes nor 64 hexadecimal digits (openssl rand -hex 32)";
    char text[KEY_ROOM];
    if (encrypted->key_file == NULL) {
        const char *value = encrypted->key_environment ? getenv(encrypted->key_environment) : NULL;
        if (value == NULL) return "has no key: the variable of key_environment is not set";
        return parse_key(value, strlen(value), key) ? NULL : SHAPE;
    }
    int fd = raw_open(encrypted->key_file, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return "has a key file that cannot be read";
    long got = raw(SYS_read, fd, text, sizeof text);
    raw_close(fd);
    bool good = got > 0 && parse_key(text, (size_t)got, key);
    memset(text, 0, sizeof text);
    __asm__ volatile("" : : "r"(text) : "memory");
    return good ? NULL : SHAPE;
}

static int is_not_empty(const char *name, unsigned char type, void *context)
{
    return -ENOTEMPTY;
}

/* The store's own file; made where the store is an empty directory. */
static int read_config(const struct fs_encrypted *encrypted, const uint8_t *key, int *lock,
                       uint8_t config[CSE_CRYPT_CONFIG])
{
    char path[PATH_MAX + 16], fresh[PATH_MAX + 48];
    snprintf(path, sizeof path, "%s/.cse", encrypted->store);
    *lock = raw_open(path, O_RDWR | O_CLOEXEC, 0);
    if (*lock == -ENOENT) {
        int error = fs_each_name(encrypted->store, is_not_empty, NULL);
        if (error == -ENOTEMPTY)
            fs_report(encrypted->mount, "",
                      "has a store that is none: it is not empty and has no file .cse");
        if (error == 0 && !encrypted->crypt->make(key, config)) error = -EIO;
        if (error == 0) error = fs_encrypted_new_id(encrypted, encrypted->store);
        if (error != 0) return error == -ENOTEMPTY ? -EIO : error;
        snprintf(fresh, sizeof fresh, "%s/.t%ld", encrypted->store, raw(SYS_gettid));
        int fd = raw_open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0) return fd;
        long put = raw(SYS_write, fd, config, CSE_CRYPT_CONFIG);
        raw(SYS_fsync, fd);
        raw_close(fd);
        error = put == CSE_CRYPT_CONFIG
                    ? (int)raw(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, path, 1 /* NOREPLACE */)
                    : -ENOSPC;
        raw(SYS_unlinkat, AT_FDCWD, fresh, 0);
        if (error != 0 && error != -EEXIST) return error;
        *lock = raw_open(path, O_RDWR | O_CLOEXEC, 0);
    }
    if (*lock < 0) return *lock;
    return raw(SYS_pread64, *lock, config, CSE_CRYPT_CONFIG, 0) == CSE_CRYPT_CONFIG ? 0 : -EIO;
}

/* Another application that shows the same store would not see our changes, nor we its. The first
 * program of an application locks the store's file alone, says in it who that is, and shares it. */
static int take_lease(const struct fs_encrypted *encrypted, int lock)
{
    char mine[64], theirs[64];
    struct stat status;
    long result = raw_lstat(encrypted->directory, &status);
    if (result != 0) return (int)result;
    int length =
        snprintf(mine, sizeof mine, "%llx.%llx.%llx", (unsigned long long)status.st_dev,
                 (unsigned long long)status.st_ino, (unsigned long long)status.st_ctim.tv_sec);
    memset(mine + length, 0, sizeof mine - (size_t)length);
    if (raw(SYS_flock, lock, LOCK_EX | LOCK_NB) == 0)
        raw(SYS_pwrite64, lock, mine, sizeof mine, CSE_CRYPT_CONFIG);
    while ((result = raw(SYS_flock, lock, LOCK_SH)) == -EINTR) {}
    if (result == 0 &&
        (raw(SYS_pread64, lock, theirs, sizeof theirs, CSE_CRYPT_CONFIG) != sizeof theirs ||
         strncmp(theirs, mine, (size_t)(strrchr(mine, '.') - mine)) != 0))
        return -EBUSY;
    return (int)result;
}

static void copy_attributes(const char *to, const struct stat *status)
{
    struct timespec times[2] = {status->st_atim, status->st_mtim};
    if (raw(SYS_geteuid) == 0)
        raw(SYS_fchownat, AT_FDCWD, to, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW);
    if (!S_ISLNK(status->st_mode)) raw(SYS_fchmodat, AT_FDCWD, to, status->st_mode & 07777);
    raw(SYS_utimensat, AT_FDCWD, to, times, AT_SYMLINK_NOFOLLOW);
}

static int make_places(const struct fs_encrypted *encrypted)
{
    static const char *const names[] = {"tree", FS_LISTED, FS_HOLLOW, FS_DIRTY};
    char path[PATH_MAX + 16];
    struct stat status;
    int error = 0;
    for (int i = 0; i < 4 && error == 0; i++) {
        snprintf(path, sizeof path, "%s/%s", encrypted->directory, names[i]);
        if (raw_lstat(path, &status) == 0) continue;
        error = fs_make_directories(path, i == 0 ? 0755 : 0777);
        if (error == 0 && i == 0 && raw_lstat(encrypted->store, &status) == 0)
            copy_attributes(path, &status);
    }
    return error;
}

static int unlock(struct fs_encrypted *encrypted)
{
    uint8_t key[CSE_CRYPT_KEY], config[CSE_CRYPT_CONFIG];
    const char *wrong = NULL;
    int lock = -1;
    encrypted->crypt = provider();
    if (encrypted->crypt == NULL)
        wrong = "libcse-crypt.so is missing beside libcse-fs.so";
    else
        wrong = read_key(encrypted, key);
    if (wrong != NULL) {
        fs_report(encrypted->mount, "", wrong);
        return -ENOKEY;
    }
    int error = make_places(encrypted);
    if (error == 0) error = read_config(encrypted, key, &lock, config);
    if (error == 0) {
        encrypted->keys = encrypted->crypt->unlock(key, config);
        if (encrypted->keys == NULL) {
            fs_report(encrypted->mount, "", "has a key that does not open its store");
            error = -EKEYREJECTED;
        }
    } else {
        fs_report(encrypted->mount, "", "has a store that cannot be read or made");
    }
    memset(key, 0, sizeof key);
    __asm__ volatile("" : : "r"(key) : "memory");
    if (error == 0) error = take_lease(encrypted, lock);
    if (error == -EBUSY)
        fs_report(encrypted->mount, "", "has a store that another application has in use");
    if (error != 0 && lock >= 0) raw_close(lock);
    if (error == 0 && cse_own_fd(lock) < 0) error = -EMFILE; /* open as long as we live */
    return error;
}

int fs_encrypted_ready(struct fs_encrypted *encrypted)
{
    if (__atomic_load_n(&encrypted->state, __ATOMIC_ACQUIRE) == 2) return encrypted->error;
    int expected = 0;
    if (__atomic_compare_exchange_n(&encrypted->state, &expected, 1, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE)) {
        int saved_errno = errno;
        encrypted->error = unlock(encrypted);
        __atomic_store_n(&encrypted->state, 2, __ATOMIC_RELEASE);
        if (encrypted->error == 0) fs_encrypted_recover(encrypted);
        errno = saved_errno;
    }
    while (__atomic_load_n(&encrypted->state, __ATOMIC_ACQUIRE) != 2) raw(SYS_sched_yield);
    return encrypted->error;
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
    if (error == 0) copy_attributes(fresh, sealed);
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
    if (error == 0) copy_attributes(to, &status);
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
        if (error == 0 && raw_lstat(store, &from) == 0) copy_attributes(tree, &from);
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
