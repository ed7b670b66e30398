/* The private tree: mounts, their layers, and where a path of the program really lies.
 *
 * Theory of operation. A mount shows a stack of layers at a path. A layer is a real directory: the
 * source itself (redirect, union, cow's lower), cow's upper directory, or the skeleton of an
 * archive on private tmpfs. `fs_find` (resolve.c) turns what the program names into a mount and
 * a path in it; `fs_lookup` (layers.c) finds the layer that has it; the call then goes on with the
 * real path, so the program gets real kernel files. Directories that several layers may share get a
 * *shadow*: a real directory on private tmpfs with an empty placeholder for each entry (shadow.c),
 * so that reading them, fchdir, dup, exec and passing descriptors are the kernel's work, and so
 * that the path of a descriptor (/proc/self/fd) always tells which directory of which mount it is.
 *
 * All state that processes share lies in files: private/fs (skeletons, shadows, indexes) and
 * data/fs-<n> (cow's upper directory and its whiteouts). Nothing is passed on by exec or fork.
 */
#ifndef CSE_FS_H
#define CSE_FS_H

#include "core.h"
#include "counters.h"
#include "index.h"
#include "raw.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

enum { FS_MOUNTS_MAX = 64, FS_LAYERS_MAX = 16 };

struct fs_archive;
struct fs_computed;
struct fs_encrypted;

struct fs_layer {
    const char *root; /* a real path without symbolic links */
    size_t root_length;
    const char *whiteouts;      /* cow's upper only: markers that hide what lies in layers below */
    struct fs_archive *archive; /* root is the skeleton of this archive */
    const struct fs_computed *computed; /* root is what a command wrote */
    struct fs_encrypted *encrypted;     /* root is the plain tree of this store */
};

struct fs_mount {
    const char *path;
    size_t length;
    struct fs_layer layers[FS_LAYERS_MAX];
    int layer_count;
    int error;         /* of every use: the settings or the archive are unusable */
    bool cow;          /* layers[0] takes all changes */
    bool read_only;    /* changes fail with EROFS */
    bool links_inside; /* links must not lead out of the mount */
    enum fs_sync { FS_SYNC_ASKED, FS_SYNC_NEVER, FS_SYNC_BATCH, FS_SYNC_ALWAYS } sync;
    int batch_ms;
    bool case_insensitive;
    bool owned; /* its files are shown as those of: */
    uid_t owner_user;
    gid_t owner_group;
    int prefetch_s; /* opened files are noted for so long after the start */
    const char *prefetch_list;
    const char *shadow; /* shadows of merged directories; NULL with a single layer */
    const char *work;   /* cow: where copies are prepared */
};

/* Where a path lies. Filled by fs_find. */
struct fs_where {
    const struct fs_mount *mount;
    const char *rel;            /* inside `path`; "" is the mount's root */
    int layer;                  /* -1: nothing is there */
    struct fs_archive *archive; /* when that layer is one: it, or one nested in it, and there */
    uint32_t entry;             /* … this one */
    mode_t mode;                /* of what is there */
    bool must_be_directory;     /* the program wrote a slash behind the name */
    char path[PATH_MAX]; /* as the program sees it: absolute, no links, dots or double slashes */
    char real[PATH_MAX]; /* set by fs_real and the like */
};

enum fs_result {             /* of fs_find, beside negative errno values */
                 FS_OUTSIDE, /* the program's own arguments are right */
                 FS_INSIDE,
                 FS_REWRITTEN, /* outside, at where->path, reached through a mount */
};

enum {                  /* how fs_find treats a link in the last place */
       FS_NOFOLLOW = 0, /* but where a slash is behind it */
       FS_FOLLOW = 1,
       FS_ITSELF = 2, /* never: the name is made, removed or renamed; the slash is for the caller */
};

/* ---- mounts.c ------------------------------------------------------------------------------ */

extern struct fs_mount fs_mounts[FS_MOUNTS_MAX];
extern int fs_mount_count;
/* Reads the settings once; false while there is nothing to do for this overlay. */
bool fs_ready(void);
/* A set of bytes: what the first name of an absolute path begins with where the path may be in a
 * mount. Every byte until the settings are read; '/' and '.' for paths not in normal form. */
extern uint64_t fs_first_letters[4];
/* The mount of a normal absolute path, the longest one; NULL: outside. */
const struct fs_mount *fs_mount_of(const char *path);
/* Whether some mount point lies below this normal absolute path. */
bool fs_mount_below(const char *path);
/* An event of the application, and for whoever works without an agent a line in
 * <run dir>/data/filesystem.errors. */
