/* The table between the overlay and cse-files, the program that shows an application's files.
 *
 * cse-files runs beside the application with the overlay linked, so whatever it lists and opens is
 * what the program sees. What no call of libc tells (which layer has a name, what lies below it)
 * it asks here. Both are built together and lie in one directory: no version is needed.
 */
#ifndef CSE_FS_TOOLS_H
#define CSE_FS_TOOLS_H

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

struct cse_fs_view { /* of a mount */
    const char *path;
    int error; /* errno of every use; 0: none */
    bool cow, read_only;
    int layers;
    const char *upper, *whiteouts; /* of a cow, real paths */
};

struct cse_fs_layer_view {
    const char *kind; /* upper, directory, archive, memory, encrypted, computed */
    const char *root; /* the real directory that has its files, or is filled with them */
    const char *from; /* of an archive: its path */
    bool inside;      /* `from` is a path in another mount */
};

enum cse_fs_state { CSE_FS_THERE, CSE_FS_UNFILLED, CSE_FS_DAMAGED };

struct cse_fs_look {
    int mount;   /* -1: outside every mount */
    int layer;   /* -1: nothing is there */
    bool hidden; /* a whiteout hides what layers below have */
    bool leads;  /* a directory that is there only because a mount point lies below it */
    enum cse_fs_state state;
    char path[PATH_MAX]; /* as the program sees it, links followed */
    char real[PATH_MAX]; /* where its content is, or would be once it is filled; "" outside */
    struct stat status;  /* of what that layer has; not for merged directories */
};

struct cse_fs_tools {
    /* Mounts by their number in the settings; false past the last. */
    bool (*mount)(int number, struct cse_fs_view *out);
    bool (*layer)(int mount, int number, struct cse_fs_layer_view *out);
    /* Where a path lies, links followed (in the last place where `follow`). With `skip`, which
     * stands for so many layers from the top, links are not followed: what lies below. 0 or
     * negative errno. */
    int (*look)(const char *path, bool follow, int skip, struct cse_fs_look *out);
    /* Calls `each` for the names of a directory in the layers from `skip` on; one may come several
     * times. */
    int (*names)(const char *path, int skip,
                 int (*each)(const char *name, unsigned char type, void *), void *context);
    /* A descriptor to read a file's content as the layers from `skip` on have it. */
    int (*content)(const char *path, int skip);
};

#define CSE_FS_TOOLS_SYMBOL "cse_fs_tools"

#endif
