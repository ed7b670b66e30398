/* The file that tells the shim what to run: records `key=value`, each ended by a NUL byte, so that
 * arguments and environment need no quoting. Lists (bwrap, arg, env, cgroup) repeat their key.
 * Read by the shim, and again by `init` inside the sandbox through an inherited descriptor.
 */
#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char **spec_list(void)
{
    return calloc(1, sizeof(char *));
}

bool spec_append(char ***list, const char *text)
{
    size_t count = 0;
    while ((*list)[count]) count++;
    if ((count & (count + 1)) == 0) { /* full at 2^n - 1 entries and the NULL */
        char **more = realloc(*list, (count + 1) * 2 * sizeof(char *));
        if (!more) return false;
        *list = more;
    }
    (*list)[count] = (char *)text;
    (*list)[count + 1] = NULL;
    return true;
}

static char *read_whole(int fd, size_t *size)
{
    struct stat info;
    if (fstat(fd, &info) != 0) return NULL;
    char *data = malloc((size_t)info.st_size + 1);
    if (!data) return NULL;
    size_t done = 0;
    while (done < (size_t)info.st_size) {
        ssize_t got = pread(fd, data + done, (size_t)info.st_size - done, (off_t)done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        done += (size_t)got;
    }
    data[done] = 0;
    *size = done;
    return data;
}

static void read_groups(struct spec *spec, const char *text)
{
    char *end;
    for (; *text && spec->group_count < 64; text = *end ? end + 1 : end) {
        spec->groups[spec->group_count++] = (gid_t)strtoul(text, &end, 10);
        if (end == text) break;
    }
}

static bool take(struct spec *spec, const char *key, const char *value)
{
    if (!strcmp(key, "bwrap")) return spec_append(&spec->bwrap, value);
    if (!strcmp(key, "arg")) return spec_append(&spec->args, value);
    if (!strcmp(key, "env")) return spec_append(&spec->env, value);
    if (!strcmp(key, "cgroup")) return spec_append(&spec->cgroups, value);
    if (!strcmp(key, "netns"))
        spec->netns = value;
    else if (!strcmp(key, "cwd"))
        spec->cwd = value;
    else if (!strcmp(key, "uid"))
        spec->uid = (uid_t)strtoul(value, NULL, 10), spec->set_user = true;
    else if (!strcmp(key, "gid"))
        spec->gid = (gid_t)strtoul(value, NULL, 10);
    else if (!strcmp(key, "groups"))
        read_groups(spec, value);
    else if (!strcmp(key, "restart"))
        spec->restart = !strcmp(value, "always")       ? RESTART_ALWAYS
                        : !strcmp(value, "on-failure") ? RESTART_ON_FAILURE
                                                       : RESTART_NO;
    else if (!strcmp(key, "max_retries"))
        spec->max_retries = atol(value);
    else if (!strcmp(key, "delay_ms"))
        spec->delay_ms = atol(value);
    else if (!strcmp(key, "stop_signal"))
        spec->stop_signal = atoi(value);
    else if (!strcmp(key, "grace_ms"))
        spec->grace_ms = atol(value);
    else if (!strcmp(key, "nofile"))
        spec->open_files = atol(value);
    else if (!strcmp(key, "log_bytes"))
        spec->log_bytes = atol(value);
    else
        return false;
    return true;
}

bool spec_read(int fd, struct spec *spec, char *error, size_t size)
{
    *spec = (struct spec){.max_retries = -1,
                          .delay_ms = 100,
                          .stop_signal = 15,
                          .grace_ms = 10000,
                          .log_bytes = 16 << 20};
    spec->bwrap = spec_list(), spec->args = spec_list();
    spec->env = spec_list(), spec->cgroups = spec_list();
    size_t length = 0;
    char *data = read_whole(fd, &length);
    if (!data) return snprintf(error, size, "%s", strerror(errno)), false;
    for (char *at = data; at < data + length;) {
        size_t record = strlen(at);
        char *equals = strchr(at, '=');
        if (equals) *equals = 0;
        if (!equals || !take(spec, at, equals + 1)) {
            snprintf(error, size, "unknown record '%.40s'", at);
            free(data);
            return false;
        }
        at += record + 1;
    }
    if (!spec->args[0] || !spec->bwrap[0]) {
        snprintf(error, size, "incomplete");
        free(data);
        return false;
    }
    return true; /* the words of `spec` are in `data` */
}
