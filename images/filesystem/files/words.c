/* Lines of `key=value` words, as the broker's messages are: bytes that are no letters, digits or
 * harmless signs are written %XX, so that any name fits into a line. */
#include "files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void put_encoded(FILE *out, const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if ((*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
            (*at >= '0' && *at <= '9') || strchr("/._-+:@,~", *at) != NULL)
            putc(*at, out);
        else
            fprintf(out, "%%%02X", *at);
    }
}

void say(const char *word)
{
    fputs(word, stdout);
}

void say_text(const char *key, const char *value)
{
    if (value == NULL) return;
    printf(" %s=", key);
    put_encoded(stdout, value);
}

void say_number(const char *key, intmax_t value)
{
    printf(" %s=%jd", key, value);
}

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode)    ? "directory"
           : S_ISREG(mode)  ? "file"
           : S_ISLNK(mode)  ? "link"
           : S_ISFIFO(mode) ? "fifo"
           : S_ISSOCK(mode) ? "socket"
           : S_ISCHR(mode)  ? "character-device"
                            : "block-device";
}

void say_status(const struct stat *status)
{
    say_text("kind", kind_of(status->st_mode));
    say_number("size", status->st_size);
    say_number("mode", status->st_mode & 07777);
    say_number("uid", status->st_uid);
    say_number("gid", status->st_gid);
    printf(" modified=%jd.%09ld", (intmax_t)status->st_mtim.tv_sec, status->st_mtim.tv_nsec);
}

void say_end(void)
{
    putc('\n', stdout);
}

static int digit(char letter)
{
    const char *digits = "0123456789ABCDEF", *found = strchr(digits, letter);
    return letter != '\0' && found != NULL ? (int)(found - digits) : -1;
}

bool decode(char *text)
{
    char *out = text;
    for (const char *at = text; *at; at++) {
        if (*at != '%') {
            *out++ = *at;
            continue;
        }
        int high = digit(at[1]), low = high >= 0 ? digit(at[2]) : -1;
        if (low < 0 || (high == 0 && low == 0)) return false;
        *out++ = (char)(high << 4 | low);
        at += 2;
    }
    *out = '\0';
    return true;
}

void fail(int error, const char *path)
{
    fflush(stdout);
    fprintf(stderr, "error errno=%d path=", error);
    put_encoded(stderr, path);
    fprintf(stderr, " text=");
    put_encoded(stderr, strerror(error));
    fputc('\n', stderr);
    exit(1);
}

void join(const char *directory, const char *name, char *out)
{
    const char *slash = strcmp(directory, "/") == 0 ? "" : "/";
    if (snprintf(out, PATH_MAX, "%s%s%s", directory, slash, name) >= PATH_MAX)
        fail(ENAMETOOLONG, directory);
}

char *joined(const char *directory, const char *name)
{
    char path[PATH_MAX];
    join(directory, name, path);
    char *kept = strdup(path);
    if (kept == NULL) fail(ENOMEM, path);
    return kept;
}
