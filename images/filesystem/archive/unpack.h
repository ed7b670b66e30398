/* The compressors of squashfs, by their numbers in an image. */
#ifndef CSE_ARCHIVE_UNPACK_H
#define CSE_ARCHIVE_UNPACK_H

#include <stddef.h>
#include <sys/types.h>

enum compressor { GZIP = 1, LZMA, LZO, XZ, LZ4, ZSTD };

/* Bytes that `from` unpacks to, at most `room`; -1: damaged. */
ssize_t squashfs_unpack(enum compressor compressor, const unsigned char *from, size_t size,
                        unsigned char *to, size_t room);

#endif
