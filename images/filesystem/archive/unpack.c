/* One block of a squashfs, unpacked by whichever compressor the image was made with. The block is a
 * stranger's: what it unpacks to is bounded by the room that the caller has. Called by squashfs.c.
 */
#include "unpack.h"

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

ssize_t squashfs_unpack(enum compressor compressor, const unsigned char *from, size_t size,
                        unsigned char *to, size_t room)
{
    if (compressor == GZIP) {
        uLongf length = room;
        return uncompress(to, &length, from, size) == Z_OK ? (ssize_t)length : -1;
    }
    if (compressor == LZ4) {
        int length = LZ4_decompress_safe((const char *)from, (char *)to, (int)size, (int)room);
        return length < 0 ? -1 : length;
    }
    if (compressor == ZSTD) {
        size_t length = ZSTD_decompress(to, room, from, size);
        return ZSTD_isError(length) ? -1 : (ssize_t)length;
    }
    uint64_t memory = UINT64_C(64) << 20;
    size_t in = 0, out = 0;
    lzma_ret got = lzma_stream_buffer_decode(&memory, 0, NULL, from, &in, size, to, &out, room);
    return got == LZMA_OK ? (ssize_t)out : -1;
}
