/* Collects the entries of an archive and writes the index; used by the readers of formats. */
#ifndef CSE_ARCHIVE_BUILD_H
#define CSE_ARCHIVE_BUILD_H

#include "stream.h"
#include "tree.h"

#include <stddef.h>

struct builder {
    const struct cse_tree_limits *limits;
    cse_tree_say *say;
    void *context;
    uint64_t archive_size;
    int64_t archive_mtime;
    uint32_t format;

    struct cse_index_entry *entries;
    uint32_t count, capacity;
    uint32_t *buckets;
    uint32_t bucket_count;
    char *strings;
    size_t strings_size, strings_capacity;
    uint64_t total_bytes;
    bool has_symlinks;
    struct points points; /* of `codec` */
    uint32_t codec;
    int pack; /* descriptor, or -1 */
    uint64_t packed;
};

/* What an archive says of one member. `name` and `target` are its own bytes, unchecked. */
struct member {
    const char *name;
    const char *target; /* symbolic or hard link */
    bool is_hard_link;
    uint32_t mode;
    uint64_t size;
    int64_t mtime;
    uint32_t mtime_ns;
    uint64_t source_at, stored_size;
    uint32_t method, crc;
};

int builder_start(struct builder *b);
/* Adds a member after checking it. 0 with *number set, or with CSE_NO_ENTRY when it was skipped
 * and reported; else the errno that ends the build. */
int builder_add(struct builder *b, const struct member *member, uint32_t *number);
uint32_t builder_first_name(const struct builder *b, uint32_t number);
/* Resolves hard links and writes the index. */
int builder_finish(struct builder *b, int index);
/* Writes it once more. */
int builder_write(struct builder *b, int index);
/* No room for contents beside the skeleton: what is opened is read from the archive each time. */
void builder_keep_nothing(struct builder *b);
void builder_free(struct builder *b);

extern struct cse_tree_host tree_host;

/* All of `size` bytes at `offset`; 0 or errno. */
int write_all(int fd, const void *data, size_t size, uint64_t offset);
int read_all(int fd, void *data, size_t size, uint64_t offset);

int libarchive_build(struct builder *b, int archive);
int libarchive_fill(int archive, const struct cse_index_header *index,
                    const struct cse_index_entry *entry, int out, cse_tree_say *say, void *context);
bool squashfs_recognised(int archive, uint64_t size);
int squashfs_build(struct builder *b, int archive);
int squashfs_fill(int archive, const struct cse_index_header *index,
                  const struct cse_index_entry *entry, int out, cse_tree_say *say, void *context);
bool zip_recognised(int archive, uint64_t size);
int zip_build(struct builder *b, int archive);
int zip_fill(int archive, const struct cse_index_header *index, const struct cse_index_entry *entry,
             int out, cse_tree_say *say, void *context);

#endif
