/* Whether the shadow of a merged directory is still what its layers make: a stamp of their inodes
 * and times, kept beside the shadow as the text of a link, so that it is replaced whole.
 *
 * Called by shadow.c before and after it lists a directory.
 */
#include "stamps.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { SETTLED_NS = 40 * 1000 * 1000, STAMP_BYTES = 32 };

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash ^= value + 0x9e3779b97f4a7c15u + (hash << 6) + (hash >> 2);
    return hash * 0xff51afd7ed558ccdu;
}

uint64_t fs_stamp_of(const struct fs_where *where, bool *settled)
{
    char real[PATH_MAX];
    struct stat status;
    struct timespec now;
    uint64_t hash = 1;
    raw(SYS_clock_gettime, CLOCK_REALTIME, &now);
    *settled = true;
    for (int i = 0; i < where->mount->layer_count; i++) {
        const struct fs_layer *layer = &where->mount->layers[i];
        if (layer->archive != NULL || fs_layer_path(where->mount, i, where->rel, real) != 0)
            continue;
        if (raw_lstat(real, &status) == 0) {
            hash = mix(mix(hash, status.st_ino), (uint64_t)status.st_ctim.tv_nsec);
            hash = mix(mix(hash, (uint64_t)status.st_ctim.tv_sec), (uint64_t)i);
            int64_t age = (now.tv_sec - status.st_ctim.tv_sec) * 1000000000L + now.tv_nsec -
                          status.st_ctim.tv_nsec;
            if (age < SETTLED_NS) *settled = false;
        }
        if (layer->whiteouts == NULL) continue;
        snprintf(real, sizeof real, "%.2000s/%.2000s", layer->whiteouts, where->rel);
        if (raw_lstat(real, &status) == 0)
            hash =
                mix(mix(hash, (uint64_t)status.st_ctim.tv_nsec), (uint64_t)status.st_ctim.tv_sec);
    }
    return hash;
}

void fs_stamp_path(const struct fs_mount *mount, const struct stat *shadow, char *out)
{
    snprintf(out, PATH_MAX, "%.4000s.stamps/%llx", mount->shadow,
             (unsigned long long)shadow->st_ino);
}

bool fs_stamp_holds(const char *path, uint64_t stamp)
{
    char text[STAMP_BYTES], wanted[STAMP_BYTES];
    long length = raw(SYS_readlinkat, AT_FDCWD, path, text, sizeof text);
    int expected = snprintf(wanted, sizeof wanted, "%llx", (unsigned long long)stamp);
    return length == expected && memcmp(text, wanted, (size_t)expected) == 0;
}

void fs_stamp_write(const struct fs_mount *mount, const char *path, uint64_t stamp)
{
    char text[STAMP_BYTES], directory[PATH_MAX], fresh[PATH_MAX + 32];
    snprintf(text, sizeof text, "%llx", (unsigned long long)stamp);
    snprintf(directory, sizeof directory, "%.4000s.stamps", mount->shadow);
    snprintf(fresh, sizeof fresh, "%s.%ld", path, raw(SYS_gettid));
    fs_make_directories(directory, 01777);
    if (raw(SYS_symlinkat, text, AT_FDCWD, fresh) != 0) return;
    if (raw(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, path, 0) != 0)
        raw(SYS_unlinkat, AT_FDCWD, fresh, 0);
}
