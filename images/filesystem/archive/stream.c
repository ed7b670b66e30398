/* Streams: the codec of a file, its input, and the way to a place in it.
 *
 * One stream is kept between fills: whoever takes it owns it, so two threads never share one, and
 * reading members in the order of the archive is one pass. A forked child may go on with its copy:
 * the input is read with pread alone. Called by libarchive.c.
 */
#include "stream.h"
#include "build.h"

#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SKIP_BYTES = 16 << 10, RECOGNISED_BYTES = 16 };

static const struct codec *const codecs[] = {&codec_gzip, &codec_xz, &codec_zstd};

/* ---- input ---------------------------------------------------------------------------------- */

size_t input_peek(struct input *in, size_t wanted, const unsigned char **data)
{
    if (in->filled - in->used < wanted) {
        memmove(in->buffer, in->buffer + in->used, in->filled - in->used);
        in->filled -= in->used;
        in->used = 0;
        while (in->filled < wanted) {
            ssize_t got = pread(in->fd, in->buffer + in->filled, INPUT_BYTES - in->filled,
                                (off_t)(in->at + in->filled));
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0) break;
            in->filled += (size_t)got;
            if (tree_host.progress != NULL) tree_host.progress(in->at + in->filled);
        }
    }
    *data = in->buffer + in->used;
    return in->filled - in->used;
}

void input_skip(struct input *in, size_t count)
{
    in->used += count;
    in->at += count;
}

void input_seek(struct input *in, uint64_t at)
{
    in->at = at;
    in->used = in->filled = 0;
}

/* ---- streams -------------------------------------------------------------------------------- */

ssize_t stream_damaged(struct stream *s, const char *why)
{
    s->why = why;
    return -EIO;
}

void stream_close(struct stream *s)
{
    if (s == NULL) return;
    if (s->state != NULL) s->codec->end(s);
    free(s);
}

struct stream *stream_open(int fd, struct points *points)
{
    const unsigned char *start;
    struct stream *s = malloc(sizeof *s);
    if (s == NULL) return NULL;
    s->codec = NULL;
    s->out = 0;
    s->points = points;
    s->why = "cannot be read";
    s->state = NULL;
    s->index = NULL;
    s->in.fd = fd;
    input_seek(&s->in, 0);
    size_t length = input_peek(&s->in, RECOGNISED_BYTES, &start);
    for (size_t i = 0; i < sizeof codecs / sizeof codecs[0] && s->codec == NULL; i++)
        if (codecs[i]->recognised(start, length)) s->codec = codecs[i];
    if (s->codec != NULL && s->codec->begin(s, NULL, NULL, 0) == 0) return s;
    stream_close(s);
    return NULL;
}

ssize_t stream_read(struct stream *s, void *to, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = s->codec->read(s, (unsigned char *)to + done, size - done);
        if (got < 0) return got;
        if (got == 0) break;
        done += (size_t)got;
        s->out += (uint64_t)got;
    }
    return (ssize_t)done;
}

/* ---- places --------------------------------------------------------------------------------- */

static struct stream *kept;

void stream_put(struct stream *s)
{
    stream_close(__atomic_exchange_n(&kept, s, __ATOMIC_ACQ_REL));
}

/* The last point at or before `at`; NULL: the beginning is nearer. */
static const struct cse_index_point *point_before(const struct cse_index_header *index, uint64_t at)
{
    const struct cse_index_point *points = cse_index_points(index);
    uint32_t low = 0, high = index->point_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (points[middle].out <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &points[low - 1] : NULL;
}

static int begin_at(struct stream *s, const struct cse_index_header *index,
                    const struct cse_index_point *point)
{
    unsigned char window[WINDOW_BYTES];
    size_t room = index->windows_size;
    if (point == NULL) {
        input_seek(&s->in, 0);
        s->out = 0;
        return s->codec->begin(s, NULL, NULL, 0);
    }
    if (point->window_size > WINDOW_BYTES || point->window_stored > room ||
        point->window_at > room - point->window_stored)
        return -EIO;
    const char *stored = (const char *)index + index->windows_at + point->window_at;
    if (point->window_size > 0 &&
        LZ4_decompress_safe(stored, (char *)window, (int)point->window_stored, WINDOW_BYTES) !=
            (int)point->window_size)
        return -EIO;
    input_seek(&s->in, point->in);
    s->out = point->out;
    return s->codec->begin(s, point, window, point->window_size);
}

static int skip_to(struct stream *s, uint64_t at)
{
    unsigned char nothing[SKIP_BYTES];
    while (s->out < at) {
        size_t part = at - s->out < sizeof nothing ? (size_t)(at - s->out) : sizeof nothing;
        ssize_t got = stream_read(s, nothing, part);
        if (got < 0) return (int)got;
        if (got == 0) return (int)stream_damaged(s, "ends too early");
    }
    return 0;
}

struct stream *stream_take(int fd, const struct cse_index_header *index, uint64_t at, int *error,
                           const char **why)
{
    struct stream *s = __atomic_exchange_n(&kept, NULL, __ATOMIC_ACQ_REL);
    *error = ENOMEM;
    if (s == NULL || s->index != index) {
        stream_close(s);
        s = stream_open(fd, NULL);
        if (s == NULL) return NULL;
        s->index = index;
    }
    s->in.fd = fd;
    const struct cse_index_point *point = point_before(index, at);
    int result = s->codec->number == index->codec ? 0 : -EIO;
    if (result == 0 && (s->out > at || (point != NULL && point->out > s->out)))
        result = begin_at(s, index, point);
    if (result == 0) result = skip_to(s, at);
    *error = -result;
    if (result == 0) return s;
    if (result == -EIO) *why = s->why;
    stream_close(s);
    return NULL;
}
