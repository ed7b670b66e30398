/* xz (format 1.2.0): streams in a row, each of blocks that can be read alone and an index of them.
 * A seek point is the beginning of a block: `xz -T0`, pixz and xz from 5.6 on make many, `xz -T1`
 * one for the whole file, in which no point can be had for less than its dictionary of megabytes.
 */
#include "stream.h"

#include <errno.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_MOST (UINT64_C(1) << 30) /* what libarchive allows its decoders */

struct xz {
    lzma_stream z;
    lzma_block block;
    lzma_filter filters[LZMA_FILTERS_MAX + 1];
    lzma_stream_flags flags;
    lzma_index_hash *hash; /* of the blocks read; NULL: begun in the middle of the stream */
    enum { AT_STREAM, AT_BLOCK, IN_BLOCK } place;
    bool first;
};

static const unsigned char magic[6] = {0xfd, '7', 'z', 'X', 'Z', 0};

static bool recognised(const unsigned char *start, size_t length)
{
    return length >= sizeof magic && memcmp(start, magic, sizeof magic) == 0;
}

static void forget_hash(struct xz *x)
{
    if (x->hash != NULL) lzma_index_hash_end(x->hash, NULL);
    x->hash = NULL;
}

static void end(struct stream *s)
{
    struct xz *x = s->state;
    lzma_end(&x->z);
    forget_hash(x);
    free(x);
    s->state = NULL;
}

static int begin(struct stream *s, const struct cse_index_point *point, const unsigned char *window,
                 size_t window_size)
{
    struct xz *x = s->state;
    (void)window;
    (void)window_size;
    if (x == NULL) {
        x = s->state = calloc(1, sizeof *x);
        if (x == NULL) return -ENOMEM;
        x->z = (lzma_stream)LZMA_STREAM_INIT;
    }
    forget_hash(x);
    x->place = point == NULL ? AT_STREAM : AT_BLOCK;
    x->first = point == NULL;
    if (point != NULL) {
        if (point->check > LZMA_CHECK_ID_MAX) return -EIO;
        x->flags = (lzma_stream_flags){.check = (lzma_check)point->check};
    }
    return 0;
}

/* 1: a stream begins; 0: the end; -errno. */
static int begin_stream(struct stream *s)
{
    struct xz *x = s->state;
    const unsigned char *data;
    size_t length;
    while ((length = input_peek(&s->in, LZMA_STREAM_HEADER_SIZE, &data)) >= 4 && !x->first &&
           memcmp(data, "\0\0\0", 4) == 0)
        input_skip(&s->in, 4); /* padding */
    if (length == 0 && !x->first) return 0;
    if (length < LZMA_STREAM_HEADER_SIZE || lzma_stream_header_decode(&x->flags, data) != LZMA_OK)
        return (int)stream_damaged(s, "damaged xz header");
    input_skip(&s->in, LZMA_STREAM_HEADER_SIZE);
    x->hash = lzma_index_hash_init(x->hash, NULL);
    x->place = AT_BLOCK;
    x->first = false;
    return x->hash != NULL ? 1 : -ENOMEM;
}

static int begin_block(struct stream *s, const unsigned char *header)
{
    struct xz *x = s->state;
    uint32_t size = lzma_block_header_size_decode(header[0]);
    x->block = (lzma_block){
        .version = 1, .header_size = size, .check = x->flags.check, .filters = x->filters};
    if (input_peek(&s->in, size, &header) < size ||
        lzma_block_header_decode(&x->block, NULL, header) != LZMA_OK)
        return (int)stream_damaged(s, "damaged xz block");
    struct cse_index_point point = {.out = s->out, .in = s->in.at, .check = x->flags.check};
    if (points_due(s->points, s->out)) points_add(s->points, point, NULL, 0);
    int error = 0;
    if (lzma_raw_decoder_memusage(x->filters) > MEMORY_MOST)
        error =
            (int)stream_damaged(s, "an xz block that wants over 1 GiB of memory, or is damaged");
    else if (lzma_block_decoder(&x->z, &x->block) != LZMA_OK)
        error = (int)stream_damaged(s, "an xz block of an unknown kind");
    lzma_filters_free(x->filters, NULL);
    input_skip(&s->in, size);
    x->place = IN_BLOCK;
    return error;
}

