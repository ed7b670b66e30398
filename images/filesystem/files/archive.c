/* A tree, or what was changed in it, as a tar archive on stdout (POSIX.1-2001 pax).
 *
 * Removed names are whiteouts as in OCI image layers: an empty file `.wh.NAME`. What is no file,
 * directory, link or FIFO is left out and said on stderr; a file that changes while it is read
 * keeps the length that its header says. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 512, NAME_BYTES = 100, OCTAL_SIZE_MAX = 8 };

struct header { /* ustar */
    char name[NAME_BYTES], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type,
        link[NAME_BYTES], magic[6], version[2], user[32], group[32], major[8], minor[8],
        prefix[155], pad[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a tar header is one block");

static void put(const void *data, size_t size)
{
    if (fwrite(data, 1, size, stdout) != size) exit(1);
}

static void pad_to_block(uintmax_t size)
{
    static const char zeros[BLOCK];
    if (size % BLOCK != 0) put(zeros, BLOCK - size % BLOCK);
}

static void octal(char *field, size_t width, uintmax_t value)
{
    uintmax_t most = ((uintmax_t)1 << (3 * (width - 1))) - 1;
    snprintf(field, width, "%0*jo", (int)width - 1, value > most ? most : value);
}

static void put_header(const char *name, char type, const struct stat *status, uintmax_t size,
                       const char *link)
{
    struct header header;
    memset(&header, 0, sizeof header);
    strncpy(header.name, name, sizeof header.name);
    if (link != NULL) strncpy(header.link, link, sizeof header.link);
    octal(header.mode, sizeof header.mode, status->st_mode & 07777);
    octal(header.uid, sizeof header.uid, status->st_uid);
    octal(header.gid, sizeof header.gid, status->st_gid);
    octal(header.size, sizeof header.size, size);
    octal(header.mtime, sizeof header.mtime,
          status->st_mtim.tv_sec < 0 ? 0 : (uintmax_t)status->st_mtim.tv_sec);
    header.type = type;
    memcpy(header.magic, "ustar", 6);
    memcpy(header.version, "00", 2);
    memset(header.sum, ' ', sizeof header.sum);
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof header; i++) sum += ((const unsigned char *)&header)[i];
    snprintf(header.sum, sizeof header.sum, "%06o", sum);
    put(&header, sizeof header);
}

struct records {
    char text[3 * PATH_MAX];
    size_t used;
};

/* "LENGTH key=value\n", where LENGTH counts itself. */
static void record(struct records *records, const char *key, const char *value)
{
    size_t rest = strlen(key) + strlen(value) + 3, length;
    for (size_t digits = 1;; digits++) {
        length = rest + digits;
        char count[24];
        if ((size_t)snprintf(count, sizeof count, "%zu", length) == digits) break;
    }
    if (records->used + length >= sizeof records->text) return;
    records->used +=
        (size_t)snprintf(records->text + records->used, sizeof records->text - records->used,
                         "%zu %s=%s\n", length, key, value);
}

static void put_entry(const char *name, char type, const struct stat *status, uintmax_t size,
                      const char *link)
{
    struct records records = {.used = 0};
    char number[64];
    if (strlen(name) > NAME_BYTES) record(&records, "path", name);
    if (link != NULL && strlen(link) > NAME_BYTES) record(&records, "linkpath", link);
    if (size >> 33 != 0) {
        snprintf(number, sizeof number, "%ju", size);
        record(&records, "size", number);
    }
    if (status->st_mtim.tv_nsec != 0 || status->st_mtim.tv_sec < 0 ||
        (intmax_t)status->st_mtim.tv_sec >> 33 != 0) {
        snprintf(number, sizeof number, "%jd.%09ld", (intmax_t)status->st_mtim.tv_sec,
                 status->st_mtim.tv_nsec);
        if (status->st_mtim.tv_sec >= 0) record(&records, "mtime", number);
    }
    if (status->st_uid > 07777777) {
        snprintf(number, sizeof number, "%u", status->st_uid);
        record(&records, "uid", number);
    }
    if (status->st_gid > 07777777) {
        snprintf(number, sizeof number, "%u", status->st_gid);
        record(&records, "gid", number);
    }
    if (records.used > 0) {
        struct stat plain = {.st_mode = 0644};
        put_header("pax", 'x', &plain, records.used, NULL);
        put(records.text, records.used);
        pad_to_block(records.used);
    }
    put_header(name, type, status, size, link);
}

/* ---- hard links --------------------------------------------------------------------------------
 */

struct seen {
    dev_t device;
    ino_t inode;
    char *name;
};
static struct seen *seen;
static size_t seen_count, seen_room;

/* The name under which the same file was written before; NULL: this is the first. */
static const char *written_as(const struct stat *status, const char *name)
{
    if (status->st_nlink < 2) return NULL;
    for (size_t i = 0; i < seen_count; i++)
        if (seen[i].inode == status->st_ino && seen[i].device == status->st_dev)
            return seen[i].name;
    if (seen_count == seen_room) {
        seen_room = seen_room ? seen_room * 2 : 64;
        struct seen *wider = realloc(seen, seen_room * sizeof *wider);
        if (wider == NULL) fail(ENOMEM, name);
        seen = wider;
    }
    seen[seen_count++] =
        (struct seen){.device = status->st_dev, .inode = status->st_ino, .name = strdup(name)};
    return NULL;
}

