/* The index of an archive: made once, kept for the application's next run, mapped by all.
 *
 * It lies in data/fs-index/<n>-<identity>, with the pack of contents beside it; private/fs/a<n>/
 * links to both for this run. The identity is that of the archive's file (device, inode, size,
 * times), of the settings, and of the machine's boot, because nothing is synced to disk: what a
 * power cut may have damaged has another identity. Where that directory cannot be written, where
 * the archive lies in another mount or archive, and of an archive that cannot be shown, the index
 * is private. Called by layers.c for each look into an archive, through fs_archive_index.
 */
#include "skeleton.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static uint64_t mix(uint64_t hash, const void *data, size_t size)
{
    const unsigned char *at = data;
    for (size_t i = 0; i < size; i++) hash = (hash ^ at[i]) * 1099511628211u;
    return hash;
}

uint64_t fs_archive_identity(const struct fs_archive *archive, const struct stat *status)
{
    const struct cse_tree_limits *limits = &archive->limits;
    char boot[40] = "";
    uint64_t numbers[] = {(uint64_t)status->st_dev,
                          (uint64_t)status->st_ino,
                          (uint64_t)status->st_size,
                          (uint64_t)status->st_mtim.tv_sec,
                          (uint64_t)status->st_mtim.tv_nsec,
                          (uint64_t)status->st_ctim.tv_sec,
                          (uint64_t)status->st_ctim.tv_nsec,
                          limits->max_bytes,
                          limits->max_entries,
                          limits->max_ratio,
                          limits->cache_bytes,
                          limits->strip,
                          limits->nested,
                          limits->links_inside};
    int fd = raw_open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC, 0);
    if (fd >= 0) {
        raw(SYS_read, fd, boot, sizeof boot - 1);
        raw_close(fd);
    }
    uint64_t hash = mix(14695981039346656037u, numbers, sizeof numbers);
    hash = mix(hash, boot, sizeof boot);
    hash = mix(hash, CSE_INDEX_MAGIC, sizeof CSE_INDEX_MAGIC);
    return mix(hash, limits->subpath, strlen(limits->subpath));
}

struct siblings {
    const char *directory;
    char own[32], number[16];
};

/* An index of the same mount for another archive, or another version of it. */
static int drop_older(const char *name, unsigned char type, void *context)
{
    const struct siblings *siblings = context;
    char path[PATH_MAX + 300];
    if (strncmp(name, siblings->number, strlen(siblings->number)) != 0 ||
        strcmp(name, siblings->own) == 0)
        return 0;
    snprintf(path, sizeof path, "%s/%s", siblings->directory, name);
    fs_remove_tree(path);
    return 0;
}

/* The directory that keeps the index, with nothing of older ones beside it; false: none can. */
static bool kept_directory(const struct fs_archive *archive, const struct stat *status, char *out)
{
    char above[PATH_MAX];
    struct siblings siblings = {.directory = above};
    if (archive->inside != NULL || archive->outer != NULL || archive->common) return false;
    snprintf(above, sizeof above, "%.3800s/data/fs-index", cse_run_dir());
    snprintf(siblings.number, sizeof siblings.number, "%d-", archive->number);
    snprintf(siblings.own, sizeof siblings.own, "%d-%016llx", archive->number,
             (unsigned long long)fs_archive_identity(archive, status));
    snprintf(out, PATH_MAX, "%s/%s", above, siblings.own);
    if (fs_make_directories(out, 0755) != 0 || raw(SYS_faccessat, AT_FDCWD, out, 2 /* W_OK */) != 0)
        return false;
    fs_each_name(above, drop_older, &siblings);
    return true;
}

/* ---- making it ----------------------------------------------------------------------------------
 */

static int open_at(const char *directory, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = raw_open(path, flags | O_CLOEXEC, mode);
    if (fd >= 0 && (flags & O_CREAT)) raw(SYS_fchmod, fd, mode); /* whatever the umask is */
    return fd;
}

static int move(const char *directory, const char *from, const char *to)
{
    char old[PATH_MAX + 64], fresh[PATH_MAX + 64];
    snprintf(old, sizeof old, "%s/%s", directory, from);
    snprintf(fresh, sizeof fresh, "%s/%s", directory, to);
    return (int)raw(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, fresh, 0);
}

/* private/fs/a<n>/NAME, which leads to the kept file. */
static int lead(const struct fs_archive *archive, const char *kept, const char *name)
{
    char link[PATH_MAX + 64], target[PATH_MAX + 64];
    snprintf(link, sizeof link, "%s/%s", archive->directory, name);
    snprintf(target, sizeof target, "%s/%s", kept, name);
    return (int)raw(SYS_symlinkat, target, AT_FDCWD, link);
}

static int store_error(const struct fs_archive *archive, int error)
{
    if (archive->common) return -error; /* each application is to be told the reason */
    struct cse_index_header header = {
        .magic = CSE_INDEX_MAGIC, .error = error, .file_size = sizeof header};
    int fd = open_at(archive->directory, "index.new", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) return fd;
    long put = raw(SYS_write, fd, &header, sizeof header);
    raw_close(fd);
    if (put != (long)sizeof header) return put < 0 ? (int)put : -ENOSPC;
    return move(archive->directory, "index.new", "index");
}

static int spend(struct fs_archive *archive, int index)
{
    struct cse_index_header header;
    long got = raw(SYS_pread64, index, &header, sizeof header, 0);
    return got == (long)sizeof header ? fs_archive_spend(archive, &header) : EIO;
}

