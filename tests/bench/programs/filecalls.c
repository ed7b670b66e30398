/* Nanoseconds of one call, measured over COUNT of them; used by tests/bench/filesystem.
 *
 *   filecalls stat PATH COUNT       stat of a path
 *   filecalls read FILE COUNT       pread of 4,096 bytes of an open file
 *   filecalls write FILE COUNT      pwrite of 4,096 bytes to an open file
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    static char block[4096];
    struct stat status;
    if (argc != 4) return 2;
    long count = atol(argv[3]);
    int writes = strcmp(argv[1], "write") == 0;
    int fd = strcmp(argv[1], "stat") == 0 ? -1 : open(argv[2], writes ? O_RDWR : O_RDONLY);
    if (fd < 0 && strcmp(argv[1], "stat") != 0) {
        perror(argv[2]);
        return 1;
    }
    double start = now_ns();
    for (long i = 0; i < count; i++) {
        long done = fd < 0   ? stat(argv[2], &status)
                    : writes ? pwrite(fd, block, sizeof block, (i % 16) * 4096)
                             : pread(fd, block, sizeof block, (i % 16) * 4096);
        if (done < 0) {
            perror(argv[2]);
            return 1;
        }
    }
    printf("%.1f\n", (now_ns() - start) / (double)count);
    return 0;
}
