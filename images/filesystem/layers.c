/* Which layer of a mount has a name, and under which real path.
 *
 * Layers are asked from the top. An archive answers from its index, without a system call; a
 * directory with one lstat, plus a check that no parent is a link (the kernel would follow it by
 * rules that do not hold across layers). Called by resolve.c for each step of a path.
 */
#include "faults.h"
#include "fs.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

enum { PLAIN_SLOTS = 512, PLAIN_FOR_NS = 20 * 1000 * 1000 };

int fs_layer_path(const struct fs_mount *mount, int layer, const char *rel, char *out)
{
    size_t root = mount->layers[layer].root_length, length = strlen(rel);
    if (root + length + 2 > PATH_MAX) return -ENAMETOOLONG;
    memcpy(out, mount->layers[layer].root, root);
    if (length > 0 || root == 0) out[root++] = '/';
    memcpy(out + root, rel, length + 1);
    return 0;
}

/* ---- parents that are no links ------------------------------------------------------------------
 */

/* Directories lately seen to be reached without a link: hashes of their path, of the time it was in
 * and of how often this process had made a link or moved a name by then. Another process that puts
 * a link in such a place is noticed 20 ms later; this one at once. */
static uint64_t plain[PLAIN_SLOTS];
static uint64_t plain_changes;
static int openat2_missing;

static uint64_t now_ns(void)
{
    struct timespec now;
    raw(SYS_clock_gettime, CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void fs_forget_plain(void)
{
    __atomic_fetch_add(&plain_changes, 1, __ATOMIC_SEQ_CST);
}

static uint64_t hash_of(const char *text, size_t length, uint64_t start)
{
    uint64_t hash = 14695981039346656037u ^ start;
    for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)text[i]) * 1099511628211u;
    return hash | 1;
}

/* Component by component, for kernels or sandboxes without openat2. */
static long walk_parents(char *real, size_t from, size_t end)
{
    struct stat status;
    for (size_t i = from + 1; i <= end; i++) {
        if (real[i] != '/' && i != end) continue;
        char kept = real[i];
        real[i] = '\0';
        long result = raw_lstat(real, &status);
        real[i] = kept;
        if (result != 0) return result;
        if (S_ISLNK(status.st_mode)) return -ELOOP;
        if (!S_ISDIR(status.st_mode)) return -ENOTDIR;
    }
    return 0;
}

/* real[0..end) is a directory reached without links behind real[0..from). 0, -ELOOP, -ENOENT... */
static long check_parents(char *real, size_t from, size_t end)
{
    uint64_t changes = __atomic_load_n(&plain_changes, __ATOMIC_SEQ_CST);
    uint64_t moment = now_ns() / PLAIN_FOR_NS * 0x9e3779b97f4a7c15u + changes;
    uint64_t hash = hash_of(real, end, moment);
    uint64_t *slot = &plain[(hash >> 20) % PLAIN_SLOTS];
    if (__atomic_load_n(slot, __ATOMIC_RELAXED) == hash) return 0;
    long result = -ENOSYS;
    char kept = real[end];
    if (!openat2_missing) {
        struct {
            uint64_t flags, mode, resolve;
        } how = {O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 0x04 /* RESOLVE_NO_SYMLINKS */};
        real[end] = '\0';
        result = raw(SYS_openat2, AT_FDCWD, real, &how, sizeof how);
        real[end] = kept;
        if (result >= 0) {
            raw_close((int)result);
            result = 0;
        } else if (result == -ENOSYS || result == -EPERM) {
            openat2_missing = 1;
            result = -ENOSYS;
        }
    }
    if (result == -ENOSYS) result = walk_parents(real, from, end);
    if (result == 0) __atomic_store_n(slot, hash, __ATOMIC_RELAXED);
    return result;
}

/* ---- one layer
 * ----------------------------------------------------------------------------------- */

static int lookup_directory(const struct fs_layer *layer, const char *rel, mode_t *mode)
{
    char real[PATH_MAX];
    struct stat status;
    size_t root = layer->root_length, length = strlen(rel);
    if (root + length + 2 > PATH_MAX) return -ENAMETOOLONG;
    memcpy(real, layer->root, root);
    if (length > 0 || root == 0) real[root++] = '/';
    memcpy(real + root, rel, length + 1);
    if (layer->computed != NULL) {
        int error = length > 0 ? -ENOTDIR : fs_computed_ready(layer->computed, false);
        if (error != 0) return error;
    }
    if (layer->encrypted != NULL) {
        int error = fs_encrypted_reach(layer->encrypted, rel);
        if (error != 0) return error;
    }
    const char *slash = strrchr(rel, '/');
    if (slash != NULL) {
        long parents = check_parents(real, root - 1, root + (size_t)(slash - rel));
        if (parents == -ELOOP) {
            for (size_t i = 1; i <= length; i++) {
                if (rel[i] != '/') continue;
                real[root + i] = '\0';
                long result = raw_lstat(real, &status);
                real[root + i] = '/';
                if (result != 0) return (int)result;
                if (S_ISLNK(status.st_mode)) return (int)i + 1;
            }
            return -EAGAIN;
        }
        if (parents != 0) return (int)parents;
    }
    long result = raw_lstat(real, &status);
    if (result != 0) return (int)result;
    *mode = status.st_mode;
    return 0;
}

static int lookup_archive(struct fs_archive **archive, const char *rel, mode_t *mode,
                          uint32_t *entry)
{
    int error = fs_archive_find(archive, rel, entry);
    if (error == 0) *mode = cse_index_entries(fs_archive_index(*archive, &error))[*entry].mode;
    return error;
}

