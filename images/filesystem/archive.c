/* Archives: the lazy skeleton on private tmpfs.
 *
 * private/fs/a<n>/ holds `index` (made once, by the first process that needs it, under `lock`),
 * `pack` (contents kept while indexing) and `tree`, the skeleton. An entry becomes *present* as a
 * sparse file of the right size, mode and time when somebody looks at it; its content is *filled*
 * in when it is first opened, under a lock on the file itself. What is done is marked in the mapped
 * index, which all processes of the application share, so each step happens once.
 *
 * Where several users may share the skeleton (a server whose workers drop root), each may have to
 * fill a file or list a directory: the real permissions then allow it, and fs_archive_fix shows
 * what the archive says.
 */
#include "fs.h"
#include "tree.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>

enum { ARCHIVES_MAX = 64, REPORTS_MAX = 100 };

struct fs_archive {
    int number;
    const char *mount, *from;
    char directory[PATH_MAX], tree[PATH_MAX];
    struct cse_tree_limits limits;
    struct cse_index_header *index; /* mapped; NULL: not yet */
    const char *pack;               /* mapped; NULL: not yet */
    uint64_t pack_size;
    uid_t owner;
    gid_t group;
    bool shared; /* processes of several users may use the skeleton */
};

static struct fs_archive *archives[ARCHIVES_MAX];
static int archive_count;

/* ---- settings -------------------------------------------------------------------------------- */

static const char *setting(const char *prefix, const char *name, const char *otherwise)
{
    char key[160];
    snprintf(key, sizeof key, "%s.%s", prefix, name);
    const char *value = cse_setting(key);
    return value != NULL ? value : otherwise;
}

static uint64_t number_setting(const char *prefix, const char *name, uint64_t otherwise)
{
    const char *text = setting(prefix, name, NULL);
    char *end;
    if (text == NULL || *text < '0' || *text > '9') return otherwise;
    uint64_t value = strtoull(text, &end, 10);
    return *end == '\0' ? value : otherwise;
}

