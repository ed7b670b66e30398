/* exec and exit: the two ways in which a process leaves its instance. Fork needs nothing here, the
 * implementation has pthread_atfork; a vfork child is told apart by its pid and left alone.
 */
#include "process.h"
#include "net.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the environment of programs that are executed ---------------------------------------------
 */

/* A program started with an environment of the caller's making (nginx's new binary, a login of
 * sshd, `env -i`) would be without this library, and so without the application's services: what is
 * missing of these is added. As they were when this program began: it may write over its own. */
enum { KEPT = PROCESS_KEPT, KEPT_BYTES = 4096 };
static const char *const kept_names[KEPT] = {"LD_PRELOAD", "CSE_RUN_DIR", "CSE_TRACE"};
static char kept[KEPT][KEPT_BYTES];

__attribute__((constructor)) static void keep_environment(void)
{
    for (int i = 0; i < KEPT; i++) {
        const char *value = getenv(kept_names[i]);
        if (value == NULL) continue;
        int length = snprintf(kept[i], KEPT_BYTES, "%s=%s", kept_names[i], value);
        if (length >= KEPT_BYTES) kept[i][0] = '\0';
    }
}

size_t process_variables(char *const environment[])
{
    size_t count = 0;
    while (environment != NULL && environment[count] != NULL) count++;
    return count;
}

static bool has(char *const environment[], size_t count, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < count; i++)
        if (strncmp(environment[i], name, length) == 0 && environment[i][length] == '=')
            return true;
    return false;
}

char **process_complete(char *const environment[], size_t count, char **room)
{
    if (count > 0) memcpy(room, environment, count * sizeof *room);
    for (int i = 0; i < KEPT; i++)
        if (kept[i][0] != '\0' && !has(room, count, kept_names[i])) room[count++] = kept[i];
    room[count] = NULL;
    return room;
}

/* ---- exec
 * ---------------------------------------------------------------------------------------- */

static void before_exec(void)
{
    int saved_errno = errno;
    const struct cse_stack *stack = net_running();
    if (stack != NULL) stack->before_exec();
    errno = saved_errno;
}

static int after_exec(int result)
{
    int saved_errno = errno;
    const struct cse_stack *stack = net_running();
    if (stack != NULL) stack->exec_failed();
    errno = saved_errno;
    return result;
}

CSE_EXPORT int execve(const char *path, char *const arguments[], char *const environment[])
{
    before_exec();
    return after_exec(libc(execve)(path, arguments, COMPLETE(environment)));
}

CSE_EXPORT int execv(const char *path, char *const arguments[])
{
    return execve(path, arguments, environ);
}

CSE_EXPORT int execvp(const char *file, char *const arguments[])
{
    return execvpe(file, arguments, environ);
}

CSE_EXPORT int execvpe(const char *file, char *const arguments[], char *const environment[])
{
    before_exec();
    return after_exec(libc(execvpe)(file, arguments, COMPLETE(environment)));
}

CSE_EXPORT int fexecve(int fd, char *const arguments[], char *const environment[])
{
    before_exec();
    return after_exec(libc(fexecve)(fd, arguments, COMPLETE(environment)));
}

/* Collects the arguments of an execl call; `LAST` is left at what follows the NULL. */
#define ARGUMENTS(first, list)                                                                     \
    ({                                                                                             \
        size_t count_ = 1;                                                                         \
        va_list copy_;                                                                             \
        va_copy(copy_, list);                                                                      \
        if ((first) != NULL)                                                                       \
            while (va_arg(copy_, char *) != NULL) count_++;                                        \
        va_end(copy_);                                                                             \
        char **array_ = alloca((count_ + 1) * sizeof *array_);                                     \
        array_[0] = (char *)(first);                                                               \
        for (size_t i_ = 1; (first) != NULL && i_ <= count_; i_++)                                 \
            array_[i_] = va_arg(list, char *);                                                     \
        array_;                                                                                    \
    })

CSE_EXPORT int execl(const char *path, const char *argument, ...)
{
    va_list list;
    va_start(list, argument);
    char **arguments = ARGUMENTS(argument, list);
    va_end(list);
    return execv(path, arguments);
}

CSE_EXPORT int execlp(const char *file, const char *argument, ...)
{
    va_list list;
    va_start(list, argument);
    char **arguments = ARGUMENTS(argument, list);
    va_end(list);
    return execvp(file, arguments);
}

CSE_EXPORT int execle(const char *path, const char *argument, ...)
{
    va_list list;
    va_start(list, argument);
    char **arguments = ARGUMENTS(argument, list);
    char *const *environment = va_arg(list, char *const *);
    va_end(list);
    return execve(path, arguments, environment);
}

static void before_exit(void)
{
    int saved_errno = errno;
    const struct cse_stack *stack = net_running();
    if (stack != NULL) stack->before_exit();
    errno = saved_errno;
}

__attribute__((destructor)) static void leave(void)
{
    before_exit();
}

CSE_EXPORT void _exit(int status)
{
    before_exit();
    libc(_exit)(status);
    __builtin_unreachable();
}

CSE_EXPORT void _Exit(int status)
{
    _exit(status);
}
