/* DIR/status: lines `key=value`, replaced as a whole by rename, so that the agent (which watches
 * the directory) always reads one consistent state. */
#include "shim.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Field 22 of /proc/self/stat: with the pid it names this process for ever. */
static unsigned long long start_time(void)
{
    static unsigned long long cached;
    char text[1024];
    if (cached) return cached;
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (got <= 0) return 0;
    text[got] = 0;
    char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
    return cached = at ? strtoull(at + 1, NULL, 10) : 0;
}

bool status_write(const struct status *status)
{
    char text[1400];
    int length = snprintf(
        text, sizeof text,
        "state=%s\nshim_pid=%d\nshim_start=%llu\ninit_pid=%d\npid=%d\nexit_code=%d\nrestarts=%d\n"
        "started_ns=%lld\nfinished_ns=%lld\nreason=%s\n",
        status->state, getpid(), start_time(), status->init_pid, status->pid, status->exit_code,
        status->restarts, (long long)status->started_ns, (long long)status->finished_ns,
        status->reason);
    int fd =
        openat(status->directory, ".status.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return false;
    bool whole = write(fd, text, (size_t)length) == length;
    close(fd);
    return whole && renameat(status->directory, ".status.new", status->directory, "status") == 0;
}
