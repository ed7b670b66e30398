/* Random calls by several processes and threads in one tree, the same each time: bare and in a
 * mount they must see the same. Used by test_fs_storm.py.
 *
 *   storm DIRECTORY PROCESSES STEPS SEED
 *
 * Each of the two threads of a process has names of its own, which lie among everybody's in the
 * directories d0 to d4 and move between them, so that what it sees follows from its own steps
 * alone. Every answer (result, errno, size, content, names in a directory) goes into a digest.
 * Prints a line for each thread, and each step on standard error. Files of the tree that the run
 * begins with (d*_/base*) are only changed by thread 0 of process 0.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DIRECTORIES = 5, NAMES = 12, LARGEST = 40000 };

static const char *top;
static long steps;
static uint64_t seed;

struct actor {
    int process, thread;
    uint64_t state, digest;
    long step;
    const char *other; /* the second path of a step */
};

static uint32_t chance(struct actor *a, uint32_t below)
{
    a->state ^= a->state << 13;
    a->state ^= a->state >> 7;
    a->state ^= a->state << 17;
    return (uint32_t)(a->state >> 33) % below;
}

static void mix(struct actor *a, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) a->digest = (a->digest ^ bytes[i]) * 1099511628211u;
}

/* The outcome of a step, after what else it showed; errno counts where the result is -1. */
static void saw(struct actor *a, const char *what, const char *path, long result)
{
    long outcome[2] = {result, result == -1 ? errno : 0};
    mix(a, what, strlen(what));
    mix(a, outcome, sizeof outcome);
    dprintf(2, "%d.%d %ld %s %s %s = %ld %s [%llx]\n", a->process, a->thread, a->step, what,
            path + strlen(top), a->other, result, outcome[1] ? strerror((int)outcome[1]) : "",
            (unsigned long long)a->digest);
}

static void pick(struct actor *a, char *out)
{
    uint32_t name = chance(a, NAMES), directory = chance(a, DIRECTORIES);
    bool base = a->process == 0 && a->thread == 0 && chance(a, 3) == 0;
    if (base)
        snprintf(out, 4096, "%s/d%u/base%u", top, directory, name % 4);
    else
        snprintf(out, 4096, "%s/d%u/p%dt%dn%u", top, directory, a->process, a->thread, name);
    if (chance(a, 4) == 0) strcat(out, chance(a, 2) ? "/in" : "/"); /* mostly where it is none */
}

static void content(struct actor *a, int fd)
{
    static __thread unsigned char block[LARGEST * 2];
    struct stat status;
    long got = pread(fd, block, sizeof block, 0);
    if (got > 0) mix(a, block, (size_t)got);
    if (fstat(fd, &status) != 0) return;
    long facts[3] = {got, S_ISDIR(status.st_mode) ? 0 : (long)status.st_size, status.st_mode};
    mix(a, facts, sizeof facts);
}

static void write_some(struct actor *a, int fd)
{
    static __thread unsigned char block[8192];
    size_t size = chance(a, sizeof block) + 1;
    long at = chance(a, LARGEST - (uint32_t)size);
    memset(block, (int)chance(a, 256), size);
    saw(a, "pwrite", top, pwrite(fd, block, size, at));
}

static void map_some(struct actor *a, int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0 || status.st_size < 4096) return;
    unsigned char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    saw(a, "mmap", top, map == MAP_FAILED ? -1 : 0);
    if (map == MAP_FAILED) return;
    memset(map + chance(a, 2000), (int)chance(a, 256), chance(a, 2000));
    saw(a, "msync", top, msync(map, 4096, MS_SYNC));
    munmap(map, 4096);
}

static void with_file(struct actor *a, const char *path)
{
    static const int flags[] = {O_RDONLY,           O_RDWR,
                                O_RDWR | O_CREAT,   O_RDWR | O_CREAT | O_EXCL,
                                O_WRONLY | O_TRUNC, O_RDWR | O_CREAT | O_TRUNC};
    int how = flags[chance(a, 6)];
    int fd = open(path, how | O_CLOEXEC, 0640);
    saw(a, "open", path, fd < 0 ? -1 : how);
    if (fd < 0) return;
    if (how != O_RDONLY) {
        write_some(a, fd);
        if (chance(a, 4) == 0) saw(a, "ftruncate", path, ftruncate(fd, chance(a, LARGEST)));
        if (chance(a, 4) == 0 && (how & O_ACCMODE) == O_RDWR) map_some(a, fd);
        if (chance(a, 6) == 0) saw(a, "fsync", path, fsync(fd));
    }
    if ((how & O_ACCMODE) != O_WRONLY) content(a, fd);
    saw(a, "close", path, close(fd));
}

