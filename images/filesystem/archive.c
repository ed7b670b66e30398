/* Archives: settings, the implementation, the lock; indexing.c and skeleton.c go on from there.
 *
 * private/fs/a<n>/ holds `index` (made once, by the first process that needs it, under `lock`),
 * `pack` (contents kept while indexing), `state` (what has been done with each entry) and `tree`,
 * the skeleton. An entry becomes *present* as a sparse file of the right size and mode when
 * somebody looks at it; its content is *filled* in when it is first opened, a large one under a
 * lock on the file itself. All processes of the application map index and state, so each step
 * happens once.
 *
 * Where several users may share the skeleton (a server whose workers drop root), each may have to
 * fill a file or list a directory: the real permissions then allow it, and fs_archive_fix shows
 * what the archive says.
 */
#include "fs.h"
#include "skeleton.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>

enum { ARCHIVES_MAX = 64, REPORTS_MAX = 100, CIRCLE_TURNS = 3000 /* of 10 ms */ };

static struct fs_archive *archives[ARCHIVES_MAX];
static int archive_count;

/* ---- settings -------------------------------------------------------------------------------- */

static const char *setting(const char *prefix, const char *name, const char *otherwise)
{
    char key[160];
    snprintf(key, sizeof key, "%s.%s", prefix, name);
    const char *value = cse_setting(key);
    return value != NULL ? value : otherwise;
}

static uint64_t number_setting(const char *prefix, const char *name, uint64_t otherwise)
{
    const char *text = setting(prefix, name, NULL);
    char *end;
    if (text == NULL || *text < '0' || *text > '9') return otherwise;
    uint64_t value = strtoull(text, &end, 10);
    return *end == '\0' ? value : otherwise;
}

