/* Counters of the whole application: operations in mounts, and how far an index is.
 *
 * Counted in <run dir>/data/filesystem.counters, which all processes map and the agent reads
 * (app/agent/file_counters.py). A count is an atomic addition in a line of memory that hardly ever
 * two threads share.
 */
#ifndef CSE_FS_COUNTERS_H
#define CSE_FS_COUNTERS_H

#include <errno.h>
#include <stdint.h>

enum fs_count { /* the order is that of file_counters.py */
                FS_COUNT_OPENS,
                FS_COUNT_STATS,
                FS_COUNT_LISTS,
                FS_COUNT_CHANGES,
                FS_COUNT_COPIES_UP,
                FS_COUNT_COPIED_BYTES,
                FS_COUNT_FILLS,
                FS_COUNT_FILLED_BYTES,
                FS_COUNT_INDEXES,
                FS_COUNT_FAULTS,
                FS_COUNTS = 16
};
enum { FS_COUNT_SLOTS = 32, FS_COUNTERS_VERSION = 1 };

struct fs_counters {
    uint64_t version;
    uint64_t index_done, index_total; /* bytes of the archive that is being read; 0: none is */
    uint64_t reserved[13];
    struct {
        uint64_t value[FS_COUNTS];
    } slot[FS_COUNT_SLOTS]; /* of 128 bytes, as much as processors fetch at once */
};

extern struct fs_counters *fs_counters; /* NULL: not mapped yet */
struct fs_counters *fs_counters_map(void);

static inline void fs_count(enum fs_count what, uint64_t by)
{
    struct fs_counters *all = __atomic_load_n(&fs_counters, __ATOMIC_RELAXED);
    if (__builtin_expect(all == 0, 0)) all = fs_counters_map();
    /* Where a thread has its errno tells it from others without a system call. */
    uintptr_t place = (uintptr_t)&errno;
    unsigned slot = (unsigned)(place >> 12 ^ place >> 21) % FS_COUNT_SLOTS;
    __atomic_fetch_add(&all->slot[slot].value[what], by, __ATOMIC_RELAXED);
}

#endif
