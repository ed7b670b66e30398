/* From real paths, and from descriptors, back to what the program calls them.
 *
 * The kernel names a descriptor's file (/proc/self/fd) as it really lies. A directory of an
 * archive's skeleton keeps its place as long as it is, so its name is remembered by its inode:
 * whoever walks a tree by descriptors (grep -r, find, rm -r) asks for it with every file.
 * Everything else may be renamed by somebody else and is asked for anew. Called by resolve.c and by
 * the calls that are given a descriptor.
 */
#include "fs.h"

#include <stdio.h>
#include <string.h>

static bool below(const char *real, const char *root, size_t length)
{
    return length > 0 && strncmp(real, root, length) == 0 &&
           (real[length] == '/' || real[length] == '\0');
}

bool fs_virtual_of(const char *real, enum fs_kind kind, char *out)
{
    const struct fs_mount *best = NULL;
    size_t best_length = 0, parents = fs_parents.layers[0].root_length;
    if (parents > 0 && below(real, fs_parents.layers[0].root, parents)) {
        best = &fs_parents;
        best_length = parents;
    }
    for (int i = 0; i < fs_mount_count; i++) {
        const struct fs_mount *mount = &fs_mounts[i];
        size_t shadow = mount->shadow ? strlen(mount->shadow) : 0;
        if (shadow > best_length && below(real, mount->shadow, shadow)) {
            best = mount;
            best_length = shadow;
        }
        int layers = mount->shadow != NULL && kind == FS_DIRECTORY ? 0 : mount->layer_count;
        for (int k = 0; k < layers; k++) {
            const struct fs_layer *layer = &mount->layers[k];
            if (layer->root_length > best_length && below(real, layer->root, layer->root_length)) {
                best = mount;
                best_length = layer->root_length;
            }
        }
    }
    if (best == NULL) return false;
    size_t rest = strlen(real + best_length);
    if (best->length + rest >= PATH_MAX) return false;
    memcpy(out, best->path, best->length);
    memcpy(out + best->length, real + best_length, rest + 1);
    if (best->length + rest == 0) memcpy(out, "/", 2);
    return true;
}

/* ---- directories of archives -------------------------------------------------------------------
 */

enum { KNOWN = 128, KNOWN_TEXT = 240 };

/* A sequence lock each: odd while written. One that a fork left odd is not used any more. */
static struct {
    uint32_t sequence;
    uint64_t inode; /* on the private file system; 0: none */
    char path[KNOWN_TEXT];
} known_directories[KNOWN];

static bool recall_directory(uint64_t inode, char *out)
{
    __typeof__(&known_directories[0]) slot = &known_directories[inode % KNOWN];
    uint32_t before = __atomic_load_n(&slot->sequence, __ATOMIC_ACQUIRE);
    if ((before & 1) || __atomic_load_n(&slot->inode, __ATOMIC_RELAXED) != inode) return false;
    memcpy(out, slot->path, sizeof slot->path);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&slot->sequence, __ATOMIC_RELAXED) == before;
}

static void remember_directory(uint64_t inode, const char *path)
{
    __typeof__(&known_directories[0]) slot = &known_directories[inode % KNOWN];
    size_t length = strlen(path);
    uint32_t before = __atomic_load_n(&slot->sequence, __ATOMIC_RELAXED);
    if (length >= KNOWN_TEXT || (before & 1) ||
        !__atomic_compare_exchange_n(&slot->sequence, &before, before + 1, false, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED))
        return;
    __atomic_store_n(&slot->inode, inode, __ATOMIC_RELAXED);
    memcpy(slot->path, path, length + 1);
    __atomic_store_n(&slot->sequence, before + 2, __ATOMIC_RELEASE);
}

/* Whether the real path of this directory can be remembered. */
static bool keeps_its_place(const char *real)
{
    for (int i = 0; i < fs_mount_count; i++) {
        const struct fs_mount *mount = &fs_mounts[i];
        const struct fs_layer *layer = &mount->layers[0];
        if (mount->layer_count == 1 && layer->archive != NULL &&
            below(real, layer->root, layer->root_length))
            return true;
    }
    return false;
}

/* The inode's number where the descriptor is of a directory that may be in a skeleton; else 0. */
static uint64_t skeleton_inode(int fd)
{
    struct stat status;
    if (fs_private_device == 0 || raw_fstat(fd, &status) != 0 || !S_ISDIR(status.st_mode) ||
        (uint64_t)status.st_dev != fs_private_device)
        return 0;
    return status.st_ino;
}

/* ---- descriptors --------------------------------------------------------------------------------
 */

bool fs_real_of_fd(int fd, char *out)
{
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = raw(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    if (length <= 0 || out[0] != '/') return false;
    out[length] = '\0';
    return true;
}

bool fs_virtual_of_fd(int fd, enum fs_kind kind, char *out)
{
    uintptr_t known;
    uint32_t generation = 0;
    if (fd < 0 || !fs_ready()) return false;
    /* What was inside is so if its path, read below, still says it: no other proof is needed. */
    bool expected = cse_fd_recall(fd, &known) && (known == FS_FD_INSIDE || known == FS_FD_WRITES);
    uint64_t inode = expected ? skeleton_inode(fd) : 0;
    if (inode != 0 && recall_directory(inode, out)) return true;
    if (!expected && cse_fd_lookup(fd, &known, &generation)) {
        if (known != FS_FD_INSIDE && known != FS_FD_WRITES) return false;
    } else if (!expected) {
        known = FS_FD_INSIDE;
    }
    char real[PATH_MAX];
    bool named = fs_real_of_fd(fd, real);
    bool inside = named && fs_virtual_of(real, FS_ANY, out);
    if (!expected || !inside)
        cse_fd_remember(fd, generation, cse_identity_of(fd),
                        inside                          ? known
                        : named && fs_mount_below(real) ? FS_FD_ABOVE
                                                        : FS_FD_OUTSIDE);
    if (inside && inode != 0 && keeps_its_place(real)) remember_directory(inode, out);
    return inside && (kind == FS_ANY || fs_virtual_of(real, kind, out));
}

bool fs_path_of_fd(int fd, char *out)
{
    return fs_virtual_of_fd(fd, FS_DIRECTORY, out) || fs_real_of_fd(fd, out);
}
