/* Sets of names, sorted by their bytes, as pages and archives need them. */
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int names_add(const char *name, unsigned char type, void *context)
{
    struct names *names = context;
    (void)type;
    if (names->count == names->room) {
        names->room = names->room ? names->room * 2 : 64;
        char **wider = realloc(names->list, names->room * sizeof *wider);
        if (wider == NULL) fail(ENOMEM, name);
        names->list = wider;
    }
    char *kept = strdup(name);
    if (kept == NULL) fail(ENOMEM, name);
    names->list[names->count++] = kept;
    return 0;
}

int names_read(struct names *names, const char *directory)
{
    DIR *open = opendir(directory);
    if (open == NULL) return errno;
    const struct dirent *entry;
    errno = 0;
    while ((entry = readdir(open)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            names_add(entry->d_name, 0, names);
    int error = errno;
    closedir(open);
    return error;
}

static int by_bytes(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

void names_sort(struct names *names)
{
    size_t kept = 0;
    if (names->count == 0) return;
    qsort(names->list, names->count, sizeof *names->list, by_bytes);
    for (size_t i = 1; i < names->count; i++) {
        if (strcmp(names->list[kept], names->list[i]) == 0)
            free(names->list[i]);
        else
            names->list[++kept] = names->list[i];
    }
    names->count = kept + 1;
}

bool names_have(const struct names *sorted, const char *name)
{
    return sorted->count > 0 &&
           bsearch(&name, sorted->list, sorted->count, sizeof *sorted->list, by_bytes) != NULL;
}

void names_free(struct names *names)
{
    for (size_t i = 0; i < names->count; i++) free(names->list[i]);
    free(names->list);
    *names = (struct names){0};
}
