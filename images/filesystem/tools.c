/* What the overlay tells cse-files (files/) of mounts and layers: tools.h, answered. Nothing here
 * is called by a program of the application itself, and nothing changes what it sees.
 */
#include "tools.h"
#include "skeleton.h"

#include <stdio.h>
#include <string.h>

/* Not the second names that mounts.c gives to those whose parents are links. */
static const struct fs_mount *given(int number)
{
    if (number < 0 || number >= fs_mount_count) return NULL;
    const struct fs_mount *mount = &fs_mounts[number];
    for (int i = 0; i < number; i++)
        if (mount->layer_count > 0 && fs_mounts[i].layer_count > 0 &&
            fs_mounts[i].layers[0].root == mount->layers[0].root)
            return NULL;
    return mount;
}

static bool show_mount(int number, struct cse_fs_view *out)
{
    const struct fs_mount *mount = fs_ready() ? given(number) : NULL;
    if (mount == NULL) return false;
    *out = (struct cse_fs_view){
        .path = mount->length > 0 ? mount->path : "/",
        .error = -mount->error,
        .cow = mount->cow,
        .read_only = mount->read_only,
        .layers = mount->layer_count,
        .upper = mount->cow ? mount->layers[0].root : NULL,
        .whiteouts = mount->cow ? mount->layers[0].whiteouts : NULL,
    };
    return true;
}

static const char *kind_of(const struct fs_layer *layer)
{
    char memory[PATH_MAX];
    int length = snprintf(memory, sizeof memory, "%s/memory/", cse_run_dir());
    return layer->whiteouts != NULL                                          ? "upper"
           : layer->archive != NULL                                          ? "archive"
           : layer->encrypted                                                ? "encrypted"
           : layer->computed                                                 ? "computed"
           : length > 0 && strncmp(layer->root, memory, (size_t)length) == 0 ? "memory"
                                                                             : "directory";
}

static bool show_layer(int number, int layer, struct cse_fs_layer_view *out)
{
    const struct fs_mount *mount = given(number);
    if (mount == NULL || layer < 0 || layer >= mount->layer_count) return false;
    const struct fs_layer *found = &mount->layers[layer];
    const struct fs_archive *archive = found->archive;
    *out = (struct cse_fs_layer_view){
        .kind = kind_of(found),
        .root = found->root_length > 0 ? found->root : "/",
        .from = archive == NULL   ? NULL
                : archive->inside ? archive->inside
                                  : archive->from,
        .inside = archive != NULL && archive->inside != NULL,
    };
    return true;
}

/* An entry of an archive as stat would show it, without making it. */
static int archive_status(struct fs_archive *archive, uint32_t number, struct cse_fs_look *out)
{
    int error;
    const struct cse_index_header *index = fs_archive_index(archive, &error);
    if (index == NULL) return error;
    const struct cse_index_entry *entry = &cse_index_entries(index)[number];
    if (entry->is_hard_link) number = entry->target;
    uint32_t state = __atomic_load_n(&archive->state[number], __ATOMIC_ACQUIRE);
    out->status.st_size = (off_t)entry->size;
    if (S_ISLNK(entry->mode))
        out->status.st_size = (off_t)strlen(cse_index_text(index, entry->target));
    fs_archive_fix(archive, number, &out->status);
    out->state = !S_ISREG(entry->mode) || entry->size == 0 ? CSE_FS_THERE
                 : state & CSE_ENTRY_BAD                   ? CSE_FS_DAMAGED
                 : state & CSE_ENTRY_FILLED                ? CSE_FS_THERE
                                                           : CSE_FS_UNFILLED;
    return 0;
}

