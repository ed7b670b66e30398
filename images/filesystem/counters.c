/* Where counters.h counts: a file of the application, mapped by a process at its first count.
 *
 * Its room is allocated, since a write to a hole of a full file system would be a SIGBUS. A process
 * that cannot have it counts for itself alone.
 */
#include "fs.h"

#include <stdio.h>
#include <sys/mman.h>

struct fs_counters *fs_counters;

static struct fs_counters *map(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/data/filesystem.counters", cse_run_dir());
    int fd = raw_open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd == -ENOENT) {
        fd = raw_open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd >= 0) raw(SYS_fchmod, fd, 0666); /* for every user of the application */
    }
    if (fd < 0) return NULL;
    struct fs_counters *mapped = MAP_FAILED;
    if (raw(SYS_fallocate, fd, 0, 0, sizeof *mapped) == 0)
        mapped = raw_map(fd, sizeof *mapped, PROT_READ | PROT_WRITE);
    raw_close(fd);
    return mapped == MAP_FAILED ? NULL : mapped;
}

struct fs_counters *fs_counters_map(void)
{
    static struct fs_counters own;
    struct fs_counters *none = NULL, *made = map();
    bool shared = made != NULL;
    if (!shared) made = &own;
    if (__atomic_compare_exchange_n(&fs_counters, &none, made, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE)) {
        __atomic_store_n(&made->version, FS_COUNTERS_VERSION, __ATOMIC_RELAXED);
        return made;
    }
    if (shared) munmap(made, sizeof *made);
    return none;
}
