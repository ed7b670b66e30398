/* Contents of tar, cpio, iso9660 and 7z: each member from where it lies, from the nearest seek
 * point of its stream, or in the order of the archive. Called through provider.c; libarchive.c made
 * the index and says which of these it is.
 */
#include "reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

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

/* The member at the reader's beginning, which is freed. */
static int copy_member(struct archive *reader, const struct cse_index_entry *entry, int out,
                       uint32_t *crc)
{
    struct archive_entry *found;
    if (reader == NULL) return EIO;
    int got = archive_read_next_header(reader, &found);
    int error = got == ARCHIVE_OK || got == ARCHIVE_WARN
                    ? copy_data(reader, entry->size, out, 0, crc)
                    : EIO;
    archive_read_free(reader);
    return error;
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
        snprintf(text, sizeof text, "%s", reader_reason(cursor->reader));
        *why = text;
        free_cursor(cursor);
        return error;
    }
    free_cursor(__atomic_exchange_n(&kept, cursor, __ATOMIC_ACQ_REL));
    return 0;
}

/* From the nearest point of a stream that can be entered there. */
static int fill_from_point(int archive, const struct cse_index_header *index,
                           const struct cse_index_entry *entry, int out, const char **why)
{
    char block[COPY_BLOCK];
    int error;
    uint32_t crc = 0;
    struct stream *stream = stream_take(archive, index, entry->source_at, &error, why);
    if (stream == NULL) return error;
    if (entry->method == IN_ONE_PIECE) {
        for (uint64_t done = 0; done < entry->size && error == 0;) {
            size_t part =
                entry->size - done < sizeof block ? (size_t)(entry->size - done) : sizeof block;
            ssize_t got = stream_read(stream, block, part);
            error = got < 0 ? (int)-got : (size_t)got < part ? EIO : 0;
            if (error == 0) error = write_all(out, block, part, done);
            crc = crc_of(crc, block, got > 0 ? (size_t)got : 0);
            done += part;
        }
    } else {
        error = copy_member(open_stream_reader(stream, block), entry, out, &crc);
    }
    if (error == EIO) *why = stream->why;
    if (error == 0 && crc != entry->crc) {
        *why = "is not what it was when the archive was indexed";
        error = EIO;
    }
    if (error == 0)
        stream_put(stream);
    else
        stream_close(stream);
    return error;
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
    uint32_t crc;
    int error = own >= 0
                    ? copy_member(open_reader(own, (off_t)entry->source_at, why), entry, out, &crc)
                    : EIO;
    tree_host.own_close(own);
    return error;
}

int libarchive_fill(int archive, const struct cse_index_header *index,
                    const struct cse_index_entry *entry, int out, cse_tree_say *say, void *context)
{
    const char *why = "cannot be read from the archive";
    bool placed = index->format != CSE_FORMAT_STREAM || index->codec != CSE_CODEC_NONE;
    int error;
    if (!placed || entry->method == IN_TURN)
        error = fill_from_stream(archive, index, entry, out, &why);
    else if (index->codec != CSE_CODEC_NONE)
        error = fill_from_point(archive, index, entry, out, &why);
    else
        error = fill_at_offset(archive, entry, out);
    if (error != 0) say(context, cse_index_text(index, entry->path), why);
    return error;
}
