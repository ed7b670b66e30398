/* tar, cpio, iso9660 and 7z, plain or compressed (gzip, xz, lzma, lzip, zstd, bzip2, lz4,
 * compress), through libarchive.
 *
 * Plain tar, cpio and iso9660: each member is read at its own offset. 7z and whatever is
 * compressed: only one pass in order is cheap, so indexing keeps contents in the pack file as they
 * stream by, up to a bound; what did not fit is reached with a reader that stays open, so that
 * reading files in archive order is one pass again.
 *
 * A compressed stream is read to its end before anything of it is shown, so its checksums hold for
 * all that is kept; each member's own is taken then, and compared when it is read once more. Plain
 * tar, cpio and iso9660 have no checksum of contents: what they hold is shown.
 */
#include "build.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zlib.h>

/* The filter's own end, which readers of formats never come to: they stop at their end mark, before
 * the checksums of the compressed stream. Of libarchive's archive_read_private.h. */
struct archive_read;
const void *__archive_read_ahead(struct archive_read *, size_t, ssize_t *);
int64_t __archive_read_consume(struct archive_read *, int64_t);

enum { READ_BLOCK = 128 << 10, COPY_BLOCK = 32 << 10, CRC_PART = 1 << 30 };
enum { COMPARED = 512, ONE_PIECE_MAX = 1 << 30 };
enum {                   /* cse_index_entry.method of plain archives: source_at is */
       AT_HEADER = 0,    /* where tar's header begins */
       IN_ONE_PIECE = 1, /* where the data begin */
       IN_TURN = 2,      /* the number of members before it */
};

enum { WHY_BYTES = 200 };

static const char *reason(struct archive *reader)
{
    const char *text = reader ? archive_error_string(reader) : NULL;
    return text != NULL ? text : "cannot be read";
}

/* NULL, and in why[WHY_BYTES] the reason. */
static struct archive *open_reader(int archive, off_t offset, char *why)
{
    snprintf(why, WHY_BYTES, "cannot be read");
    if (lseek(archive, offset, SEEK_SET) < 0) return NULL;
    struct archive *reader = archive_read_new();
    if (reader == NULL) return NULL;
    archive_read_support_format_tar(reader);
    archive_read_support_format_cpio(reader);
    archive_read_support_format_iso9660(reader);
    archive_read_support_format_7zip(reader);
    archive_read_support_filter_gzip(reader);
    archive_read_support_filter_xz(reader);
    archive_read_support_filter_lzma(reader);
    archive_read_support_filter_lzip(reader);
    archive_read_support_filter_zstd(reader);
    archive_read_support_filter_bzip2(reader);
    archive_read_support_filter_lz4(reader);
    archive_read_support_filter_compress(reader);
    if (archive_read_open_fd(reader, archive, READ_BLOCK) == ARCHIVE_OK) return reader;
    snprintf(why, WHY_BYTES, "%s", reason(reader));
    archive_read_free(reader);
    return NULL;
}

/* Copies the present member's data to `out` (-1: nowhere) from `offset` on; holes stay holes.
 * *crc is that of all data but the holes. */
static int copy_data(struct archive *reader, uint64_t size, int out, uint64_t offset, uint32_t *crc)
{
    const void *data;
    size_t length;
    la_int64_t at;
    int got, error = 0; /* of writing: the checksum is wanted all the same */
    *crc = 0;
    while ((got = archive_read_data_block(reader, &data, &length, &at)) == ARCHIVE_OK ||
           got == ARCHIVE_WARN) {
        if (at < 0 || (uint64_t)at > size || length > size - (uint64_t)at) return EIO;
        if (error == 0 && out >= 0) error = write_all(out, data, length, offset + (uint64_t)at);
        for (size_t done = 0; done < length; done += CRC_PART)
            *crc = (uint32_t)crc32(*crc, (const Bytef *)data + done,
                                   (uInt)(length - done < CRC_PART ? length - done : CRC_PART));
    }
    return got == ARCHIVE_EOF ? error : EIO;
}

static int keep(struct builder *b, struct archive *reader, uint32_t number)
{
    struct cse_index_entry *entry = &b->entries[number];
    if (!S_ISREG(entry->mode) || entry->is_hard_link || entry->size == 0) return 0;
    bool room = b->pack >= 0 && entry->size <= b->limits->cache_bytes - b->packed;
    int error = copy_data(reader, entry->size, room ? b->pack : -1, b->packed, &entry->crc);
    if (error == ENOSPC) {
        builder_keep_nothing(b);
        return 0;
    }
    if (error != 0 || !room) return error;
    entry->packed_at = b->packed + 1;
    b->packed += entry->size;
    return 0;
}

