/* Streams while a fault holds: libc reads and writes for them inside libc, where nothing is seen.
 *
 * So the outer functions count as one operation each: what reads many bytes or a line, what writes
 * many bytes or a text, and what pushes out what a stream has kept (fflush, fclose). Single
 * characters and printf are met when the stream is pushed out, not before.
 */
#include "calls.h"
#include "faults.h"

#include <stdio.h>
#include <stdio_ext.h>
#include <string.h>
#include <unistd.h>

CSE_BEFORE_SANITIZERS

void fs_stream_failed(FILE *stream)
{
#ifdef __GLIBC__
    stream->_flags |= 0x20; /* _IO_ERR_SEEN, as gnulib's fseterr has it */
#else
    __fseterr(stream);
#endif
}

/* Whether the operation may go on; if not, the stream is marked. */
static bool may(unsigned operation, FILE *stream, struct fs_meeting *meeting, size_t *size)
{
    if (fs_meet_fd(meeting, operation, fileno(stream), size)) return true;
    fs_stream_failed(stream);
    return false;
}

#define READ_MANY(name)                                                                            \
    CALL(name, size_t, void *out, size_t size, size_t count, FILE *stream)                         \
    {                                                                                              \
        struct fs_meeting meeting;                                                                 \
        if (fs_faulty(FS_OP_READ) && !may(FS_OP_READ, stream, &meeting, NULL)) return 0;           \
        return libc_as(size_t (*)(void *, size_t, size_t, FILE *), #name)(out, size, count,        \
                                                                          stream);                 \
    }

READ_MANY(fread)
READ_MANY(fread_unlocked)

#define READ_LINE(name)                                                                            \
    CALL(name, char *, char *out, int size, FILE *stream)                                          \
    {                                                                                              \
        struct fs_meeting meeting;                                                                 \
        if (fs_faulty(FS_OP_READ) && !may(FS_OP_READ, stream, &meeting, NULL)) return NULL;        \
        return libc_as(char *(*)(char *, int, FILE *), #name)(out, size, stream);                  \
    }

READ_LINE(fgets)
READ_LINE(fgets_unlocked)

#define READ_UNTIL(name)                                                                           \
    CALL(name, ssize_t, char **line, size_t *room, int delimiter, FILE *stream)                    \
    {                                                                                              \
        struct fs_meeting meeting;                                                                 \
        if (fs_faulty(FS_OP_READ) && !may(FS_OP_READ, stream, &meeting, NULL)) return -1;          \
        return libc_as(ssize_t (*)(char **, size_t *, int, FILE *), #name)(line, room, delimiter,  \
                                                                           stream);                \
    }

READ_UNTIL(getdelim)
#ifdef __GLIBC__
READ_UNTIL(__getdelim)
#endif

CALL(getline, ssize_t, char **line, size_t *room, FILE *stream)
{
    return taken_getdelim(line, room, '\n', stream);
}

/* As many bytes as there is room for; then the stream has failed. */
static size_t write_some(size_t (*next)(const void *, size_t, size_t, FILE *), const void *from,
                         size_t size, size_t count, FILE *stream)
{
    struct fs_meeting meeting;
    size_t wanted, bytes;
    if (__builtin_mul_overflow(size, count, &wanted) || wanted == 0)
        return next(from, size, count, stream);
    bytes = wanted;
    if (!may(FS_OP_WRITE | FS_OP_WHOLE, stream, &meeting, &bytes)) return 0;
    size_t written = next(from, 1, bytes, stream);
    fs_met(&meeting, (ssize_t)written);
    if (bytes < wanted) {
        fs_stream_failed(stream);
        errno = ENOSPC;
    }
    return written / size;
}

#define WRITE_MANY(name)                                                                           \
    CALL(name, size_t, const void *from, size_t size, size_t count, FILE *stream)                  \
    {                                                                                              \
        size_t (*next)(const void *, size_t, size_t, FILE *) =                                     \
            libc_as(size_t (*)(const void *, size_t, size_t, FILE *), #name);                      \
        if (!fs_faulty(FS_OP_WRITE)) return next(from, size, count, stream);                       \
        return write_some(next, from, size, count, stream);                                        \
    }

WRITE_MANY(fwrite)
WRITE_MANY(fwrite_unlocked)

#define WRITE_TEXT(name)                                                                           \
    CALL(name, int, const char *text, FILE *stream)                                                \
    {                                                                                              \
        if (!fs_faulty(FS_OP_WRITE))                                                               \
            return libc_as(int (*)(const char *, FILE *), #name)(text, stream);                    \
        size_t length = strlen(text);                                                              \
        return taken_fwrite(text, 1, length, stream) == length ? 1 : EOF;                          \
    }

WRITE_TEXT(fputs)
#ifdef __GLIBC__
WRITE_TEXT(fputs_unlocked)
#endif

/* What is kept in the stream stays there: a later attempt may succeed. */
#define PUSH(name)                                                                                 \
    CALL(name, int, FILE *stream)                                                                  \
    {                                                                                              \
        struct fs_meeting meeting;                                                                 \
        if (stream != NULL && fs_faulty(FS_OP_WRITE) && __fpending(stream) > 0 &&                  \
            !may(FS_OP_WRITE, stream, &meeting, NULL))                                             \
            return EOF;                                                                            \
        return libc_as(int (*)(FILE *), #name)(stream);                                            \
    }

PUSH(fflush)
PUSH(fflush_unlocked)

/* fdguard.c asks before an fclose: what could not be written is lost with the stream. */
int cse_fclose_error(FILE *stream)
{
    struct fs_meeting meeting;
    int saved_errno = errno, error = 0, fd = fileno(stream);
    if (fs_faulty(FS_OP_WRITE) && __fpending(stream) > 0 &&
        !fs_meet_fd(&meeting, FS_OP_WRITE, fd, NULL)) {
        error = errno;
        __fpurge(stream);
    }
    int closing = cse_close_error(fd);
    errno = saved_errno;
    return error != 0 ? error : closing;
}

CSE_BEFORE_SANITIZERS_END
