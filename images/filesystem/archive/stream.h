/* A compressed file as the bytes it unpacks to, from its beginning or from a seek point.
 *
 * libarchive.c reads the tar or cpio in it through this; each codec is a file of its own (gzip.c,
 * xz.c, zstd.c). While an index is built a stream notes its seek points (points.c).
 */
#ifndef CSE_ARCHIVE_STREAM_H
#define CSE_ARCHIVE_STREAM_H

#include "index.h"

#include <stddef.h>
#include <sys/types.h>

enum { WINDOW_BYTES = 32 << 10, INPUT_BYTES = 68 << 10 };

/* ---- seek points, while they are collected -------------------------------------------------- */

struct points {
    struct cse_index_point *list;
    uint32_t count, capacity;
    unsigned char *windows; /* packed, in the order of the list */
    size_t windows_size, windows_capacity;
    uint64_t spacing; /* bytes of output from one to the next */
    size_t bound;     /* of windows and list together */
};

void points_start(struct points *points, uint64_t archive_size);
/* Whether one is wanted at `out`. False without a collection. */
bool points_due(const struct points *points, uint64_t out);
/* Adds one, with the last `window_size` bytes of output where the codec needs them. */
void points_add(struct points *points, struct cse_index_point point, const unsigned char *window,
                size_t window_size);
size_t points_bytes(const struct points *points);
void points_free(struct points *points);

/* ---- a stream ------------------------------------------------------------------------------- */

struct input { /* the compressed file, a buffer at a time */
    int fd;
    uint64_t at; /* in the file, of buffer[used] */
    size_t used, filled;
    unsigned char buffer[INPUT_BYTES];
};

/* At least `wanted` bytes at *data where the file has them; how many there are. */
size_t input_peek(struct input *in, size_t wanted, const unsigned char **data);
void input_skip(struct input *in, size_t count);
void input_seek(struct input *in, uint64_t at);

struct stream {
    const struct codec *codec;
    struct input in;
    uint64_t out;          /* bytes given so far, from the beginning of what is unpacked */
    struct points *points; /* where to note them; NULL: nowhere */
    const char *why;       /* of -EIO */
    void *state;           /* the codec's */
    const struct cse_index_header *index; /* between fills: names the archive */
};

struct codec {
    enum cse_archive_codec number;
    bool (*recognised)(const unsigned char *start, size_t length);
    /* Makes s->state where it is NULL and begins at the beginning (point NULL) or at a point; the
     * input is there already. 0 or -errno. */
    int (*begin)(struct stream *s, const struct cse_index_point *point, const unsigned char *window,
                 size_t window_size);
    /* Some bytes, 0 at the end, or -errno with s->why. Does not count s->out. */
    ssize_t (*read)(struct stream *s, unsigned char *to, size_t room);
    void (*end)(struct stream *s);
};

extern const struct codec codec_gzip, codec_xz, codec_zstd;

/* -EIO, after saying why. */
ssize_t stream_damaged(struct stream *s, const char *why);

/* NULL: no codec of ours knows the file, or there is no memory. */
struct stream *stream_open(int fd, struct points *points);
/* One that stands at `at`, by the shortest way that the index knows; NULL with *error and
 * perhaps *why. Goes to stream_put when it is still good, else to stream_close. */
struct stream *stream_take(int fd, const struct cse_index_header *index, uint64_t at, int *error,
                           const char **why);
void stream_put(struct stream *s);
void stream_close(struct stream *s);
/* Bytes, fewer only at the end; or -errno. */
ssize_t stream_read(struct stream *s, void *to, size_t size);

#endif
