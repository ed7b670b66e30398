/* `case_insensitive`: names are found whatever their case, and kept as they were given.
 *
 * A name that is there exactly is taken; else, of those that differ in case alone, the first in
 * byte order. What is not there at all stays as it was asked for, so that it is made so. Case is
 * that of ASCII and of the letters that UTF-8 writes in two bytes (Latin, Greek, Cyrillic,
 * Armenian): a folded name is as long as the name, so that it is put in its place. Names of a
 * directory are kept while its times stay the same. Called by resolve.c for each path in such a
 * mount.
 */
#include "fs.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { DIRECTORIES = 16, NAMES_BYTES = 256 << 10, SETTLED_NS = 50 * 1000 * 1000 };

/* ---- case -------------------------------------------------------------------------------------
 */

struct range {
    unsigned short first, last;
};
static const struct range odd_is_small[] = {
    {0x100, 0x12f}, {0x132, 0x137}, {0x14a, 0x177}, {0x1a0, 0x1a5}, {0x1de, 0x1ef}, {0x1f8, 0x21f},
    {0x222, 0x233}, {0x246, 0x24f}, {0x3d8, 0x3ef}, {0x460, 0x481}, {0x48a, 0x4bf}, {0x4d0, 0x52f},
};
static const struct range even_is_small[] = {
    {0x139, 0x148}, {0x179, 0x17e}, {0x1af, 0x1b0}, {0x1cd, 0x1dc}, {0x4c1, 0x4ce},
};

static bool within(unsigned c, const struct range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (c >= ranges[i].first && c <= ranges[i].last) return true;
    return false;
}

/* The small letter of one that takes two bytes in UTF-8. */
static unsigned small(unsigned c)
{
    if ((c >= 0xc0 && c <= 0xde && c != 0xd7) || (c >= 0x391 && c <= 0x3ab && c != 0x3a2) ||
        (c >= 0x410 && c <= 0x42f))
        return c + 0x20;
    if (c >= 0x400 && c <= 0x40f) return c + 0x50;
    if (c >= 0x531 && c <= 0x556) return c + 0x30;
    switch (c) {
    case 0x178: return 0xff;
    case 0x386: return 0x3ac;
    case 0x388:
    case 0x389:
    case 0x38a: return c + 0x25;
    case 0x38c: return 0x3cc;
    case 0x38e:
    case 0x38f: return c + 0x3f;
    case 0x3c2: return 0x3c3; /* the sigma at the end of a word */
    default: break;
    }
    if (within(c, odd_is_small, sizeof odd_is_small / sizeof *odd_is_small)) return c | 1;
    bool even = within(c, even_is_small, sizeof even_is_small / sizeof *even_is_small);
    return even ? c + (c & 1) : c;
}

/* The next letter of text, small; *at moves on. Bytes that are no UTF-8 stand for themselves. */
static unsigned next_small(const char *text, size_t length, size_t *at)
{
    unsigned char first = (unsigned char)text[(*at)++];
    if (first < 0x80) return first >= 'A' && first <= 'Z' ? first + 32u : first;
    if (first >= 0xc2 && first <= 0xdf && *at < length && ((unsigned char)text[*at] & 0xc0) == 0x80)
        return small((first & 0x1fu) << 6 | ((unsigned char)text[(*at)++] & 0x3fu));
    return 0x110000u + first;
}

static bool same(const char *a, const char *b, size_t length)
{
    size_t i = 0, k = 0;
    while (i < length && k < length)
        if (next_small(a, length, &i) != next_small(b, length, &k)) return false;
    return i == k;
}

/* ---- the names of a directory -----------------------------------------------------------------
 */

struct names {
    const struct fs_mount *mount;
    uint64_t directory, stamp; /* hash of its path; of its times in all layers. 0: not to be kept */
    size_t used;
    bool whole;
    char text[NAMES_BYTES];
};
static struct names *kept;
static unsigned turn;
/* Who looks at them; others, and a child whose fork left it taken, read the directory instead. */
static int taken;