static int build(struct fs_archive *archive, int source, const char *directory)
{
    const struct cse_tree_provider *reader = fs_archive_provider();
    struct fs_speaker speaker = {.archive = archive};
    if (reader == NULL) {
        fs_archive_say(&speaker, "", "libcse-archive.so is missing beside libcse-fs.so");
        return EIO;
    }
    struct stat status;
    fs_progress_begin(archive, raw_fstat(source, &status) == 0 ? (uint64_t)status.st_size : 0);
    int index = open_at(directory, "index.new", O_RDWR | O_CREAT | O_TRUNC, 0644);
    int pack = open_at(directory, "pack", O_RDWR | O_CREAT | O_TRUNC, 0644);
    int error =
        index < 0  ? -index
        : pack < 0 ? -pack
                   : reader->build(source, index, pack, &archive->limits, fs_archive_say, &speaker);
    if (error == 0 && archive->outer != NULL) error = spend(archive, index);
    fs_progress_end(error == 0 ? index : -1);
    if (error != 0 && index >= 0) raw(SYS_ftruncate, index, 0); /* give the room back */
    if (error != 0 && pack >= 0) raw(SYS_ftruncate, pack, 0);
    if (index >= 0) raw_close(index);
    if (pack >= 0) raw_close(pack);
    return error != 0 ? error : -move(directory, "index.new", "index");
}

static bool for_now(int error)
{
    return error == ENOSPC || error == ENOMEM || error == EMFILE || error == ENFILE;
}

/* Under the lock: private/fs/a<n>/index, or negative errno where another try may help. */
static int find_or_build(struct fs_archive *archive)
{
    char kept[PATH_MAX];
    struct stat status;
    struct fs_speaker speaker = {.archive = archive};
    int source = fs_archive_open(archive);
    if (source < 0) {
        fs_archive_say(&speaker, "", "its archive cannot be opened");
        return for_now(-source) ? source : store_error(archive, -source);
    }
    bool keeps = raw_fstat(source, &status) == 0 && kept_directory(archive, &status, kept);
    const char *directory = keeps ? kept : archive->directory;
    int index = keeps ? open_at(kept, "index", O_RDONLY, 0) : -ENOENT;
    int error = index < 0 ? build(archive, source, directory) : 0;
    if (error == ENOSPC && keeps) { /* of data/: private/ is another place */
        fs_remove_tree(kept);
        keeps = false;
        error = build(archive, source, archive->directory);
    }
    if (index >= 0) raw_close(index);
    raw_close(source);
    if (error != 0 && keeps) fs_remove_tree(kept);
    if (error != 0) return for_now(error) ? -error : store_error(archive, error);
    if (!keeps) return 0;
    error = lead(archive, kept, "pack");
    return error == 0 || error == -EEXIST ? lead(archive, kept, "index") : error;
}

static int make_index(struct fs_archive *archive)
{
    char path[PATH_MAX + 64];
    struct stat status;
    int error = fs_make_directories(archive->directory, 0777);
    if (error != 0) return error;
    int made = fs_archive_open_in(archive, "lock", O_RDWR | O_CREAT | O_EXCL, 0666);
    if (made >= 0) raw_close(made);
    int held = fs_archive_lock(archive);
    if (held < 0) return held;
    snprintf(path, sizeof path, "%s/index", archive->directory);
    if (raw_lstat(path, &status) != 0) error = find_or_build(archive);
    fs_archive_unlock(archive, held);
    return error;
}

/* ---- mapping it ---------------------------------------------------------------------------------
 */

/* What has been done with each entry, in this run. */
static int map_state(struct fs_archive *archive, uint32_t count)
{
    size_t size = (size_t)count * sizeof *archive->state;
    struct stat status;
    if (size == 0) return 0;
    int fd = fs_archive_open_in(archive, "state", O_RDWR, 0);
    if (fd == -ENOENT) fd = fs_archive_open_in(archive, "state", O_RDWR | O_CREAT, 0666);
    if (fd < 0) return fd;
    int error = (int)raw_fstat(fd, &status);
    /* Allocated: a write to a hole of a full file system would be a SIGBUS. */
    if (error == 0 && (size_t)status.st_size < size)
        error = (int)raw(SYS_fallocate, fd, 0, 0, size);
    uint32_t *state = error == 0 ? raw_map(fd, size, PROT_READ | PROT_WRITE) : MAP_FAILED;
    raw_close(fd);
    if (state == MAP_FAILED) return error != 0 ? error : -ENOMEM;
    uint32_t *none = NULL;
    if (!__atomic_compare_exchange_n(&archive->state, &none, state, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        munmap(state, size);
    return 0;
}

static int map_index(struct fs_archive *archive)
{
    struct stat status, above;
    int fd = fs_archive_open_in(archive, "index", O_RDONLY, 0);
    if (fd < 0) return fd;
    long result = raw_fstat(fd, &status);
    struct cse_index_header *index = MAP_FAILED;
    if (result == 0 && (size_t)status.st_size >= sizeof *index)
        index = raw_map(fd, (size_t)status.st_size, PROT_READ);
    raw_close(fd);
    if (index == MAP_FAILED) return -EIO;
    if (memcmp(index->magic, CSE_INDEX_MAGIC, sizeof index->magic) != 0 ||
        index->file_size > (uint64_t)status.st_size) {
        munmap(index, (size_t)status.st_size);
        return -EIO;
    }
    int error = map_state(archive, index->entry_count);
    if (error != 0) {
        munmap(index, (size_t)status.st_size);
        return error;
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
        bool within = archive->opener != 0 && archive->opener == (pid_t)raw(SYS_gettid);
        *error = within ? -ELOOP : fs_archive_hold(archive);
        if (*error == 0) *error = map_index(archive);
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
