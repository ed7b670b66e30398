/* The index of an archive: checks what the archive claims, and lays the entries out in one file.
 *
 * An archive is a stranger. No name may lead out of its root, no member may hang below something
 * that is not a directory, nothing but files, directories and links is taken, and limits hold for
 * number, declared bytes and ratio. A bad member is skipped and reported; a limit fails the whole.
 * Used by libarchive.c, zip.c and squashfs.c, called through provider.c.
 */
#include "build.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONTENTS ".contents"
enum { RATIO_FROM_BYTES = 256 << 20, FIRST_BUCKETS = 1024, NAME_LIMIT = 4000 };

/* ---- entries ------------------------------------------------------------------------------ */

static uint32_t store_text(struct builder *b, const char *text, size_t length)
{
    if (b->strings_size + length + 1 > b->strings_capacity) {
        size_t capacity = (b->strings_capacity + length + 1) * 2;
        char *grown = capacity < UINT32_MAX ? realloc(b->strings, capacity) : NULL;
        if (grown == NULL) return UINT32_MAX;
        b->strings = grown;
        b->strings_capacity = capacity;
    }
    uint32_t at = (uint32_t)b->strings_size;
    memcpy(b->strings + at, text, length);
    b->strings[at + length] = '\0';
    b->strings_size += length + 1;
    return at;
}

static uint32_t find(const struct builder *b, const char *path, size_t length)
{
    uint32_t number = b->buckets[cse_index_hash(path, (uint32_t)length) & (b->bucket_count - 1)];
    while (number != CSE_NO_ENTRY) {
        const struct cse_index_entry *entry = &b->entries[number];
        if (entry->path_length == length && memcmp(b->strings + entry->path, path, length) == 0)
            return number;
        number = entry->next_in_bucket;
    }
    return CSE_NO_ENTRY;
}

static void put_in_bucket(struct builder *b, uint32_t number)
{
    struct cse_index_entry *entry = &b->entries[number];
    uint32_t *bucket = &b->buckets[cse_index_hash(b->strings + entry->path, entry->path_length) &
                                   (b->bucket_count - 1)];
    entry->next_in_bucket = *bucket;
    *bucket = number;
}

static bool grow_buckets(struct builder *b)
{
    uint32_t count = b->bucket_count ? b->bucket_count * 2 : FIRST_BUCKETS;
    uint32_t *grown = realloc(b->buckets, count * sizeof *grown);
    if (grown == NULL) return false;
    memset(grown, 0xff, count * sizeof *grown);
    b->buckets = grown;
    b->bucket_count = count;
    for (uint32_t i = 0; i < b->count; i++) put_in_bucket(b, i);
    return true;
}

/* A new directory entry below `parent`, with nothing but its path. CSE_NO_ENTRY: no memory. */
static uint32_t new_entry(struct builder *b, const char *path, size_t length, uint32_t parent)
{
    if (b->count == b->capacity) {
        uint32_t capacity = b->capacity ? b->capacity * 2 : 256;
        struct cse_index_entry *grown = realloc(b->entries, capacity * sizeof *grown);
        if (grown == NULL) return CSE_NO_ENTRY;
        b->entries = grown;
        b->capacity = capacity;
    }
    if (b->count >= b->bucket_count && !grow_buckets(b)) return CSE_NO_ENTRY;
    uint32_t text = store_text(b, path, length);
    if (text == UINT32_MAX) return CSE_NO_ENTRY;
    const char *slash = memrchr(path, '/', length);
    uint32_t number = b->count++;
    b->entries[number] = (struct cse_index_entry){
        .mode = S_IFDIR | 0755,
        .mtime = b->archive_mtime,
        .path = text,
        .path_length = (uint32_t)length,
        .name = text + (slash ? (uint32_t)(slash + 1 - path) : 0),
        .parent = parent,
        .first_child = CSE_NO_ENTRY,
        .next_sibling = CSE_NO_ENTRY,
    };
    if (parent != CSE_NO_ENTRY) {
        b->entries[number].next_sibling = b->entries[parent].first_child;
        b->entries[parent].first_child = number;
    }
    put_in_bucket(b, number);
    return number;
}

