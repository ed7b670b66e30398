/* How far the making of an index is, told while it lasts: in the counters for whoever looks, and,
 * where it takes more than a second, as events of the application. Called by indexing.c, and
 * through the table of tree.h by the reader of the archive, for each part of it that was read.
 */
#include "skeleton.h"

#include <stdio.h>
#include <time.h>

enum { FIRST_MS = 1000, EVERY_MS = 5000 };

static __thread struct building {
    const struct fs_archive *archive;
    uint64_t total, began_ms, next_ms;
} building;

static uint64_t now_ms(void)
{
    struct timespec now;
    raw(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct fs_counters *counters(void)
{
    struct fs_counters *all = __atomic_load_n(&fs_counters, __ATOMIC_ACQUIRE);
    return all != NULL ? all : fs_counters_map();
}

static void tell(const struct fs_archive *archive, const char *text)
{
    char line[PATH_MAX + 128];
    snprintf(line, sizeof line, "%s: its archive %s", archive->mount, text);
    cse_tell(line);
}

void fs_progress_begin(const struct fs_archive *archive, uint64_t total)
{
    uint64_t now = now_ms();
    building = (struct building){archive, total, now, now + FIRST_MS};
    __atomic_store_n(&counters()->index_done, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&counters()->index_total, total, __ATOMIC_RELAXED);
}

void fs_progress(uint64_t done)
{
    if (building.archive == NULL) return; /* a content is read, not an index made */
    __atomic_store_n(&counters()->index_done, done, __ATOMIC_RELAXED);
    uint64_t now = now_ms();
    if (now < building.next_ms || done >= building.total) return;
    building.next_ms = now + EVERY_MS;
    char text[64];
    snprintf(text, sizeof text, "is being indexed: %u %% of %.1f MB",
             (unsigned)(done * 100 / building.total), (double)building.total / 1e6);
    tell(building.archive, text);
}

void fs_progress_end(int index)
{
    struct cse_index_header header = {.error = EIO};
    const struct fs_archive *archive = building.archive;
    uint64_t took = now_ms() - building.began_ms;
    char text[80];
    building.archive = NULL;
    __atomic_store_n(&counters()->index_total, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&counters()->index_done, 0, __ATOMIC_RELAXED);
    if (index < 0 || raw(SYS_pread64, index, &header, sizeof header, 0) != (long)sizeof header ||
        header.error != 0)
        return; /* what was wrong is told by whoever found it */
    fs_count(FS_COUNT_INDEXES, 1);
    if (archive == NULL || took < FIRST_MS) return;
    snprintf(text, sizeof text, "is indexed: %u entries, in %.1f s", header.entry_count,
             (double)took / 1e3);
    tell(archive, text);
}
