/* cse-files: shows, within an application, what it sees of files. main.c says what for. */
#ifndef CSE_FILES_H
#define CSE_FILES_H

#include "../tools.h"

#include <stdint.h>
#include <stdio.h>

/* NULL where no overlay is linked: all paths are the surroundings' own. */
extern const struct cse_fs_tools *tools;

/* ---- words.c: lines of `key=value` words, values percent-encoded ------------------------------
 */

void say(const char *word);                        /* begins a line */
void say_text(const char *key, const char *value); /* nothing for NULL */
void say_number(const char *key, intmax_t value);
void say_status(const struct stat *status);
void say_end(void);
/* In place; false where a % is followed by no byte, or by NUL. */
bool decode(char *text);
/* Says why on stderr and ends the program. */
_Noreturn void fail(int error, const char *path);
void join(const char *directory, const char *name, char *out);
char *joined(const char *directory, const char *name); /* to be freed */

/* ---- names.c: sorted sets of names ------------------------------------------------------------
 */

struct names {
    char **list;
    size_t count, room;
};
int names_add(const char *name, unsigned char type, void *names);
/* What the program sees in this directory; 0 or errno. */
int names_read(struct names *names, const char *directory);
void names_sort(struct names *names); /* each once */
bool names_have(const struct names *sorted, const char *name);
void names_free(struct names *names);

/* ---- changes.c: what a cow changed ------------------------------------------------------------
 */

enum { /* how two differ */
       DIFFERS_TYPE = 1,
       DIFFERS_CONTENT = 2,
       DIFFERS_MODE = 4,
       DIFFERS_OWNER = 8,
       DIFFERS_TIME = 16,
};
struct change {
    const char *kind; /* added, changed, removed */
    int differs;
    const struct stat *now, *before; /* NULL: there is none */
};
typedef void change_call(const char *path, const struct change *change, void *context);
/* Every change at and below `path`, parents first, names in order. */
void each_change(const char *path, change_call *each, void *context);
/* Of one name in a cow; kind NULL: as below. `*within`: something below it may have changed. */
struct change change_of(const char *path, struct cse_fs_look *now, struct cse_fs_look *before,
                        bool *within);
/* The names in this directory of a cow that were removed. */
void names_removed(struct names *names, const char *directory);
/* Whether upper layer or whiteouts have names in this directory of a cow. */
bool holds_changes(const struct cse_fs_view *view, const char *directory);
/* The mount that has this path, with its number; false: outside. */
bool view_of(const char *path, struct cse_fs_view *view, int *number);
/* Whether all that the mount has now is this program's doing; else how it cannot be known. */
const char *tracked(const struct cse_fs_view *view, int number);

/* ---- commands ---------------------------------------------------------------------------------
 */

void list(const char *path, const char *after, long limit);
void explain(const char *path);
void content(const char *path, long offset, long limit);
void changes(const char *path, const char *after, long limit);
void archive(const char *path, bool changes_only);

#endif