/* This actor's own names, in no order. */
static void list(struct actor *a)
{
    char path[4096], own[32];
    snprintf(path, sizeof path, "%s/d%u", top, chance(a, DIRECTORIES));
    snprintf(own, sizeof own, "p%dt%dn", a->process, a->thread);
    DIR *directory = opendir(path);
    uint64_t sum = 0;
    if (directory == NULL) {
        saw(a, "opendir", path, -1);
        return;
    }
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strncmp(entry->d_name, own, strlen(own)) != 0) continue;
        struct actor name = {.digest = 1};
        mix(&name, entry->d_name, strlen(entry->d_name));
        mix(&name, &entry->d_type, 1);
        sum += name.digest;
    }
    closedir(directory);
    mix(a, &sum, sizeof sum);
    saw(a, "list", path, 0);
}

static void look(struct actor *a, const char *path)
{
    struct stat status;
    if (lstat(path, &status) != 0) {
        saw(a, "lstat", path, -1);
        return;
    }
    bool file = S_ISREG(status.st_mode);
    long facts[4] = {status.st_mode, file ? (long)status.st_size : 0,
                     file ? (long)status.st_nlink : 0, access(path, R_OK)};
    mix(a, facts, sizeof facts);
    saw(a, "lstat", path, 0);
}

static void read_link(struct actor *a, const char *path)
{
    char text[4096];
    long got = readlink(path, text, sizeof text);
    if (got > 0) mix(a, text, (size_t)got);
    saw(a, "readlink", path, got);
}

static void one_step(struct actor *a)
{
    char path[4200], other[4200], text[64];
    pick(a, path);
    pick(a, other);
    a->other = other + strlen(top);
    switch (chance(a, 16)) {
    case 0:
    case 1:
    case 2:
    case 3: with_file(a, path); break;
    case 4: saw(a, "rename", path, rename(path, other)); break;
    case 5: saw(a, "unlink", path, unlink(path)); break;
    case 6: saw(a, "mkdir", path, mkdir(path, 0750)); break;
    case 7: saw(a, "rmdir", path, rmdir(path)); break;
    case 8: saw(a, "link", path, link(path, other)); break;
    case 9:
        snprintf(text, sizeof text, "../d%u/p%dt%dn%u", chance(a, DIRECTORIES), a->process,
                 a->thread, chance(a, NAMES));
        saw(a, "symlink", path, symlink(text, path));
        break;
    case 10: saw(a, "truncate", path, truncate(path, chance(a, LARGEST))); break;
    case 11: saw(a, "chmod", path, chmod(path, 0600 | chance(a, 0200))); break;
    case 12: list(a); break;
    case 13: read_link(a, path); break;
    case 14:
        saw(a, "renameat2", path, renameat2(AT_FDCWD, path, AT_FDCWD, other, chance(a, 3)));
        break;
    default: look(a, path); break;
    }
}

static void *act(void *argument)
{
    struct actor *a = argument;
    for (a->step = 0; a->step < steps; a->step++) one_step(a);
    return NULL;
}

static void run_process(int number)
{
    struct actor actors[2];
    pthread_t thread;
    for (int i = 0; i < 2; i++)
        actors[i] = (struct actor){number,
                                   i,
                                   seed * 1000003u + (uint64_t)number * 7919u + (uint64_t)i + 1,
                                   14695981039346656037u,
                                   0,
                                   ""};
    pthread_create(&thread, NULL, act, &actors[1]);
    act(&actors[0]);
    pthread_join(thread, NULL);
    for (int i = 0; i < 2; i++)
        dprintf(1, "%d.%d %016llx\n", number, i, (unsigned long long)actors[i].digest);
}

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    top = argv[1];
    int processes = atoi(argv[2]), status, failed = 0;
    steps = atol(argv[3]);
    seed = strtoull(argv[4], NULL, 10);
    umask(022);
    for (int i = 0; i < processes; i++)
        if (fork() == 0) {
            run_process(i);
            _exit(0);
        }
    while (wait(&status) > 0) failed |= status != 0;
    return failed;
}