struct fs_archive *fs_archive_new(const char *mount, const char *prefix)
{
    if (archive_count == ARCHIVES_MAX) return NULL;
    struct fs_archive *archive =
        mmap(NULL, sizeof *archive, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (archive == MAP_FAILED) return NULL;
    archive->number = archive_count;
    archive->mount = mount;
    archive->from = setting(prefix, "from", "");
    archive->inside = setting(prefix, "inside", NULL);
    snprintf(archive->directory, sizeof archive->directory, "%.4000s/a%d", fs_private(),
             archive->number);
    snprintf(archive->tree, sizeof archive->tree, "%.4000s/tree", archive->directory);
    archive->limits = (struct cse_tree_limits){
        .max_bytes = number_setting(prefix, "max_bytes", UINT64_C(16) << 30),
        .max_entries = number_setting(prefix, "max_entries", 1000000),
        .max_ratio = number_setting(prefix, "max_ratio", 2000),
        .cache_bytes = number_setting(prefix, "cache_bytes", 256 << 20),
        .nested = (uint32_t)number_setting(prefix, "nested", 0),
        .strip = (uint32_t)number_setting(prefix, "strip", 0),
        .subpath = setting(prefix, "subpath", ""),
        .links_inside = strcmp(setting(prefix, "links", "inside"), "any") != 0,
    };
    if (archive->limits.max_ratio == 0) archive->limits.max_ratio = 1;
    const char *shared = setting(prefix, "shared", "");
    if (shared[0] == '/') fs_archive_share(archive, shared);
    return archives[archive_count++] = archive;
}

const char *fs_archive_root(const struct fs_archive *archive)
{
    return archive->tree;
}

const char *fs_archive_inside(const struct fs_archive *archive)
{
    return archive->inside;
}

bool fs_archive_links_inside(const struct fs_archive *archive)
{
    return archive->limits.links_inside;
}

/* ---- the implementation ------------------------------------------------------------------------
 */

void fs_archive_say(void *context, const char *entry, const char *what)
{
    struct fs_speaker *speaker = context;
    if (speaker->lines++ < REPORTS_MAX)
        fs_report(speaker->archive->mount, entry, what);
    else if (speaker->lines == REPORTS_MAX + 1)
        fs_report(speaker->archive->mount, "", "has more entries of which this must be said");
}

const struct cse_tree_provider *fs_archive_provider(void)
{
    static const struct cse_tree_provider *known;
    const struct cse_tree_provider *found = __atomic_load_n(&known, __ATOMIC_ACQUIRE);
    if (found != NULL) return found;
    Dl_info self;
    char path[PATH_MAX];
    if (dladdr((void *)(uintptr_t)fs_archive_new, &self) == 0 || self.dli_fname == NULL)
        return NULL;
    const char *slash = strrchr(self.dli_fname, '/');
    snprintf(path, sizeof path, "%.*slibcse-archive.so",
             slash ? (int)(slash + 1 - self.dli_fname) : 0, self.dli_fname);
    void *library = libc(dlopen)(path, RTLD_NOW | RTLD_LOCAL);
    found = library ? dlsym(library, CSE_TREE_PROVIDER_SYMBOL) : NULL;
    if (found == NULL || found->version != CSE_TREE_VERSION) {
        const char *why = dlerror();
        fs_report(path, "", why ? why : "is of another version");
        return NULL;
    }
    static const struct cse_tree_host host = {cse_own_fd, cse_own_close, fs_progress};
    found->start(&host);
    __atomic_store_n(&known, found, __ATOMIC_RELEASE);
    return found;
}

/* ---- files of the archive
 * ------------------------------------------------------------------------ */

int fs_archive_open_in(const struct fs_archive *archive, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", archive->directory, name);
    int fd = raw_open(path, flags | O_CLOEXEC, mode);
    if (fd >= 0 && (flags & O_CREAT)) raw(SYS_fchmod, fd, mode); /* whatever the umask is */
    return fd;
}

static __thread int opening; /* archives that this thread is looking for in other mounts */

int fs_archive_open(struct fs_archive *archive)
{
    struct fs_where where;
    if (archive->outer != NULL) return fs_archive_open_nested(archive);
    if (archive->inside == NULL) return raw_open(archive->from, O_RDONLY | O_CLOEXEC, 0);
    pid_t self = (pid_t)raw(SYS_gettid);
    if (archive->opener == self) return -ELOOP; /* it lies in itself */
    archive->opener = self;
    opening++;
    int found = fs_find_absolute(archive->inside, FS_FOLLOW, &where);
    int error = found == FS_INSIDE ? fs_real_content(&where) : found;
    opening--;
    archive->opener = 0;
    if (error < 0) return error;
    return raw_open(found == FS_INSIDE ? where.real : where.path, O_RDONLY | O_CLOEXEC, 0);
}

static bool wait_a_moment(int *turns)
{
    struct timespec moment = {.tv_nsec = 10 * 1000 * 1000};
    if (opening == 0) return true;
    raw(SYS_nanosleep, &moment, NULL);
    return ++*turns < CIRCLE_TURNS;
}

/* Whoever holds the lock of an archive that lies in another mount may be waiting for this one,
 * where links make a circle that refuse_circles (mounts.c) cannot see: then the wait ends. */
static int take_flock(int fd)
{
    int turns = 0, error;
    do {
        error = (int)raw(SYS_flock, fd, opening > 0 ? LOCK_EX | LOCK_NB : LOCK_EX);
        if (error == -EAGAIN && !wait_a_moment(&turns)) return -EDEADLK;
    } while (error == -EAGAIN || error == -EINTR);
    return error;
}

/* flock on a descriptor that this process keeps, and a word for its threads: two system calls, and
 * the kernel lets go of it when the process dies. A forked child must not share the description. */
static int lock_own(const struct fs_archive *archive)
{
    int fd = fs_archive_open_in(archive, "lock", O_RDWR, 0);
    int error = fd < 0 ? fd : take_flock(fd);
    if (fd >= 0 && error != 0) raw_close(fd);
    return error != 0 ? error : fd;
}

int fs_archive_lock(struct fs_archive *archive)
{
    pid_t self = (pid_t)raw(SYS_getpid), nobody = 0;
    if (__atomic_load_n(&archive->lock_owner, __ATOMIC_ACQUIRE) != self) {
        int fd = lock_own(archive);
        if (fd < 0 || !__atomic_compare_exchange_n(&archive->lock_owner, &nobody, -1, false,
                                                   __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            return fd;
        archive->lock_fd = cse_own_fd(fd);
        bool kept = archive->lock_fd >= 0;
        if (kept) __atomic_store_n(&archive->lock_word, 1, __ATOMIC_RELAXED);
        __atomic_store_n(&archive->lock_owner, kept ? self : 0, __ATOMIC_RELEASE);
        return kept ? FS_ARCHIVE_HELD : lock_own(archive);
    }
    int turns = 0;
    while (__atomic_exchange_n(&archive->lock_word, 1, __ATOMIC_ACQUIRE) != 0) {
        if (!wait_a_moment(&turns)) return -EDEADLK;
        raw(SYS_sched_yield);
    }
    int error = take_flock(archive->lock_fd);
    if (error == 0) return FS_ARCHIVE_HELD;
    __atomic_store_n(&archive->lock_word, 0, __ATOMIC_RELEASE);
    return error;
}

void fs_archive_unlock(struct fs_archive *archive, int held)
{
    if (held != FS_ARCHIVE_HELD) {
        raw(SYS_flock, held, LOCK_UN); /* a child forked meanwhile has the descriptor, too */
        raw_close(held);
        return;
    }
    raw(SYS_flock, archive->lock_fd, LOCK_UN);
    __atomic_store_n(&archive->lock_word, 0, __ATOMIC_RELEASE);
}
