/* What an application changed in a cow: the merged view compared with what lies below the upper
 * layer. Only what the upper layer or its whiteouts name is looked at, so the cost is that of the
 * changes, not of the tree.
 */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool view_of(const char *path, struct cse_fs_view *view, int *number)
{
    struct cse_fs_look look;
    if (tools == NULL) return false;
    int found = tools->look(path, true, 0, &look);
    if (found != 0 && found != -ENOENT) return false;
    *number = look.mount;
    return look.mount >= 0 && tools->mount(look.mount, view);
}

const char *tracked(const struct cse_fs_view *view, int number)
{
    struct cse_fs_layer_view layer;
    if (view->error != 0) return "it cannot be shown";
    if (view->cow) return NULL;
    if (tools->layer(number, 0, &layer) && strcmp(layer.kind, "memory") == 0) return NULL;
    if (view->read_only) return "it takes no changes";
    if (strcmp(layer.kind, "encrypted") == 0)
        return "its store keeps no record of what it was before";
    return "changes go straight to the host's directory, which keeps no record";
}

static bool same_bytes(const char *path)
{
    static char one[64 << 10], other[64 << 10];
    int a = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int b = a >= 0 ? tools->content(path, 1) : -1;
    ssize_t got = -1, had = -1;
    while (a >= 0 && b >= 0) {
        got = read(a, one, sizeof one);
        had = got >= 0 ? read(b, other, sizeof other) : -1;
        if (got != had || got <= 0 || memcmp(one, other, (size_t)got) != 0) break;
    }
    if (a >= 0) close(a);
    if (b >= 0) close(b);
    return got == 0 && had == 0;
}

static int differences(const char *path, const struct stat *now, const struct stat *before)
{
    int found = 0;
    if ((now->st_mode & S_IFMT) != (before->st_mode & S_IFMT)) return DIFFERS_TYPE;
    if ((now->st_mode & 07777) != (before->st_mode & 07777) && !S_ISLNK(now->st_mode))
        found |= DIFFERS_MODE;
    /* A copy is its maker's where he may not give it away. */
    if (now->st_uid != before->st_uid && now->st_uid != geteuid()) found |= DIFFERS_OWNER;
    if (S_ISDIR(now->st_mode)) return found;
    if (now->st_mtim.tv_sec != before->st_mtim.tv_sec ||
        now->st_mtim.tv_nsec != before->st_mtim.tv_nsec)
        found |= DIFFERS_TIME;
    if (now->st_size != before->st_size)
        found |= DIFFERS_CONTENT;
    else if (S_ISREG(now->st_mode) && !same_bytes(path))
        found |= DIFFERS_CONTENT;
    else if (S_ISLNK(now->st_mode) && (found & DIFFERS_TIME))
        found |= DIFFERS_CONTENT;
    return found;
}

struct change change_of(const char *path, struct cse_fs_look *now, struct cse_fs_look *before,
                        bool *within)
{
    struct change change = {0};
    *within = false;
    int present = tools->look(path, false, 0, now);
    if (present != 0 && present != -ENOENT && present != -ENOTDIR) fail(-present, path);
    bool there = present == 0 && now->layer >= 0, upper = there && now->layer == 0;
    if (there && now->layer > 0) { /* as below; below a directory, markers may hide names */
        *within = S_ISDIR(now->status.st_mode);
        return change;
    }
    bool had = tools->look(path, false, 1, before) == 0;
    if (!there && !had) return change;
    change.now = upper ? &now->status : NULL;
    change.before = had ? &before->status : NULL;
    change.kind = !had ? "added" : !upper ? "removed" : "changed";
    if (upper && had) {
        change.differs = differences(path, change.now, change.before);
        if (change.differs == 0) change.kind = NULL;
    }
    *within = upper && S_ISDIR(change.now->st_mode);
    return change;
}

static const char *relative(const struct cse_fs_view *view, const char *path)
{
    size_t length = strcmp(view->path, "/") == 0 ? 0 : strlen(view->path);
    return path[length] == '/' ? path + length + 1 : path + length;
}

/* Names that the upper layer, or its whiteouts, have in a directory. */
static void add_from(struct names *names, const char *root, const struct cse_fs_view *view,
                     const char *directory)
{
    char place[PATH_MAX];
    const char *rel = relative(view, directory);
    if (snprintf(place, sizeof place, "%s%s%s", root, *rel ? "/" : "", rel) >= PATH_MAX)
        fail(ENAMETOOLONG, directory);
    struct stat status;
    if (lstat(place, &status) != 0 || !S_ISDIR(status.st_mode)) return;
    int error = names_read(names, place);
    if (error != 0) fail(error, directory);
}

/* Where markers hide the whole of what lies below this directory. */
static bool is_opaque(const char *directory)
{
    struct cse_fs_look look;
    return tools->look(directory, false, 0, &look) == 0 && look.layer == 0 && look.hidden;
}