/* One number of the index, seven bits a byte; false: it does not end. */
static bool pass_number(struct stream *s, uint64_t *number, uint64_t *bytes)
{
    const unsigned char *data;
    *number = 0;
    for (unsigned shift = 0; shift < 63; shift += 7) {
        if (input_peek(&s->in, 1, &data) == 0) return false;
        unsigned char byte = data[0];
        input_skip(&s->in, 1);
        ++*bytes;
        *number |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

/* Over the index of a stream whose blocks were not all read: there is nothing to compare it with.
 */
static bool pass_index(struct stream *s)
{
    const unsigned char *data;
    uint64_t count, number, bytes = 1;
    input_skip(&s->in, 1);
    if (!pass_number(s, &count, &bytes)) return false;
    for (uint64_t i = 0; i < count * 2; i++)
        if (!pass_number(s, &number, &bytes)) return false;
    size_t rest = (size_t)(-bytes & 3) + 4; /* padding, checksum */
    if (input_peek(&s->in, rest, &data) < rest) return false;
    input_skip(&s->in, rest);
    return true;
}

static bool check_index(struct stream *s)
{
    struct xz *x = s->state;
    lzma_ret got = LZMA_OK;
    while (got == LZMA_OK) {
        const unsigned char *data;
        size_t length = input_peek(&s->in, 1, &data), used = 0;
        if (length == 0) return false;
        got = lzma_index_hash_decode(x->hash, data, &used, length);
        input_skip(&s->in, used);
    }
    return got == LZMA_STREAM_END;
}

/* Index and footer. 0 or -EIO. */
static int end_stream(struct stream *s)
{
    struct xz *x = s->state;
    const unsigned char *data;
    lzma_stream_flags footer;
    if (!(x->hash != NULL ? check_index(s) : pass_index(s)))
        return (int)stream_damaged(s, "damaged xz index");
    if (input_peek(&s->in, LZMA_STREAM_HEADER_SIZE, &data) < LZMA_STREAM_HEADER_SIZE ||
        lzma_stream_footer_decode(&footer, data) != LZMA_OK || footer.check != x->flags.check ||
        (x->hash != NULL && footer.backward_size != lzma_index_hash_size(x->hash)))
        return (int)stream_damaged(s, "damaged xz footer");
    input_skip(&s->in, LZMA_STREAM_HEADER_SIZE);
    x->place = AT_STREAM;
    return 0;
}

/* Until bytes of a block can be had: 1; 0: the end; -errno. */
static int come_to_block(struct stream *s)
{
    struct xz *x = s->state;
    const unsigned char *data;
    while (x->place != IN_BLOCK) {
        if (x->place == AT_STREAM) {
            int got = begin_stream(s);
            if (got <= 0) return got;
        }
        if (input_peek(&s->in, 1, &data) == 0) return (int)stream_damaged(s, "truncated xz input");
        int error = data[0] == 0 ? end_stream(s) : begin_block(s, data);
        if (error != 0) return error;
    }
    return 1;
}

static ssize_t read_on(struct stream *s, unsigned char *to, size_t room)
{
    struct xz *x = s->state;
    for (;;) {
        int got = come_to_block(s);
        if (got <= 0) return got;
        const unsigned char *data;
        size_t length = input_peek(&s->in, 1, &data);
        x->z.next_in = data;
        x->z.avail_in = length;
        x->z.next_out = to;
        x->z.avail_out = room;
        lzma_ret result = lzma_code(&x->z, LZMA_RUN);
        size_t made = room - x->z.avail_out, taken = length - x->z.avail_in;
        input_skip(&s->in, taken);
        if (result == LZMA_STREAM_END) {
            x->place = AT_BLOCK;
            if (x->hash != NULL &&
                lzma_index_hash_append(x->hash, lzma_block_unpadded_size(&x->block),
                                       x->block.uncompressed_size) != LZMA_OK)
                return stream_damaged(s, "damaged xz block");
        } else if (result == LZMA_MEM_ERROR) {
            return -ENOMEM;
        } else if (result != LZMA_OK || (made == 0 && length == 0)) {
            return stream_damaged(s, length == 0 ? "truncated xz input" : "damaged xz input");
        }
        if (made > 0) return (ssize_t)made;
    }
}

const struct codec codec_xz = {CSE_CODEC_XZ, recognised, begin, read_on, end};
