/* The program's output as lines `TIME STREAM F|P TEXT`, the format Kubernetes' runtimes use: F ends
 * a line, P is a part of one that was longer than the buffer. DIR/log is bounded: above the limit
 * it becomes DIR/log.1 and the former log.1 is gone. app/runtimes/namespace reads it.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static bool reopen(struct logfile *log, int create)
{
    struct stat info;
    log->fd = openat(log->directory, "log", O_WRONLY | O_APPEND | O_CLOEXEC | create, 0600);
    if (log->fd < 0 || fstat(log->fd, &info) != 0) return false;
    log->size = info.st_size;
    return true;
}

bool logfile_open(struct logfile *log, int directory, long limit)
{
    *log = (struct logfile){.directory = directory, .limit = limit};
    return reopen(log, 0) || errno == ENOENT;
}

static void rotate(struct logfile *log)
{
    close(log->fd);
    renameat(log->directory, "log", log->directory, "log.1");
    reopen(log, O_CREAT);
}

static void write_line(struct logfile *log, struct stream *stream, const char *text, size_t length,
                       char end)
{
    char head[64], newline = '\n';
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t at = strftime(head, sizeof head, "%Y-%m-%dT%H:%M:%S", &parts);
    at += (size_t)snprintf(head + at, sizeof head - at, ".%09ldZ %s %c ", now.tv_nsec, stream->name,
                           end);
    struct iovec parts_of_line[3] = {{head, at}, {(void *)text, length}, {&newline, 1}};
    if (log->fd < 0) reopen(log, O_CREAT);
    if (log->size > log->limit) rotate(log);
    ssize_t written;
    while ((written = writev(log->fd, parts_of_line, 3)) < 0 && errno == EINTR) continue;
    if (written > 0) log->size += written; /* a full disk loses output, never stops the program */
}

bool logfile_take(struct logfile *log, struct stream *stream)
{
    ssize_t got = read(stream->fd, stream->line + stream->used, sizeof stream->line - stream->used);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    stream->used += (size_t)got;
    char *start = stream->line, *end = stream->line + stream->used, *newline;
    while ((newline = memchr(start, '\n', (size_t)(end - start)))) {
        write_line(log, stream, start, (size_t)(newline - start), 'F');
        start = newline + 1;
    }
    stream->used = (size_t)(end - start);
    if (stream->used == sizeof stream->line) {
        write_line(log, stream, start, stream->used, 'P');
        stream->used = 0;
    }
    memmove(stream->line, start, stream->used);
    return true;
}

void logfile_flush(struct logfile *log, struct stream *stream)
{
    if (stream->used) write_line(log, stream, stream->line, stream->used, 'F');
    stream->used = 0;
}