/* The directory at path[0..length), made with its parents where it is missing. 0 or errno;
 * ENOTDIR when something that is not a directory is in the way. */
static int directory_at(struct builder *b, const char *path, size_t length, uint32_t *number)
{
    *number = find(b, path, length);
    if (*number != CSE_NO_ENTRY) return S_ISDIR(b->entries[*number].mode) ? 0 : ENOTDIR;
    uint32_t at = 0;
    for (size_t end = 0; end < length;) {
        const char *slash = memchr(path + end + (end > 0), '/', length - end - (end > 0));
        end = slash ? (size_t)(slash - path) : length;
        uint32_t next = find(b, path, end);
        if (next == CSE_NO_ENTRY) next = new_entry(b, path, end, at);
        if (next == CSE_NO_ENTRY) return ENOMEM;
        if (!S_ISDIR(b->entries[next].mode)) return ENOTDIR;
        at = next;
    }
    *number = at;
    return 0;
}

/* ---- checking ----------------------------------------------------------------------------- */

/* `name` in normal form, below subpath and without the stripped components, in `out`. Returns
 * its length, -1 for a name that must be skipped (*why says so), -2 for one that lies outside. */
static int normal_name(const struct builder *b, const char *name, char *out, const char **why)
{
    size_t length = 0;
    uint32_t strip = b->limits->strip;
    *why = NULL;
    if (name[0] == '/') *why = "has an absolute name";
    for (const char *at = name; *at && *why == NULL;) {
        const char *end = strchrnul(at, '/');
        size_t part = (size_t)(end - at);
        if (part == 2 && at[0] == '.' && at[1] == '.')
            *why = "has '..' in its name";
        else if (part > NAME_MAX || length + part + 1 >= NAME_LIMIT)
            *why = "has too long a name";
        else if (part > 0 && !(part == 1 && at[0] == '.')) {
            if (strip > 0)
                strip--;
            else {
                if (length > 0) out[length++] = '/';
                memcpy(out + length, at, part);
                length += part;
            }
        }
        at = *end ? end + 1 : end;
    }
    out[length] = '\0';
    if (*why != NULL) return -1;
    if (strip > 0 && b->limits->strip > 0) return -2;
    size_t below = strlen(b->limits->subpath);
    if (below == 0) return (int)length;
    if (strncmp(out, b->limits->subpath, below) != 0 || (out[below] != '/' && out[below] != '\0'))
        return -2;
    size_t skip = out[below] == '/' ? below + 1 : below;
    memmove(out, out + skip, length - skip + 1);
    return (int)(length - skip);
}

/* Whether a symbolic link at `path` with text `target` climbs above the root. */
static bool leads_out(const char *path, const char *target)
{
    if (target[0] == '/') return true;
    long depth = 0;
    for (const char *at = path; (at = strchr(at, '/')) != NULL; at++) depth++;
    for (const char *at = target; *at;) {
        const char *end = strchrnul(at, '/');
        size_t part = (size_t)(end - at);
        if (part == 2 && at[0] == '.' && at[1] == '.') {
            if (--depth < 0) return true;
        } else if (part > 0 && !(part == 1 && at[0] == '.')) {
            depth++;
        }
        at = *end ? end + 1 : end;
    }
    return false;
}

static const char *why_not(const struct builder *b, const struct member *member, const char *path)
{
    uint32_t type = member->mode & S_IFMT;
    if (member->is_hard_link) return member->target[0] ? NULL : "is a hard link to nothing";
    if (type == S_IFLNK) {
        if (member->target[0] == '\0') return "is a symbolic link without a target";
        if (strlen(member->target) >= PATH_MAX) return "is a symbolic link with too long a target";
        if (b->limits->links_inside && leads_out(path, member->target))
            return "is a symbolic link that leads out of the archive (setting 'links: any' allows "
                   "it)";
        return NULL;
    }
    if (type != S_IFREG && type != S_IFDIR) return "is neither file, directory nor link";
    return NULL;
}

