/* An encrypted store, unlocked: the cipher's library, the key, the store's own file, its lease.
 *
 * Done once a process, when the mount is first used. One application at a time has a store: its
 * file
 * `.cse` is locked for as long as one of its programs lives. Called through fs_encrypted_ready.
 */
#include "encrypted.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

enum { KEY_ROOM = 256 };

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

void fs_encrypted_copy_attributes(const char *to, const struct stat *status)
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
            fs_encrypted_copy_attributes(path, &status);
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
