/* The table between the overlay and an implementation of packaged trees.
 *
 * libcse-fs.so opens the implementation (libcse-archive.so) when such a source is first used and
 * asks it for `cse_tree_provider`. The overlay owns paths, descriptors and the skeleton on private
 * tmpfs; the implementation only turns bytes of an archive into an index and into contents.
 */
#ifndef CSE_FS_TREE_H
#define CSE_FS_TREE_H

#include "index.h"

enum { CSE_TREE_VERSION = 1 };

struct cse_tree_limits {
    uint64_t max_bytes; /* of all files together, as the archive declares them */
    uint64_t max_entries;
    uint64_t max_ratio;   /* of declared bytes to the archive's own size, from 256 MiB on */
    uint64_t cache_bytes; /* contents kept while indexing a compressed stream */
    uint32_t strip;       /* leading components taken off each name */
    const char *subpath;  /* only what lies below it, seen from there; "" for all */
    bool links_inside;    /* refuse symbolic links that lead out of the archive */
    uint32_t nested;      /* depth to which archives in it have a directory NAME.contents */
};

/* Tells people about one entry that was skipped, or ("") about the archive as a whole. */
typedef void cse_tree_say(void *context, const char *entry, const char *what);

/* What the overlay lends: descriptors that stay open must be out of the program's way. */
struct cse_tree_host {
    int (*own_fd)(int fd); /* core.h: cse_own_fd */
    void (*own_close)(int fd);
    void (*progress)(uint64_t at); /* how far the archive has been read, in bytes */
};

struct cse_tree_provider {
    int version;
    void (*start)(const struct cse_tree_host *host);
    /* Reads the archive at descriptor `archive` and writes an index to `index`, and contents
     * worth keeping to `pack`. 0, or the errno that every use of the archive is to give; then
     * nothing needs to have been written. */
    int (*build)(int archive, int index, int pack, const struct cse_tree_limits *limits,
                 cse_tree_say *say, void *context);
    /* Writes the content of entry `number` to `out`, from its start. 0 or errno. */
    int (*fill)(int archive, const struct cse_index_header *index, uint32_t number, int out,
                cse_tree_say *say, void *context);
};

#define CSE_TREE_PROVIDER_SYMBOL "cse_tree_provider"

#endif