/* ---- entries -----------------------------------------------------------------------------------
 */

static void left_out(const char *path, const char *why)
{
    fprintf(stderr, "left out: %s: %s\n", path, why);
}

static void put_file(const char *path, const char *name)
{
    static char block[256 << 10];
    struct stat status;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ELOOP || errno == ENXIO)) {
        left_out(path, "gone while it was to be read");
        return;
    }
    if (fd < 0 || fstat(fd, &status) != 0) fail(errno, path);
    if (!S_ISREG(status.st_mode)) {
        left_out(path, "no file any more");
        close(fd);
        return;
    }
    const char *first = written_as(&status, name);
    if (first != NULL) {
        put_entry(name, '1', &status, 0, first);
        close(fd);
        return;
    }
    uintmax_t size = (uintmax_t)status.st_size, left = size;
    put_entry(name, '0', &status, size, NULL);
    while (left > 0) {
        ssize_t got = read(fd, block, left < sizeof block ? (size_t)left : sizeof block);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail(errno, path);
        if (got == 0) break;
        put(block, (size_t)got);
        left -= (uintmax_t)got;
    }
    memset(block, 0, sizeof block);
    if (left > 0) left_out(path, "became shorter while it was read: filled with zeros");
    for (; left > 0; left -= left < sizeof block ? left : sizeof block)
        put(block, left < sizeof block ? (size_t)left : sizeof block);
    pad_to_block(size);
    close(fd);
}

static void put_object(const char *path, const char *name)
{
    struct stat status;
    char text[PATH_MAX];
    if (lstat(path, &status) != 0) {
        if (errno != ENOENT) fail(errno, path);
        left_out(path, "gone meanwhile");
    } else if (S_ISDIR(status.st_mode)) {
        snprintf(text, sizeof text, "%s/", *name ? name : ".");
        put_entry(text, '5', &status, 0, NULL);
    } else if (S_ISREG(status.st_mode)) {
        put_file(path, name);
    } else if (S_ISLNK(status.st_mode)) {
        ssize_t length = readlink(path, text, sizeof text - 1);
        if (length < 0) fail(errno, path);
        text[length] = '\0';
        put_entry(name, '2', &status, 0, text);
    } else if (S_ISFIFO(status.st_mode)) {
        put_entry(name, '6', &status, 0, NULL);
    } else {
        left_out(path, "a socket or device");
    }
}

static size_t top_length; /* of the path that names in the archive are relative to */

static const char *name_of(const char *path)
{
    return path[top_length] == '/' ? path + top_length + 1 : path + top_length;
}

/* The directories on the way that are not in the archive yet: the walk goes through one after the
 * other, so those of the last entry are. */
static void put_parents(const char *path)
{
    static char last[PATH_MAX];
    char parent[PATH_MAX];
    size_t length = strlen(path);
    for (size_t i = top_length; i < length; i++) {
        if (path[i] != '/' && i != top_length) continue;
        snprintf(parent, sizeof parent, "%.*s", i > 0 ? (int)i : 1, path);
        if (strncmp(last, parent, i) == 0 && (last[i] == '/' || (i == top_length && last[0])))
            continue;
        put_object(parent, name_of(parent));
    }
    snprintf(last, sizeof last, "%s/", path);
}

static void put_change(const char *path, const struct change *change, void *context)
{
    (void)context;
    if (strlen(path) > top_length) put_parents(path);
    if (change->now != NULL) {
        put_object(path, name_of(path));
        return;
    }
    char name[PATH_MAX + 8];
    const char *rel = name_of(path), *slash = strrchr(rel, '/');
    int above = slash != NULL ? (int)(slash - rel) + 1 : 0;
    struct stat marker = {.st_mode = 0644, .st_mtim = change->before->st_mtim};
    if (snprintf(name, sizeof name, "%.*s.wh.%s", above, rel, rel + above) < PATH_MAX)
        put_entry(name, '0', &marker, 0, NULL);
}

static void put_tree(const char *path)
{
    struct names names = {0};
    struct stat status;
    put_object(path, name_of(path));
    if (lstat(path, &status) != 0 || !S_ISDIR(status.st_mode)) return;
    int error = names_read(&names, path);
    if (error == ENOENT) return;
    if (error != 0) fail(error, path);
    names_sort(&names);
    for (size_t i = 0; i < names.count; i++) {
        char *below = joined(path, names.list[i]);
        put_tree(below);
        free(below);
    }
    names_free(&names);
}

void archive(const char *path, bool changes_only)
{
    static const char end[2 * BLOCK];
    static char real[PATH_MAX];
    struct cse_fs_view view;
    int number;
    if (realpath(path, real) == NULL) fail(errno, path);
    top_length = strcmp(real, "/") == 0 ? 0 : strlen(real);
    if (changes_only) {
        if (!view_of(real, &view, &number) || tracked(&view, number) != NULL) fail(ENOTSUP, path);
        each_change(real, put_change, NULL);
    } else {
        put_tree(real);
    }
    put(end, sizeof end);
}
