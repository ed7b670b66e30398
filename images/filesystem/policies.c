/* What a mount's settings say beside its source: read_only, sync, case_insensitive, owner,
 * prefetch.
 *
 * Read by mounts.c; and the smallest of them is here whole: a mount whose files belong to somebody
 * else than the kernel thinks. Only what is shown changes, and a chown to the shown owner is
 * answered; who may do what is decided by the real owner, as ever.
 */
#include "fs.h"

#include <stdio.h>
#include <string.h>

enum { BATCH_MS = 100, PREFETCH_S = 10 };

bool fs_owner_any;

static const char *text_of(const char *prefix, const char *name)
{
    char key[160];
    snprintf(key, sizeof key, "%s.%s", prefix, name);
    return cse_setting(key);
}

static long number_of(const char *prefix, const char *name, long otherwise)
{
    char key[160];
    snprintf(key, sizeof key, "%s.%s", prefix, name);
    return cse_setting_number(key, otherwise);
}

static bool is(const char *text, const char *word)
{
    return text != NULL && strcmp(text, word) == 0;
}

void fs_read_policies(struct fs_mount *mount, const char *prefix)
{
    const char *sync = text_of(prefix, "sync");
    if (is(text_of(prefix, "read_only"), "true")) mount->read_only = true;
    if (is(sync, "never")) mount->sync = FS_SYNC_NEVER;
    if (is(sync, "batch")) mount->sync = FS_SYNC_BATCH;
    if (is(sync, "always")) mount->sync = FS_SYNC_ALWAYS;
    mount->batch_ms = (int)number_of(prefix, "batch_ms", BATCH_MS);
    mount->case_insensitive = is(text_of(prefix, "case_insensitive"), "true");
    mount->owned = text_of(prefix, "owner.user") != NULL;
    mount->owner_user = (uid_t)number_of(prefix, "owner.user", 0);
    mount->owner_group = (gid_t)number_of(prefix, "owner.group", mount->owner_user);
    fs_owner_any |= mount->owned;
    mount->prefetch_list = text_of(prefix, "prefetch.list");
    mount->prefetch_s = text_of(prefix, "prefetch.seconds") != NULL
                            ? (int)number_of(prefix, "prefetch.seconds", PREFETCH_S)
                            : 0;
}

void fs_show_owner(const struct fs_mount *mount, struct stat *status)
{
    if (!mount->owned) return;
    status->st_uid = mount->owner_user;
    status->st_gid = mount->owner_group;
}

void fs_show_owner_of_fd(int fd, struct stat *status)
{
    char path[PATH_MAX];
    int saved_errno = errno;
    const struct fs_mount *mount =
        fs_ready() && fs_virtual_of_fd(fd, FS_ANY, path) ? fs_mount_of(path) : NULL;
    if (mount != NULL) fs_show_owner(mount, status);
    errno = saved_errno;
}

/* Whether it is the owner that is shown anyway; -1 leaves one as it is. */
static bool shown_to_be(const struct fs_mount *mount, uid_t user, gid_t group)
{
    return mount != NULL && mount->owned && !mount->read_only &&
           (user == (uid_t)-1 || user == mount->owner_user) &&
           (group == (gid_t)-1 || group == mount->owner_group);
}

bool fs_owner_answers(int dirfd, const char *path, int follow, uid_t user, gid_t group)
{
    struct fs_where where;
    return fs_owner_any && fs_maybe(dirfd, path) &&
           fs_find(dirfd, path, follow, &where) == FS_INSIDE && where.layer >= 0 &&
           shown_to_be(where.mount, user, group);
}

bool fs_owner_answers_fd(int fd, uid_t user, gid_t group)
{
    char path[PATH_MAX];
    return fs_owner_any && fs_ready() && fs_virtual_of_fd(fd, FS_ANY, path) &&
           shown_to_be(fs_mount_of(path), user, group);
}
