/* zstd (RFC 8878): frames in a row, each with its checksum; a seek point is the beginning of a
 * frame. `zstd` makes one for the whole file; pzstd, t2sz and the seekable format make many.
 */
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

struct zstd {
    ZSTD_DStream *z;
    bool between; /* a frame has ended, or none has begun */
};

static bool recognised(const unsigned char *start, size_t length)
{
    return length >= 4 && start[0] == 0x28 && start[1] == 0xb5 && start[2] == 0x2f &&
           start[3] == 0xfd;
}

static void end(struct stream *s)
{
    struct zstd *z = s->state;
    ZSTD_freeDStream(z->z);
    free(z);
    s->state = NULL;
}

static int begin(struct stream *s, const struct cse_index_point *point, const unsigned char *window,
                 size_t window_size)
{
    struct zstd *z = s->state;
    (void)point;
    (void)window;
    (void)window_size;
    if (z == NULL) {
        z = s->state = calloc(1, sizeof *z);
        if (z == NULL) return -ENOMEM;
        z->z = ZSTD_createDStream();
        if (z->z == NULL) {
            free(z);
            s->state = NULL;
            return -ENOMEM;
        }
    }
    z->between = true;
    return ZSTD_isError(ZSTD_DCtx_reset(z->z, ZSTD_reset_session_only)) ? -EIO : 0;
}

/* Whether a frame comes next; anything else behind a whole frame is none of ours. */
static bool frame_follows(const unsigned char *data, size_t length)
{
    return length >= 4 &&
           (recognised(data, length) || ((data[0] & 0xf0) == 0x50 && data[1] == 0x2a &&
                                         data[2] == 0x4d && data[3] == 0x18)); /* a skippable one */
}

static ssize_t read_on(struct stream *s, unsigned char *to, size_t room)
{
    struct zstd *z = s->state;
    for (;;) {
        const unsigned char *data;
        size_t length = input_peek(&s->in, z->between ? 4 : 1, &data);
        if (z->between && !frame_follows(data, length)) return 0;
        if (z->between && points_due(s->points, s->out))
            points_add(s->points, (struct cse_index_point){.out = s->out, .in = s->in.at}, NULL, 0);
        ZSTD_inBuffer in = {data, length, 0};
        ZSTD_outBuffer out = {to, room, 0};
        size_t result = ZSTD_decompressStream(z->z, &out, &in);
        input_skip(&s->in, in.pos);
        if (ZSTD_isError(result))
            return ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation
                       ? -ENOMEM
                       : stream_damaged(s, ZSTD_getErrorName(result));
        z->between = result == 0;
        if (out.pos > 0) return (ssize_t)out.pos;
        if (length == 0 && !z->between) return stream_damaged(s, "truncated zstd input");
    }
}

const struct codec codec_zstd = {CSE_CODEC_ZSTD, recognised, begin, read_on, end};
