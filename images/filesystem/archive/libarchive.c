/* The index of tar, cpio, iso9660 and 7z, plain or compressed (gzip, xz, lzma, lzip, zstd, bzip2,
 * lz4, compress), through libarchive. contents.c reads the members.
 *
 * Plain tar, cpio and iso9660: each member is read at its own offset. 7z and whatever is
 * compressed: indexing keeps contents in the pack file as they stream by, up to a bound. What did
 * not fit is read from the nearest seek point where gzip, xz or zstd has them (stream.c); else with
 * a reader that stays open, so that reading files in archive order is one pass again.
 *
 * A compressed stream is read to its end before anything of it is shown, so its checksums hold for
 * all that is kept; each member's own is taken then, and compared when it is read once more. Plain
 * tar, cpio and iso9660 have no checksum of contents: what they hold is shown.
 */
#include "reader.h"

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

enum { READ_BLOCK = 128 << 10, CRC_PART = 1 << 30 };
enum { COMPARED = 512, ONE_PIECE_MAX = 1 << 30 };

const char *reader_reason(struct archive *reader)
{
    const char *text = reader ? archive_error_string(reader) : NULL;
    return text != NULL ? text : "cannot be read";
}

static struct archive *new_reader(char *why)
{
    struct archive *reader = archive_read_new();
    snprintf(why, WHY_BYTES, "cannot be read");
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
    return reader;
}

static struct archive *opened(struct archive *reader, int result, char *why)
{
    if (result == ARCHIVE_OK) return reader;
    snprintf(why, WHY_BYTES, "%s", reader_reason(reader));
    archive_read_free(reader);
    return NULL;
}

struct archive *open_reader(int archive, off_t offset, char *why)
{
    struct archive *reader = new_reader(why);
    if (reader != NULL && lseek(archive, offset, SEEK_SET) < 0) {
        archive_read_free(reader);
        return NULL;
    }
    if (reader == NULL) return NULL;
    return opened(reader, archive_read_open_fd(reader, archive, READ_BLOCK), why);
}

/* Between a stream and libarchive. */
struct feed {
    struct stream *stream;
    unsigned char buffer[READ_BLOCK];
};

static la_ssize_t feed_read(struct archive *reader, void *context, const void **data)
{
    struct feed *feed = context;
    ssize_t got = stream_read(feed->stream, feed->buffer, sizeof feed->buffer);
    if (got < 0) archive_set_error(reader, (int)-got, "%s", feed->stream->why);
    *data = feed->buffer;
    return got < 0 ? -1 : got;
}

static int feed_close(struct archive *reader, void *context)
{
    (void)reader;
    free(context);
    return ARCHIVE_OK;
}

struct archive *open_stream_reader(struct stream *stream, char *why)
{
    struct archive *reader = new_reader(why);
    struct feed *feed = reader != NULL ? malloc(sizeof *feed) : NULL;
    if (feed == NULL) {
        archive_read_free(reader);
        return NULL;
    }
    feed->stream = stream;
    return opened(reader, archive_read_open2(reader, feed, NULL, feed_read, NULL, feed_close), why);
}

uint32_t crc_of(uint32_t crc, const void *data, size_t length)
{
    for (size_t done = 0; done < length; done += CRC_PART)
        crc = (uint32_t)crc32(crc, (const Bytef *)data + done,
                              (uInt)(length - done < CRC_PART ? length - done : CRC_PART));
    return crc;
}

int copy_data(struct archive *reader, uint64_t size, int out, uint64_t offset, uint32_t *crc)
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
        *crc = crc_of(*crc, data, length);
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

/* Whether the present member's data lie in one piece, as they are, at *at of a plain archive or of
 * a stream. */
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
    if (begin <= 0) return false;
    *at = (uint64_t)begin;
    if (b->codec != CSE_CODEC_NONE) return true;
    if (*at > b->archive_size || size > b->archive_size - *at) return false;
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
    bool placed = b->format == CSE_FORMAT_PLAIN || b->codec != CSE_CODEC_NONE;
    if (placed && (S_ISREG(member.mode) || hard != NULL)) {
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

/* Whether members can be reached by where they lie, in the file or in the stream. */
static void find_format(struct builder *b, struct archive *reader, const struct stream *stream)
{
    int format = archive_format(reader) & ARCHIVE_FORMAT_BASE_MASK;
    bool bare = archive_filter_code(reader, 0) == ARCHIVE_FILTER_NONE;
    bool in_order = format == ARCHIVE_FORMAT_TAR || format == ARCHIVE_FORMAT_CPIO;
    bool plain = bare && stream == NULL && (in_order || format == ARCHIVE_FORMAT_ISO9660);
    b->format = plain ? CSE_FORMAT_PLAIN : CSE_FORMAT_STREAM;
    b->codec = bare && stream != NULL && in_order ? stream->codec->number : CSE_CODEC_NONE;
}

static int read_members(struct builder *b, struct archive *reader, const struct stream *stream,
                        int archive)
{
    struct archive_entry *found;
    for (uint64_t ordinal = 0;; ordinal++) {
        int got = archive_read_next_header(reader, &found);
        if (got == ARCHIVE_EOF) break;
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN) return EIO;
        if (ordinal == 0) find_format(b, reader, stream);
        int error = add_member(b, reader, found, archive, ordinal);
        if (error != 0) return error;
    }
    bool compressed = stream != NULL || archive_filter_code(reader, 0) != ARCHIVE_FILTER_NONE;
    return compressed ? read_to_end(b, reader) : 0;
}

int libarchive_build(struct builder *b, int archive)
{
    char why[WHY_BYTES], text[256];
    struct stream *stream = stream_open(archive, &b->points);
    struct archive *reader =
        stream != NULL ? open_stream_reader(stream, why) : open_reader(archive, 0, why);
    int error = reader != NULL ? read_members(b, reader, stream, archive) : EIO;
    if (error == EIO) {
        snprintf(text, sizeof text, "is damaged or no archive of a known kind: %s",
                 reader != NULL ? reader_reason(reader) : why);
        b->say(b->context, "", text);
    }
    if (reader != NULL) archive_read_free(reader);
    stream_close(stream);
    /* The last member may end in a hole. */
    if (error == 0 && b->packed > 0 && ftruncate(b->pack, (off_t)b->packed) != 0) error = errno;
    return error;
}
