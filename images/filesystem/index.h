/* The index of one archive: a file that every process of the application maps.
 *
 * Written once by libcse-archive.so (archive/build.c), read by the overlay (indexing.c). Offsets
 * and numbers in here come from our own code, not from the archive; the archive's claims have been
 * checked when they were stored.
 */
#ifndef CSE_FS_INDEX_H
#define CSE_FS_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#define CSE_INDEX_MAGIC "CSEIDX4"

enum cse_archive_format {
    CSE_FORMAT_PLAIN = 1, /* tar, cpio, iso9660: each member is reached by itself */
    CSE_FORMAT_STREAM,    /* compressed, or 7z: one sequential pass */
    CSE_FORMAT_ZIP,
    CSE_FORMAT_SQUASHFS,
};

enum cse_archive_codec { /* of a stream that can be read from seek points */
                         CSE_CODEC_NONE,
                         CSE_CODEC_GZIP,
                         CSE_CODEC_XZ,
                         CSE_CODEC_ZSTD,
};

enum {                        /* of an entry, in the application's `state` */
       CSE_ENTRY_PRESENT = 1, /* the skeleton has it */
       CSE_ENTRY_LISTED = 2,  /* a directory: the skeleton has all its children */
       CSE_ENTRY_FILLED = 4,  /* a file: the content is there */
       CSE_ENTRY_BAD = 8,     /* a file: the archive does not yield its content */
};

#define CSE_NO_ENTRY UINT32_MAX

struct cse_index_header {
    char magic[8];
    int32_t error; /* errno of every use of the archive; 0: it is good */
    uint32_t format;
    uint32_t entry_count;
    uint32_t bucket_count; /* a power of two */
    uint32_t has_symlinks;
    uint32_t codec; /* enum cse_archive_codec */
    uint64_t buckets_at, entries_at, strings_at, points_at, windows_at, file_size;
    uint32_t point_count, windows_size;
    uint64_t total_bytes; /* of all files, as the archive declares them */
};

struct cse_index_entry {
    uint64_t size;
    int64_t mtime;
    uint64_t source_at; /* where the reader of its format finds it; with a codec, in the stream */
    uint64_t packed_at; /* 1 + offset in the pack file; 0: not kept */
    uint32_t mtime_ns;
    uint32_t mode;              /* type and permissions */
    uint32_t path, path_length; /* relative to the root, which is "" */
    uint32_t name;              /* last component of path */
    uint32_t target;            /* symlink: its text; hard link: the entry it is a name of */
    uint32_t is_hard_link;
    uint32_t parent, first_child, next_sibling, next_in_bucket;
    uint32_t method;      /* zip: compression; plain: what source_at means */
    uint64_t stored_size; /* zip: compressed bytes */
    uint32_t crc;
    uint32_t links;       /* st_nlink */
    uint32_t contents_of; /* 1 + the archive that this directory shows the contents of */
};

/* A place from which a compressed stream can be read on. */
struct cse_index_point {
    uint64_t out, in;                  /* bytes of what is unpacked before it, and of the archive */
    uint32_t window_at, window_stored; /* in the windows, packed with LZ4 */
    uint32_t window_size;              /* of the output before it that its codec wants */
    uint32_t bits;                     /* gzip: of the byte before `in` that come first */
    uint32_t check;                    /* xz: the kind of checksum in this stream */
    uint32_t unused;
};

static inline const struct cse_index_point *cse_index_points(const struct cse_index_header *index)
{
    return (const struct cse_index_point *)((const char *)index + index->points_at);
}

static inline const struct cse_index_entry *cse_index_entries(const struct cse_index_header *index)
{
    return (const struct cse_index_entry *)((const char *)index + index->entries_at);
}

static inline const char *cse_index_text(const struct cse_index_header *index, uint32_t at)
{
    return (const char *)index + index->strings_at + at;
}

static inline uint32_t cse_index_hash(const char *path, uint32_t length)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (uint32_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)path[i]) * 16777619u;
    return hash ^ (hash >> 15);
}

/* The entry at `path` (relative, normal form, "" is the root), or CSE_NO_ENTRY. */
static inline uint32_t cse_index_find(const struct cse_index_header *index, const char *path,
                                      uint32_t length)
{
    const uint32_t *buckets = (const uint32_t *)((const char *)index + index->buckets_at);
    const struct cse_index_entry *entries = cse_index_entries(index);
    uint32_t number = buckets[cse_index_hash(path, length) & (index->bucket_count - 1)];
    while (number != CSE_NO_ENTRY) {
        const struct cse_index_entry *entry = &entries[number];
        if (entry->path_length == length &&
            __builtin_memcmp(cse_index_text(index, entry->path), path, length) == 0)
            return number;
        number = entry->next_in_bucket;
    }
    return CSE_NO_ENTRY;
}

#endif
