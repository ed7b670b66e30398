/* libFuzzer target of libcse-archive.so: any bytes as an archive, indexed and read to the end.
 *
 * Checks what the overlay relies on: the index is consistent, no name leads out of the root, and
 * no content is longer than the index says. Built and run for a while by
 * tests/native/test_fs_fuzz.py; with a directory of seeds it runs for as long as one likes.
 */
#include "tree.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

extern const struct cse_tree_provider cse_tree_provider;

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

static void check_entry(int archive, const struct cse_index_header *index, uint32_t number)
{
    const struct cse_index_entry *entry = &cse_index_entries(index)[number];
    const char *path = cse_index_text(index, entry->path);
    struct stat status;
    if (strlen(path) != entry->path_length || path[0] == '/' || strstr(path, "//")) abort();
    for (const char *at = path; (at = strstr(at, "..")) != NULL; at += 2)
        if ((at == path || at[-1] == '/') && (at[2] == '/' || at[2] == '\0')) abort();
    if (entry->is_hard_link && entry->target >= index->entry_count) abort();
    if (!S_ISREG(entry->mode) || entry->is_hard_link) return;
    int out = memfd_create("out", MFD_CLOEXEC);
    cse_tree_provider.fill(archive, index, number, out, say, NULL);
    if (fstat(out, &status) != 0 || (uint64_t)status.st_size > entry->size) abort();
    close(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct cse_tree_host host = {own_fd, own_close};
    const struct cse_tree_limits limits = {
        .max_bytes = 1 << 20,
        .max_entries = 1000,
        .max_ratio = 1000,
        .cache_bytes = size % 2 ? 1 << 20 : 0,
        .subpath = "",
        .links_inside = true,
    };
    cse_tree_provider.start(&host);
    int archive = memfd_create("archive", MFD_CLOEXEC), index = memfd_create("index", MFD_CLOEXEC),
        pack = memfd_create("pack", MFD_CLOEXEC);
    struct stat status;
    if (write(archive, data, size) == (ssize_t)size &&
        cse_tree_provider.build(archive, index, pack, &limits, say, NULL) == 0 &&
        fstat(index, &status) == 0) {
        struct cse_index_header *map =
            mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, index, 0);
        if (map->file_size != (uint64_t)status.st_size || map->entry_count > 200000) abort();
        for (uint32_t i = 0; i < map->entry_count && i < 200; i++) check_entry(archive, map, i);
        munmap(map, (size_t)status.st_size);
    }
    close(archive);
    close(index);
    close(pack);
    return 0;
}
