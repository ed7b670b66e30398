/* libFuzzer target of seek points: the index of a good archive, with any bytes over its points and
 * their windows. A member is then what was packed, or an error; nothing else happens.
 *
 * CSE_FUZZ_ARCHIVES names the archives, with colons between; the first byte of the input chooses.
 * Built and run for a while by tests/native/test_fs_fuzz.py.
 */
#include "tree.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

extern const struct cse_tree_provider cse_tree_provider;

enum { ARCHIVES_MAX = 8 };
static struct {
    int fd;
    struct cse_index_header *good;
} archives[ARCHIVES_MAX];
static size_t archive_count;

static void say(void *context, const char *entry, const char *what)
{
    if (strlen(entry) + strlen(what) > 1 << 20) abort();
}

static int own_fd(int fd)
{
    return fd;
}

static void own_close(int fd)
{
    if (fd >= 0) close(fd);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const struct cse_tree_host host = {own_fd, own_close};
    const struct cse_tree_limits limits = {.max_bytes = 1 << 30,
                                           .max_entries = 1000,
                                           .max_ratio = 1000,
                                           .subpath = "",
                                           .links_inside = true};
    char *names = strdup(getenv("CSE_FUZZ_ARCHIVES"));
    cse_tree_provider.start(&host);
    for (char *name = strtok(names, ":"); name != NULL; name = strtok(NULL, ":")) {
        int fd = open(name, O_RDONLY), index = memfd_create("index", 0);
        int pack = memfd_create("pack", 0);
        if (cse_tree_provider.build(fd, index, pack, &limits, say, NULL) != 0) abort();
        off_t size = lseek(index, 0, SEEK_END);
        struct cse_index_header *good = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, index, 0);
        if (good->point_count == 0) abort();
        archives[archive_count].fd = fd;
        archives[archive_count++].good = good;
    }
    free(names);
    return 0;
}

static void check(int archive, const struct cse_index_header *index, uint32_t number)
{
    const struct cse_index_entry *entry = &cse_index_entries(index)[number];
    if (!S_ISREG(entry->mode) || entry->is_hard_link) return;
    int out = memfd_create("out", MFD_CLOEXEC);
    int error = cse_tree_provider.fill(archive, index, number, out, say, NULL);
    off_t size = lseek(out, 0, SEEK_END);
    if (size < 0 || (uint64_t)size > entry->size) abort();
    if (error == 0 && size > 0) {
        const unsigned char *got = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, out, 0);
        if ((uint64_t)size != entry->size || crc32(0, got, (unsigned)size) != entry->crc) abort();
        munmap((void *)got, (size_t)size);
    }
    close(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    size_t chosen = data[0] % archive_count;
    const struct cse_index_header *good = archives[chosen].good;
    struct cse_index_header *index = malloc(good->file_size);
    memcpy(index, good, good->file_size);
    size_t points = good->point_count * sizeof(struct cse_index_point);
    unsigned char *at = (unsigned char *)index + good->points_at;
    for (size_t i = 1; i < size; i++) {
        size_t place = i - 1;
        if (place < points)
            at[place] ^= data[i];
        else if (place - points < good->windows_size)
            ((unsigned char *)index + good->windows_at)[place - points] ^= data[i];
    }
    /* From the end: no stream that another index left is in the way of a point. */
    for (uint32_t i = good->entry_count; i-- > 0 && i + 4 > good->entry_count;)
        check(archives[chosen].fd, index, i);
    free(index);
    return 0;
}