static uint64_t mix(uint64_t hash, uint64_t value)
{
    return (hash ^ value) * 0x9e3779b97f4a7c15u + (hash >> 29);
}

static uint64_t hash_of(const char *text, size_t length)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)text[i]) * 1099511628211u;
    return hash | 1;
}

/* Changes whenever a name is made or removed there; 0 while the last change is so fresh that
 * another one could have the same time. */
static uint64_t stamp_of(const struct fs_mount *mount, const char *rel)
{
    char real[PATH_MAX];
    struct stat status;
    struct timespec now;
    uint64_t stamp = 1;
    raw(SYS_clock_gettime, CLOCK_REALTIME, &now);
    for (int i = 0; i < mount->layer_count; i++) {
        if (mount->layers[i].archive != NULL) continue;
        if (fs_layer_path(mount, i, rel, real) != 0) return 0;
        if (raw_lstat(real, &status) != 0) {
            stamp = mix(stamp, 2);
            continue;
        }
        int64_t age = (int64_t)(now.tv_sec - status.st_ctim.tv_sec) * 1000000000 +
                      (now.tv_nsec - status.st_ctim.tv_nsec);
        if (age >= 0 && age < SETTLED_NS) return 0;
        stamp = mix(mix(stamp, (uint64_t)status.st_ino), (uint64_t)status.st_ctim.tv_sec);
        stamp = mix(stamp, (uint64_t)status.st_ctim.tv_nsec);
    }
    return stamp | 1;
}

static int keep_name(const char *name, unsigned char type, void *context)
{
    struct names *names = context;
    size_t size = strlen(name) + 1;
    if (names->used + size > sizeof names->text) {
        names->whole = false;
        return 0;
    }
    memcpy(names->text + names->used, name, size);
    names->used += size;
    return 0;
}

struct search {
    const char *name;
    size_t length;
    char after[NAME_MAX + 1]; /* only what comes behind it in byte order */
    char best[NAME_MAX + 1];
};

static int compare(const char *name, unsigned char type, void *context)
{
    struct search *search = context;
    if (strlen(name) == search->length && same(name, search->name, search->length) &&
        strcmp(name, search->after) > 0 &&
        (search->best[0] == '\0' || strcmp(name, search->best) < 0))
        memcpy(search->best, name, search->length + 1);
    return 0;
}

static void each_name(const struct fs_mount *mount, const char *rel,
                      int (*each)(const char *, unsigned char, void *), void *context)
{
    char real[PATH_MAX];
    int error;
    for (int i = 0; i < mount->layer_count; i++) {
        const struct fs_layer *layer = &mount->layers[i];
        if (layer->archive == NULL) {
            if (layer->encrypted != NULL) fs_encrypted_list(layer->encrypted, rel);
            if (fs_layer_path(mount, i, rel, real) == 0) fs_each_name(real, each, context);
            continue;
        }
        const struct cse_index_header *index = fs_archive_index(layer->archive, &error);
        if (index == NULL) continue;
        const struct cse_index_entry *entries = cse_index_entries(index);
        uint32_t at = cse_index_find(index, rel, (uint32_t)strlen(rel));
        if (at == CSE_NO_ENTRY) continue;
        for (at = entries[at].first_child; at != CSE_NO_ENTRY; at = entries[at].next_sibling)
            each(cse_index_text(index, entries[at].name), 0, context);
    }
}

