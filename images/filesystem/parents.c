/* The way to a mount point: names that no directory lists and directories that are nowhere.
 *
 * The kernel does not know our mounts. A directory above a mount point is listed by calls_list.c
 * with the names that are given here; a directory missing on the way through another mount is an
 * empty one of `fs_parents`, a mount of its own that no settings name (mounts.c does the same once
 * and for all where the way is outside every mount). Called by resolve.c and calls_list.c.
 */
#include "fs.h"

#include <stdio.h>
#include <string.h>

struct fs_mount fs_parents;

bool fs_mount_name(const char *directory, int *next, char *name)
{
    size_t length = strcmp(directory, "/") == 0 ? 0 : strlen(directory);
    while (*next < fs_mount_count) {
        const struct fs_mount *mount = &fs_mounts[(*next)++];
        if (mount->length <= length || strncmp(mount->path, directory, length) != 0 ||
            mount->path[length] != '/')
            continue;
        const char *start = mount->path + length + 1;
        size_t part = strcspn(start, "/");
        if (part > NAME_MAX) continue;
        bool known = false;
        for (int i = 0; i < *next - 1 && !known; i++)
            known = strncmp(fs_mounts[i].path, mount->path, length + 1 + part) == 0 &&
                    (fs_mounts[i].path[length + 1 + part] == '/' ||
                     fs_mounts[i].path[length + 1 + part] == '\0');
        if (known) continue;
        memcpy(name, start, part);
        name[part] = '\0';
        return true;
    }
    return false;
}

mode_t fs_mount_kind(const char *path)
{
    const struct fs_mount *mount = fs_mount_of(path);
    if (mount == NULL || path[mount->length] != '\0') return S_IFDIR; /* on the way to one */
    if (mount->error != 0) return 0;
    if (mount->layers[0].computed != NULL) return S_IFREG;
    if (mount->layers[0].encrypted != NULL) return S_IFDIR;
    for (int i = 0; i < mount->layer_count; i++)
        if (mount->layers[i].archive != NULL) return S_IFDIR; /* known without reading it */
    struct stat status;
    char real[PATH_MAX];
    if (fs_layer_path(mount, 0, "", real) != 0 || raw_lstat(real, &status) != 0) return 0;
    return status.st_mode & S_IFMT;
}

int fs_parent_find(struct fs_where *where)
{
    char real[PATH_MAX];
    if (!fs_mount_below(where->path)) return -ENOENT;
    if (snprintf(real, sizeof real, "%s%s", fs_parents.layers[0].root, where->path) >= PATH_MAX)
        return -ENAMETOOLONG;
    int error = fs_make_directories(real, 0755);
    if (error != 0) return error;
    where->mount = &fs_parents;
    where->rel = where->path + 1;
    where->layer = 0;
    where->mode = S_IFDIR | 0755;
    return 0;
}

bool fs_listed_above(int fd, char *path)
{
    uintptr_t value;
    if (fd < 0 || !fs_ready()) return false;
    if (cse_fd_lookup(fd, &value, NULL) && value == FS_FD_OUTSIDE) return false;
    return fs_path_of_fd(fd, path) && fs_mount_below(path);
}
