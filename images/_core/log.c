/* The trace log: what the library does, for people who debug it. And reports: what the user has to
 * know.
 *
 * CSE_TRACE names the file. It is opened for each line, so that no descriptor stays open where
 * the program could see, close or inherit it; O_APPEND keeps lines of several processes whole.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1024, REPORT_MAX_BYTES = 8192, PATH_MAX_BYTES = 4096 };

int cse_trace_on = -1;

static const char *trace_path(void)
{
    const char *path = getenv("CSE_TRACE");
    cse_trace_on = path != NULL && path[0] == '/';
    return cse_trace_on ? path : NULL;
}

/* Raw system calls: the overlay's own wrappers of open and close must not see these. */
static bool append(const char *path, const char *line, size_t length, mode_t mode)
{
    int fd = (int)libc(syscall)(SYS_openat, AT_FDCWD, path,
                                O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, mode);
    if (fd < 0) return true; /* perhaps the next time */
    bool written = libc(syscall)(SYS_write, fd, line, length) >= 0;
    libc(syscall)(SYS_close, fd);
    return written;
}

void cse_trace_(const char *function, const char *format, ...)
{
    int saved_errno = errno;
    const char *path = trace_path();
    if (path == NULL) {
        errno = saved_errno;
        return;
    }
    char line[LINE_MAX_BYTES];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int used =
        snprintf(line, sizeof line, "%ld.%06ld %d/%ld %s: ", (long)now.tv_sec, now.tv_nsec / 1000,
                 (int)getpid(), (long)libc(syscall)(SYS_gettid), function);
    va_list arguments;
    va_start(arguments, format);
    used += vsnprintf(line + used, sizeof line - (size_t)used - 1, format, arguments);
    va_end(arguments);
    if (used > (int)sizeof line - 2) used = sizeof line - 2;
    line[used++] = '\n';
    if (!append(path, line, (size_t)used, 0600)) cse_trace_on = 0;
    errno = saved_errno;
}

void cse_report(const char *text)
{
    int saved_errno = errno;
    char path[PATH_MAX_BYTES], line[REPORT_MAX_BYTES];
    cse_trace("%s", text);
    cse_tell(text);
    int length =
        snprintf(path, sizeof path, "%s/data/%s.errors", cse_run_dir(), cse_settings_kind());
    int used = snprintf(line, sizeof line - 1, "%s", text);
    if (used > (int)sizeof line - 2) used = sizeof line - 2;
    line[used++] = '\n';
    if (length < (int)sizeof path) append(path, line, (size_t)used, 0666);
    errno = saved_errno;
}
