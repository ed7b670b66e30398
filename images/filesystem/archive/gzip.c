/* gzip (RFC 1952): members in a row, each with its checksum; a seek point at the end of a deflate
 * block (as zlib's examples/zran.c shows), with the 32 KiB of output before it. From a point on the
 * checksum of its member cannot be compared; that of the file in the archive is (libarchive.c).
 */
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

enum { HEADER_CRC = 2, EXTRA = 4, NAME = 8, COMMENT = 16, RESERVED = 0xe0, HEADER_BYTES = 10 };
enum { LAST_BLOCK = 64, BLOCK_END = 128 }; /* of z_stream.data_type */

struct gzip {
    z_stream z;
    bool between; /* a header comes next, or the end */
    bool first;
    bool whole; /* read from its header on: the checksum can be compared */
    uint32_t crc, length;
};

static bool recognised(const unsigned char *start, size_t length)
{
    return length >= 4 && start[0] == 0x1f && start[1] == 0x8b && start[2] == 8 &&
           (start[3] & RESERVED) == 0;
}

static void end(struct stream *s)
{
    struct gzip *g = s->state;
    inflateEnd(&g->z);
    free(g);
    s->state = NULL;
}

static int begin(struct stream *s, const struct cse_index_point *point, const unsigned char *window,
                 size_t window_size)
{
    struct gzip *g = s->state;
    if (g == NULL) {
        g = s->state = calloc(1, sizeof *g);
        if (g == NULL) return -ENOMEM;
        if (inflateInit2(&g->z, -MAX_WBITS) != Z_OK) {
            free(g);
            s->state = NULL;
            return -ENOMEM;
        }
    }
    g->between = g->first = point == NULL;
    if (point == NULL) return 0;
    g->whole = false;
    inflateReset(&g->z);
    if (point->bits > 7 || point->in == 0) return -EIO;
    if (point->bits > 0) {
        const unsigned char *data;
        input_seek(&s->in, point->in - 1);
        if (input_peek(&s->in, 1, &data) == 0)
            return (int)stream_damaged(s, "truncated gzip input");
        inflatePrime(&g->z, (int)point->bits, data[0] >> (8 - point->bits));
        input_skip(&s->in, 1);
    }
    return inflateSetDictionary(&g->z, window, (uInt)window_size) == Z_OK ? 0 : -EIO;
}

/* Whether `count` bytes could be passed over. */
static bool pass(struct stream *s, size_t count)
{
    const unsigned char *data;
    if (input_peek(&s->in, count, &data) < count) return false;
    input_skip(&s->in, count);
    return true;
}

static bool pass_text(struct stream *s)
{
    const unsigned char *data;
    while (input_peek(&s->in, 1, &data) > 0) {
        bool last = data[0] == 0;
        input_skip(&s->in, 1);
        if (last) return true;
    }
    return false;
}

/* 1: a member begins; 0: there is none (what follows the last one is no gzip); -EIO. */
static int read_header(struct stream *s)
{
    struct gzip *g = s->state;
    const unsigned char *data;
    size_t length = input_peek(&s->in, HEADER_BYTES, &data);
    if (!recognised(data, length)) return g->first ? (int)stream_damaged(s, "no gzip header") : 0;
    unsigned flags = data[3];
    bool good = pass(s, HEADER_BYTES);
    if (good && (flags & EXTRA)) {
        good = input_peek(&s->in, 2, &data) >= 2;
        good =
            good && pass(s, 2 + (size_t)data[0] + ((size_t)data[1] << 8)); /* of 65,537 at most */
    }
    if (good && (flags & NAME)) good = pass_text(s);
    if (good && (flags & COMMENT)) good = pass_text(s);
    if (good && (flags & HEADER_CRC)) good = pass(s, 2);
    if (!good) return (int)stream_damaged(s, "truncated gzip input");
    inflateReset(&g->z);
    g->between = g->first = false;
    g->whole = true;
    g->crc = g->length = 0;
    return 1;
}

static int read_trailer(struct stream *s)
{
    struct gzip *g = s->state;
    const unsigned char *data;
    if (input_peek(&s->in, 8, &data) < 8) return (int)stream_damaged(s, "truncated gzip input");
    uint32_t crc = 0, length = 0;
    for (int i = 3; i >= 0; i--) {
        crc = crc << 8 | data[i];
        length = length << 8 | data[i + 4];
    }
    if (g->whole && (crc != g->crc || length != g->length))
        return (int)stream_damaged(s, "wrong gzip checksum");
    input_skip(&s->in, 8);
    g->between = true;
    return 0;
}

/* `s->out` does not count the `made` bytes yet. */
static void note_point(struct stream *s, size_t made)
{
    struct gzip *g = s->state;
    unsigned char window[WINDOW_BYTES];
    uInt size = 0;
    if (inflateGetDictionary(&g->z, window, &size) != Z_OK) return;
    struct cse_index_point point = {
        .out = s->out + made, .in = s->in.at, .bits = (uint32_t)g->z.data_type & 7};
    points_add(s->points, point, window, size);
}

static ssize_t read_on(struct stream *s, unsigned char *to, size_t room)
{
    struct gzip *g = s->state;
    if (room > 1 << 30) room = 1 << 30;
    for (;;) {
        int got = g->between ? read_header(s) : 1;
        if (got <= 0) return got;
        const unsigned char *data;
        size_t length = input_peek(&s->in, 1, &data);
        if (length == 0) return stream_damaged(s, "truncated gzip input");
        g->z.next_in = (Bytef *)(uintptr_t)data; /* zlib does not write there */
        g->z.avail_in = (uInt)length;
        g->z.next_out = to;
        g->z.avail_out = (uInt)room;
        int result = inflate(&g->z, s->points != NULL ? Z_BLOCK : Z_NO_FLUSH);
        size_t made = room - g->z.avail_out, taken = length - g->z.avail_in;
        input_skip(&s->in, taken);
        if (result != Z_STREAM_END && result != Z_OK)
            return stream_damaged(s, "damaged gzip input");
        if (g->whole) {
            g->crc = (uint32_t)crc32(g->crc, to, (uInt)made);
            g->length += (uint32_t)made;
        }
        if (result == Z_STREAM_END) {
            got = read_trailer(s);
            if (got < 0) return got;
        } else if ((g->z.data_type & BLOCK_END) && !(g->z.data_type & LAST_BLOCK) &&
                   points_due(s->points, s->out + made)) {
            note_point(s, made);
        }
        if (made > 0) return (ssize_t)made;
    }
}

const struct codec codec_gzip = {CSE_CODEC_GZIP, recognised, begin, read_on, end};
