/* Archives in an archive (setting `nested`): NAME.contents shows what is in NAME, on demand.
 *
 * build.c puts an empty directory NAME.contents beside each file with an archive's name, and marks
 * it. Whoever looks below such a directory comes here: NAME is filled, indexed as any archive, and
 * its skeleton is made in that directory, so that real paths lie below one another as those of the
 * program do. What all of them together may declare is bounded as the outermost one is. Called by
 * layers.c and shadow.c.
 */
#include "skeleton.h"

#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>

enum { NESTED_MAX = 1000 }; /* opened in one mount */

static const struct cse_index_entry *entry_of(const struct fs_archive *archive, uint32_t number)
{
    return &cse_index_entries(archive->index)[number];
}

static struct fs_archive *new_nested(struct fs_archive *outer, uint32_t directory)
{
    const char *path = cse_index_text(outer->index, entry_of(outer, directory)->path);
    struct fs_archive *archive =
        mmap(NULL, sizeof *archive, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (archive == MAP_FAILED) return NULL;
    archive->number = outer->number;
    archive->outer = outer;
    archive->outer_directory = directory;
    archive->from = "";
    int shown = snprintf(archive->shown, sizeof archive->shown, "%s/%s", outer->mount, path);
    archive->mount = archive->shown;
    int made = snprintf(archive->directory, sizeof archive->directory, "%.4000s/n%u",
                        outer->directory, directory);
    int tree = snprintf(archive->tree, sizeof archive->tree, "%.4000s/%s", outer->tree, path);
    archive->limits = outer->limits;
    archive->limits.nested--;
    archive->limits.strip = 0;
    archive->limits.subpath = "";
    if (shown < PATH_MAX && made < PATH_MAX - 64 && tree < PATH_MAX) return archive;
    munmap(archive, sizeof *archive);
    return NULL;
}

/* The archive that `directory` of `outer` shows; NULL: no memory, or too long a path. */
static struct fs_archive *nested(struct fs_archive *outer, uint32_t directory)
{
    struct fs_archive *first = __atomic_load_n(&outer->inner, __ATOMIC_ACQUIRE), *fresh = NULL;
    for (;;) {
        for (struct fs_archive *at = first; at != NULL; at = at->next)
            if (at->outer_directory == directory) {
                if (fresh != NULL) munmap(fresh, sizeof *fresh);
                return at;
            }
        if (fresh == NULL) fresh = new_nested(outer, directory);
        if (fresh == NULL) return NULL;
        fresh->next = first;
        if (__atomic_compare_exchange_n(&outer->inner, &first, fresh, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            return fresh;
    }
}

int fs_archive_enter(struct fs_archive **archive, uint32_t *entry)
{
    int error = 0;
    if (fs_archive_index(*archive, &error) == NULL) return error;
    if (entry_of(*archive, *entry)->contents_of == 0) return 0;
    struct fs_archive *inner = nested(*archive, *entry);
    if (inner == NULL) return -ENOMEM;
    if (fs_archive_index(inner, &error) == NULL) return error;
    *archive = inner;
    *entry = 0;
    return 0;
}

/* Who walks a tree mostly asks for the neighbour of what was asked for last (a tmpfs lists in the
 * order of the archive, who sorts by inode number goes the other way): that is found without a look
 * at the table, whose lines are seldom in the processor's cache. */
static uint32_t find(struct fs_archive *archive, const struct cse_index_header *index,
                     const char *path, uint32_t length)
{
    uint32_t last = __atomic_load_n(&archive->last_found, __ATOMIC_RELAXED), number = CSE_NO_ENTRY;
    for (uint32_t guess = last - 1; guess != last + 3 && number == CSE_NO_ENTRY; guess += 2)
        if (guess < index->entry_count && entry_of(archive, guess)->path_length == length &&
            memcmp(cse_index_text(index, entry_of(archive, guess)->path), path, length) == 0)
            number = guess;
    if (number == CSE_NO_ENTRY) number = cse_index_find(index, path, length);
    if (number != CSE_NO_ENTRY && number != last)
        __atomic_store_n(&archive->last_found, number, __ATOMIC_RELAXED);
    return number;
}

int fs_archive_find(struct fs_archive **archive, const char *rel, uint32_t *entry)
{
    const char *rest = rel;
    for (;;) {
        int error;
        const struct cse_index_header *index = fs_archive_index(*archive, &error);
        if (index == NULL) return error;
        uint32_t length = (uint32_t)strlen(rest), parent = CSE_NO_ENTRY, end = length;
        *entry = find(*archive, index, rest, length);
        if (*entry != CSE_NO_ENTRY) return 0;
        /* The longest part that is there says why the whole is not. */
        while (end-- > 0 && parent == CSE_NO_ENTRY)
            if (rest[end] == '/') parent = cse_index_find(index, rest, end);
        if (parent == CSE_NO_ENTRY) return -ENOENT;
        end++;
        if (S_ISLNK(entry_of(*archive, parent)->mode)) return (int)(rest + end - rel) + 1;
        if (!S_ISDIR(entry_of(*archive, parent)->mode)) return -ENOTDIR;
        if (entry_of(*archive, parent)->contents_of == 0) return -ENOENT;
        error = fs_archive_enter(archive, &parent);
        if (error != 0) return error;
        rest += end + 1;
    }
}

int fs_archive_open_nested(struct fs_archive *archive)
{
    struct fs_archive *outer = archive->outer;
    char path[PATH_MAX];
    uint32_t number = entry_of(outer, archive->outer_directory)->contents_of - 1;
    int error = fs_archive_present(outer, archive->outer_directory);
    if (error == 0) error = fs_archive_fill(outer, number);
    if (error != 0) return error;
    int length = snprintf(path, sizeof path, "%s/%s", outer->tree,
                          cse_index_text(outer->index, entry_of(outer, number)->path));
    return length < PATH_MAX ? raw_open(path, O_RDONLY | O_CLOEXEC, 0) : -ENAMETOOLONG;
}

/* What the nested archives of a mount have declared so far, in a file that its processes share. */
struct budget {
    uint64_t bytes, entries, archives;
};

int fs_archive_spend(struct fs_archive *archive, const struct cse_index_header *index)
{
    struct fs_archive *top = archive;
    struct fs_speaker speaker = {.archive = archive};
    struct budget spent = {0, 0, 0};
    const struct cse_tree_limits *limits = &archive->limits;
    while (top->outer != NULL) top = top->outer;
    int fd = fs_archive_open_in(top, "nested", O_RDWR | O_CREAT, 0666);
    if (fd < 0) return -fd;
    while (raw(SYS_flock, fd, LOCK_EX) == -EINTR) {}
    raw(SYS_pread64, fd, &spent, sizeof spent, 0);
    spent.bytes += index->total_bytes;
    spent.entries += index->entry_count;
    spent.archives++;
    bool fits = spent.bytes <= limits->max_bytes && spent.entries <= limits->max_entries &&
                spent.archives <= NESTED_MAX;
    long put = fits ? raw(SYS_pwrite64, fd, &spent, sizeof spent, 0) : 0;
    raw_close(fd);
    if (!fits)
        fs_archive_say(&speaker, "",
                       "exceeds, with the other archives nested in this mount, max_bytes, "
                       "max_entries or 1,000 archives; it is refused");
    return fits ? (put < 0 ? (int)-put : 0) : EFBIG;
}
