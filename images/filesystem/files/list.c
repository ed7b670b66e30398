/* Directories by pages, and where a path's content is. */
#include "files.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* By /etc/passwd alone: libc's other ways may ask the network. */
static const char *owner_of(uid_t uid)
{
    static uid_t known = (uid_t)-1;
    static char name[64];
    if (uid == known) return name[0] ? name : NULL;
    known = uid;
    name[0] = '\0';
    FILE *file = fopen("/etc/passwd", "re");
    const struct passwd *entry;
    while (file != NULL && (entry = fgetpwent(file)) != NULL)
        if (entry->pw_uid == uid) {
            snprintf(name, sizeof name, "%s", entry->pw_name);
            break;
        }
    if (file != NULL) fclose(file);
    return name[0] ? name : NULL;
}

static void say_object(const char *path, const struct stat *status)
{
    char target[PATH_MAX];
    say_status(status);
    say_text("owner", owner_of(status->st_uid));
    if (!S_ISLNK(status->st_mode)) return;
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0) return;
    target[length] = '\0';
    say_text("link", target);
}

static void say_source(const struct cse_fs_look *look)
{
    static const char *const states[] = {NULL, "unfilled", "damaged"};
    struct cse_fs_view view;
    struct cse_fs_layer_view layer;
    if (look->leads) say_number("leads", 1);
    if (look->mount < 0 || !tools->mount(look->mount, &view)) return;
    say_text("mount", view.path);
    if (look->layer < 0 || !tools->layer(look->mount, look->layer, &layer)) return;
    say_number("layer", look->layer);
    say_text("source", layer.kind);
    say_text("state", states[look->state]);
}

static void list_one(const char *path, const char *name, const struct cse_fs_view *view)
{
    struct stat status;
    struct cse_fs_look now, before;
    bool there = lstat(path, &status) == 0, within = false;
    struct change change = {0};
    if (view != NULL && view->cow) change = change_of(path, &now, &before, &within);
    if (!there && change.before == NULL) return; /* gone since it was read */
    say("entry");
    say_text("name", name);
    if (there)
        say_object(path, &status);
    else
        say_status(change.before);
    if (tools != NULL && there && tools->look(path, false, 0, &now) == 0) say_source(&now);
    if (!there) say_text("mount", view->path);
    say_text("change", change.kind);
    if (within && holds_changes(view, path)) say_number("within", 1);
    say_end();
}

void list(const char *path, const char *after, long limit)
{
    struct names names = {0};
    struct cse_fs_view view;
    int number, error = names_read(&names, path);
    bool inside = view_of(path, &view, &number);
    if (error == ENOTDIR) { /* as ls does */
        const char *slash = strrchr(path, '/');
        list_one(path, slash + 1, inside ? &view : NULL);
        return;
    }
    if (error != 0) fail(error, path);
    if (inside && view.cow) names_removed(&names, path);
    names_sort(&names);
    for (size_t i = 0; i < names.count; i++) {
        if (strcmp(names.list[i], after) <= 0) continue;
        if (limit-- <= 0) {
            say("more");
            say_end();
            break;
        }
        char child[PATH_MAX];
        join(path, names.list[i], child);
        list_one(child, names.list[i], inside ? &view : NULL);
    }
    names_free(&names);
}

static void say_layers(const char *path, const struct cse_fs_look *found,
                       const struct cse_fs_view *view)
{
    struct cse_fs_layer_view layer;
    struct cse_fs_look look;
    for (int i = 0; i < view->layers && tools->layer(found->mount, i, &layer); i++) {
        say("layer");
        say_number("number", i);
        say_text("source", layer.kind);
        say_text("root", layer.root);
        say_text("from", layer.from);
        if (layer.inside) say_number("inside", 1);
        /* The topmost layer from `i` on that has it; only upper layers have whiteouts. */
        bool has =
            i == 0 ? found->layer == 0 : tools->look(path, false, i, &look) == 0 && look.layer == i;
        if (has) say_status(i == 0 ? &found->status : &look.status);
        if (i == 0 && found->hidden) say_number("hides", 1);
        say_end();
    }
}

void explain(const char *path)
{
    struct cse_fs_look look = {.mount = -1, .layer = -1};
    struct cse_fs_view view;
    struct stat status;
    char real[PATH_MAX];
    bool there = lstat(path, &status) == 0;
    int reason = errno, found = tools == NULL ? 0 : tools->look(path, false, 0, &look);
    if (!there && reason != ENOENT && reason != ENOTDIR && look.mount < 0) fail(reason, path);
    char at[PATH_MAX];
    snprintf(at, sizeof at, "%s", look.path[0] ? look.path : path);
    if (look.mount < 0 && there && !S_ISLNK(status.st_mode) && realpath(path, real))
        snprintf(at, sizeof at, "%s", real);
    say("path");
    say_text("path", at);
    if (there) say_object(path, &status);
    if (!there) say_number("errno", found != 0 ? -found : reason);
    if (found == 0 || look.mount >= 0) say_source(&look);
    say_text("real", look.real[0] ? look.real : NULL);
    say_end();
    if (look.mount < 0 || !tools->mount(look.mount, &view)) return;
    say("mount");
    say_text("path", view.path);
    say_number("cow", view.cow);
    say_number("read_only", view.read_only);
    say_text("untracked", tracked(&view, look.mount));
    say_end();
    say_layers(at, &look, &view);
    if (!view.cow) return;
    struct cse_fs_look before;
    bool within;
    struct change change = change_of(at, &look, &before, &within);
    if (change.kind == NULL) return;
    say("change");
    say_text("change", change.kind);
    say_end();
}
