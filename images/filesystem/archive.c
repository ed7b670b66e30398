/* Archives: settings and index; skeleton.c goes on from there.
 *
 * private/fs/a<n>/ holds `index` (made once, by the first process that needs it, under `lock`),
 * `pack` (contents kept while indexing) and `tree`, the skeleton. An entry becomes *present* as a
 * sparse file of the right size, mode and time when somebody looks at it; its content is *filled*
 * in when it is first opened, under a lock on the file itself. What is done is marked in the mapped
 * index, which all processes of the application share, so each step happens once.
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

enum { ARCHIVES_MAX = 64, REPORTS_MAX = 100 };

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
        .strip = (uint32_t)number_setting(prefix, "strip", 0),
        .subpath = setting(prefix, "subpath", ""),
        .links_inside = strcmp(setting(prefix, "links", "inside"), "any") != 0,
    };
    if (archive->limits.max_ratio == 0) archive->limits.max_ratio = 1;
    return archives[archive_count++] = archive;
}

const char *fs_archive_root(const struct fs_archive *archive)
{
    return archive->tree;
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
    static const struct cse_tree_host host = {cse_own_fd, cse_own_close};
    found->start(&host);
    __atomic_store_n(&known, found, __ATOMIC_RELEASE);
    return found;
}

/* ---- the index
 * ----------------------------------------------------------------------------------- */

int fs_archive_open_in(const struct fs_archive *archive, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", archive->directory, name);
    int fd = raw_open(path, flags | O_CLOEXEC, mode);
    if (fd >= 0 && (flags & O_CREAT)) raw(SYS_fchmod, fd, mode); /* whatever the umask is */
    return fd;
}

int fs_archive_open(struct fs_archive *archive)
{
    struct fs_where where;
    if (archive->inside == NULL) return raw_open(archive->from, O_RDONLY | O_CLOEXEC, 0);
    pid_t self = (pid_t)raw(SYS_gettid);
    if (archive->opener == self) return -ELOOP; /* it lies in itself */
    archive->opener = self;
    int found = fs_find_absolute(archive->inside, FS_FOLLOW, &where);
    int error = found == FS_INSIDE ? fs_real_content(&where) : found;
    archive->opener = 0;
    if (error < 0) return error;
    return raw_open(found == FS_INSIDE ? where.real : where.path, O_RDONLY | O_CLOEXEC, 0);
}

int fs_archive_lock(const struct fs_archive *archive)
{
    int fd = fs_archive_open_in(archive, "lock", O_RDWR, 0);
    if (fd < 0) return fd;
    while (raw(SYS_flock, fd, LOCK_EX) == -EINTR) {}
    return fd;
}

static int store_error(const struct fs_archive *archive, int error)
{
    struct cse_index_header header = {
        .magic = CSE_INDEX_MAGIC, .error = error, .file_size = sizeof header};
    int fd = fs_archive_open_in(archive, "index.new", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0) return fd;
    long put = raw(SYS_write, fd, &header, sizeof header);
    raw_close(fd);
    return put == (long)sizeof header ? 0 : put < 0 ? (int)put : -ENOSPC;
}

static int build(struct fs_archive *archive)
{
    const struct cse_tree_provider *reader = fs_archive_provider();
    struct fs_speaker speaker = {.archive = archive};
    int source = fs_archive_open(archive);
    int index = fs_archive_open_in(archive, "index.new", O_RDWR | O_CREAT | O_TRUNC, 0666);
    int pack = fs_archive_open_in(archive, "pack", O_RDWR | O_CREAT | O_TRUNC, 0644);
    int error = 0;
    if (source < 0) {
        fs_archive_say(&speaker, "", "its archive cannot be opened");
        error = -source;
    } else if (reader == NULL) {
        fs_archive_say(&speaker, "", "libcse-archive.so is missing beside libcse-fs.so");
        error = EIO;
    } else if (index < 0 || pack < 0) {
        error = index < 0 ? -index : -pack;
    } else {
        error = reader->build(source, index, pack, &archive->limits, fs_archive_say, &speaker);
    }
    if (source >= 0) raw_close(source);
    if (error != 0 && index >= 0) raw(SYS_ftruncate, index, 0); /* give the room back */
    if (error != 0 && pack >= 0) raw(SYS_ftruncate, pack, 0);
    if (index >= 0) raw_close(index);
    if (pack >= 0) raw_close(pack);
    if (error == ENOSPC || error == ENOMEM || error == EMFILE || error == ENFILE) return -error;
    if (error != 0) {
        int stored = store_error(archive, error);
        if (stored != 0) return stored;
    }
    return 0;
}

static int make_index(struct fs_archive *archive)
{
    char from[PATH_MAX + 64], to[PATH_MAX + 64];
    struct stat status;
    int error = fs_make_directories(archive->directory, 0777);
    if (error != 0) return error;
    int made = fs_archive_open_in(archive, "lock", O_RDWR | O_CREAT | O_EXCL, 0666);
    if (made >= 0) raw_close(made);
    int held = fs_archive_lock(archive);
    if (held < 0) return held;
    snprintf(from, sizeof from, "%s/index.new", archive->directory);
    snprintf(to, sizeof to, "%s/index", archive->directory);
    if (raw_lstat(to, &status) != 0) {
        error = build(archive);
        if (error == 0) error = (int)raw(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    }
    raw_close(held);
    return error;
}

static int map_index(struct fs_archive *archive)
{
    struct stat status, above;
    int fd = fs_archive_open_in(archive, "index", O_RDWR, 0);
    if (fd < 0) return fd;
    long result = raw_fstat(fd, &status);
    struct cse_index_header *index = MAP_FAILED;
    if (result == 0 && (size_t)status.st_size >= sizeof *index)
        index = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    raw_close(fd);
    if (index == MAP_FAILED) return -EIO;
    if (memcmp(index->magic, CSE_INDEX_MAGIC, sizeof index->magic) != 0 ||
        index->file_size > (uint64_t)status.st_size) {
        munmap(index, (size_t)status.st_size);
        return -EIO;
    }
    archive->owner = status.st_uid;
    archive->group = status.st_gid;
    archive->shared =
        status.st_uid == 0 || raw_lstat(fs_private(), &above) != 0 || above.st_uid != status.st_uid;
    struct cse_index_header *expected = NULL;
    if (!__atomic_compare_exchange_n(&archive->index, &expected, index, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        munmap(index, (size_t)status.st_size);
    return 0;
}

const struct cse_index_header *fs_archive_index(struct fs_archive *archive, int *error)
{
    struct cse_index_header *index = __atomic_load_n(&archive->index, __ATOMIC_ACQUIRE);
    if (__builtin_expect(index == NULL, 0)) {
        bool within = archive->opener != 0 && archive->opener == (pid_t)raw(SYS_gettid);
        *error = within ? -ELOOP : map_index(archive);
        if (*error == -ENOENT) {
            *error = make_index(archive);
            if (*error == 0) *error = map_index(archive);
        }
        if (*error != 0) return NULL;
        index = __atomic_load_n(&archive->index, __ATOMIC_ACQUIRE);
    }
    *error = -index->error;
    return index->error == 0 ? index : NULL;
}
