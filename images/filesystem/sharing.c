/* An archive that several applications share (setting `shared`, whose value the runtime makes the
 * path of a directory that they all may write to).
 *
 * What lies in private/fs/a<n>/ otherwise lies in <shared>/<identity>/ then: index, skeleton and
 * filled files are the work of whichever process comes first, of whatever application, by the same
 * locks. Each process holds a shared lock on `users` there, so that the agent removes only what
 * nobody uses. Called by archive.c and indexing.c.
 */
#include "skeleton.h"

#include <stdio.h>
#include <string.h>
#include <sys/file.h>

enum { TRIES = 20 };

uint64_t fs_shared_device;

void fs_archive_share(struct fs_archive *archive, const char *place)
{
    char real[PATH_MAX], link[40];
    struct stat status;
    struct fs_speaker speaker = {.archive = archive};
    int fd = raw_open(place, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = fd >= 0 ? raw(SYS_readlinkat, AT_FDCWD, link, real, sizeof real - 1) : fd;
    bool there = length > 0 && length < PATH_MAX - 200 && raw_fstat(fd, &status) == 0;
    if (fd >= 0) raw_close(fd);
    int source = there && archive->inside == NULL ? raw_open(archive->from, O_RDONLY | O_CLOEXEC, 0)
                                                  : -ENOENT;
    if (source < 0) {
        fs_archive_say(&speaker, "", "is not shared: it or the place to share it is not there");
        return;
    }
    fs_shared_device = (uint64_t)status.st_dev;
    if (raw_fstat(source, &status) == 0) {
        real[length] = '\0';
        snprintf(archive->directory, sizeof archive->directory, "%s/%016llx", real,
                 (unsigned long long)fs_archive_identity(archive, &status));
        snprintf(archive->tree, sizeof archive->tree, "%.4000s/tree", archive->directory);
        archive->common = true;
    }
    raw_close(source);
}

/* Holds the directory for as long as this process, or a child of it, lives. 0 or negative errno. */
int fs_archive_hold(struct fs_archive *archive)
{
    char path[PATH_MAX + 64];
    if (!archive->common || archive->held) return 0;
    snprintf(path, sizeof path, "%s/users", archive->directory);
    for (int i = 0; i < TRIES; i++) {
        struct stat mine, there;
        int error = fs_make_directories(archive->directory, 0777);
        if (error != 0) return error;
        int fd = raw_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd == -ENOENT) continue; /* removed in between */
        if (fd < 0) return fd;
        raw(SYS_fchmod, fd, 0666);
        while (raw(SYS_flock, fd, LOCK_SH) == -EINTR) {}
        bool same = raw_fstat(fd, &mine) == 0 && raw_lstat(path, &there) == 0 &&
                    mine.st_ino == there.st_ino;
        if (same) {
            raw(SYS_utimensat, fd, NULL, NULL, 0);
            archive->held = true;
            return cse_own_fd(fd) >= 0 ? 0 : -EMFILE;
        }
        raw_close(fd);
    }
    return -EAGAIN;
}
