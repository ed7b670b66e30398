/* Stamps and locks of merged directories: stamps.c, used by shadow.c and cow.c. */
#ifndef CSE_FS_STAMPS_H
#define CSE_FS_STAMPS_H

#include "fs.h"

/* What tells whether the merged listing could have changed. */
struct fs_stamp {
    uint64_t value;
    bool settled;        /* no layer changed just now, so a later change must show in the times */
    char path[PATH_MAX]; /* where it is kept */
    struct timespec times[2]; /* of the shadow */
};
int fs_stamp_of(const struct fs_where *where, const char *shadow, struct fs_stamp *stamp);
bool fs_stamp_holds(const struct fs_stamp *stamp);
void fs_stamp_write(const struct fs_mount *mount, const struct fs_stamp *stamp);

struct fs_shadow_lock { /* of the shadow of one directory, or of two */
    int fd;             /* negative: none could be had */
    uint64_t signals;
};
/* A thread that has one takes no other. */
void fs_shadow_lock(const struct fs_mount *mount, const char *rel, struct fs_shadow_lock *lock);
/* Of the directory that this name lies in, or of both; `other` NULL: one. */
void fs_shadow_lock_parents(const struct fs_mount *mount, const char *rel, const char *other,
                            struct fs_shadow_lock *lock);
void fs_shadow_unlock(struct fs_shadow_lock *lock);

#endif