static int describe(const struct fs_where *where, struct cse_fs_look *out)
{
    out->layer = where->layer;
    snprintf(out->path, sizeof out->path, "%s", where->path[0] ? where->path : "/");
    for (int i = 0; i < fs_mount_count && out->mount < 0; i++)
        if (where->mount->layers[0].root == fs_mounts[i].layers[0].root) out->mount = i;
    if (where->mount == &fs_parents || out->mount < 0) {
        out->leads = true;
        out->mount = -1;
        return 0;
    }
    out->hidden = fs_hidden(where->mount, 0, where->rel);
    if (where->layer < 0) return 0;
    const struct fs_layer *layer = &where->mount->layers[where->layer];
    int error = fs_layer_path(where->mount, where->layer, where->rel, out->real);
    if (error != 0) return error;
    if (layer->archive != NULL) return archive_status(where->archive, where->entry, out);
    return (int)raw_lstat(out->real, &out->status);
}

/* `path` is in a mount, without links on the way: what its layers from `skip` on have there. */
static int find_below(const char *path, int skip, struct fs_where *where)
{
    int found = fs_normal(path, where->path);
    if (found != 0) return found;
    where->mount = fs_mount_of(where->path);
    if (where->mount == NULL || where->mount->error != 0) return -ENOENT;
    where->rel = where->path + where->mount->length + (where->path[where->mount->length] == '/');
    found = fs_lookup_below(where, skip);
    return found > 0 ? -ENOENT : found;
}

static int look(const char *path, bool follow, int skip, struct cse_fs_look *out)
{
    struct fs_where where = {.layer = -1};
    memset(out, 0, sizeof *out);
    out->mount = out->layer = -1;
    int found;
    if (skip > 0) {
        found = find_below(path, skip, &where);
        return found != 0 ? found : describe(&where, out);
    }
    found = fs_find(AT_FDCWD, path, follow, &where);
    if (found < 0) return found;
    if (found == FS_INSIDE) {
        int error = describe(&where, out);
        return error != 0 ? error : where.layer < 0 ? -ENOENT : 0;
    }
    snprintf(out->path, sizeof out->path, "%s", found == FS_REWRITTEN ? where.path : path);
    return 0;
}

/* From the index: the skeleton need not have them. */
static int archive_names(struct fs_archive *archive, uint32_t number,
                         int (*each)(const char *name, unsigned char type, void *), void *context)
{
    int error = fs_archive_enter(&archive, &number);
    const struct cse_index_header *index = error == 0 ? fs_archive_index(archive, &error) : NULL;
    if (index == NULL) return error;
    const struct cse_index_entry *entries = cse_index_entries(index);
    uint32_t child = entries[number].first_child;
    for (; child != CSE_NO_ENTRY && error == 0; child = entries[child].next_sibling)
        error = each(cse_index_text(index, entries[child].name), 0, context);
    return error;
}

static int names(const char *path, int skip,
                 int (*each)(const char *name, unsigned char type, void *), void *context)
{
    struct fs_where where = {.layer = -1};
    int found = find_below(path, skip, &where);
    if (found != 0) return found;
    while (found == 0 && S_ISDIR(where.mode)) {
        const struct fs_layer *layer = &where.mount->layers[where.layer];
        int error = layer->archive == NULL
                        ? fs_layer_path(where.mount, where.layer, where.rel, where.real)
                        : archive_names(where.archive, where.entry, each, context);
        if (error == 0 && layer->archive == NULL) error = fs_each_name(where.real, each, context);
        if (error != 0) return error;
        int next = where.layer + 1;
        found = next < where.mount->layer_count ? fs_lookup_below(&where, next) : -ENOENT;
    }
    return 0;
}

static int content(const char *path, int skip)
{
    struct fs_where where = {.layer = -1};
    int found = find_below(path, skip, &where);
    if (found == 0 && !S_ISREG(where.mode)) return -EINVAL;
    if (found == 0) found = fs_real_content(&where);
    return found != 0 ? found
                      : raw_open(where.real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
}

CSE_EXPORT const struct cse_fs_tools cse_fs_tools = {
    .mount = show_mount,
    .layer = show_layer,
    .look = look,
    .names = names,
    .content = content,
};