/* The names of `rel`, from what is kept where it is still true; NULL: they are not to be kept. */
static struct names *names_of(const struct fs_mount *mount, const char *rel)
{
    uint64_t directory = hash_of(rel, strlen(rel)), stamp = stamp_of(mount, rel);
    if (kept == NULL) {
        void *room = mmap(NULL, sizeof *kept * DIRECTORIES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (room == MAP_FAILED) return NULL;
        kept = room;
    }
    if (stamp == 0) return NULL;
    for (int i = 0; i < DIRECTORIES; i++)
        if (kept[i].mount == mount && kept[i].directory == directory && kept[i].stamp == stamp)
            return kept[i].whole ? &kept[i] : NULL;
    struct names *fresh = &kept[turn++ % DIRECTORIES];
    fresh->mount = mount;
    fresh->directory = directory;
    fresh->used = 0;
    fresh->whole = true;
    each_name(mount, rel, keep_name, fresh);
    fresh->stamp = stamp;
    return fresh->whole ? fresh : NULL;
}

static void search_names(const struct fs_mount *mount, const char *rel, struct search *search)
{
    const struct names *names = NULL;
    int free = 0;
    bool mine =
        __atomic_compare_exchange_n(&taken, &free, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
    if (mine) names = names_of(mount, rel);
    if (names == NULL) each_name(mount, rel, compare, search);
    for (size_t at = 0; names != NULL && at < names->used; at += strlen(names->text + at) + 1)
        compare(names->text + at, 0, search);
    if (mine) __atomic_store_n(&taken, 0, __ATOMIC_RELEASE);
}

/* ---- paths ------------------------------------------------------------------------------------
 */

/* As fs_lookup of this very name: 0 where it is there, more than 0 behind a link. */
static int look(const struct fs_mount *mount, const char *whole, size_t prefix)
{
    struct fs_where probe;
    probe.mount = mount;
    memcpy(probe.path, whole, strlen(whole) + 1);
    probe.rel = probe.path + prefix;
    return fs_lookup(&probe);
}

/* Puts a name that is there in the place of the last one of `whole`; false: there is none. */
static bool correct(const struct fs_mount *mount, char *whole, size_t prefix)
{
    char parent[PATH_MAX], given[NAME_MAX + 1], *name = strrchr(whole, '/') + 1;
    struct search search = {.name = given, .length = strlen(name)};
    if (search.length > NAME_MAX || search.length == 0) return false;
    memcpy(given, name, search.length + 1);
    size_t above = (size_t)(name - whole) > prefix ? (size_t)(name - whole) - prefix - 1 : 0;
    memcpy(parent, whole + prefix, above);
    parent[above] = '\0';
    for (;;) {
        search_names(mount, parent, &search);
        if (search.best[0] == '\0') break;
        memcpy(name, search.best, search.length);
        if (look(mount, whole, prefix) == 0) return true;
        /* Hidden, by a change to a cow: the next one may not be. */
        memcpy(search.after, search.best, search.length + 1);
        search.best[0] = '\0';
    }
    memcpy(name, given, search.length);
    return false;
}

void fs_fold(struct fs_where *where)
{
    const struct fs_mount *mount = where->mount;
    size_t prefix = (size_t)(where->rel - where->path);
    char *path = where->path;
    if (where->rel[0] == '\0' || look(mount, path, prefix) == 0) return;
    for (size_t i = prefix + 1;; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        char end = path[i];
        path[i] = '\0';
        int found = look(mount, path, prefix);
        bool on = found == 0 || (found < 0 && correct(mount, path, prefix));
        path[i] = end;
        if (!on || end == '\0') return; /* a link is followed first, then its target comes here */
    }
}

void fs_fold_rename(const struct fs_where *source, struct fs_where *target, const char *to)
{
    if (!source->mount->case_insensitive || source->mount != target->mount) return;
    if (strcmp(source->path, target->path) != 0) return;
    size_t end = strlen(to), length = strlen(target->path);
    while (end > 0 && to[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && to[begin - 1] != '/') begin--;
    char *name = strrchr(target->path, '/') + 1;
    if (end - begin != length - (size_t)(name - target->path) ||
        !same(to + begin, name, end - begin))
        return;
    if (memcmp(name, to + begin, end - begin) == 0) return;
    memcpy(name, to + begin, end - begin);
    target->layer = -1;
}
