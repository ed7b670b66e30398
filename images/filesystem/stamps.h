/* Stamps of merged directories: stamps.c, used by shadow.c. */
#ifndef CSE_FS_STAMPS_H
#define CSE_FS_STAMPS_H

#include "fs.h"

/* What tells whether the merged listing could have changed. *settled: no layer changed just now, so
 * that a later change must show in the times. */
uint64_t fs_stamp_of(const struct fs_where *where, bool *settled);
/* Where the stamp of a shadow is kept. */
void fs_stamp_path(const struct fs_mount *mount, const struct stat *shadow, char *out);
bool fs_stamp_holds(const char *path, uint64_t stamp);
void fs_stamp_write(const struct fs_mount *mount, const char *path, uint64_t stamp);

#endif
