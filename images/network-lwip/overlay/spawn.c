/* Programs that libc starts by itself: posix_spawn, system, popen. Their exec is inside libc and
 * passes by process.c, so the stack is told before it what they inherit, and their environment is
 * completed here. File actions are libc's secret: the numbers that any of them copies from are
 * kept as they are described, and looked at when a program is started.
 */
#include "net.h"
#include "process.h"

#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>

enum { SOURCES_MAX = 4096, GIVEN_MAX = 256 };

/* Numbers that file actions copied from. */
static uint64_t sources[SOURCES_MAX / 64];

static size_t find_sources(cse_socket *list)
{
    size_t count = 0;
    for (int word = 0; word < SOURCES_MAX / 64; word++) {
        uint64_t bits = __atomic_load_n(&sources[word], __ATOMIC_RELAXED);
        for (; bits != 0 && count < GIVEN_MAX; bits &= bits - 1) {
            cse_socket s = net_find(word * 64 + __builtin_ctzll(bits));
            if (s != 0) list[count++] = s;
        }
    }
    return count;
}

static void before_spawn(bool with_actions)
{
    const struct cse_stack *stack = net_running();
    int saved_errno = errno;
    cse_socket list[GIVEN_MAX];
    if (stack == NULL) return;
    stack->before_spawn(list, with_actions ? find_sources(list) : 0);
    errno = saved_errno;
}

CSE_EXPORT int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int to)
{
    if (fd >= 0 && fd < SOURCES_MAX)
        __atomic_fetch_or(&sources[fd / 64], UINT64_C(1) << (fd % 64), __ATOMIC_RELAXED);
    return libc(posix_spawn_file_actions_adddup2)(actions, fd, to);
}

CSE_EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                           const posix_spawnattr_t *attributes, char *const arguments[],
                           char *const environment[])
{
    before_spawn(actions != NULL);
    return libc(posix_spawn)(pid, path, actions, attributes, arguments, COMPLETE(environment));
}

CSE_EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                            const posix_spawnattr_t *attributes, char *const arguments[],
                            char *const environment[])
{
    before_spawn(actions != NULL);
    return libc(posix_spawnp)(pid, file, actions, attributes, arguments, COMPLETE(environment));
}

CSE_EXPORT int system(const char *command)
{
    if (command != NULL) before_spawn(false);
    return libc(system)(command);
}

CSE_EXPORT FILE *popen(const char *command, const char *type)
{
    before_spawn(false);
    return libc(popen)(command, type);
}
