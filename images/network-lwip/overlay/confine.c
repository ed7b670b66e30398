/* syscall(), as far as it changes the process, and prctl.
 *
 * A filter of system calls that a process puts on itself, as sshd does before it talks to a
 * stranger: seccomp(2), by prctl or by number, which is libseccomp's way.
 *
 * What such a filter permits are the calls that the program makes, not those that we would make in
 * their place. So its TCP sockets are relayed from then on, and its data calls pass through: the
 * pump goes on, whose thread has no filter. A filter that a program puts on itself by an
 * instruction of its own is not seen.
 */
#include "patience.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_TSYNC
#define SECCOMP_FILTER_FLAG_TSYNC 1
#endif

static void before_filter(void)
{
    const struct cse_stack *stack = net_running();
    if (stack != NULL) stack->confined();
    net_confine();
}

/* The program has one thread: all others are ours. */
static bool is_alone(const struct cse_stack *stack)
{
    int threads = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL) return false;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) threads += task->d_name[0] != '.';
    closedir(tasks);
    return threads == 1 + stack->threads();
}

/* A filter for all threads would be one for the pump. Where the program has one thread only, one
 * for that is the same to it. */
static unsigned long flags_for(unsigned long flags)
{
    const struct cse_stack *stack = net_running();
    if (!(flags & SECCOMP_FILTER_FLAG_TSYNC) || stack == NULL) return flags;
    if (is_alone(stack)) return flags & ~(unsigned long)SECCOMP_FILTER_FLAG_TSYNC;
    net_escape("seccomp filter for all threads");
    return flags;
}

/* A fork by number (vsftpd) would be one that nobody prepares: the child would share the parent's
 * locks and have no pump. Into other namespaces, as for a program without privilege: its processes
 * could no longer tell each other by their numbers. */
static bool is_fork(long number, const unsigned long *words)
{
#ifdef SYS_fork
    if (number == SYS_fork) return true;
#endif
    return number == SYS_clone && words[1] == 0 && !(words[0] & CLONE_VM) && net_running() != NULL;
}

static long fork_by_number(long number, const unsigned long *words)
{
    if (number != SYS_clone || words[0] == SIGCHLD) return fork();
    net_escape("clone with flags (refused)");
    return net_fail(-EPERM);
}

/* The stack behind us makes its own calls through here, inside its lock: none of these. */
static bool sets_patience(long number, const unsigned long *words)
{
    if (number == SYS_setsockopt)
        return words[1] == SOL_SOCKET && (words[2] == SO_RCVTIMEO || words[2] == SO_SNDTIMEO);
    return (number == SYS_fcntl && words[1] == F_SETFL) ||
           (number == SYS_ioctl && words[1] == FIONBIO);
}

/* These read more words than some callers pass. */
CSE_BEFORE_SANITIZERS

CSE_EXPORT int prctl(int option, ...)
{
    unsigned long rest[4];
    va_list list;
    va_start(list, option);
    for (int i = 0; i < 4; i++) rest[i] = va_arg(list, unsigned long);
    va_end(list);
    if (option == PR_SET_SECCOMP) before_filter();
    return libc(prctl)(option, rest[0], rest[1], rest[2], rest[3]);
}

CSE_EXPORT long syscall(long number, ...)
{
    unsigned long words[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) words[i] = va_arg(list, unsigned long);
    va_end(list);
    if (number == SYS_seccomp &&
        (words[0] == SECCOMP_SET_MODE_STRICT || words[0] == SECCOMP_SET_MODE_FILTER)) {
        words[1] = flags_for(words[1]);
        before_filter();
    } else if (number == SYS_prctl && words[0] == PR_SET_SECCOMP) {
        before_filter();
    }
    if (is_fork(number, words)) return fork_by_number(number, words);
    long result = libc(syscall)(number, words[0], words[1], words[2], words[3], words[4], words[5]);
    if (sets_patience(number, words)) patience_forget(net_find_data((int)words[0]));
    return result;
}

CSE_BEFORE_SANITIZERS_END