/* Sum and number against the limits; EFBIG with a report when one is passed. */
static int within_limits(struct builder *b, const struct member *member, const char *path)
{
    const char *what = NULL;
    char text[160];
    uint64_t size = S_ISREG(member->mode) ? member->size : 0;
    const struct cse_tree_limits *limits = b->limits;
    if (b->count > limits->max_entries) {
        snprintf(text, sizeof text, "exceeds max_entries (%llu); the archive is refused",
                 (unsigned long long)limits->max_entries);
        what = text;
    } else if (size > limits->max_bytes || b->total_bytes + size > limits->max_bytes) {
        snprintf(text, sizeof text, "exceeds max_bytes (%llu); the archive is refused",
                 (unsigned long long)limits->max_bytes);
        what = text;
    } else if (b->total_bytes + size > RATIO_FROM_BYTES &&
               (b->total_bytes + size) / limits->max_ratio > b->archive_size) {
        snprintf(text, sizeof text, "exceeds max_ratio (%llu); the archive is refused",
                 (unsigned long long)limits->max_ratio);
        what = text;
    }
    if (what == NULL) {
        b->total_bytes += size;
        return 0;
    }
    b->say(b->context, path, what);
    return EFBIG;
}

int builder_start(struct builder *b)
{
    if (!grow_buckets(b)) return ENOMEM;
    return new_entry(b, "", 0, CSE_NO_ENTRY) == 0 ? 0 : ENOMEM;
}

int builder_add(struct builder *b, const struct member *member, uint32_t *number)
{
    char path[NAME_LIMIT + 8];
    const char *why;
    *number = CSE_NO_ENTRY;
    int length = normal_name(b, member->name, path, &why);
    if (length == -2) return 0;
    if (why == NULL) why = why_not(b, member, path);
    bool directory = S_ISDIR(member->mode) && !member->is_hard_link;
    if (why == NULL && length == 0 && !directory) why = "has an empty name";
    if (why != NULL) {
        b->say(b->context, member->name, why);
        return 0;
    }
    int error = within_limits(b, member, path);
    if (error != 0) return error;

    uint32_t at = 0, parent = 0;
    const char *slash = memrchr(path, '/', (size_t)length);
    if (length > 0) {
        error = directory_at(b, path, slash ? (size_t)(slash - path) : 0, &parent);
        if (error == ENOTDIR) {
            b->say(b->context, member->name, "lies below something that is not a directory");
            return 0;
        }
        if (error == 0) {
            at = find(b, path, (size_t)length);
            if (at == CSE_NO_ENTRY) at = new_entry(b, path, (size_t)length, parent);
            if (at == CSE_NO_ENTRY) error = ENOMEM;
        }
        if (error != 0) return error;
    }
    struct cse_index_entry *entry = &b->entries[at];
    if (!directory && entry->first_child != CSE_NO_ENTRY) {
        b->say(b->context, member->name, "takes the name of a directory with members");
        return 0;
    }
    uint32_t target = 0;
    if (member->is_hard_link || S_ISLNK(member->mode)) {
        target = store_text(b, member->target, strlen(member->target));
        if (target == UINT32_MAX) return ENOMEM;
    }
    /* As when unpacking, a later member replaces an earlier one of the same name. */
    uint32_t type = member->is_hard_link ? S_IFREG : member->mode & S_IFMT;
    entry->mode = type | (member->mode & 07777);
    entry->size = S_ISLNK(entry->mode)   ? strlen(member->target)
                  : S_ISREG(entry->mode) ? member->size
                                         : 0;
    entry->mtime = member->mtime;
    entry->mtime_ns = member->mtime_ns < 1000000000u ? member->mtime_ns : 0;
    entry->source_at = member->source_at;
    entry->stored_size = member->stored_size;
    entry->method = member->method;
    entry->crc = member->crc;
    entry->target = target;
    entry->is_hard_link = member->is_hard_link;
    entry->packed_at = 0;
    if (S_ISLNK(entry->mode)) b->has_symlinks = true;
    *number = at;
    return 0;
}

/* ---- finishing ---------------------------------------------------------------------------- */

