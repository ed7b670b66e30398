/* Opens and reads files f0000000… below DIRECTORY/d<n mod 300>/, in an order that COUNT and SEED
 * decide, and prints the median milliseconds of one.
 *
 *   randomfiles DIRECTORY FILES COUNT SEED
 *
 * Called by tests/bench/filesystem/seek.py on an archive, a FUSE mount of it and the unpacked tree.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double read_file(const char *directory, unsigned number)
{
    static char buffer[65536];
    char path[4096];
    snprintf(path, sizeof path, "%s/d%u/f%07u", directory, number % 300, number);
    double start = now_ms();
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
    return now_ms() - start;
}

static int compare(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    unsigned files = (unsigned)atoi(argv[2]), count = (unsigned)atoi(argv[3]);
    unsigned state = (unsigned)atoi(argv[4]) * 2654435761u + 1;
    double *took = calloc(count, sizeof *took);
    for (unsigned i = 0; i < count; i++) {
        state = state * 1103515245u + 12345u;
        took[i] = read_file(argv[1], (state >> 8) % files);
    }
    qsort(took, count, sizeof *took, compare);
    printf("%.4f\n", took[count / 2]);
    return 0;
}