void fs_report(const char *mount, const char *entry, const char *what);
/* <run dir>/private/fs, which exists then; and its device. */
const char *fs_private(void);
extern uint64_t fs_private_device;
extern uint64_t fs_shared_device; /* of archives that applications share; 0: none */
/* Directories of `path` that are missing are made; 0 or negative errno. */
int fs_make_directories(const char *path, mode_t mode);

/* ---- policies.c, batch.c, fold.c, prefetch.c
 * ------------------------------------------------------
 */

/* What the settings below `prefix` say of the mount beside its source. */
void fs_read_policies(struct fs_mount *mount, const char *prefix);
extern bool fs_owner_any; /* some mount shows another owner */
void fs_show_owner(const struct fs_mount *mount, struct stat *status);
void fs_show_owner_of_fd(int fd, struct stat *status);
/* Whether a chown asks for the owner that is shown. */
bool fs_owner_answers(int dirfd, const char *path, int follow, uid_t user, gid_t group);
bool fs_owner_answers_fd(int fd, uid_t user, gid_t group);
/* Puts the names that are there into where->path, whatever their case. */
void fs_fold(struct fs_where *where);
/* A rename to another case of the same name: the target is the name as it was given. */
void fs_fold_rename(const struct fs_where *source, struct fs_where *target, const char *to);
/* The file is synced within `ms`; false: it has to be now. *error: of an earlier one. */
bool fs_batch_take(int fd, int ms, int *error);
/* What waits is synced now. */
void fs_batch_finish(void);
/* fsync past the policy. 0 or negative errno. calls_sync.c */
int fs_sync_now(int fd);
/* A file of this mount's archive is opened; the list of an earlier run is filled from, once. */
void fs_prefetch_opened(const struct fs_where *where);
void fs_prefetch_start(void);

/* ---- parents.c ------------------------------------------------------------------------------ */

/* Directories on the way to a mount point that are in no other mount although they lie in one. */
extern struct fs_mount fs_parents;
/* The next name that mounts put into `directory`, each once; start with *next = 0. */
bool fs_mount_name(const char *directory, int *next, char *name);
/* The type of such a name, without reading an archive; 0: not known. */
mode_t fs_mount_kind(const char *path);
/* Makes where->path, which its mount does not have, a directory that leads to a mount point. */
int fs_parent_find(struct fs_where *where);
/* Whether a mount point lies below this descriptor's directory, whose path goes to `path`. */
bool fs_listed_above(int fd, char *path);

/* ---- virtual.c ----------------------------------------------------------------------------- */

/* The path as the program sees it of a real one; false when it is outside. Directories of a mount
 * with several layers are known by their shadows only: who names a layer's own directory by its
 * real path means that directory. */
enum fs_kind { FS_DIRECTORY, FS_ANY };
bool fs_virtual_of(const char *real, enum fs_kind kind, char *out);
/* The path as the program sees it behind a descriptor; false: outside, or not a path. */
bool fs_virtual_of_fd(int fd, enum fs_kind kind, char *out);
/* The same, also outside every mount. */
bool fs_path_of_fd(int fd, char *out);
/* As the kernel names it. */
bool fs_real_of_fd(int fd, char *out);
enum { /* what the table of descriptors remembers */
       FS_FD_OUTSIDE = 0,
       FS_FD_INSIDE = 1,
       FS_FD_ABOVE = 2,  /* outside, with a mount point below */
       FS_FD_WRITES = 3, /* inside, a file that goes back into an encrypted store */
};

/* ---- resolve.c ----------------------------------------------------------------------------- */

int fs_find(int dirfd, const char *path, int follow, struct fs_where *where);
/* The same under openat2's RESOLVE_* rules; -EXDEV, -ELOOP where they forbid it. */
int fs_find_by_rules(int dirfd, const char *path, int follow, uint64_t resolve,
                     struct fs_where *where);
enum { /* linux/openat2.h */
       FS_NO_XDEV = 0x01,
       FS_NO_SYMLINKS = 0x04,
       FS_BENEATH = 0x08,
       FS_IN_ROOT = 0x10,
       FS_CACHED = 0x20,
};
/* The same for a normal or any absolute path of the program's view. */
int fs_find_absolute(const char *path, int follow, struct fs_where *where);
/* Whether the directory is there that this name lies in, or would. */
bool fs_has_parent(const struct fs_where *where);
/* Whether fs_find could say anything but FS_OUTSIDE; costs next to nothing when it cannot. */
bool fs_maybe(int dirfd, const char *path);
/* The flags of an open in this mount, as its policy wants them. calls_sync.c */
int fs_sync_flags(const struct fs_mount *mount, int flags);
/* Whether a mount point lies below this path, links aside. */
bool fs_holds(int dirfd, const char *path);
void fs_cwd_changed(void);
/* Takes ".", ".." and double slashes out of an absolute path, by text alone. */
int fs_normal(const char *path, char *out);

