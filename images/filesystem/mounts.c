/* The mounts: settings read once, turned into stacks of layers, and found again by path.
 *
 * Settings (element.json, ARCHITECTURE.md): mounts.<n>.path, .source and what the source needs;
 * `lower` and `layers.<n>` nest. Called by every resolved path through fs_mount_of.
 */
#include "fs.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

struct fs_mount fs_mounts[FS_MOUNTS_MAX];
int fs_mount_count;
uint64_t fs_private_device;
uint64_t fs_first_letters[4] = {~0ul, ~0ul, ~0ul, ~0ul};

static int state;    /* 0 not read, 1 being read, 2 read */
static pid_t reader; /* thread that reads them: its own calls go straight through */
static char private_path[PATH_MAX];

const char *fs_private(void)
{
    return private_path;
}

/* Text for the rest of the process, without the program's malloc. */
static char *keep_text(const char *text)
{
    static char *room;
    static size_t left;
    size_t size = strlen(text) + 1;
    if (size > left) {
        size_t part = size > 65536 ? size : 65536;
        char *fresh = mmap(NULL, part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (fresh == MAP_FAILED) return NULL;
        room = fresh;
        left = part;
    }
    char *kept = memcpy(room, text, size);
    room += size;
    left -= size;
    return kept;
}

/* base/name, or base/name<number> where number is not negative. */
static const char *keep_path(const char *base, const char *name, int number)
{
    char text[PATH_MAX + 64];
    if (number < 0)
        snprintf(text, sizeof text, "%s/%s", base, name);
    else
        snprintf(text, sizeof text, "%s/%s%d", base, name, number);
    return keep_text(text);
}

void fs_report(const char *mount, const char *entry, const char *what)
{
    char line[PATH_MAX + 512];
    int used =
        snprintf(line, sizeof line - 1, entry[0] ? "%s: '%s' %s" : "%s: %s%s", mount, entry, what);
    if (used > (int)sizeof line - 2) used = sizeof line - 2;
    for (int i = 0; i < used; i++)
        if ((unsigned char)line[i] < ' ') line[i] = '?'; /* names are the archive's bytes */
    cse_report(line);
}

int fs_make_directories(const char *path, mode_t mode)
{
    char part[PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof part) return -ENAMETOOLONG;
    memcpy(part, path, length + 1);
    long made = raw(SYS_mkdirat, AT_FDCWD, part, mode);
    if (made == 0) raw(SYS_fchmodat, AT_FDCWD, part, mode); /* whatever the umask is */
    if (made == 0 || made == -EEXIST) return 0;
    for (size_t i = 1; i <= length; i++) {
        if (part[i] != '/' && part[i] != '\0') continue;
        char kept = part[i];
        part[i] = '\0';
        made = raw(SYS_mkdirat, AT_FDCWD, part, mode);
        if (made == 0) raw(SYS_fchmodat, AT_FDCWD, part, mode);
        part[i] = kept;
    }
    return made == 0 || made == -EEXIST ? 0 : (int)made;
}

/* The real path without links, as the kernel knows it; false when there is nothing. */
static bool canonical(const char *path, char *out)
{
    int fd = raw_open(path, O_PATH | O_CLOEXEC, 0);
    if (fd < 0) return false;
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = raw(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    raw_close(fd);
    if (length <= 0 || out[0] != '/') return false;
    out[length] = '\0';
    return true;
}

/* ---- layers from settings ------------------------------------------------------------------- */

static const char *setting(const char *prefix, const char *name)
{
    char key[160];
    snprintf(key, sizeof key, "%s.%s", prefix, name);
    return cse_setting(key);
}

static struct fs_layer *new_layer(struct fs_mount *mount)
{
    if (mount->layer_count == FS_LAYERS_MAX) {
        fs_report(mount->path, "", "has more than 16 layers");
        mount->error = -EINVAL;
        return NULL;
    }
    return &mount->layers[mount->layer_count++];
}

static void set_root(struct fs_layer *layer, const char *root)
{
    layer->root = root;
    layer->root_length = strlen(root);
}

static void add_directory(struct fs_mount *mount, const char *from)
{
    char real[PATH_MAX], text[PATH_MAX + 64];
    if (from == NULL || !canonical(from, real)) {
        snprintf(text, sizeof text, "has the source %s, which is not there",
                 from ? from : "(none)");
        fs_report(mount->path, "", text);
        mount->error = -EIO;
        return;
    }
    struct fs_layer *layer = new_layer(mount);
    if (layer != NULL) set_root(layer, keep_text(strcmp(real, "/") == 0 ? "" : real));
}

static void add_archive(struct fs_mount *mount, const char *prefix)
{
    struct fs_archive *archive = fs_archive_new(mount->path, prefix);
    struct fs_layer *layer = archive ? new_layer(mount) : NULL;
    if (archive == NULL) mount->error = -EIO;
    if (layer == NULL) return;
    set_root(layer, fs_archive_root(archive));
    layer->archive = archive;
    mount->links_inside |= fs_archive_links_inside(archive);
}

static void add_computed(struct fs_mount *mount, const char *prefix)
{
    struct fs_computed *computed = fs_computed_new(mount->path, prefix);
    struct fs_layer *layer = computed ? new_layer(mount) : NULL;
    mount->read_only = true;
    if (layer == NULL) {
        fs_report(mount->path, "", "has no command");
        mount->error = -EINVAL;
        return;
    }
    set_root(layer, fs_computed_root(computed));
    layer->computed = computed;
}

static void add_encrypted(struct fs_mount *mount, const char *prefix)
{
    struct fs_encrypted *encrypted = fs_encrypted_new(mount->path, prefix);
    struct fs_layer *layer = encrypted ? new_layer(mount) : NULL;
    if (layer == NULL) {
        fs_report(mount->path, "", "has no store");
        mount->error = -EINVAL;
        return;
    }
    set_root(layer, fs_encrypted_root(encrypted));
    layer->encrypted = encrypted;
}

/* The runtime makes the memory, of the size that was asked for, and tells where it is. */
static void add_memory(struct fs_mount *mount, const char *place)
{
    if (place != NULL && place[0] == '/') {
        add_directory(mount, place);
        return;
    }
    fs_report(
        mount->path, "",
        "is memory that nobody made: a runtime does, or give as its size the path of a tmpfs");
    mount->error = -EIO;
}

static void add_upper(struct fs_mount *mount)
{
    char data[PATH_MAX];
    int number = (int)(mount - fs_mounts);
    struct fs_layer *layer = new_layer(mount);
    if (layer == NULL) return;
    if (!canonical(cse_run_dir(), data)) data[0] = '\0';
    const char *base = keep_path(data, "data/fs-", number);
    set_root(layer, keep_path(base, "upper", -1));
    layer->whiteouts = keep_path(base, "whiteouts", -1);
    mount->work = keep_path(base, "work", -1);
    int error = fs_make_directories(layer->root, 0755);
    if (error == 0) error = fs_make_directories(layer->whiteouts, 0777);
    if (error == 0) error = fs_make_directories(mount->work, 0777);
    raw(SYS_fchmodat, AT_FDCWD, mount->work, 01777);
    struct stat status;
    if (error == 0 && raw_lstat(layer->root, &status) == 0)
        fs_upper_device = (uint64_t)status.st_dev;
    if (error != 0) {
        fs_report(mount->path, "",
                  error == -ENOSPC
                      ? "cannot keep changes: the run directory's data/ is full"
                      : "cannot keep changes: the run directory's data/ is not writable");
        mount->error = error == -ENOSPC ? -ENOSPC : -EROFS;
    }
    mount->cow = mount->layer_count == 1;
}

/* Adds the layers of the source described below `prefix`, topmost first. */
static void add_source(struct fs_mount *mount, const char *prefix, int depth)
{
    const char *source = setting(prefix, "source");
    char below[160];
    if (depth > 8 || mount->error != 0) return;
    if (source == NULL || strcmp(source, "redirect") == 0) {
        add_directory(mount, setting(prefix, "from"));
    } else if (strcmp(source, "archive") == 0 || strcmp(source, "squashfs") == 0) {
        add_archive(mount, prefix);
    } else if (strcmp(source, "memory") == 0 && depth == 0) {
        add_memory(mount, setting(prefix, "size"));
    } else if (strcmp(source, "encrypted") == 0 && depth == 0) {
        add_encrypted(mount, prefix);
    } else if (strcmp(source, "computed") == 0 && depth == 0) {
        add_computed(mount, prefix);
    } else if (strcmp(source, "union") == 0) {
        mount->read_only |= depth == 0;
        for (int i = 0; mount->error == 0; i++) {
            snprintf(below, sizeof below, "%s.layers.%d", prefix, i);
            if (setting(below, "from") == NULL && setting(below, "source") == NULL) break;
            add_source(mount, below, depth + 1);
        }
    } else if (strcmp(source, "cow") == 0 && depth == 0) {
        add_upper(mount);
        snprintf(below, sizeof below, "%s.lower", prefix);
        if (setting(prefix, "from") != NULL)
            add_directory(mount, setting(prefix, "from"));
        else
            add_source(mount, below, depth + 1);
    } else {
        fs_report(mount->path, "", "has an unknown source");
        mount->error = -EINVAL;
    }
}

/* Attributes of a cow's upper root are those of the topmost directory below it. */
static void match_upper_root(struct fs_mount *mount)
{
    struct stat below;
    if (!mount->cow || mount->layer_count < 2 || mount->layers[1].archive != NULL) return;
    if (raw_lstat(mount->layers[1].root, &below) != 0 || !S_ISDIR(below.st_mode)) return;
    char mark[PATH_MAX];
    snprintf(mark, sizeof mark, "%s/.made", mount->work);
    int fd = raw_open(mark, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return; /* made by an earlier program of this application */
    raw_close(fd);
    raw(SYS_fchownat, AT_FDCWD, mount->layers[0].root, below.st_uid, below.st_gid, 0);
    raw(SYS_fchmodat, AT_FDCWD, mount->layers[0].root, below.st_mode & 07777);
}

/* ---- mounts ---------------------------------------------------------------------------------- */

static struct fs_mount *add_mount(const char *path)
{
    char normal[PATH_MAX];
    if (fs_mount_count == FS_MOUNTS_MAX || fs_normal(path, normal) != 0) return NULL;
    struct fs_mount *mount = &fs_mounts[fs_mount_count];
    memset(mount, 0, sizeof *mount);
    mount->path = keep_text(normal);
    mount->length = strcmp(normal, "/") == 0 ? 0 : strlen(normal);
    return mount;
}

/* private/fs, for every user that the application may run as. */
static bool have_private(void)
{
    struct stat status;
    if (fs_private_device == 0) {
        if (raw_lstat(private_path, &status) != 0 &&
            (fs_make_directories(private_path, 01777) != 0 ||
             raw_lstat(private_path, &status) != 0))
            return false;
        fs_private_device = (uint64_t)status.st_dev;
    }
    return true;
}

static void read_mount(const char *prefix, const char *path)
{
    struct fs_mount *mount = add_mount(path);
    if (mount == NULL) return;
    add_source(mount, prefix, 0);
    if (mount->layer_count == 1 && mount->layers[0].archive != NULL) mount->read_only = true;
    fs_read_policies(mount, prefix);
    if (mount->layer_count > 1) mount->shadow = keep_path(private_path, "m", fs_mount_count);
    bool archive = false;
    for (int i = 0; i < mount->layer_count; i++)
        archive |= mount->layers[i].archive != NULL || mount->layers[i].computed != NULL ||
                   mount->layers[i].encrypted != NULL;
    if ((mount->shadow != NULL || archive) && !have_private() && mount->error == 0) {
        fs_report(mount->path, "", "cannot be shown: the run directory's private/ is not writable");
        mount->error = -EIO;
    }
    if (mount->error == 0) match_upper_root(mount);
    fs_mount_count++;
}

/* Where directories above a mount point do not exist, they are there for this application: a
 * read-only mount of empty directories that lead to the mount point. */
static void add_missing_parents(const char *path)
{
    char part[PATH_MAX], real[PATH_MAX * 2];
    struct stat status;
    size_t length = strlen(path), missing = 0;
    memcpy(part, path, length + 1);
    for (size_t i = length; i-- > 1;) {
        if (part[i] != '/') continue;
        part[i] = '\0';
        if (fs_mount_of(part) != NULL || raw_lstat(part, &status) == 0) break;
        missing = i;
    }
    if (missing == 0) return;
    memcpy(part, path, length + 1);
    part[missing] = '\0';
    snprintf(real, sizeof real, "%s/parents%s", private_path, path);
    if (!have_private() || fs_make_directories(real, 0755) != 0) return;
    struct fs_mount *mount = add_mount(part);
    if (mount == NULL) return;
    snprintf(real, sizeof real, "%s/parents%s", private_path, part);
    set_root(new_layer(mount), keep_text(real));
    mount->read_only = true;
    fs_mount_count++;
}

/* The mount point as the kernel names it, where its parents are links outside (/var/run). */
static void add_alias(int original)
{
    char parent[PATH_MAX], real[PATH_MAX], whole[PATH_MAX * 2];
    const struct fs_mount *mount = &fs_mounts[original];
    const char *slash = strrchr(mount->path, '/');
    if (slash == NULL || slash == mount->path) return;
    snprintf(parent, sizeof parent, "%.*s", (int)(slash - mount->path), mount->path);
    if (fs_mount_of(parent) != NULL || !canonical(parent, real) || strcmp(parent, real) == 0)
        return;
    snprintf(whole, sizeof whole, "%s%s", real, slash);
    struct fs_mount *alias = strlen(whole) < PATH_MAX ? add_mount(whole) : NULL;
    if (alias == NULL) return;
    const char *path = alias->path;
    size_t length = alias->length;
    *alias = fs_mounts[original];
    alias->path = path;
    alias->length = length;
    fs_mount_count++;
}

/* Whether what `from` shows lies, perhaps by way of others, in `goal`. */
static bool lies_in(const struct fs_mount *from, const struct fs_mount *goal, uint64_t *seen)
{
    char normal[PATH_MAX];
    for (int i = 0; i < from->layer_count; i++) {
        struct fs_archive *archive = from->layers[i].archive;
        const char *inside = archive != NULL ? fs_archive_inside(archive) : NULL;
        if (inside == NULL || fs_normal(inside, normal) != 0) continue;
        const struct fs_mount *above = fs_mount_of(normal);
        if (above == NULL) continue;
        if (above == goal) return true;
        uint64_t bit = UINT64_C(1) << (above - fs_mounts);
        if (*seen & bit) continue;
        *seen |= bit;
        if (lies_in(above, goal, seen)) return true;
    }
    return false;
}

/* Archives that lie in each other: two processes that began with different ones would wait for each
 * other, so none is begun. */
static void refuse_circles(void)
{
    for (int i = 0; i < fs_mount_count; i++) {
        uint64_t seen = 0;
        if (fs_mounts[i].error != 0 || !lies_in(&fs_mounts[i], &fs_mounts[i], &seen)) continue;
        fs_report(fs_mounts[i].path, "",
                  "has an archive that lies in a mount which in turn lies in this one (setting "
                  "'inside'): give a path outside the circle");
        fs_mounts[i].error = -ELOOP;
    }
}

static void read_settings(void)
{
    char real[PATH_MAX], prefix[32];
    cse_settings_load("filesystem");
    if (!canonical(cse_run_dir(), real)) snprintf(real, sizeof real, "%s", cse_run_dir());
    snprintf(private_path, sizeof private_path, "%.4000s/private/fs", real);
    for (int i = 0; i < FS_MOUNTS_MAX; i++) {
        snprintf(prefix, sizeof prefix, "mounts.%d", i);
        const char *path = setting(prefix, "path");
        if (path == NULL) break;
        if (path[0] == '/') read_mount(prefix, path);
    }
    if (fs_mount_count > 0) {
        snprintf(real, sizeof real, "%.4000s/parents", private_path);
        fs_parents.path = "";
        fs_parents.read_only = true;
        set_root(new_layer(&fs_parents), keep_text(real));
    }
    refuse_circles();
    int given = fs_mount_count;
    for (int i = 0; i < given; i++) add_missing_parents(fs_mounts[i].path);
    for (int i = 0; i < given; i++) add_alias(i);
}

static void collect_first_letters(void)
{
    uint64_t letters[4] = {0};
    bool everywhere = false;
    for (int i = 0; i < fs_mount_count; i++) {
        unsigned char first = (unsigned char)fs_mounts[i].path[1];
        letters[first / 64] |= 1ul << first % 64;
        everywhere |= fs_mounts[i].length == 0;
    }
    letters[0] |= 1ul << '/' | 1ul << '.';
    for (int i = 0; i < 4; i++)
        __atomic_store_n(&fs_first_letters[i], everywhere ? ~0ul : letters[i], __ATOMIC_RELEASE);
}

extern void cse_escape_kind(const char *kind) __attribute__((weak));

__attribute__((constructor(101))) static void start(void)
{
    fs_ready();
}

bool fs_ready(void)
{
    int now = __atomic_load_n(&state, __ATOMIC_ACQUIRE);
    if (__builtin_expect(now == 2, 1)) return fs_mount_count > 0;
    pid_t self = (pid_t)raw(SYS_gettid);
    if (now == 1 && reader == self) return false;
    int expected = 0;
    if (__atomic_compare_exchange_n(&state, &expected, 1, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE)) {
        int saved_errno = errno;
        reader = self;
        if (cse_escape_kind != NULL) cse_escape_kind("filesystem");
        read_settings();
        collect_first_letters();
        __atomic_store_n(&state, 2, __ATOMIC_RELEASE);
        errno = saved_errno;
    }
    while (__atomic_load_n(&state, __ATOMIC_ACQUIRE) != 2) raw(SYS_sched_yield);
    return fs_mount_count > 0;
}

const struct fs_mount *fs_mount_of(const char *path)
{
    const struct fs_mount *best = NULL;
    size_t length = strlen(path);
    for (int i = 0; i < fs_mount_count; i++) {
        const struct fs_mount *mount = &fs_mounts[i];
        if (mount->length <= length &&
            (path[mount->length] == '/' || path[mount->length] == '\0') &&
            (best == NULL || mount->length > best->length) &&
            memcmp(path, mount->path, mount->length) == 0)
            best = mount;
    }
    return best;
}

bool fs_mount_below(const char *path)
{
    size_t length = strcmp(path, "/") == 0 ? 0 : strlen(path);
    for (int i = 0; i < fs_mount_count; i++)
        if (fs_mounts[i].length > length && strncmp(fs_mounts[i].path, path, length) == 0 &&
            fs_mounts[i].path[length] == '/')
            return true;
    return false;
}
