/* The skeleton of an archive: directories and files on private tmpfs that are made when somebody
 * looks and filled when somebody opens. Called through fs_real and fs_real_content (layers.c);
 * archive.c tells how it lies on disk.
 */
#include "skeleton.h"

#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>

enum { FILLED_AT_ONCE = 256 << 10 };

static const struct cse_index_entry *entry_of(const struct fs_archive *archive, uint32_t number)
{
    return &cse_index_entries(archive->index)[number];
}

static uint32_t *state_of(const struct fs_archive *archive, const struct cse_index_entry *entry)
{
    return &archive->state[entry - cse_index_entries(archive->index)];
}

static bool has_state(const struct fs_archive *archive, const struct cse_index_entry *entry,
                      uint32_t bits)
{
    return (__atomic_load_n(state_of(archive, entry), __ATOMIC_ACQUIRE) & bits) == bits;
}

static void add_state(const struct fs_archive *archive, const struct cse_index_entry *entry,
                      uint32_t bits)
{
    __atomic_fetch_or(state_of(archive, entry), bits, __ATOMIC_RELEASE);
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
    int fd = fs_archive_open_in(archive, "pack", O_RDONLY, 0);
    void *mapped = MAP_FAILED;
    if (fd >= 0 && raw_fstat(fd, &status) == 0 && status.st_size > 0)
        mapped = raw_map(fd, (size_t)status.st_size, PROT_READ);
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

int fs_archive_tree_fd(struct fs_archive *archive)
{
    int kept = __atomic_load_n(&archive->tree_fd, __ATOMIC_ACQUIRE), none = 0;
    if (kept > 0) return kept - 1;
    int fd = raw_open(archive->tree, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) return fd;
    fd = cse_own_fd(fd);
    if (fd < 0) return -EMFILE;
    if (__atomic_compare_exchange_n(&archive->tree_fd, &none, fd + 1, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return fd;
    cse_own_close(fd);
    return none - 1;
}

int fs_nearest(const struct fs_where *where, const char **path)
{
    const struct fs_mount *mount = where->mount;
    struct fs_archive *archive = where->layer >= 0 ? mount->layers[where->layer].archive : NULL;
    bool shadow = S_ISDIR(where->mode) && mount->shadow != NULL;
    int tree =
        archive != NULL && !shadow && where->rel[0] != '\0' ? fs_archive_tree_fd(archive) : -1;
    *path = tree >= 0 ? where->rel : where->real;
    return tree >= 0 ? tree : AT_FDCWD;
}

/* The archive, opened once in a process; a forked child has its own offset in none of what reads it
 * (pread only), so it may go on with the same. -1: none to keep. */
static int keep_source(struct fs_archive *archive)
{
    int kept = __atomic_load_n(&archive->source, __ATOMIC_ACQUIRE), none = 0;
    if (kept > 0) return kept - 1;
    int fd = fs_archive_open(archive);
    if (fd < 0) return fd;
    fd = cse_own_fd(fd);
    if (fd < 0) return -EMFILE;
    if (__atomic_compare_exchange_n(&archive->source, &none, fd + 1, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return fd;
    cse_own_close(fd);
    return none - 1;
}

static int fill_from_archive(struct fs_archive *archive, uint32_t number, int out)
{
    const struct cse_tree_provider *reader = fs_archive_provider();
    struct fs_speaker speaker = {.archive = archive};
    int source = keep_source(archive);
    if (source < 0) return -source;
    return reader ? reader->fill(source, archive->index, number, out, fs_archive_say, &speaker)
                  : EIO;
}

static int fill_into(struct fs_archive *archive, uint32_t number, int out)
{
    const struct cse_index_entry *entry = entry_of(archive, number);
    int error = entry->packed_at ? fill_from_pack(archive, entry, out)
                                 : fill_from_archive(archive, number, out);
    if (error == 0) {
        fs_count(FS_COUNT_FILLS, 1);
        fs_count(FS_COUNT_FILLED_BYTES, entry->size);
    }
    return error;
}

/* A sparse file, whose time fs_archive_fix shows; a small one whose content is wanted is filled at
 * once. A larger one is filled without the lock of the whole. */
static int make_file(struct fs_archive *archive, uint32_t number, bool content)
{
    const struct cse_index_entry *entry = entry_of(archive, number);
    const char *path = cse_index_text(archive->index, entry->path);
    bool wanted = content && entry->size > 0 && entry->size <= FILLED_AT_ONCE;
    mode_t mode = wanted ? entry->mode & 07777 : open_mode(archive, entry);
    int tree = fs_archive_tree_fd(archive), flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    if (tree < 0) return tree;
    int fd = (int)raw(SYS_openat, tree, path, flags, mode);
    if (fd == -EEXIST) { /* half-made by a process that died */
        raw(SYS_unlinkat, tree, path, 0);
        fd = (int)raw(SYS_openat, tree, path, flags, mode);
    }
    if (fd < 0) return fd;
    bool full = wanted && fill_into(archive, number, fd) == 0;
    long result = full || !wanted ? 0 : raw(SYS_ftruncate, fd, 0);
    if (result == 0 && !full && entry->size > 0) result = raw(SYS_ftruncate, fd, entry->size);
    if (!full) mode = open_mode(archive, entry);
    if (full != wanted || (mode & (fs_umask() | 07000)) != 0) raw(SYS_fchmod, fd, mode);
    if (full || entry->size == 0) set_times(fd, NULL, entry);
    raw_close(fd);
    if (full) add_state(archive, entry, CSE_ENTRY_FILLED);
    return (int)result;
}

static int make_object(struct fs_archive *archive, uint32_t number, bool content)
{
    const struct cse_index_entry *entry = entry_of(archive, number);
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
        return make_file(archive, number, content);
    }
    return result == -EEXIST ? 0 : (int)result;
}

/* Under the lock; parents first. */
static int make_present(struct fs_archive *archive, uint32_t number, bool content)
{
    const struct cse_index_entry *entry = entry_of(archive, number);
    if (has_state(archive, entry, CSE_ENTRY_PRESENT)) return 0;
    int error = entry->parent != CSE_NO_ENTRY ? make_present(archive, entry->parent, false) : 0;
    if (error == 0 && entry->is_hard_link) error = make_present(archive, entry->target, content);
    if (error == 0) error = make_object(archive, number, content);
    if (error == 0) add_state(archive, entry, CSE_ENTRY_PRESENT);
    return error;
}

static int present(struct fs_archive *archive, uint32_t number, bool content)
{
    const struct cse_index_entry *entry = entry_of(archive, number);
    if (has_state(archive, entry, CSE_ENTRY_PRESENT)) return 0;
    int held = fs_archive_lock(archive);
    if (held < 0) return held;
    int error = make_present(archive, number, content);
    fs_archive_unlock(archive, held);
    return error;
}

int fs_archive_present(struct fs_archive *archive, uint32_t number)
{
    return present(archive, number, false);
}

int fs_archive_list(struct fs_archive *archive, uint32_t number)
{
    int error = fs_archive_enter(&archive, &number);
    if (error != 0) return error;
    const struct cse_index_entry *entry = entry_of(archive, number);
    if (has_state(archive, entry, CSE_ENTRY_LISTED)) return 0;
    error = fs_archive_present(archive, number);
    int held = error == 0 ? fs_archive_lock(archive) : error;
    if (held < 0) return held;
    for (uint32_t child = entry->first_child; child != CSE_NO_ENTRY && error == 0;
         child = entry_of(archive, child)->next_sibling)
        error = make_present(archive, child, false);
    if (error == 0) add_state(archive, entry, CSE_ENTRY_LISTED);
    fs_archive_unlock(archive, held);
    return error;
}

/* ---- contents
 * --------------------------------------------------------------------------------------- */

static int fill(struct fs_archive *archive, uint32_t number, const struct cse_index_entry *entry)
{
    char path[PATH_MAX];
    int error = tree_path(archive, entry, path);
    if (error != 0) return error;
    int out = raw_open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
    if (out < 0) return out;
    while (raw(SYS_flock, out, LOCK_EX) == -EINTR) {}
    if (!has_state(archive, entry, CSE_ENTRY_FILLED) && !has_state(archive, entry, CSE_ENTRY_BAD)) {
        error = fill_into(archive, number, out);
        if (error == 0) {
            raw(SYS_fchmod, out, entry->mode & 07777);
            set_times(out, NULL, entry);
            add_state(archive, entry, CSE_ENTRY_FILLED);
        } else {
            /* Nothing half-made stays, nor the room it takes. */
            raw(SYS_ftruncate, out, 0);
            raw(SYS_ftruncate, out, entry->size);
            set_times(out, NULL, entry);
            if (error == EIO) add_state(archive, entry, CSE_ENTRY_BAD);
        }
    }
    raw(SYS_flock, out, LOCK_UN); /* a child forked meanwhile has the descriptor, too */
    raw_close(out);
    return -error;
}

int fs_archive_fill(struct fs_archive *archive, uint32_t number)
{
    const struct cse_index_entry *entry = entry_of(archive, number);
    int absent = present(archive, number, true);
    if (absent != 0) return absent;
    if (entry->is_hard_link) {
        number = entry->target;
        entry = entry_of(archive, number);
    }
    if (entry->size == 0 || has_state(archive, entry, CSE_ENTRY_FILLED)) return 0;
    if (!has_state(archive, entry, CSE_ENTRY_BAD)) {
        int saved_errno = errno;
        int error = fill(archive, number, entry);
        errno = saved_errno;
        if (error != 0) return error;
    }
    return has_state(archive, entry, CSE_ENTRY_BAD) ? -EIO : 0;
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