/* ---- layers.c ------------------------------------------------------------------------------ */

/* Looks where->rel up; sets layer, mode, entry. Returns 0, or -ENOENT, -ENOTDIR..., or
 * 1 + length of the prefix of rel that is a symbolic link which must be followed first. */
int fs_lookup(struct fs_where *where);
/* The same, leaving out the first `skip` layers. */
int fs_lookup_below(struct fs_where *where, int skip);
/* layers[layer]/rel in `out`. */
int fs_layer_path(const struct fs_mount *mount, int layer, const char *rel, char *out);
/* The text of the link at `where`; its length or negative errno. */
int fs_link_text(const struct fs_where *where, char *out, size_t size);
bool fs_hidden(const struct fs_mount *mount, int layer, const char *rel);
void fs_forget_plain(void);
/* Makes where->real the path of a real object for what was found: a shadow for a directory of
 * several layers, a skeleton's placeholder. 0 or negative errno. */
int fs_real(struct fs_where *where);
/* fs_real, and a file's content or a directory's complete listing. */
int fs_real_content(struct fs_where *where);
/* Gives `status` of an archive's object what the archive says. */
void fs_fix_status(const struct fs_where *where, struct stat *status);

/* ---- archive.c, indexing.c, skeleton.c ---------------------------------------------------------
 */

struct fs_archive *fs_archive_new(const char *mount, const char *key);
/* Where it lies in another mount, as the program sees it; NULL: it does not. */
const char *fs_archive_inside(const struct fs_archive *archive);
const char *fs_archive_root(const struct fs_archive *archive);
bool fs_archive_links_inside(const struct fs_archive *archive);
/* The index, made at first use. NULL with *error set to a negative errno. */
const struct cse_index_header *fs_archive_index(struct fs_archive *archive, int *error);
/* What is at `rel`: *archive becomes the nested one that has it. 0 with *entry, 1 + the length of
 * the part of `rel` that is a link, or negative errno. */
int fs_archive_find(struct fs_archive **archive, const char *rel, uint32_t *entry);
/* From a directory to where its children are: those of NAME.contents are in another archive. */
int fs_archive_enter(struct fs_archive **archive, uint32_t *entry);
int fs_archive_present(struct fs_archive *archive, uint32_t entry);
int fs_archive_list(struct fs_archive *archive, uint32_t entry);
int fs_archive_fill(struct fs_archive *archive, uint32_t entry);
/* Fills every shared library of the archive, before the dynamic loader reads behind our back. */
void fs_archive_fill_libraries(struct fs_archive *archive);
void fs_archive_fix(struct fs_archive *archive, uint32_t entry, struct stat *status);
/* A descriptor of the skeleton's root, a shorter way to what is in it; negative: none. */
int fs_archive_tree_fd(struct fs_archive *archive);
/* Where the kernel finds where->real the soonest: a descriptor, and the path from there. */
int fs_nearest(const struct fs_where *where, const char **path);
/* The program's umask, as far as it is known; all bits where it is not. calls_attr.c */
mode_t fs_umask(void);

/* ---- computed.c ------------------------------------------------------------------------------ */

/* The computed file that settings below `prefix` describe; NULL: none that can be made. */
struct fs_computed *fs_computed_new(const char *mount, const char *prefix);
const char *fs_computed_root(const struct fs_computed *computed);
/* Runs the command where there is no version yet, or, for an open, none that still counts. */
int fs_computed_ready(const struct fs_computed *computed, bool opened);

/* ---- encrypted.c, sealing.c, calls_sync.c -------------------------------------------------------
 */