/* The rest of the stream, so that its checksums are compared. What is there counts as content. */
static int read_to_end(struct builder *b, struct archive *reader)
{
    struct archive_read *filter = (struct archive_read *)(void *)reader;
    uint64_t seen = 0;
    ssize_t available;
    while (__archive_read_ahead(filter, 1, &available) != NULL && available > 0) {
        seen += (uint64_t)available;
        if (seen > b->limits->max_bytes) {
            b->say(b->context, "", "has more behind its end than max_bytes; it is refused");
            return EFBIG;
        }
        __archive_read_consume(filter, available);
    }
    return available < 0 ? EIO : 0;
}

/* Whether the present member's data lie in one piece, as they are, at *at of a plain archive. */
static bool one_piece(const struct builder *b, struct archive *reader, struct archive_entry *found,
                      int archive, uint64_t size, uint64_t *at)
{
    const void *data = NULL;
    char same[COMPARED];
    size_t length = 0;
    la_int64_t first = 0;
    if (size == 0 || size > ONE_PIECE_MAX || archive_entry_sparse_reset(found) != 0) return false;
    if ((archive_format(reader) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_ISO9660) {
        /* Its reader goes there with the first block only, and may unpack it (zisofs). */
        if (archive_read_data_block(reader, &data, &length, &first) != ARCHIVE_OK || first != 0)
            return false;
    }
    int64_t begin = archive_filter_bytes(reader, 0);
    if (begin <= 0 || (uint64_t)begin > b->archive_size || size > b->archive_size - (uint64_t)begin)
        return false;
    *at = (uint64_t)begin;
    if (data == NULL) return true;
    size_t compared = length < sizeof same ? length : sizeof same;
    return read_all(archive, same, compared, *at) == 0 && memcmp(same, data, compared) == 0;
}

static int add_member(struct builder *b, struct archive *reader, struct archive_entry *found,
                      int archive, uint64_t ordinal)
{
    const char *name = archive_entry_pathname(found);
    const char *hard = archive_entry_hardlink(found);
    const char *link = hard ? hard : archive_entry_symlink(found);
    bool cpio = (archive_format(reader) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_CPIO;
    bool empty = (hard != NULL && !cpio) || archive_entry_size(found) < 0;
    struct member member = {
        .name = name ? name : "",
        .target = link ? link : "",
        .is_hard_link = hard != NULL,
        .mode = (uint32_t)archive_entry_mode(found),
        .size = empty ? 0 : (uint64_t)archive_entry_size(found),
        .mtime = archive_entry_mtime(found),
        .mtime_ns = (uint32_t)archive_entry_mtime_nsec(found),
        .source_at = ordinal,
    };
    if (b->format == CSE_FORMAT_PLAIN && (S_ISREG(member.mode) || hard != NULL)) {
        bool tar = (archive_format(reader) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_TAR;
        if (tar) member.source_at = (uint64_t)archive_read_header_position(reader);
        if (one_piece(b, reader, found, archive, member.size, &member.source_at))
            member.method = IN_ONE_PIECE;
        else
            member.method = tar ? AT_HEADER : IN_TURN;
    }
    uint32_t number;
    int error = builder_add(b, &member, &number);
    if (error != 0 || number == CSE_NO_ENTRY) return error;
    if (hard != NULL && member.size > 0) { /* cpio has the data at the last name of a file */
        number = builder_first_name(b, number);
        if (number == CSE_NO_ENTRY) return 0;
        b->entries[number].size = member.size;
        b->entries[number].source_at = member.source_at;
        b->entries[number].method = member.method;
    }
    return b->format == CSE_FORMAT_STREAM ? keep(b, reader, number) : 0;
}

/* Formats in which each member can be reached by itself. */
static bool is_plain(struct archive *reader)
{
    int format = archive_format(reader) & ARCHIVE_FORMAT_BASE_MASK;
    return archive_filter_code(reader, 0) == ARCHIVE_FILTER_NONE &&
           (format == ARCHIVE_FORMAT_TAR || format == ARCHIVE_FORMAT_CPIO ||
            format == ARCHIVE_FORMAT_ISO9660);
}

int libarchive_build(struct builder *b, int archive)
{
    char why[WHY_BYTES], text[256];
    struct archive *reader = open_reader(archive, 0, why);
    struct archive_entry *found;
    int error = 0, got = ARCHIVE_FATAL;
    if (reader != NULL) {
        for (uint64_t ordinal = 0; error == 0; ordinal++) {
            got = archive_read_next_header(reader, &found);
            if (got != ARCHIVE_OK && got != ARCHIVE_WARN) break;
            if (ordinal == 0) b->format = is_plain(reader) ? CSE_FORMAT_PLAIN : CSE_FORMAT_STREAM;
            error = add_member(b, reader, found, archive, ordinal);
        }
    }
    if (error == 0 && got == ARCHIVE_EOF && reader != NULL &&
        archive_filter_code(reader, 0) != ARCHIVE_FILTER_NONE)
        error = read_to_end(b, reader);
    if (error == EIO || (error == 0 && got != ARCHIVE_EOF)) {
        snprintf(text, sizeof text, "is damaged or no archive of a known kind: %s",
                 reader != NULL ? reason(reader) : why);
        b->say(b->context, "", text);
        error = EIO;
    }
    if (reader != NULL) archive_read_free(reader);
    /* The last member may end in a hole. */
    if (error == 0 && b->packed > 0 && ftruncate(b->pack, (off_t)b->packed) != 0) error = errno;
    return error;
}

/* ---- contents ------------------------------------------------------------------------------ */

/* A reader part-way through a compressed archive. One is kept between calls; whoever takes it owns
 * it, so two threads never share one, and a forked child cannot find it half-used. */
struct cursor {
    struct archive *reader;
    const struct cse_index_header *index; /* names the archive */
    int fd;
    pid_t pid;
    uint64_t next; /* ordinal of the member that the next header will be */
};

static struct cursor *kept;

static void free_cursor(struct cursor *cursor)
{
    if (cursor == NULL) return;
    if (cursor->reader != NULL) archive_read_free(cursor->reader);
    tree_host.own_close(cursor->fd);
    free(cursor);
}

/* The archive with an offset of its own: what the overlay gave is every thread's. */
static int reopen(int archive)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", archive);
    return tree_host.own_fd((int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC));
}

static struct cursor *take_cursor(int archive, const struct cse_index_header *index,
                                  uint64_t wanted)
{
    struct cursor *cursor = __atomic_exchange_n(&kept, NULL, __ATOMIC_ACQ_REL);
    /* A forked child shares the file offset with its parent: it must not go on reading there. */
    if (cursor != NULL && cursor->index == index && cursor->next <= wanted &&
        cursor->pid == getpid())
        return cursor;
    char why[WHY_BYTES];
    free_cursor(cursor);
    cursor = calloc(1, sizeof *cursor);
    if (cursor == NULL) return NULL;
    cursor->fd = reopen(archive);
    cursor->index = index;
    cursor->pid = getpid();
    cursor->reader = cursor->fd >= 0 ? open_reader(cursor->fd, 0, why) : NULL;
    if (cursor->reader != NULL) return cursor;
    free_cursor(cursor);
    return NULL;
}

static int fill_from_stream(int archive, const struct cse_index_header *index,
                            const struct cse_index_entry *entry, int out, const char **why)
{
    struct cursor *cursor = take_cursor(archive, index, entry->source_at);
    if (cursor == NULL) return ENOMEM;
    struct archive_entry *found;
    int got = ARCHIVE_OK;
    while (cursor->next <= entry->source_at && (got == ARCHIVE_OK || got == ARCHIVE_WARN)) {
        got = archive_read_next_header(cursor->reader, &found);
        cursor->next++;
    }
    uint32_t crc = 0;
    int error = got == ARCHIVE_OK || got == ARCHIVE_WARN
                    ? copy_data(cursor->reader, entry->size, out, 0, &crc)
                    : EIO;
    if (error == 0 && index->format == CSE_FORMAT_STREAM && crc != entry->crc) {
        *why = "is not what it was when the archive was indexed";
        free_cursor(cursor);
        return EIO;
    }
    if (error != 0) {
        static __thread char text[200];
        snprintf(text, sizeof text, "%s", reason(cursor->reader));
        *why = text;
        free_cursor(cursor);
        return error;
    }
    free_cursor(__atomic_exchange_n(&kept, cursor, __ATOMIC_ACQ_REL));
    return 0;
}

static int fill_at_offset(int archive, const struct cse_index_entry *entry, int out)
{
    if (entry->method == IN_ONE_PIECE) {
        char block[COPY_BLOCK];
        int error = 0;
        for (uint64_t done = 0; done < entry->size && error == 0; done += sizeof block) {
            size_t part =
                entry->size - done < sizeof block ? (size_t)(entry->size - done) : sizeof block;
            error = read_all(archive, block, part, entry->source_at + done);
            if (error == 0) error = write_all(out, block, part, done);
        }
        return error;
    }
    char why[WHY_BYTES];
    int own = reopen(archive);
    struct archive *reader = own >= 0 ? open_reader(own, (off_t)entry->source_at, why) : NULL;
    if (reader == NULL) {
        tree_host.own_close(own);
        return EIO;
    }
    struct archive_entry *found;
    int got = archive_read_next_header(reader, &found);
    uint32_t crc;
    int error = got == ARCHIVE_OK || got == ARCHIVE_WARN
                    ? copy_data(reader, entry->size, out, 0, &crc)
                    : EIO;
    archive_read_free(reader);
    tree_host.own_close(own);
    return error;
}

int libarchive_fill(int archive, const struct cse_index_header *index,
                    const struct cse_index_entry *entry, int out, cse_tree_say *say, void *context)
{
    const char *why = "cannot be read from the archive";
    bool in_turn = index->format == CSE_FORMAT_STREAM || entry->method == IN_TURN;
    int error = in_turn ? fill_from_stream(archive, index, entry, out, &why)
                        : fill_at_offset(archive, entry, out);
    if (error != 0) say(context, cse_index_text(index, entry->path), why);
    return error;
}