struct fs_archive *fs_archive_new(const char *mount, const char *prefix)
{
    if (archive_count == ARCHIVES_MAX) return NULL;
    struct fs_archive *archive =
        mmap(NULL, sizeof *archive, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (archive == MAP_FAILED) return NULL;
    archive->number = archive_count;
    archive->mount = mount;
    archive->from = setting(prefix, "from", "");
    snprintf(archive->directory, sizeof archive->directory, "%.4000s/a%d", fs_private(),
             archive->number);
    snprintf(archive->tree, sizeof archive->tree, "%.4000s/tree", archive->directory);
    archive->limits = (struct cse_tree_limits){
        .max_bytes = number_setting(prefix, "max_bytes", UINT64_C(16) << 30),
        .max_entries = number_setting(prefix, "max_entries", 1000000),
        .max_ratio = number_setting(prefix, "max_ratio", 2000),
        .cache_bytes = number_setting(prefix, "cache_bytes", 256 << 20),
        .strip = (uint32_t)number_setting(prefix, "strip", 0),
        .subpath = setting(prefix, "subpath", ""),
        .links_inside = strcmp(setting(prefix, "links", "inside"), "any") != 0,
    };
    if (archive->limits.max_ratio == 0) archive->limits.max_ratio = 1;
    return archives[archive_count++] = archive;
}

const char *fs_archive_root(const struct fs_archive *archive)
{
    return archive->tree;
}

bool fs_archive_links_inside(const struct fs_archive *archive)
{
    return archive->limits.links_inside;
}

/* ---- the implementation ------------------------------------------------------------------------
 */

struct speaker {
    const struct fs_archive *archive;
    int lines;
};

static void say(void *context, const char *entry, const char *what)
{
    struct speaker *speaker = context;
    if (speaker->lines++ < REPORTS_MAX)
        fs_report(speaker->archive->mount, entry, what);
    else if (speaker->lines == REPORTS_MAX + 1)
        fs_report(speaker->archive->mount, "", "has more entries of which this must be said");
}

static const struct cse_tree_provider *provider(void)
{
    static const struct cse_tree_provider *known;
    const struct cse_tree_provider *found = __atomic_load_n(&known, __ATOMIC_ACQUIRE);
    if (found != NULL) return found;
    Dl_info self;
    char path[PATH_MAX];
    if (dladdr((void *)(uintptr_t)fs_archive_new, &self) == 0 || self.dli_fname == NULL)
        return NULL;
    const char *slash = strrchr(self.dli_fname, '/');
    snprintf(path, sizeof path, "%.*slibcse-archive.so",
             slash ? (int)(slash + 1 - self.dli_fname) : 0, self.dli_fname);
    void *library = libc(dlopen)(path, RTLD_NOW | RTLD_LOCAL);
    found = library ? dlsym(library, CSE_TREE_PROVIDER_SYMBOL) : NULL;
    if (found == NULL || found->version != CSE_TREE_VERSION) {
        const char *why = dlerror();
        fs_report(path, "", why ? why : "is of another version");
        return NULL;
    }
    static const struct cse_tree_host host = {cse_own_fd, cse_own_close};
    found->start(&host);
    __atomic_store_n(&known, found, __ATOMIC_RELEASE);
    return found;
}

/* ---- the index
 * ----------------------------------------------------------------------------------- */

static int open_in(const struct fs_archive *archive, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", archive->directory, name);
    int fd = raw_open(path, flags | O_CLOEXEC, mode);
    if (fd >= 0 && (flags & O_CREAT)) raw(SYS_fchmod, fd, mode); /* whatever the umask is */
    return fd;
}

/* The lock of the skeleton: released by closing what this returns, also when the process dies. */
static int lock(const struct fs_archive *archive)
{
    int fd = open_in(archive, "lock", O_RDWR, 0);
    if (fd < 0) return fd;
    while (raw(SYS_flock, fd, LOCK_EX) == -EINTR) {}
    return fd;
}

static int store_error(const struct fs_archive *archive, int error)
{
    struct cse_index_header header = {
        .magic = CSE_INDEX_MAGIC, .error = error, .file_size = sizeof header};
    int fd = open_in(archive, "index.new", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0) return fd;
    raw(SYS_write, fd, &header, sizeof header);
    raw_close(fd);
    return 0;
}

static int build(struct fs_archive *archive)
{
    const struct cse_tree_provider *reader = provider();
    struct speaker speaker = {.archive = archive};
    int source = raw_open(archive->from, O_RDONLY | O_CLOEXEC, 0);
    int index = open_in(archive, "index.new", O_RDWR | O_CREAT | O_TRUNC, 0666);
    int pack = open_in(archive, "pack", O_RDWR | O_CREAT | O_TRUNC, 0644);
    int error = 0;
    if (source < 0) {
        say(&speaker, "", "its archive cannot be opened");
        error = -source;
    } else if (reader == NULL) {
        say(&speaker, "", "libcse-archive.so is missing beside libcse-fs.so");
        error = EIO;
    } else if (index < 0 || pack < 0) {
        error = index < 0 ? -index : -pack;
    } else {
        error = reader->build(source, index, pack, &archive->limits, say, &speaker);
    }
    if (source >= 0) raw_close(source);
    if (index >= 0) raw_close(index);
    if (pack >= 0) raw_close(pack);
    if (error == ENOSPC || error == ENOMEM || error == EMFILE || error == ENFILE) return -error;
    if (error != 0) {
        int stored = store_error(archive, error);
        if (stored != 0) return stored;
    }
    return 0;
}

static int make_index(struct fs_archive *archive)
{
    char from[PATH_MAX + 64], to[PATH_MAX + 64];
    struct stat status;
    int error = fs_make_directories(archive->directory, 0777);
    if (error != 0) return error;
    int made = open_in(archive, "lock", O_RDWR | O_CREAT | O_EXCL, 0666);
    if (made >= 0) raw_close(made);
    int held = lock(archive);
    if (held < 0) return held;
    snprintf(from, sizeof from, "%s/index.new", archive->directory);
    snprintf(to, sizeof to, "%s/index", archive->directory);
    if (raw_lstat(to, &status) != 0) {
        error = build(archive);
        if (error == 0) error = (int)raw(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    }
    raw_close(held);
    return error;
}

static int map_index(struct fs_archive *archive)
{
    struct stat status, above;
    int fd = open_in(archive, "index", O_RDWR, 0);
    if (fd < 0) return fd;
    long result = raw_fstat(fd, &status);
    struct cse_index_header *index = MAP_FAILED;
    if (result == 0 && (size_t)status.st_size >= sizeof *index)
        index = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    raw_close(fd);
    if (index == MAP_FAILED) return -EIO;
    if (memcmp(index->magic, CSE_INDEX_MAGIC, sizeof index->magic) != 0 ||
        index->file_size > (uint64_t)status.st_size) {
        munmap(index, (size_t)status.st_size);
        return -EIO;
    }
    archive->owner = status.st_uid;
    archive->group = status.st_gid;
    archive->shared =
        status.st_uid == 0 || raw_lstat(fs_private(), &above) != 0 || above.st_uid != status.st_uid;
    struct cse_index_header *expected = NULL;
    if (!__atomic_compare_exchange_n(&archive->index, &expected, index, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        munmap(index, (size_t)status.st_size);
    return 0;
}

const struct cse_index_header *fs_archive_index(struct fs_archive *archive, int *error)
{
    struct cse_index_header *index = __atomic_load_n(&archive->index, __ATOMIC_ACQUIRE);
    if (__builtin_expect(index == NULL, 0)) {
        *error = map_index(archive);
        if (*error == -ENOENT) {
            *error = make_index(archive);
            if (*error == 0) *error = map_index(archive);
        }
        if (*error != 0) return NULL;
        index = __atomic_load_n(&archive->index, __ATOMIC_ACQUIRE);
    }
    *error = -index->error;
    return index->error == 0 ? index : NULL;
}

static struct cse_index_entry *entry_of(const struct fs_archive *archive, uint32_t number)
{
    return (struct cse_index_entry *)(uintptr_t)&cse_index_entries(archive->index)[number];
}

static bool has_state(const struct cse_index_entry *entry, uint32_t bits)
{
    return (__atomic_load_n(&entry->state, __ATOMIC_ACQUIRE) & bits) == bits;
}

static void add_state(struct cse_index_entry *entry, uint32_t bits)
{
    __atomic_fetch_or(&entry->state, bits, __ATOMIC_RELEASE);
}

/* ---- the skeleton
 * ---------------------------------------------------------------------------------- */

static int tree_path(const struct fs_archive *archive, const struct cse_index_entry *entry,
                     char *out)
{
    int length = snprintf(out, PATH_MAX, "%s%s%s", archive->tree, entry->path_length ? "/" : "",
                          cse_index_text(archive->index, entry->path));
    return length < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* The permissions that let whoever comes next do his part. */
static mode_t open_mode(const struct fs_archive *archive, const struct cse_index_entry *entry)
{
    mode_t mode = entry->mode & 07777;
    if (S_ISDIR(entry->mode)) return mode | (archive->shared ? 0777 : 0700);
    return entry->size == 0 ? mode : mode | (archive->shared ? 0222 : 0200);
}

static void set_times(int fd, const char *path, const struct cse_index_entry *entry)
{
    struct timespec times[2];
    for (int i = 0; i < 2; i++)
        times[i] =
            (struct timespec){.tv_sec = (time_t)entry->mtime, .tv_nsec = (long)entry->mtime_ns};
    raw(SYS_utimensat, fd, path, times, path && fd == AT_FDCWD ? AT_SYMLINK_NOFOLLOW : 0);
}

/* The contents kept while indexing, mapped once; NULL where they cannot be. */
static const char *map_pack(struct fs_archive *archive)
{
    const char *pack = __atomic_load_n(&archive->pack, __ATOMIC_ACQUIRE);
    if (pack != NULL) return pack == MAP_FAILED ? NULL : pack;
    struct stat status;
    int fd = open_in(archive, "pack", O_RDONLY, 0);
    void *mapped = MAP_FAILED;
    if (fd >= 0 && raw_fstat(fd, &status) == 0 && status.st_size > 0)
        mapped = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) archive->pack_size = (uint64_t)status.st_size; /* constant by now */
    if (fd >= 0) raw_close(fd);
    const char *expected = NULL;
    if (!__atomic_compare_exchange_n(&archive->pack, &expected, (const char *)mapped, false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        if (mapped != MAP_FAILED) munmap(mapped, (size_t)status.st_size);
        mapped = (void *)(uintptr_t)expected;
    }
    return mapped == MAP_FAILED ? NULL : mapped;
}

static int fill_from_pack(struct fs_archive *archive, const struct cse_index_entry *entry, int out)
{
    const char *pack = map_pack(archive);
    if (pack == NULL || entry->size > archive->pack_size ||
        entry->packed_at - 1 > archive->pack_size - entry->size)
        return EIO;
    for (uint64_t done = 0; done < entry->size;) {
        long put =
            raw(SYS_pwrite64, out, pack + entry->packed_at - 1 + done, entry->size - done, done);
        if (put <= 0) return put < 0 ? (int)-put : ENOSPC;
        done += (uint64_t)put;
    }
    return 0;
}

/* A sparse file; where the content is wanted and at hand, a full one at once. */
static int make_file(struct fs_archive *archive, struct cse_index_entry *entry, const char *path,
                     bool content)
{
    int fd = raw_open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd == -EEXIST) { /* half-made by a process that died */
        raw(SYS_unlinkat, AT_FDCWD, path, 0);
        fd = raw_open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    }
    if (fd < 0) return fd;
    bool full = content && entry->packed_at != 0 && fill_from_pack(archive, entry, fd) == 0;
    long result = full ? 0 : raw(SYS_ftruncate, fd, entry->size);
    raw(SYS_fchmod, fd, full ? entry->mode & 07777 : open_mode(archive, entry));
    set_times(fd, NULL, entry);
    raw_close(fd);
    if (full) add_state(entry, CSE_ENTRY_FILLED);
    return (int)result;
}

static int make_object(struct fs_archive *archive, struct cse_index_entry *entry, bool content)
{
    char path[PATH_MAX], target[PATH_MAX];
    long result = tree_path(archive, entry, path);
    if (result != 0) return (int)result;
    if (entry->is_hard_link) {
        result = tree_path(archive, entry_of(archive, entry->target), target);
        if (result == 0) result = raw(SYS_linkat, AT_FDCWD, target, AT_FDCWD, path, 0);
    } else if (S_ISDIR(entry->mode)) {
        result = raw(SYS_mkdirat, AT_FDCWD, path, 0700);
        if (result == 0) raw(SYS_fchmodat, AT_FDCWD, path, open_mode(archive, entry));
        if (result == 0) set_times(AT_FDCWD, path, entry);
    } else if (S_ISLNK(entry->mode)) {
        result = raw(SYS_symlinkat, cse_index_text(archive->index, entry->target), AT_FDCWD, path);
        if (result == 0) set_times(AT_FDCWD, path, entry);
    } else {
        return make_file(archive, entry, path, content);
    }
    return result == -EEXIST ? 0 : (int)result;
}

/* Under the lock; parents first. */
static int make_present(struct fs_archive *archive, uint32_t number, bool content)
{
    struct cse_index_entry *entry = entry_of(archive, number);
    if (has_state(entry, CSE_ENTRY_PRESENT)) return 0;
    int error = entry->parent != CSE_NO_ENTRY ? make_present(archive, entry->parent, false) : 0;
    if (error == 0 && entry->is_hard_link) error = make_present(archive, entry->target, content);
    if (error == 0) error = make_object(archive, entry, content);
    if (error == 0) add_state(entry, CSE_ENTRY_PRESENT);
    return error;
}

/* Making a child has changed the directory's time. */
static void restore_times(const struct fs_archive *archive, uint32_t number)
{
    char path[PATH_MAX];
    struct cse_index_entry *entry = number != CSE_NO_ENTRY ? entry_of(archive, number) : NULL;
    if (entry != NULL && tree_path(archive, entry, path) == 0) set_times(AT_FDCWD, path, entry);
}

static int present(struct fs_archive *archive, uint32_t number, bool content)
{
    struct cse_index_entry *entry = entry_of(archive, number);
    if (has_state(entry, CSE_ENTRY_PRESENT)) return 0;
    int held = lock(archive);
    if (held < 0) return held;
    uint32_t above = entry->parent;
    while (above != CSE_NO_ENTRY && !has_state(entry_of(archive, above), CSE_ENTRY_PRESENT))
        above = entry_of(archive, above)->parent;
    int error = make_present(archive, number, content);
    for (uint32_t at = entry->parent; at != CSE_NO_ENTRY; at = entry_of(archive, at)->parent) {
        restore_times(archive, at);
        if (at == above) break;
    }
    raw_close(held);
    return error;
}

int fs_archive_present(struct fs_archive *archive, uint32_t number)
{
    return present(archive, number, false);
}

int fs_archive_list(struct fs_archive *archive, uint32_t number)
{
    struct cse_index_entry *entry = entry_of(archive, number);
    if (has_state(entry, CSE_ENTRY_LISTED)) return 0;
    int error = fs_archive_present(archive, number);
    int held = error == 0 ? lock(archive) : error;
    if (held < 0) return held;
    for (uint32_t child = entry->first_child; child != CSE_NO_ENTRY && error == 0;
         child = entry_of(archive, child)->next_sibling)
        error = make_present(archive, child, false);
    restore_times(archive, number);
    if (error == 0) add_state(entry, CSE_ENTRY_LISTED);
    raw_close(held);
    return error;
}

/* ---- contents
 * --------------------------------------------------------------------------------------- */

static int fill_from_archive(struct fs_archive *archive, uint32_t number, int out)
{
    const struct cse_tree_provider *reader = provider();
    struct speaker speaker = {.archive = archive};
    int source = raw_open(archive->from, O_RDONLY | O_CLOEXEC, 0);
    if (source < 0) return -source;
    int error = reader ? reader->fill(source, archive->index, number, out, say, &speaker) : EIO;
    raw_close(source);
    return error;
}

static int fill(struct fs_archive *archive, uint32_t number, struct cse_index_entry *entry)
{
    char path[PATH_MAX];
    int error = tree_path(archive, entry, path);
    if (error != 0) return error;
    int out = raw_open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
    if (out < 0) return out;
    while (raw(SYS_flock, out, LOCK_EX) == -EINTR) {}
    if (!has_state(entry, CSE_ENTRY_FILLED) && !has_state(entry, CSE_ENTRY_BAD)) {
        error = entry->packed_at ? fill_from_pack(archive, entry, out)
                                 : fill_from_archive(archive, number, out);
        if (error == 0) {
            raw(SYS_fchmod, out, entry->mode & 07777);
            set_times(out, NULL, entry);
            add_state(entry, CSE_ENTRY_FILLED);
        } else if (error == EIO) {
            add_state(entry, CSE_ENTRY_BAD);
        }
    }
    raw_close(out); /* and with it the lock */
    return -error;
}

int fs_archive_fill(struct fs_archive *archive, uint32_t number)
{
    struct cse_index_entry *entry = entry_of(archive, number);
    int absent = present(archive, number, true);
    if (absent != 0) return absent;
    if (entry->is_hard_link) {
        number = entry->target;
        entry = entry_of(archive, number);
    }
    if (entry->size == 0 || has_state(entry, CSE_ENTRY_FILLED)) return 0;
    if (!has_state(entry, CSE_ENTRY_BAD)) {
        int saved_errno = errno;
        int error = fill(archive, number, entry);
        errno = saved_errno;
        if (error != 0) return error;
    }
    return has_state(entry, CSE_ENTRY_BAD) ? -EIO : 0;
}

void fs_archive_fill_libraries(struct fs_archive *archive)
{
    int error;
    const struct cse_index_header *index = fs_archive_index(archive, &error);
    if (index == NULL) return;
    for (uint32_t i = 0; i < index->entry_count; i++) {
        const struct cse_index_entry *entry = entry_of(archive, i);
        const char *name = cse_index_text(index, entry->name);
        const char *so = strstr(name, ".so");
        if (S_ISDIR(entry->mode) || so == NULL || (so[3] != '\0' && so[3] != '.')) continue;
        if (fs_archive_present(archive, i) == 0 && S_ISREG(entry->mode))
            fs_archive_fill(archive, i);
    }
}

void fs_archive_fix(struct fs_archive *archive, uint32_t number, struct stat *status)
{
    const struct cse_index_entry *entry = entry_of(archive, number);
    status->st_mode = entry->mode;
    status->st_uid = archive->owner;
    status->st_gid = archive->group;
    status->st_nlink = entry->links;
    if (S_ISREG(entry->mode)) status->st_blocks = (blkcnt_t)((entry->size + 4095) / 4096 * 8);
    if (S_ISDIR(entry->mode) || S_ISREG(entry->mode)) {
        status->st_mtim.tv_sec = (time_t)entry->mtime;
        status->st_mtim.tv_nsec = (long)entry->mtime_ns;
    }
}