struct fs_encrypted *fs_encrypted_new(const char *mount, const char *prefix);
const char *fs_encrypted_root(const struct fs_encrypted *encrypted);
/* Whether there is any such mount, settings read or not. */
bool fs_encrypted_any(void);
/* Brings what lies on the way to `rel` into the plain tree. */
int fs_encrypted_reach(struct fs_encrypted *encrypted, const char *rel);
/* All names of a directory; a file's content, for the tree's `path` of it. */
int fs_encrypted_list(struct fs_encrypted *encrypted, const char *rel);
int fs_encrypted_fill(struct fs_encrypted *encrypted, const char *rel, const char *path);
/* Changes, told when they are made in the tree. */
void fs_encrypted_opened(const struct fs_where *where, int fd, int flags);
int fs_encrypted_created(const struct fs_where *where);
int fs_encrypted_truncating(struct fs_encrypted *encrypted, const char *path);
int fs_encrypted_resized(const struct fs_where *where);
void fs_encrypted_attributes(const struct fs_where *where);
/* Make the change in both. */
int fs_encrypted_remove(struct fs_where *where, const char *path, bool directory);
int fs_encrypted_rename(struct fs_where *from, struct fs_where *to, const char *old,
                        const char *fresh, unsigned flags);
/* What is open behind `fd`, sealed into the store; on disk when it returns where `durable`. */
int fs_encrypted_seal_fd(int fd, bool durable);
enum fs_dirty_of { FS_DIRTY_MINE, FS_DIRTY_MINE_KEPT, FS_DIRTY_OF_THE_DEAD, FS_DIRTY_ALL };
int fs_encrypted_seal_dirty(enum fs_dirty_of whose, bool durable);
bool fs_encrypted_is_mapped(uint64_t inode);
/* Before the process executes another program or ends. */
void fs_encrypted_leaving(void);

/* ---- shadow.c ------------------------------------------------------------------------------ */

/* The shadow of the directory at `where`, in where->real; with all entries when `list`. */
int fs_shadow(struct fs_where *where, bool list);
/* A change to one name of a directory, told to its shadow where there is one. */
void fs_shadow_add(const struct fs_mount *mount, const char *rel, mode_t mode);
void fs_shadow_remove(const struct fs_mount *mount, const char *rel);
void fs_shadow_rename(const struct fs_mount *mount, const char *from, const char *to, mode_t mode);
void fs_shadow_exchange(const struct fs_mount *mount, const struct fs_where *from,
                        const struct fs_where *to);
bool fs_shadow_path(const struct fs_mount *mount, const char *rel, char *out);
/* Calls `each` for every name of a real directory; stops at the first result that is not 0. */
int fs_each_name(const char *directory, int (*each)(const char *name, unsigned char type, void *),
                 void *context);
int fs_remove_tree(const char *path);

/* ---- cow.c --------------------------------------------------------------------------------- */

/* The path to change `where` at, in where->real: copied to the upper layer first where needed
 * (without its content when `truncate`). -EROFS on mounts that take no changes. */
int fs_for_change(struct fs_where *where, bool truncate);
/* The path to make something new at, with its parent in the upper layer. -EEXIST when there is
 * something already (unless `over`), -ENOENT, -ENOTDIR, -EROFS. */
int fs_for_creation(struct fs_where *where, bool over);
/* To be told when the new thing is there. */
void fs_created(const struct fs_where *where, mode_t mode);
int fs_remove(struct fs_where *where, bool directory);
int fs_rename(struct fs_where *from, struct fs_where *to, unsigned flags);
int fs_link(struct fs_where *from, struct fs_where *to);

/* A file that was copied up keeps the identity that it had below: programs that compare it before
 * and after their first write (vim) take another one for another file. `path` NULL: of `fd`. */
void fs_origin(int fd, const char *path, struct stat *status);
extern uint64_t fs_upper_device; /* of the upper layers; 0: no cow */
#define FS_ORIGIN "user.cse.origin"

/* ---- calls_*.c ----------------------------------------------------------------------------- */

/* One path argument, made ready: what to give libc instead. */
enum fs_use {
    FS_USE_NAME,    /* look only: stat, access, readlink, chdir */
    FS_USE_CONTENT, /* read: open, execve, dlopen, opendir */
    FS_USE_CHANGE,  /* chmod, truncate, utimes ... */
};
/* Replaces *dirfd and *path; false with errno set. `where` is filled when *inside. */
bool fs_argument(int *dirfd, const char **path, int follow, enum fs_use use, struct fs_where *where,
                 bool *inside);
int fs_fail(int negative_errno); /* sets errno, returns -1 */
/* open with everything that can be asked of it; the descriptor, or -1 with errno. */
int fs_open(int dirfd, const char *path, int flags, mode_t mode);
/* Whether the function is to be exported under libc's name although a header makes it inline. */
#define FS_AS(name) __asm__(#name) CSE_EXPORT

#endif