bool fs_hidden(const struct fs_mount *mount, int layer, const char *rel)
{
    char path[PATH_MAX * 2];
    struct stat status;
    const char *whiteouts = mount->layers[layer].whiteouts;
    if (whiteouts == NULL || rel[0] == '\0') return false;
    snprintf(path, sizeof path, "%s/%s", whiteouts, rel);
    /* A marker is a file: at the name itself or, then ENOTDIR, at one of its parents. */
    long result = raw_lstat(path, &status);
    return result == -ENOTDIR || (result == 0 && S_ISREG(status.st_mode));
}

/* Whether one of the layers above `layer` has a directory at rel[0..length): a thing of another
 * kind in a lower layer does not show through. */
static bool directory_above(struct fs_where *where, int skip, int layer, size_t length)
{
    char part[PATH_MAX];
    mode_t mode;
    uint32_t entry;
    memcpy(part, where->rel, length);
    part[length] = '\0';
    for (int i = skip; i < layer; i++) {
        const struct fs_layer *above = &where->mount->layers[i];
        struct fs_archive *archive = above->archive;
        int found = archive != NULL ? lookup_archive(&archive, part, &mode, &entry)
                                    : lookup_directory(above, part, &mode);
        if (found == 0 && S_ISDIR(mode)) return true;
    }
    return false;
}

int fs_lookup_below(struct fs_where *where, int skip)
{
    const struct fs_mount *mount = where->mount;
    int result = -ENOENT;
    where->layer = -1;
    for (int i = skip; i < mount->layer_count; i++) {
        const struct fs_layer *layer = &mount->layers[i];
        where->archive = layer->archive;
        int found = layer->archive
                        ? lookup_archive(&where->archive, where->rel, &where->mode, &where->entry)
                        : lookup_directory(layer, where->rel, &where->mode);
        if (found == 0) {
            where->layer = i;
            return 0;
        }
        if (found > 0) {
            if (i == skip || !directory_above(where, skip, i, (size_t)found - 1)) return found;
        } else if (found == -ENOTDIR) {
            /* A file where a parent should be: final, unless a directory above stands in its place.
             */
            const char *slash = strrchr(where->rel, '/');
            if (i == skip || slash == NULL ||
                !directory_above(where, skip, i, (size_t)(slash - where->rel)))
                return -ENOTDIR;
        } else if (found != -ENOENT) {
            return found;
        }
        if (fs_hidden(mount, i, where->rel)) break;
    }
    return result;
}

int fs_lookup(struct fs_where *where)
{
    return fs_lookup_below(where, 0);
}

/* ---- what was found
 * ------------------------------------------------------------------------------- */

int fs_link_text(const struct fs_where *where, char *out, size_t size)
{
    const struct fs_layer *layer = &where->mount->layers[where->layer];
    if (layer->archive != NULL) {
        int error;
        const struct cse_index_header *index = fs_archive_index(where->archive, &error);
        if (index == NULL) return error;
        const char *text = cse_index_text(index, cse_index_entries(index)[where->entry].target);
        size_t length = strlen(text);
        if (length >= size) return -ENAMETOOLONG;
        memcpy(out, text, length + 1);
        return (int)length;
    }
    char real[PATH_MAX];
    int error = fs_layer_path(where->mount, where->layer, where->rel, real);
    if (error != 0) return error;
    long length = raw(SYS_readlinkat, AT_FDCWD, real, out, size - 1);
    if (length >= 0) out[length] = '\0';
    return (int)length;
}

int fs_real(struct fs_where *where)
{
    if (where->layer < 0) return -ENOENT;
    if (S_ISDIR(where->mode) && where->mount->shadow != NULL) return fs_shadow(where, false);
    const struct fs_layer *layer = &where->mount->layers[where->layer];
    if (layer->archive != NULL) {
        int error = fs_archive_present(where->archive, where->entry);
        if (error != 0) return error;
    }
    return fs_layer_path(where->mount, where->layer, where->rel, where->real);
}

int fs_real_content(struct fs_where *where)
{
    if (where->layer < 0) return -ENOENT;
    if (S_ISDIR(where->mode) && where->mount->shadow != NULL) return fs_shadow(where, true);
    const struct fs_layer *layer = &where->mount->layers[where->layer];
    int error = layer->computed != NULL ? fs_computed_ready(layer->computed, true) : 0;
    if (layer->archive != NULL && S_ISREG(where->mode)) fs_prefetch_opened(where);
    fs_shielded++; /* it is no fault of the program's own calls that this meets */
    if (layer->archive != NULL) {
        if (S_ISDIR(where->mode))
            error = fs_archive_list(where->archive, where->entry);
        else if (S_ISREG(where->mode))
            error = fs_archive_fill(where->archive, where->entry);
    }
    if (error == 0) error = fs_real(where);
    if (error == 0 && layer->encrypted != NULL) {
        if (S_ISDIR(where->mode))
            error = fs_encrypted_list(layer->encrypted, where->rel);
        else if (S_ISREG(where->mode))
            error = fs_encrypted_fill(layer->encrypted, where->rel, where->real);
    }
    fs_shielded--;
    return error;
}

void fs_fix_status(const struct fs_where *where, struct stat *status)
{
    if (where->layer < 0) return;
    struct fs_archive *archive =
        where->mount->layers[where->layer].archive != NULL ? where->archive : NULL;
    bool shadow = S_ISDIR(where->mode) && where->mount->shadow != NULL;
    if (archive != NULL && !shadow) fs_archive_fix(archive, where->entry, status);
    if (!shadow) return;
    status->st_mode = (status->st_mode & S_IFMT) | (where->mode & 07777);
    status->st_nlink =
        1; /* "not counted", as overlayfs has it: subdirectories may not be there yet */
}