/* The file that a hard link leads to, through other hard links; CSE_NO_ENTRY: none. */
uint32_t builder_first_name(const struct builder *b, uint32_t number)
{
    char path[NAME_LIMIT + 8];
    const char *why;
    for (int hops = 0; hops < 8; hops++) {
        const char *target = b->strings + b->entries[number].target;
        while (*target == '/') target++;
        int length = normal_name(b, target, path, &why);
        uint32_t next = length < 0 ? CSE_NO_ENTRY : find(b, path, (size_t)length);
        if (next == CSE_NO_ENTRY || next == number || S_ISDIR(b->entries[next].mode))
            return CSE_NO_ENTRY;
        if (!b->entries[next].is_hard_link) return next;
        number = next;
    }
    return CSE_NO_ENTRY;
}

static void unlink_entry(struct builder *b, uint32_t number)
{
    uint32_t *at = &b->entries[b->entries[number].parent].first_child;
    while (*at != number && *at != CSE_NO_ENTRY) at = &b->entries[*at].next_sibling;
    if (*at == number) *at = b->entries[number].next_sibling;
    at = &b->buckets[cse_index_hash(b->strings + b->entries[number].path,
                                    b->entries[number].path_length) &
                     (b->bucket_count - 1)];
    while (*at != number && *at != CSE_NO_ENTRY) at = &b->entries[*at].next_in_bucket;
    if (*at == number) *at = b->entries[number].next_in_bucket;
}

static void resolve_hard_links(struct builder *b)
{
    for (uint32_t i = 1; i < b->count; i++) {
        struct cse_index_entry *entry = &b->entries[i];
        if (!entry->is_hard_link) continue;
        uint32_t target = builder_first_name(b, i);
        if (target == CSE_NO_ENTRY) {
            b->say(b->context, b->strings + entry->path,
                   "is a hard link to a file that is not there");
            unlink_entry(b, i);
            entry->is_hard_link = 0; /* its number stays, and nothing leads to it */
            continue;
        }
        const struct cse_index_entry *file = &b->entries[target];
        entry->mode = file->mode;
        entry->size = file->size;
        entry->mtime = file->mtime;
        entry->mtime_ns = file->mtime_ns;
        entry->is_hard_link = 2; /* resolved: `target` is to become a number */
        entry->source_at = target;
    }
    for (uint32_t i = 1; i < b->count; i++)
        if (b->entries[i].is_hard_link == 2) {
            b->entries[i].is_hard_link = !S_ISLNK(b->entries[i].mode);
            b->entries[i].target = S_ISLNK(b->entries[i].mode)
                                       ? b->entries[b->entries[i].source_at].target
                                       : (uint32_t)b->entries[i].source_at;
        }
}

/* Whether the name is one that archives have. */
static bool names_archive(const char *name)
{
    static const char *const endings[] = {
        ".tar",     ".tar.gz",  ".tgz",     ".tar.xz", ".txz",      ".tar.zst",  ".tzst",
        ".tar.bz2", ".tbz2",    ".tar.lz4", ".tar.lz", ".tlz",      ".tar.lzma", ".tar.z",
        ".cpio",    ".cpio.gz", ".cpio.xz", ".zip",    ".jar",      ".war",      ".ear",
        ".whl",     ".apk",     ".7z",      ".iso",    ".squashfs", ".sqfs",     ".snap"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t end = strlen(endings[i]);
        if (length > end && strcasecmp(name + length - end, endings[i]) == 0) return true;
    }
    return false;
}

/* A directory NAME.contents beside each archive, unless a member has that name. What is in it is
 * found out when somebody looks. */
static int add_contents(struct builder *b)
{
    uint32_t members = b->count;
    for (uint32_t i = 1; i < members && b->limits->nested > 0; i++) {
        char path[NAME_LIMIT + 8];
        const struct cse_index_entry *entry = &b->entries[i];
        const char *name = b->strings + entry->name;
        if (!S_ISREG(entry->mode) || entry->size == 0 || !names_archive(name) ||
            strlen(name) + sizeof CONTENTS > NAME_MAX)
            continue;
        int length = snprintf(path, sizeof path, "%s" CONTENTS, b->strings + entry->path);
        if (length >= NAME_LIMIT || find(b, b->strings + entry->path, entry->path_length) != i ||
            find(b, path, (size_t)length) != CSE_NO_ENTRY)
            continue;
        uint32_t mode = entry->mode & 0444;
        int64_t mtime = entry->mtime;
        uint32_t number = new_entry(b, path, (size_t)length, entry->parent);
        if (number == CSE_NO_ENTRY) return ENOMEM;
        b->entries[number].mode = S_IFDIR | 0200 | mode | mode >> 2;
        b->entries[number].mtime = mtime;
        b->entries[number].contents_of = i + 1;
    }
    return 0;
}

