/* The table that the overlay asks for: which reader serves which archive. */
#include "build.h"

#include <errno.h>
#include <sys/stat.h>

struct cse_tree_host tree_host;

static void start(const struct cse_tree_host *host)
{
    tree_host = *host;
}

static int build(int archive, int index, int pack, const struct cse_tree_limits *limits,
                 cse_tree_say *say, void *context)
{
    struct stat status;
    if (fstat(archive, &status) != 0) return errno;
    if (!S_ISREG(status.st_mode)) {
        say(context, "", "is not a regular file");
        return EIO;
    }
    struct builder b = {
        .limits = limits,
        .say = say,
        .context = context,
        .archive_size = (uint64_t)status.st_size,
        .archive_mtime = status.st_mtime,
        .pack = pack,
    };
    points_start(&b.points, b.archive_size);
    int error = builder_start(&b);
    if (error == 0)
        error = zip_recognised(archive, b.archive_size)        ? zip_build(&b, archive)
                : squashfs_recognised(archive, b.archive_size) ? squashfs_build(&b, archive)
                                                               : libarchive_build(&b, archive);
    if (error == 0) error = builder_finish(&b, index);
    if (error == ENOSPC && b.packed > 0) { /* the index matters more than what is kept */
        builder_keep_nothing(&b);
        error = builder_write(&b, index);
    }
    builder_free(&b);
    return error;
}

static int fill(int archive, const struct cse_index_header *index, uint32_t number, int out,
                cse_tree_say *say, void *context)
{
    if (number >= index->entry_count) return EINVAL;
    const struct cse_index_entry *entry = &cse_index_entries(index)[number];
    if (entry->size == 0) return 0;
    if (index->format == CSE_FORMAT_ZIP) return zip_fill(archive, index, entry, out, say, context);
    if (index->format == CSE_FORMAT_SQUASHFS)
        return squashfs_fill(archive, index, entry, out, say, context);
    return libarchive_fill(archive, index, entry, out, say, context);
}

__attribute__((visibility("default"))) const struct cse_tree_provider cse_tree_provider = {
    .version = CSE_TREE_VERSION,
    .start = start,
    .build = build,
    .fill = fill,
};

/* What libbzip2 calls when it finds itself inconsistent; its own version would end the program.
 * The decoder's caller sees the damage in the data. */
void bz_internal_error(int code)
{
    (void)code;
}
