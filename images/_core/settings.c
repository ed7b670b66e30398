/* Settings: from the environment for a library tried by hand, else from the run directory.
 *
 * The agent writes <run dir>/<kind>.conf before the program starts (format: ARCHITECTURE.md).
 * A file rather than a question to the broker, so that a program can start while the control
 * plane is away. Loaded at the first call that needs a setting; the text is mapped, never freed.
 */
#include "core.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KIND_MAX = 32, KEY_MAX = 128, FILE_MAX_BYTES = 1 << 20 };

static char kind_name[KIND_MAX] = "unknown";
static char *table; /* key NUL value NUL ..., table_size bytes */
static size_t table_size;

const char *cse_run_dir(void)
{
    const char *directory = getenv("CSE_RUN_DIR");
    return directory != NULL && directory[0] == '/' ? directory : "/run/cse";
}

const char *cse_settings_kind(void)
{
    return kind_name;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

/* Decodes %XX in place; returns the new length. */
static size_t unescape(char *text, size_t length)
{
    size_t out = 0;
    for (size_t in = 0; in < length; in++) {
        if (text[in] == '%' && in + 2 < length) {
            int high = hex_digit(text[in + 1]), low = hex_digit(text[in + 2]);
            if (high >= 0 && low >= 0) {
                text[out++] = (char)(high * 16 + low);
                in += 2;
                continue;
            }
        }
        text[out++] = text[in];
    }
    return out;
}

/* Turns `key=value` lines into the table, in place: it never grows. */
static size_t build_table(char *text, size_t size)
{
    size_t out = 0;
    for (size_t at = 0; at < size;) {
        char *line = text + at;
        char *end = memchr(line, '\n', size - at);
        size_t length = end ? (size_t)(end - line) : size - at;
        at += length + 1;
        char *equals = memchr(line, '=', length);
        if (equals == NULL || line[0] == '#') continue;
        size_t key_length = (size_t)(equals - line);
        size_t value_length = unescape(equals + 1, length - key_length - 1);
        memmove(text + out, line, key_length);
        text[out + key_length] = '\0';
        memmove(text + out + key_length + 1, equals + 1, value_length);
        out += key_length + 1 + value_length;
        text[out++] = '\0';
    }
    return out;
}

static void load_file(const char *path)
{
    int fd = (int)libc(syscall)(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        cse_trace("no settings at %s: %s", path, strerror(errno));
        return;
    }
    struct stat status;
    char *text = MAP_FAILED;
    size_t size = 0;
    if (libc(syscall)(SYS_fstat, fd, &status) == 0 && status.st_size > 0 &&
        status.st_size <= FILE_MAX_BYTES) {
        size = (size_t)status.st_size;
        /* One byte more than the file, for the NUL behind a last line without newline. */
        text = mmap(NULL, size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (text != MAP_FAILED) {
        long got = libc(syscall)(SYS_pread64, fd, text, size, 0L);
        if (got > 0) {
            table_size = build_table(text, (size_t)got);
            table = text;
        }
    }
    libc(syscall)(SYS_close, fd);
}

void cse_settings_load(const char *kind)
{
    static int loaded;
    if (__atomic_exchange_n(&loaded, 1, __ATOMIC_ACQ_REL)) return;
    int saved_errno = errno;
    snprintf(kind_name, sizeof kind_name, "%s", kind);
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.conf", cse_run_dir(), kind);
    load_file(path);
    errno = saved_errno;
}

static const char *from_environment(const char *key)
{
    char name[KIND_MAX + KEY_MAX + 8];
    int length = snprintf(name, sizeof name, "CSE_%s_%s", kind_name, key);
    if (length >= (int)sizeof name) return NULL;
    for (char *c = name; *c; c++)
        *c = (*c == '.' || *c == '-') ? '_' : (char)toupper((unsigned char)*c);
    return getenv(name);
}

/* The value behind the key at `at`; both end with NUL inside the table. */
static const char *value_at(size_t at)
{
    return table + at + strlen(table + at) + 1;
}

static size_t next_entry(size_t at)
{
    const char *value = value_at(at);
    return (size_t)(value - table) + strlen(value) + 1;
}

const char *cse_setting(const char *key)
{
    const char *given = from_environment(key);
    if (given != NULL) return given;
    for (size_t at = 0; at < table_size; at = next_entry(at))
        if (strcmp(table + at, key) == 0) return value_at(at);
    return NULL;
}

long cse_setting_number(const char *key, long otherwise)
{
    const char *text = cse_setting(key);
    if (text == NULL || *text == '\0') return otherwise;
    char *end;
    int saved_errno = errno;
    errno = 0;
    long number = strtol(text, &end, 10);
    bool good = errno == 0 && *end == '\0';
    errno = saved_errno;
    return good ? number : otherwise;
}

void cse_settings_each(const char *prefix, void (*each)(const char *, const char *, void *),
                       void *context)
{
    size_t length = strlen(prefix);
    for (size_t at = 0; at < table_size; at = next_entry(at))
        if (strncmp(table + at, prefix, length) == 0) each(table + at, value_at(at), context);
}
