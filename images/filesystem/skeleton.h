/* What archive.c (settings), indexing.c (the index) and skeleton.c (directories, files, contents)
 * share. */
#ifndef CSE_FS_SKELETON_H
#define CSE_FS_SKELETON_H

#include "fs.h"
#include "tree.h"

struct fs_archive {
    int number;
    const char *mount, *from;
    struct fs_archive *outer;        /* nested.c: the archive that has it, */
    uint32_t outer_directory;        /* … as this directory of it; */
    struct fs_archive *inner, *next; /* those nested in it, in a list */
    char shown[PATH_MAX];
    const char *inside; /* its path as the program sees it, in the place of `from` */
    pid_t opener;       /* the thread that is looking for it there */
    int lock_fd;        /* fs_archive_lock */
    int lock_word;
    pid_t lock_owner;    /* the process that lock_fd is of; 0: none yet, -1: being made */
    int source;          /* 1 + the archive's own descriptor, kept for filling */
    int tree_fd;         /* 1 + that of the tree's root: what is below is named from there */
    uint32_t last_found; /* nested.c: the entry that was asked for last */
    char directory[PATH_MAX], tree[PATH_MAX];
    struct cse_tree_limits limits;
    struct cse_index_header *index; /* mapped, to read; NULL: not yet */
    uint32_t *state;                /* CSE_ENTRY_… of each entry, in this run */
    const char *pack;               /* mapped; NULL: not yet */
    uint64_t pack_size;
    uid_t owner;
    gid_t group;
    bool shared; /* processes of several users may use the skeleton */
    bool common; /* sharing.c: several applications may, */
    bool held;   /* … and this process holds it */
};

/* The context of fs_archive_say. */
struct fs_speaker {
    const struct fs_archive *archive;
    int lines;
};

/* A cse_tree_say that writes to filesystem.errors, up to a number of lines. */
void fs_archive_say(void *context, const char *entry, const char *what);
/* progress.c: an index is made, by this thread, of so many bytes; `index` is its descriptor, -1
 * where it was not made. */
void fs_progress_begin(const struct fs_archive *archive, uint64_t total);
void fs_progress(uint64_t done);
void fs_progress_end(int index);
/* libcse-archive.so, opened at first use; NULL when it cannot be. */
const struct cse_tree_provider *fs_archive_provider(void);
/* A file of the archive's own directory. */
int fs_archive_open_in(const struct fs_archive *archive, const char *name, int flags, mode_t mode);
/* The archive itself, opened for reading. */
int fs_archive_open(struct fs_archive *archive);
/* Of a nested one: its file in the other archive, filled; its share of the bounds, 0 or errno. */
int fs_archive_open_nested(struct fs_archive *archive);
int fs_archive_spend(struct fs_archive *archive, const struct cse_index_header *index);
/* The directory `place` is shared with other applications: use it. Holding it, 0 or -errno. */
void fs_archive_share(struct fs_archive *archive, const char *place);
int fs_archive_hold(struct fs_archive *archive);
uint64_t fs_archive_identity(const struct fs_archive *archive, const struct stat *status);
/* The lock of the skeleton, which the kernel takes from a process that dies. What it returns, if
 * not negative errno, goes to fs_archive_unlock. */
enum { FS_ARCHIVE_HELD = 1 << 30 };
int fs_archive_lock(struct fs_archive *archive);
void fs_archive_unlock(struct fs_archive *archive, int held);

#endif
