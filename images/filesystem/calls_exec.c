/* Programs and libraries that lie in a mount: what the kernel or the dynamic loader opens.
 *
 * The kernel reads the first line of a script itself and would look for its interpreter outside,
 * so scripts of a mount, and scripts whose interpreter is in one, are started through the
 * interpreter. The loader opens further libraries without asking anybody; those of an archive are
 * filled first.
 */
#include "calls.h"

#include <dlfcn.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

enum { ARGUMENTS_MAX = 4096, SHEBANG_BYTES = 256 };

/* ---- exec
 * --------------------------------------------------------------------------------------------------
 */

/* A program made ready: what to execute, with room for a script's interpreter. */
struct program {
    struct fs_where where;
    const char *path;                   /* real */
    char line[SHEBANG_BYTES];           /* the script's first line */
    const char *interpreter, *argument; /* NULL: not a script that concerns us */
    struct fs_where interpreter_where;
    const char *interpreter_path;
};

/* Splits "#! interpreter argument". */
static bool read_script(struct program *program)
{
    int fd = raw_open(program->path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return false;
    long got = raw(SYS_pread64, fd, program->line, sizeof program->line - 1, 0);
    raw_close(fd);
    if (got < 3 || memcmp(program->line, "#!", 2) != 0) return false;
    program->line[got] = '\0';
    char *end = strchr(program->line, '\n');
    if (end != NULL) *end = '\0';
    char *at = program->line + 2 + strspn(program->line + 2, " \t");
    if (*at == '\0') return false;
    program->interpreter = at;
    at += strcspn(at, " \t");
    program->argument = NULL;
    if (*at != '\0') {
        *at++ = '\0';
        at += strspn(at, " \t");
        size_t length = strlen(at);
        while (length > 0 && (at[length - 1] == ' ' || at[length - 1] == '\t')) at[--length] = '\0';
        if (length > 0) program->argument = at;
    }
    return true;
}

/* 0, or negative errno. */
static int prepare(int dirfd, const char *path, int follow, struct program *program)
{
    bool inside;
    program->interpreter = NULL;
    program->path = path;
    if (!fs_argument(&dirfd, &program->path, follow, FS_USE_CONTENT, &program->where, &inside))
        return -errno;
    if (inside) {
        if (program->where.mount->layers[program->where.layer].archive != NULL)
            fs_archive_fill_libraries(program->where.archive);
    }
    if (!fs_ready() || dirfd != AT_FDCWD) return 0;
    if (!read_script(program)) {
        program->interpreter = NULL;
        return 0;
    }
    bool interpreter_inside;
    int at = AT_FDCWD;
    program->interpreter_path = program->interpreter;
    if (!fs_argument(&at, &program->interpreter_path, FS_FOLLOW, FS_USE_CONTENT,
                     &program->interpreter_where, &interpreter_inside))
        return -errno;
    if (!inside && !interpreter_inside) program->interpreter = NULL;
    return 0;
}

/* The arguments of the interpreter: [its name, its argument,] the script's name, the rest. */
static char **script_arguments(const struct program *program, const char *script,
                               char *const given[], char **room, size_t size)
{
    size_t count = 0, at = 0;
    room[count++] = (char *)program->interpreter;
    if (program->argument != NULL) room[count++] = (char *)program->argument;
    room[count++] = (char *)script;
    for (at = given && given[0] ? 1 : 0; given && given[at]; at++) {
        if (count + 1 >= size) return NULL;
        room[count++] = given[at];
    }
    room[count] = NULL;
    return room;
}

static bool may_execute(const char *path)
{
    struct stat status;
    if (raw_lstat(path, &status) != 0 || !S_ISREG(status.st_mode)) return false;
    return (status.st_mode & 0111) != 0;
}

static int do_execve(const char *path, char *const arguments[], char *const environment[])
{
    struct program program;
    char *room[ARGUMENTS_MAX];
    if (!fs_ready()) return libc(execve)(path, arguments, environment);
    int error = prepare(AT_FDCWD, path, FS_FOLLOW, &program);
    if (error != 0) return fs_fail(error);
    fs_encrypted_leaving();
    if (program.interpreter == NULL) return libc(execve)(program.path, arguments, environment);
    if (!may_execute(program.path)) return fs_fail(-EACCES);
    char **whole = script_arguments(&program, path, arguments, room, ARGUMENTS_MAX);
    if (whole == NULL) return fs_fail(-E2BIG);
    return libc(execve)(program.interpreter_path, whole, environment);
}

CALL(execve, int, const char *path, char *const arguments[], char *const environment[])
{
    return do_execve(path, arguments, environment);
}

CALL(execv, int, const char *path, char *const arguments[])
{
    return do_execve(path, arguments, environ);
}

/* The program is known by its descriptor; what is left is to seal what it wrote so far. */
CALL(fexecve, int, int fd, char *const arguments[], char *const environment[])
{
    fs_encrypted_leaving();
    return libc(fexecve)(fd, arguments, environment);
}

/* As the shell would: a file without a first line is a script of /bin/sh. */
static int execute_or_shell(const char *path, char *const arguments[], char *const environment[])
{
    int result = do_execve(path, arguments, environment);
    if (errno != ENOEXEC) return result;
    char *room[ARGUMENTS_MAX];
    struct program shell = {.interpreter = "/bin/sh"};
    char **whole = script_arguments(&shell, path, arguments, room, ARGUMENTS_MAX);
    return whole ? do_execve("/bin/sh", whole, environment) : fs_fail(-E2BIG);
}

/* Calls `use` for each place of PATH where `name` could be, until one is not "not there". */
static int search_path(const char *name, int (*use)(const char *, void *), void *context)
{
    if (name[0] == '\0') return fs_fail(-ENOENT);
    if (strchr(name, '/') != NULL) return use(name, context);
    const char *path = getenv("PATH");
    char whole[PATH_MAX];
    int worst = ENOENT;
    if (path == NULL) path = "/bin:/usr/bin";
    for (const char *at = path;; at++) {
        const char *end = strchrnul(at, ':');
        int length = snprintf(whole, sizeof whole, "%.*s%s%s", (int)(end - at), at,
                              end > at ? "/" : "", name);
        if (length < PATH_MAX) {
            int result = use(whole, context);
            if (result >= 0) return result;
            if (errno == EACCES)
                worst = EACCES;
            else if (errno != ENOENT && errno != ENOTDIR && errno != ENODEV && errno != ESTALE &&
                     errno != ETIMEDOUT)
                return result;
        }
        if (*end == '\0') break;
        at = end;
    }
    return fs_fail(-worst);
}

struct execution {
    char *const *arguments, *const *environment;
};

static int try_execution(const char *path, void *context)
{
    const struct execution *execution = context;
    return execute_or_shell(path, execution->arguments, execution->environment);
}

static int do_execvpe(const char *name, char *const arguments[], char *const environment[])
{
    struct execution execution = {arguments, environment};
    return search_path(name, try_execution, &execution);
}

CALL(execvp, int, const char *name, char *const arguments[])
{
    if (!fs_ready()) return libc(execvp)(name, arguments);
    return do_execvpe(name, arguments, environ);
}

CALL(execvpe, int, const char *name, char *const arguments[], char *const environment[])
{
    if (!fs_ready()) return libc(execvpe)(name, arguments, environment);
    return do_execvpe(name, arguments, environment);
}

/* Collects execl's arguments; NULL and E2BIG when there are too many. */
static char **collect(char **room, const char *first, va_list more)
{
    size_t count = 0;
    room[count++] = (char *)first;
    while (first != NULL && (room[count] = va_arg(more, char *)) != NULL)
        if (++count == ARGUMENTS_MAX) return NULL;
    return room;
}

#define EXECL(name, call)                                                                          \
    CALL(name, int, const char *path, const char *first, ...)                                      \
    {                                                                                              \
        char *room[ARGUMENTS_MAX + 1];                                                             \
        va_list more;                                                                              \
        va_start(more, first);                                                                     \
        char **arguments = collect(room, first, more);                                             \
        char **given_environment __attribute__((unused)) = environ;                                \
        EXECL_ENVIRONMENT_##name va_end(more);                                                     \
        return arguments ? call : fs_fail(-E2BIG);                                                 \
    }
#define EXECL_ENVIRONMENT_execl
#define EXECL_ENVIRONMENT_execlp
#define EXECL_ENVIRONMENT_execle given_environment = va_arg(more, char **);

EXECL(execl, do_execve(path, arguments, environ))
EXECL(execlp, fs_ready() ? do_execvpe(path, arguments, environ) : libc(execvp)(path, arguments))
EXECL(execle, do_execve(path, arguments, given_environment))

/* ---- posix_spawn
 * ------------------------------------------------------------------------------------------------
 */

struct spawn {
    pid_t *pid;
    const posix_spawn_file_actions_t *actions;
    const posix_spawnattr_t *attributes;
    char *const *arguments, *const *environment;
};

/* posix_spawn returns an error number; search_path wants errno. */
static int try_spawn(const char *path, void *context)
{
    const struct spawn *spawn = context;
    struct program program;
    char *room[ARGUMENTS_MAX];
    int error = prepare(AT_FDCWD, path, FS_FOLLOW, &program);
    if (error != 0) return fs_fail(error);
    char *const *arguments = spawn->arguments;
    const char *real = program.path;
    if (program.interpreter != NULL) {
        arguments = script_arguments(&program, path, spawn->arguments, room, ARGUMENTS_MAX);
        if (arguments == NULL) return fs_fail(-E2BIG);
        real = program.interpreter_path;
    }
    int result = libc(posix_spawn)(spawn->pid, real, spawn->actions, spawn->attributes, arguments,
                                   spawn->environment);
    return result != 0 ? fs_fail(-result) : 0;
}

CALL(posix_spawn, int, pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
     const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[])
{
    if (!fs_ready())
        return libc(posix_spawn)(pid, path, actions, attributes, arguments, environment);
    struct spawn spawn = {pid, actions, attributes, arguments, environment};
    int saved_errno = errno;
    int result = try_spawn(path, &spawn) == 0 ? 0 : errno;
    errno = saved_errno;
    return result;
}

CALL(posix_spawnp, int, pid_t *pid, const char *name, const posix_spawn_file_actions_t *actions,
     const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[])
{
    if (!fs_ready())
        return libc(posix_spawnp)(pid, name, actions, attributes, arguments, environment);
    struct spawn spawn = {pid, actions, attributes, arguments, environment};
    int saved_errno = errno;
    int result = search_path(name, try_spawn, &spawn) == 0 ? 0 : errno;
    errno = saved_errno;
    return result;
}

CALL(posix_spawn_file_actions_addopen, int, posix_spawn_file_actions_t *actions, int fd,
     const char *path, int flags, mode_t mode)
{
    struct fs_where where;
    bool creates;
    int found = fs_prepare_open(AT_FDCWD, path, flags, &where, &creates);
    if (found < 0) found = FS_OUTSIDE; /* the child will find out */
    if (creates && found == FS_INSIDE) fs_created(&where, S_IFREG);
    const char *real = found == FS_INSIDE ? where.real : found == FS_REWRITTEN ? where.path : path;
    return libc(posix_spawn_file_actions_addopen)(actions, fd, real, flags, mode);
}

typedef int addchdir_call(posix_spawn_file_actions_t *, const char *);

CALL(posix_spawn_file_actions_addchdir_np, int, posix_spawn_file_actions_t *actions,
     const char *path)
{
    addchdir_call *next = (addchdir_call *)cse_next("posix_spawn_file_actions_addchdir_np");
    WITH_PATH(path, FS_FOLLOW, FS_USE_CONTENT, where, errno)
    return next ? next(actions, path) : ENOSYS;
}

/* ---- libraries
 * ---------------------------------------------------------------------------------------------------
 */

static const char *library_path(const char *path, struct fs_where *where)
{
    bool inside;
    int dirfd = AT_FDCWD;
    int saved_errno = errno;
    if (fs_argument(&dirfd, &path, FS_FOLLOW, FS_USE_CONTENT, where, &inside) && inside) {
        if (where->mount->layers[where->layer].archive != NULL)
            fs_archive_fill_libraries(where->archive);
    }
    errno = saved_errno;
    return path;
}

static __attribute__((noinline)) void *open_library(const char *path, int flags)
{
    struct fs_where where;
    path = library_path(path, &where);
    return libc(dlopen)(path, flags);
}

/* The loader searches for a name without slash by the rules of the object that calls: a tail call
 * keeps the program's return address, so that it sees the program and not this library. */
CALL(dlopen, void *, const char *path, int flags)
{
    if (path != NULL && strchr(path, '/') != NULL && fs_maybe(AT_FDCWD, path))
        return open_library(path, flags);
    void *(*next)(const char *, int) = libc(dlopen);
#if defined(__clang__)
    __attribute__((musttail))
#endif
    return next(path, flags);
}

#ifdef __GLIBC__
/* In a namespace of its own a library's names are searched by no rules of the caller's. */
CALL(dlmopen, void *, Lmid_t space, const char *path, int flags)
{
    struct fs_where where;
    if (path != NULL && strchr(path, '/') != NULL && fs_maybe(AT_FDCWD, path))
        path = library_path(path, &where);
    return NEXT(dlmopen, void *, Lmid_t, const char *, int)(space, path, flags);
}
#endif
