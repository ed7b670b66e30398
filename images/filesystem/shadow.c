/* Shadows: one real directory for what several layers show as one.
 *
 * private/fs/m<n>/ mirrors the directories of mount n as far as they have been looked at, with an
 * empty placeholder of the right kind for every other entry, so that the kernel lists the merged
 * directory, with right types, to whatever reads it. A directory's identity, times and permissions
 * are those of its shadow. A shadow is brought up to date when it is opened and a layer has changed
 * since: the stamp (identities and change times of the layers' directories) lies beside it in
 * m<n>.stamps/.
 *
 * Other processes change the layers meanwhile, and tell the shadow themselves. Whoever merges a
 * directory has its lock: so what a merge that began before a change still does is done before
 * whoever made the change can list the directory. Directories come into a shadow and leave it only
 * under the lock of the one they lie in, removed from the layer and the shadow at once (cow.c), so
 * that no shadow goes which somebody has just been given. Files come and go without it; a merge
 * looks at a name again before and after it changes what is there.
 */
#include "stamps.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

struct linux_dirent64 {
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
    char d_name[];
};

int fs_each_name(const char *directory, int (*each)(const char *name, unsigned char type, void *),
                 void *context)
{
    char block[16384] __attribute__((aligned(8)));
    int fd = raw_open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0) return fd;
    long got, result = 0;
    while (result == 0 && (got = raw(SYS_getdents64, fd, block, sizeof block)) != 0) {
        if (got < 0) result = got;
        for (long at = 0; at < got && result == 0;) {
            struct linux_dirent64 *entry = (struct linux_dirent64 *)(block + at);
            at += entry->d_reclen;
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                result = each(entry->d_name, entry->d_type, context);
        }
    }
    raw_close(fd);
    return (int)result;
}

struct removal {
    const char *path;
    int found;
};

static int remove_one(const char *name, unsigned char type, void *context)
{
    struct removal *removal = context;
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", removal->path, name) >= PATH_MAX) return -ENAMETOOLONG;
    removal->found = 1;
    return fs_remove_tree(path);
}