static void touched(struct names *names, const struct cse_fs_view *view, const char *directory)
{
    add_from(names, view->upper, view, directory);
    add_from(names, view->whiteouts, view, directory);
    if (is_opaque(directory)) tools->names(directory, 1, names_add, names);
    names_sort(names);
}

bool holds_changes(const struct cse_fs_view *view, const char *directory)
{
    struct names names = {0};
    touched(&names, view, directory);
    bool some = names.count > 0;
    names_free(&names);
    return some;
}

void names_removed(struct names *names, const char *directory)
{
    struct cse_fs_view view;
    struct cse_fs_look look;
    struct names candidates = {0};
    char path[PATH_MAX];
    int number;
    if (!view_of(directory, &view, &number) || !view.cow) return;
    if (tools->look(directory, true, 0, &look) != 0) return;
    add_from(&candidates, view.whiteouts, &view, look.path);
    if (is_opaque(look.path)) tools->names(look.path, 1, names_add, &candidates);
    names_sort(&candidates);
    for (size_t i = 0; i < candidates.count; i++) {
        join(look.path, candidates.list[i], path);
        struct cse_fs_look now, before;
        if (tools->look(path, false, 0, &now) == -ENOENT &&
            tools->look(path, false, 1, &before) == 0)
            names_add(candidates.list[i], 0, names);
    }
    names_free(&candidates);
}

static void walk(const struct cse_fs_view *view, const char *path, change_call *each, void *context)
{
    struct cse_fs_look *looks = malloc(2 * sizeof *looks);
    bool within;
    if (looks == NULL) fail(ENOMEM, path);
    struct change change = change_of(path, &looks[0], &looks[1], &within);
    if (change.kind != NULL) each(path, &change, context);
    free(looks);
    if (!within) return;
    struct names names = {0};
    touched(&names, view, path);
    for (size_t i = 0; i < names.count; i++) {
        char *below = joined(path, names.list[i]);
        walk(view, below, each, context);
        free(below);
    }
    names_free(&names);
}

/* Of memory, which began empty. */
static void walk_all(const char *path, bool top, change_call *each, void *context)
{
    struct stat status;
    struct names names = {0};
    if (lstat(path, &status) != 0) return; /* gone meanwhile */
    struct change change = {.kind = "added", .now = &status};
    if (!top) each(path, &change, context);
    if (!S_ISDIR(status.st_mode)) return;
    int error = names_read(&names, path);
    if (error != 0 && error != ENOENT) fail(error, path);
    names_sort(&names);
    for (size_t i = 0; i < names.count; i++) {
        char *below = joined(path, names.list[i]);
        walk_all(below, false, each, context);
        free(below);
    }
    names_free(&names);
}

void each_change(const char *path, change_call *each, void *context)
{
    struct cse_fs_view view;
    struct cse_fs_look look;
    int number;
    if (!view_of(path, &view, &number)) return;
    if (tools->look(path, true, 0, &look) != 0) snprintf(look.path, sizeof look.path, "%s", path);
    if (view.cow)
        walk(&view, look.path, each, context);
    else
        walk_all(look.path, strcmp(look.path, view.path) == 0, each, context);
}

/* ---- as a command ------------------------------------------------------------------------------
 */

struct page {
    const char *after;
    long left;
};

static void show(const char *path, const struct change *change, void *context)
{
    static const char *const words[] = {"type", "content", "mode", "owner", "time"};
    struct page *page = context;
    /* In the order of the walk: what was shown is passed over until the mark has been met. */
    if (page->after != NULL) {
        if (strcmp(page->after, path) == 0) page->after = NULL;
        return;
    }
    if (page->left-- <= 0) {
        say("more");
        say_end();
        if (fflush(stdout) != 0) exit(1);
        exit(0);
    }
    say("change");
    say_text("path", path);
    say_text("change", change->kind);
    char differs[64] = "";
    for (int i = 0; i < 5; i++)
        if (change->differs & 1 << i)
            snprintf(differs + strlen(differs), sizeof differs - strlen(differs), "%s%s",
                     differs[0] ? "," : "", words[i]);
    if (differs[0]) say_text("differs", differs);
    if (change->before != NULL) say_number("size_before", change->before->st_size);
    say_status(change->now != NULL ? change->now : change->before);
    say_end();
}

static void show_mount(const struct cse_fs_view *view, int number)
{
    say("mount");
    say_text("path", view->path);
    say_text("untracked", tracked(view, number));
    say_end();
}

void changes(const char *path, const char *after, long limit)
{
    struct page page = {.after = *after ? after : NULL, .left = limit};
    struct cse_fs_view view;
    int number;
    if (view_of(path, &view, &number)) {
        show_mount(&view, number);
        if (tracked(&view, number) == NULL) each_change(path, show, &page);
        return;
    }
    if (strcmp(path, "/") != 0) fail(ENOTSUP, path);
    for (int i = 0; tools != NULL && i < 64; i++) {
        if (!tools->mount(i, &view)) continue;
        show_mount(&view, i);
        if (tracked(&view, i) == NULL) each_change(view.path, show, &page);
    }
}
