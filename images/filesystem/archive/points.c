/* Seek points: places in a compressed stream from which it can be read on, found while it is
 * indexed (codecs call points_add) and written into the index by build.c.
 *
 * A point of gzip needs the 32 KiB of output before it, which are kept packed with LZ4; those of
 * the other codecs cost 40 bytes. Both together stay below a bound: where they would not, each
 * second one is dropped and the next ones lie twice as far apart. So a point costs nothing that
 * grows with the archive, and the way from a point to a member is output / (bound / window) long.
 */
#include "stream.h"

#include <lz4.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_SPACING = 1 << 20, BOUND_LEAST = 256 << 10, BOUND_MOST = 16 << 20 };

void points_start(struct points *points, uint64_t archive_size)
{
    uint64_t bound = archive_size / 16;
    memset(points, 0, sizeof *points);
    points->spacing = FIRST_SPACING;
    points->bound = bound < BOUND_LEAST  ? BOUND_LEAST
                    : bound > BOUND_MOST ? BOUND_MOST
                                         : (size_t)bound;
}

bool points_due(const struct points *points, uint64_t out)
{
    if (points == NULL || points->bound == 0) return false;
    uint64_t last = points->count > 0 ? points->list[points->count - 1].out : 0;
    return out >= last && out - last >= points->spacing;
}

size_t points_bytes(const struct points *points)
{
    return points->count * sizeof *points->list + points->windows_size;
}

static void thin_out(struct points *points)
{
    uint32_t kept = 0;
    size_t to = 0;
    for (uint32_t i = 1; i < points->count; i += 2) {
        struct cse_index_point point = points->list[i];
        memmove(points->windows + to, points->windows + point.window_at, point.window_stored);
        point.window_at = (uint32_t)to;
        to += point.window_stored;
        points->list[kept++] = point;
    }
    points->count = kept;
    points->windows_size = to;
    points->spacing *= 2;
}

/* No room for more: what is there stays, and no further one is asked for. */
static void stop(struct points *points)
{
    points->bound = 0;
}

static bool make_room(struct points *points, size_t window)
{
    if (points->count == points->capacity) {
        uint32_t capacity = points->capacity ? points->capacity * 2 : 64;
        struct cse_index_point *grown = realloc(points->list, capacity * sizeof *grown);
        if (grown == NULL) return false;
        points->list = grown;
        points->capacity = capacity;
    }
    if (points->windows_size + window > points->windows_capacity) {
        size_t capacity = (points->windows_capacity + window) * 2;
        unsigned char *grown = realloc(points->windows, capacity);
        if (grown == NULL) return false;
        points->windows = grown;
        points->windows_capacity = capacity;
    }
    return true;
}

void points_add(struct points *points, struct cse_index_point point, const unsigned char *window,
                size_t window_size)
{
    if (!make_room(points, (size_t)LZ4_compressBound(WINDOW_BYTES))) {
        stop(points);
        return;
    }
    point.window_at = (uint32_t)points->windows_size;
    point.window_size = (uint32_t)window_size;
    point.window_stored = 0;
    if (window_size > 0)
        point.window_stored = (uint32_t)LZ4_compress_default(
            (const char *)window, (char *)points->windows + points->windows_size, (int)window_size,
            LZ4_compressBound(WINDOW_BYTES));
    points->windows_size += point.window_stored;
    points->list[points->count++] = point;
    while (points_bytes(points) > points->bound && points->count > 1) thin_out(points);
}

void points_free(struct points *points)
{
    free(points->list);
    free(points->windows);
    memset(points, 0, sizeof *points);
}
