/* Opens and reads every file of a flat directory, twice, and prints microseconds a file of each
 * pass.
 *
 *   readfiles DIRECTORY COUNT            the files are f0000, f0001, …
 *
 * Called by measure_archive.py on an unpacked tree and on an archive mounted by the file-system
 * element.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void read_file(const char *directory, int number)
{
    static char buffer[65536];
    char path[4096];
    snprintf(path, sizeof path, "%s/f%04d", directory, number);
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        perror(path);
        exit(1);
    }
    ssize_t total = 0;
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) total += n;
    close(fd);
    if (total == 0) {
        fprintf(stderr, "%s: empty\n", path);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    int count = atoi(argv[2]);
    for (int pass = 0; pass < 2; pass++) {
        double start = now_us();
        for (int i = 0; i < count; i++) read_file(argv[1], i);
        printf("%.3f\n", (now_us() - start) / count);
    }
    return 0;
}