/* What st_nlink of each entry is to be. Entries that were dropped count no more. */
static void count_links(struct builder *b)
{
    for (uint32_t i = 0; i < b->count; i++)
        b->entries[i].links = S_ISDIR(b->entries[i].mode) ? 2 : 1;
    for (uint32_t i = 0; i < b->count; i++) {
        if (!S_ISDIR(b->entries[i].mode)) continue;
        for (uint32_t child = b->entries[i].first_child; child != CSE_NO_ENTRY;
             child = b->entries[child].next_sibling) {
            struct cse_index_entry *entry = &b->entries[child];
            if (S_ISDIR(entry->mode))
                b->entries[i].links++;
            else if (entry->is_hard_link)
                b->entries[entry->target].links++;
        }
    }
    for (uint32_t i = 0; i < b->count; i++)
        if (b->entries[i].is_hard_link)
            b->entries[i].links = b->entries[b->entries[i].target].links;
}

void builder_keep_nothing(struct builder *b)
{
    for (uint32_t i = 0; i < b->count; i++) b->entries[i].packed_at = 0;
    b->packed = 0;
    if (b->pack >= 0 && ftruncate(b->pack, 0) == 0) b->pack = -1;
}

int builder_finish(struct builder *b, int index)
{
    resolve_hard_links(b);
    int error = add_contents(b);
    if (error != 0) return error;
    count_links(b);
    return builder_write(b, index);
}

/* Whether some content will have to come out of the stream. */
static bool needs_points(const struct builder *b)
{
    for (uint32_t i = 0; i < b->count; i++) {
        const struct cse_index_entry *entry = &b->entries[i];
        if (S_ISREG(entry->mode) && !entry->is_hard_link && entry->size > 0 &&
            entry->packed_at == 0)
            return true;
    }
    return false;
}

int builder_write(struct builder *b, int index)
{
    const struct points *points = &b->points;
    bool pointed = needs_points(b);
    struct cse_index_header header = {
        .magic = CSE_INDEX_MAGIC,
        .format = b->format,
        .entry_count = b->count,
        .bucket_count = b->bucket_count,
        .has_symlinks = b->has_symlinks,
        .total_bytes = b->total_bytes,
        .codec = b->codec,
        .point_count = pointed ? points->count : 0,
        .windows_size = pointed ? (uint32_t)points->windows_size : 0,
    };
    header.entries_at = (sizeof header + 63) & ~UINT64_C(63);
    header.points_at = header.entries_at + b->count * sizeof *b->entries;
    header.buckets_at = header.points_at + header.point_count * sizeof *points->list;
    header.strings_at = header.buckets_at + b->bucket_count * sizeof *b->buckets;
    header.windows_at = header.strings_at + b->strings_size;
    header.file_size = header.windows_at + header.windows_size;
    int error = write_all(index, b->entries, b->count * sizeof *b->entries, header.entries_at);
    if (error == 0)
        error =
            write_all(index, b->buckets, b->bucket_count * sizeof *b->buckets, header.buckets_at);
    if (error == 0) error = write_all(index, b->strings, b->strings_size, header.strings_at);
    if (error == 0)
        error = write_all(index, points->list, header.point_count * sizeof *points->list,
                          header.points_at);
    if (error == 0)
        error = write_all(index, points->windows, header.windows_size, header.windows_at);
    if (error == 0) error = write_all(index, &header, sizeof header, 0);
    return error;
}

void builder_free(struct builder *b)
{
    free(b->entries);
    free(b->buckets);
    free(b->strings);
    points_free(&b->points);
}
