/* What libarchive.c (the index) and contents.c (the files) share: libarchive's readers. */
#ifndef CSE_ARCHIVE_READER_H
#define CSE_ARCHIVE_READER_H

#include "build.h"

#include <archive.h>
#include <archive_entry.h>

enum { WHY_BYTES = 200, COPY_BLOCK = 32 << 10 };
enum {                /* cse_index_entry.method of plain archives, and of streams with a codec: */
       AT_HEADER = 0, /* source_at is where tar's header begins */
       IN_ONE_PIECE = 1, /* where the data begin */
       IN_TURN = 2,      /* the number of members before it; so it is in streams without a codec */
};

/* On a file from an offset, or on a stream from where it stands. NULL: why[WHY_BYTES] says it. */
struct archive *open_reader(int archive, off_t offset, char *why);
struct archive *open_stream_reader(struct stream *stream, char *why);
const char *reader_reason(struct archive *reader);
/* Copies the present member's data to `out` (-1: nowhere) from `offset` on; holes stay holes.
 * *crc is that of all data but the holes. */
int copy_data(struct archive *reader, uint64_t size, int out, uint64_t offset, uint32_t *crc);
/* zlib's crc32, of any length. */
uint32_t crc_of(uint32_t crc, const void *data, size_t length);

#endif