int fs_remove_tree(const char *path)
{
    long result = raw(SYS_unlinkat, AT_FDCWD, path, 0);
    if (result != -EISDIR && result != -EPERM) return (int)result;
    result = raw(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
    while (result == -ENOTEMPTY || result == -EEXIST) {
        struct removal removal = {.path = path};
        int error = fs_each_name(path, remove_one, &removal);
        if (error != 0) return error;
        result = raw(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
        if (!removal.found) break;
    }
    return (int)result;
}

bool fs_shadow_path(const struct fs_mount *mount, const char *rel, char *out)
{
    if (mount->shadow == NULL) return false;
    return snprintf(out, PATH_MAX, "%s%s%s", mount->shadow, rel[0] ? "/" : "", rel) < PATH_MAX;
}

/* ---- making the directory itself
 * ------------------------------------------------------------------ */

/* cow's own root was made for this application; it looks like the one below it. */
static int layer_of_attributes(const struct fs_where *where)
{
    return where->rel[0] == '\0' && where->mount->cow ? 1 : where->layer;
}

/* The real directory of the layer that `where` was found in. */
static int topmost(struct fs_where *where, char *out)
{
    int number = layer_of_attributes(where);
    const struct fs_layer *layer = &where->mount->layers[number];
    if (layer->archive != NULL) {
        int error;
        if (fs_archive_index(layer->archive, &error) == NULL) return error;
        error = number == where->layer ? fs_archive_present(where->archive, where->entry)
                                       : fs_archive_present(layer->archive, 0);
        if (error != 0) return error;
    }
    return fs_layer_path(where->mount, number, where->rel, out);
}

static void copy_attributes(const struct fs_where *where, const char *from, const char *to,
                            bool for_all)
{
    struct stat status;
    if (raw_lstat(from, &status) != 0) return;
    int number = layer_of_attributes(where);
    struct fs_archive *archive = where->mount->layers[number].archive;
    if (archive != NULL)
        fs_archive_fix(number == where->layer ? where->archive : archive,
                       number == where->layer ? where->entry : 0, &status);
    struct timespec times[2] = {status.st_atim, status.st_mtim};
    raw(SYS_fchownat, AT_FDCWD, to, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW);
    /* Any user of the application must be able to bring it up to date; fs_fix_status hides that. */
    raw(SYS_fchmodat, AT_FDCWD, to, (status.st_mode & 07777) | (for_all ? 0777 : 0700));
    raw(SYS_utimensat, AT_FDCWD, to, times, 0);
}

/* The lock of the parent is held, or there is none. */
static int place_directory(struct fs_where *where, const char *path)
{
    char real[PATH_MAX], parent[PATH_MAX];
    struct stat before;
    int error = topmost(where, real);
    if (error != 0) return error;
    snprintf(parent, sizeof parent, "%s", path);
    *strrchr(parent, '/') = '\0';
    bool timed = raw_lstat(parent, &before) == 0;
    long result = raw(SYS_mkdirat, AT_FDCWD, path, 0700);
    if (result == -EEXIST) return 0;
    if (result != 0) return (int)result;
    copy_attributes(where, real, path, raw(SYS_geteuid) == 0);
    if (timed && where->rel[0] != '\0') {
        struct timespec times[2] = {before.st_atim, before.st_mtim};
        raw(SYS_utimensat, AT_FDCWD, parent, times, 0);
    }
    return 0;
}

static int make_shadow(struct fs_where *where, char *path);

/* The shadow of the directory that `where` lies in; `path` is that of its own. */
static int make_parent(const struct fs_where *where, char *path)
{
    struct fs_where parent;
    const struct fs_mount *mount = where->mount;
    char *cut = strrchr(path, '/');
    const char *slash = strrchr(where->path, '/');
    parent.mount = mount;
    snprintf(parent.path, PATH_MAX, "%.*s", (int)(slash - where->path), where->path);
    parent.rel = parent.path + mount->length + (parent.path[mount->length] == '/');
    int error = fs_lookup(&parent);
    *cut = '\0';
    if (error == 0) error = make_shadow(&parent, path);
    *cut = '/';
    return error > 0 ? -EAGAIN : error;
}

static int make_shadow(struct fs_where *where, char *path)
{
    struct stat status;
    struct fs_shadow_lock lock;
    if (raw_lstat(path, &status) == 0 && S_ISDIR(status.st_mode)) return 0;
    if (where->rel[0] == '\0') return place_directory(where, path);
    int error = make_parent(where, path);
    if (error != 0) return error;
    fs_shadow_lock_parents(where->mount, where->rel, NULL, &lock);
    error = fs_lookup(where); /* it may be gone by now */
    if (error == 0 && !S_ISDIR(where->mode)) error = -ENOTDIR;
    if (error == 0 && raw_lstat(path, &status) == 0 && !S_ISDIR(status.st_mode))
        raw(SYS_unlinkat, AT_FDCWD, path, 0); /* was something else before */
    if (error == 0) error = place_directory(where, path);
    fs_shadow_unlock(&lock);
    return error > 0 ? -EAGAIN : error;
}

/* ---- the merged listing
 * ------------------------------------------------------------------------------- */

/* Names already given by a layer above: open addressing over text kept in one mapping. */
struct names {
    char *text;
    size_t used, size;
    uint32_t *slots; /* 1 + offset of the name */
    size_t slot_count, count;
};

static bool grow_names(struct names *names, size_t length)
{
    if (names->used + length + 1 > names->size) {
        size_t size = names->size ? names->size * 2 : 1 << 20;
        char *text = names->text ? mremap(names->text, names->size, size, MREMAP_MAYMOVE)
                                 : mmap(NULL, size, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (text == MAP_FAILED) return false;
        names->text = text;
        names->size = size;
    }
    if (names->count * 2 < names->slot_count) return true;
    size_t count = names->slot_count ? names->slot_count * 4 : 4096;
    uint32_t *slots = mmap(NULL, count * sizeof *slots, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (slots == MAP_FAILED) return false;
    for (size_t at = 0; at < names->used;) {
        size_t name_length = strlen(names->text + at);
        size_t slot = cse_index_hash(names->text + at, (uint32_t)name_length) & (count - 1);
        while (slots[slot] != 0) slot = (slot + 1) & (count - 1);
        slots[slot] = (uint32_t)at + 1;
        at += name_length + 1;
    }
    if (names->slots) munmap(names->slots, names->slot_count * sizeof *slots);
    names->slots = slots;
    names->slot_count = count;
    return true;
}

/* 1: added, 0: was there, negative: no memory. */
static int add_name(struct names *names, const char *name)
{
    size_t length = strlen(name);
    if (!grow_names(names, length)) return -ENOMEM;
    size_t slot = cse_index_hash(name, (uint32_t)length) & (names->slot_count - 1);
    for (; names->slots[slot] != 0; slot = (slot + 1) & (names->slot_count - 1))
        if (strcmp(names->text + names->slots[slot] - 1, name) == 0) return 0;
    memcpy(names->text + names->used, name, length + 1);
    names->slots[slot] = (uint32_t)names->used + 1;
    names->used += length + 1;
    names->count++;
    return 1;
}

static bool has_name(const struct names *names, const char *name)
{
    if (names->slot_count == 0) return false;
    size_t slot = cse_index_hash(name, (uint32_t)strlen(name)) & (names->slot_count - 1);
    for (; names->slots[slot] != 0; slot = (slot + 1) & (names->slot_count - 1))
        if (strcmp(names->text + names->slots[slot] - 1, name) == 0) return true;
    return false;
}

static void free_names(struct names *names)
{
    if (names->text) munmap(names->text, names->size);
    if (names->slots) munmap(names->slots, names->slot_count * sizeof *names->slots);
}

struct merge {
    const struct fs_where *where;
    const char *shadow;
    int layer;
    struct names seen, before;
    int changed;
};

/* The kind of file that stands for one. */
static mode_t kind_shown(mode_t mode)
{
    return S_ISBLK(mode) || S_ISCHR(mode) ? S_IFREG : mode & S_IFMT;
}

static int put_placeholder(const char *path, mode_t mode)
{
    long result;
    if (S_ISDIR(mode))
        result = raw(SYS_mkdirat, AT_FDCWD, path, 0755);
    else if (S_ISLNK(mode))
        result = raw(SYS_symlinkat, "placeholder", AT_FDCWD, path);
    else
        result = raw(SYS_mknodat, AT_FDCWD, path, kind_shown(mode) | 0444, 0);
    return result == -EEXIST ? 0 : (int)result;
}

/* Makes the placeholder of a name what the layers have there now, and not what they had when the
 * merge came by. */
static int put_again(const struct merge *merge, const char *name)
{
    struct fs_where child;
    struct stat status;
    const struct fs_where *where = merge->where;
    char path[PATH_MAX];
    child.mount = where->mount;
    int length =
        snprintf(child.path, PATH_MAX, "%s/%s", where->path[1] != '\0' ? where->path : "", name);
    if (length >= PATH_MAX) return 0;
    if (snprintf(path, sizeof path, "%s/%s", merge->shadow, name) >= PATH_MAX) return 0;
    child.rel = child.path + where->mount->length + 1;
    int found = fs_lookup(&child);
    bool shown = raw_lstat(path, &status) == 0;
    if (shown && (found != 0 || kind_shown(status.st_mode) != kind_shown(child.mode)))
        fs_remove_tree(path);
    if (found != 0) return 0;
    if (!S_ISDIR(child.mode)) {
        int error = put_placeholder(path, child.mode);
        if (fs_lookup(&child) != 0) fs_remove_tree(path);
        return error;
    }
    int error = place_directory(&child, path);
    return error == -ENOENT || error == -ENOTDIR ? 0 : error;
}

static int merge_name(const char *name, mode_t mode, struct merge *merge)
{
    char path[PATH_MAX];
    struct stat status;
    const struct fs_where *where = merge->where;
    for (int i = 0; i < merge->layer; i++) {
        if (where->mount->layers[i].whiteouts == NULL) continue;
        if (snprintf(path, sizeof path, "%s%s%s", where->rel, where->rel[0] ? "/" : "", name) >=
            PATH_MAX)
            return 0;
        if (fs_hidden(where->mount, i, path)) return 0;
    }
    int added = add_name(&merge->seen, name);
    if (added <= 0) return added;
    if (snprintf(path, sizeof path, "%s/%s", merge->shadow, name) >= PATH_MAX) return 0;
    bool first = merge->before.count == 0;
    if (!first && raw_lstat(path, &status) == 0 && kind_shown(status.st_mode) == kind_shown(mode))
        return 0;
    merge->changed = 1;
    return first && !S_ISDIR(mode) ? put_placeholder(path, mode) : put_again(merge, name);
}

static int merge_dirent(const char *name, unsigned char type, void *context)
{
    struct merge *merge = context;
    mode_t mode = (mode_t)DTTOIF(type);
    if (type == DT_UNKNOWN) {
        char real[PATH_MAX], path[PATH_MAX];
        struct stat status;
        if (fs_layer_path(merge->where->mount, merge->layer, merge->where->rel, real) != 0 ||
            snprintf(path, sizeof path, "%s/%s", real, name) >= PATH_MAX ||
            raw_lstat(path, &status) != 0)
            return 0;
        mode = status.st_mode;
    }
    return merge_name(name, mode, merge);
}

static int merge_archive(struct merge *merge, const struct fs_layer *layer)
{
    struct fs_archive *archive = layer->archive;
    uint32_t number;
    int error = fs_archive_find(&archive, merge->where->rel, &number);
    if (error == 0) error = fs_archive_enter(&archive, &number);
    if (error != 0) return error < 0 ? error : -ENOENT;
    const struct cse_index_header *index = fs_archive_index(archive, &error);
    const struct cse_index_entry *entries = cse_index_entries(index);
    if (!S_ISDIR(entries[number].mode)) return -ENOENT;
    for (uint32_t child = entries[number].first_child; child != CSE_NO_ENTRY && error == 0;
         child = entries[child].next_sibling)
        error = merge_name(cse_index_text(index, entries[child].name), entries[child].mode, merge);
    return error;
}

static int note_before(const char *name, unsigned char type, void *context)
{
    int added = add_name(&((struct merge *)context)->before, name);
    return added < 0 ? added : 0;
}

static int drop_stale(const char *name, unsigned char type, void *context)
{
    struct merge *merge = context;
    if (has_name(&merge->seen, name)) return 0;
    merge->changed = 1;
    return put_again(merge, name);
}

static int merge_layers(struct merge *merge)
{
    const struct fs_where *where = merge->where;
    char real[PATH_MAX];
    for (int i = where->layer; i < where->mount->layer_count; i++) {
        const struct fs_layer *layer = &where->mount->layers[i];
        merge->layer = i;
        int error;
        if (layer->archive != NULL) {
            error = merge_archive(merge, layer);
        } else {
            error = fs_layer_path(where->mount, i, where->rel, real);
            if (error == 0) error = fs_each_name(real, merge_dirent, merge);
        }
        /* Something that is no directory here does not show through, nor does what lies below. */
        if (error == -ENOTDIR || error == -ELOOP) break;
        if (error != 0 && error != -ENOENT) return error;
        if (fs_hidden(where->mount, i, where->rel)) break;
    }
    return 0;
}

/* Under the lock. */
static int merge_into(const struct fs_where *where, const char *shadow)
{
    struct fs_stamp stamp;
    int error = fs_stamp_of(where, shadow, &stamp);
    if (error != 0 || fs_stamp_holds(&stamp)) return error;
    struct merge merge = {.where = where, .shadow = shadow};
    error = fs_each_name(shadow, note_before, &merge);
    bool first = merge.before.count == 0;
    if (error == 0) error = merge_layers(&merge);
    if (error == 0 && !first) error = fs_each_name(shadow, drop_stale, &merge);
    free_names(&merge.seen);
    free_names(&merge.before);
    if (error != 0) return error;
    if (first && merge.changed) raw(SYS_utimensat, AT_FDCWD, shadow, stamp.times, 0);
    if (stamp.settled) fs_stamp_write(where->mount, &stamp);
    return 0;
}

static int bring_up_to_date(const struct fs_where *where, const char *shadow)
{
    struct fs_stamp stamp;
    struct fs_shadow_lock lock;
    int error = fs_stamp_of(where, shadow, &stamp);
    if (error != 0 || fs_stamp_holds(&stamp)) return error;
    fs_shadow_lock(where->mount, where->rel, &lock);
    error = merge_into(where, shadow);
    fs_shadow_unlock(&lock);
    return error;
}

int fs_shadow(struct fs_where *where, bool list)
{
    char path[PATH_MAX];
    if (!fs_shadow_path(where->mount, where->rel, path)) return -ENAMETOOLONG;
    int error = make_shadow(where, path);
    if (error == 0 && list) error = bring_up_to_date(where, path);
    memcpy(where->real, path, strlen(path) + 1);
    return error;
}

/* ---- single changes
 * -------------------------------------------------------------------------------------- */

void fs_shadow_add(const struct fs_mount *mount, const char *rel, mode_t mode)
{
    char path[PATH_MAX], upper[PATH_MAX];
    struct stat status;
    if (!fs_shadow_path(mount, rel, path) || put_placeholder(path, mode) != 0) return;
    /* Somebody else may have removed it already, and told the shadow before. */
    if (fs_layer_path(mount, 0, rel, upper) == 0 && raw_lstat(upper, &status) == -ENOENT)
        fs_remove_tree(path);
}

void fs_shadow_remove(const struct fs_mount *mount, const char *rel)
{
    char path[PATH_MAX];
    if (fs_shadow_path(mount, rel, path)) fs_remove_tree(path);
}

void fs_shadow_rename(const struct fs_mount *mount, const char *from, const char *to, mode_t mode)
{
    char old[PATH_MAX], fresh[PATH_MAX];
    if (!fs_shadow_path(mount, from, old) || !fs_shadow_path(mount, to, fresh)) return;
    long result = raw(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, fresh, 0);
    if (result == 0) return;
    if (result != -ENOENT) {
        fs_remove_tree(fresh);
        result = raw(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, fresh, 0);
    }
    if (result != 0) fs_remove_tree(old);
    if (result != 0) fs_shadow_add(mount, to, mode);
}

void fs_shadow_exchange(const struct fs_mount *mount, const struct fs_where *from,
                        const struct fs_where *to)
{
    char old[PATH_MAX], fresh[PATH_MAX];
    if (!fs_shadow_path(mount, from->rel, old) || !fs_shadow_path(mount, to->rel, fresh)) return;
    if (raw(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, fresh, 2 /* RENAME_EXCHANGE */) == 0) return;
    fs_remove_tree(old);
    fs_remove_tree(fresh);
    fs_shadow_add(mount, from->rel, to->mode);
    fs_shadow_add(mount, to->rel, from->mode);
}
