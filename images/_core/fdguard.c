/* The program's close, dup and limit calls, so that it can neither lose our descriptors nor see
 * them, and so that fdtable.c forgets what is no longer true.
 *
 * An own descriptor looks closed to the program: EBADF. Several overlays may each contain
 * this file; each passes on to the next, and knows its own descriptors only.
 */
#include "core.h"
#include "ownfd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SEALED_RANGE = 4096 }; /* the numbers in a range that are looked at one by one */
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

/* An overlay's own affair with a descriptor that is about to be closed, or replaced; `stream` is
 * that of an fclose. */
extern void cse_before_close(int fd, void *stream) __attribute__((weak));
/* The errno that a close is to give, after it was done; 0: its own. */
extern int cse_close_error(int fd) __attribute__((weak));
extern int cse_fclose_error(FILE *stream) __attribute__((weak));

CSE_BEFORE_SANITIZERS

void (*cse_after_close)(uintptr_t value);

/* F_SETFL was done. */
extern void cse_flags_set(int fd) __attribute__((weak));

static void before_close(int fd, void *stream)
{
    if (cse_before_close != NULL && fd >= 0) cse_before_close(fd, stream);
}

/* `result` of a close that is done, unless it was to fail. */
static int closed(int result, int error)
{
    if (error == 0) return result;
    errno = error;
    return -1;
}

/* What is remembered of a descriptor about to be closed, and is true; 0: nobody has to know. */
static uintptr_t remembered(int fd)
{
    uintptr_t known;
    if (cse_after_close == NULL || !cse_fd_recall(fd, &known) || known == 0) return 0;
    if (cse_in_vfork_child()) return 0; /* its parent has it still */
    return cse_fd_lookup(fd, &known, NULL) ? known : 0;
}

static void after_close(uintptr_t known)
{
    int saved_errno = errno;
    if (known != 0) cse_after_close(known);
    errno = saved_errno;
}

CSE_EXPORT int close(int fd)
{
    if (cse_is_own_fd(fd)) {
        errno = EBADF;
        return -1;
    }
    uintptr_t known = remembered(fd);
    before_close(fd, NULL);
    int error = cse_close_error != NULL ? cse_close_error(fd) : 0;
    cse_fd_forget(fd);
    int result = libc(close)(fd);
    after_close(known);
    return closed(result, error);
}

/* Closes inside libc, where no wrapper sees it. */
CSE_EXPORT int fclose(FILE *stream)
{
    int fd = fileno(stream);
    uintptr_t known = remembered(fd);
    before_close(fd, stream);
    int error = cse_fclose_error != NULL ? cse_fclose_error(stream) : 0;
    if (fd >= 0) cse_fd_forget(fd);
    int result = libc(fclose)(stream);
    after_close(known);
    return closed(result, error);
}

CSE_EXPORT int dup(int fd)
{
    if (cse_is_own_fd(fd)) {
        errno = EBADF;
        return -1;
    }
    int copy = libc(dup)(fd);
    if (copy >= 0) cse_fd_copy(fd, copy);
    return copy;
}

static bool refuse_dup(int from, int to)
{
    if (!cse_is_own_fd(from) && !cse_is_own_fd(to)) return false;
    errno = EBADF; /* as for any number at or above the program's limit */
    return true;
}

CSE_EXPORT int dup2(int from, int to)
{
    if (refuse_dup(from, to)) return -1;
    uintptr_t known = from != to ? remembered(to) : 0;
    if (from != to) before_close(to, NULL);
    int copy = libc(dup2)(from, to);
    if (copy >= 0 && from != to) cse_fd_copy(from, to);
    if (copy >= 0) after_close(known);
    return copy;
}

CSE_EXPORT int dup3(int from, int to, int flags)
{
    if (refuse_dup(from, to)) return -1;
    uintptr_t known = from != to ? remembered(to) : 0;
    if (from != to) before_close(to, NULL);
    int copy = libc(dup3)(from, to, flags);
    if (copy >= 0) cse_fd_copy(from, to);
    if (copy >= 0) after_close(known);
    return copy;
}

static int guarded_fcntl(int fd, int command, void *argument)
{
    if (cse_is_own_fd(fd)) {
        errno = EBADF;
        return -1;
    }
    int result = libc(fcntl)(fd, command, argument);
    if (result >= 0 && (command == F_DUPFD || command == F_DUPFD_CLOEXEC)) cse_fd_copy(fd, result);
    if (result >= 0 && command == F_SETFL && cse_flags_set != NULL) cse_flags_set(fd);
    return result;
}

CSE_EXPORT int fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return guarded_fcntl(fd, command, argument);
}

#ifdef __GLIBC__
CSE_EXPORT int fcntl64(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return guarded_fcntl(fd, command, argument);
}
#endif

/* ---- ranges ------------------------------------------------------------------------------ */

/* Closes first..last but leaves out what is ours. */
static int close_around_own(unsigned first, unsigned last, unsigned flags)
{
    while (first <= last) {
        int own = first > INT_MAX ? -1 : cse_own_next((int)first);
        unsigned stop = own >= 0 && (unsigned)own <= last ? (unsigned)own : last + 1;
        if (stop > first || stop == 0) {
            long result = libc(syscall)(SYS_close_range, first, stop - 1, flags);
            if (result != 0) return (int)result;
        }
        if (stop == 0 || stop > last) break;
        first = stop + 1;
    }
    return 0;
}

/* Those that somebody has to know of, one after the other, as the kernel does it. */
static void close_remembered(unsigned first, unsigned last)
{
    uintptr_t known;
    if (cse_after_close == NULL || cse_in_vfork_child()) return;
    for (int fd = (int)first; fd >= 0 && fd <= cse_fd_last(); fd++)
        if ((unsigned)fd <= last && cse_fd_recall(fd, &known) && known != 0) close(fd);
}

static void before_close_range(unsigned first, unsigned last)
{
    close_remembered(first, last);
    if (cse_before_close == NULL) return;
    long most = sysconf(_SC_OPEN_MAX);
    for (unsigned fd = first; fd <= last && (long)fd < most && fd < SEALED_RANGE; fd++)
        cse_before_close((int)fd, NULL);
}

CSE_EXPORT int close_range(unsigned first, unsigned last, int flags)
{
    enum { CLOEXEC_ONLY = 4 };
    if (first > last) {
        errno = EINVAL;
        return -1;
    }
    if (flags & CLOEXEC_ONLY) return (int)libc(syscall)(SYS_close_range, first, last, flags);
    before_close_range(first, last);
    cse_fd_forget_range(first, last);
    return close_around_own(first, last, (unsigned)flags);
}

CSE_EXPORT void closefrom(int first)
{
    unsigned from = first < 0 ? 0 : (unsigned)first;
    int saved_errno = errno;
    before_close_range(from, UINT_MAX);
    cse_fd_forget_range(from, UINT_MAX);
    if (close_around_own(from, UINT_MAX, 0) != 0) {
        /* A kernel before 5.9 has no close_range. */
        for (long fd = (long)from; fd < sysconf(_SC_OPEN_MAX); fd++) close((int)fd);
    }
    errno = saved_errno;
}

/* ---- the limit of open files, as the program set it --------------------------------------- */

#ifdef __GLIBC__
typedef __rlimit_resource_t limit_name;
#else
typedef int limit_name;
#endif

static void show_program_limit(int resource, struct rlimit *limit)
{
    if (resource == RLIMIT_NOFILE && limit != NULL && cse_own_limits.raised_soft != 0 &&
        limit->rlim_cur == cse_own_limits.raised_soft)
        limit->rlim_cur = cse_own_limits.program_soft;
}

/* What the kernel must be told so that the program gets `wanted` and our descriptors stay. */
static struct rlimit with_our_room(const struct rlimit *wanted)
{
    rlim_t room = cse_own_limits.raised_soft - cse_own_limits.program_soft;
    struct rlimit raised = *wanted;
    if (wanted->rlim_cur == RLIM_INFINITY || wanted->rlim_cur > RLIM_INFINITY - room) return raised;
    raised.rlim_cur = wanted->rlim_cur + room;
    if (raised.rlim_cur > wanted->rlim_max) raised.rlim_cur = wanted->rlim_max;
    return raised;
}

static int set_program_limit(const struct rlimit *wanted)
{
    if (wanted->rlim_cur > wanted->rlim_max) {
        errno = EINVAL;
        return -1;
    }
    struct rlimit raised = with_our_room(wanted);
    if (libc(setrlimit)(RLIMIT_NOFILE, &raised) != 0) return -1;
    cse_own_limits.program_soft = wanted->rlim_cur;
    cse_own_limits.raised_soft = raised.rlim_cur;
    return 0;
}

/* ---- the limit of address space: what an overlay reserves comes on top -------------------- */

static rlim_t own_space(void)
{
    return &cse_own_space != NULL ? cse_own_space : 0;
}

static struct rlimit space_wanted, space_raised; /* by the program; as the kernel has it */

static void show_program_space(int resource, struct rlimit *limit)
{
    if (resource != RLIMIT_AS || limit == NULL || space_raised.rlim_cur == 0) return;
    if (limit->rlim_cur == space_raised.rlim_cur) limit->rlim_cur = space_wanted.rlim_cur;
    if (limit->rlim_max == space_raised.rlim_max) limit->rlim_max = space_wanted.rlim_max;
}

static rlim_t with_our_space(rlim_t wanted, rlim_t most)
{
    if (wanted == RLIM_INFINITY || wanted > RLIM_INFINITY - own_space()) return wanted;
    rlim_t raised = wanted + own_space();
    return raised > most && wanted <= most ? most : raised;
}

static int set_program_space(const struct rlimit *wanted)
{
    struct rlimit raised, now;
    if (wanted->rlim_cur > wanted->rlim_max || libc(getrlimit)(RLIMIT_AS, &now) != 0) {
        errno = EINVAL;
        return -1;
    }
    raised.rlim_max = with_our_space(wanted->rlim_max, now.rlim_max);
    raised.rlim_cur = with_our_space(wanted->rlim_cur, raised.rlim_max);
    if (libc(setrlimit)(RLIMIT_AS, &raised) != 0) return -1;
    space_wanted = *wanted;
    space_raised = raised;
    return 0;
}

static bool limit_is_ours(int resource)
{
    if (resource == RLIMIT_AS) return own_space() != 0;
    return resource == RLIMIT_NOFILE && cse_own_limits.raised_soft != 0;
}

static void show_limit(int resource, struct rlimit *limit)
{
    show_program_limit(resource, limit);
    show_program_space(resource, limit);
}

static int set_limit(int resource, const struct rlimit *wanted)
{
    return resource == RLIMIT_AS ? set_program_space(wanted) : set_program_limit(wanted);
}

CSE_EXPORT int getrlimit(limit_name resource, struct rlimit *limit)
{
    int result = libc(getrlimit)(resource, limit);
    if (result == 0) show_limit((int)resource, limit);
    return result;
}

CSE_EXPORT int setrlimit(limit_name resource, const struct rlimit *limit)
{
    if (limit_is_ours((int)resource)) return set_limit((int)resource, limit);
    return libc(setrlimit)(resource, limit);
}

CSE_EXPORT int prlimit(pid_t pid, limit_name resource, const struct rlimit *wanted,
                       struct rlimit *old)
{
    bool ours = limit_is_ours((int)resource) && (pid == 0 || pid == getpid());
    int result = libc(prlimit)(pid, resource, ours ? NULL : wanted, old);
    if (result != 0 || !ours) return result;
    show_limit((int)resource, old);
    return wanted != NULL ? set_limit((int)resource, wanted) : 0;
}

#ifdef __GLIBC__
/* On 64-bit machines the structures are the same. */
CSE_EXPORT int getrlimit64(limit_name resource, struct rlimit64 *limit)
{
    return getrlimit(resource, (struct rlimit *)limit);
}

CSE_EXPORT int setrlimit64(limit_name resource, const struct rlimit64 *limit)
{
    return setrlimit(resource, (const struct rlimit *)limit);
}

CSE_EXPORT int prlimit64(pid_t pid, limit_name resource, const struct rlimit64 *wanted,
                         struct rlimit64 *old)
{
    return prlimit(pid, resource, (const struct rlimit *)wanted, (struct rlimit *)old);
}
#endif

CSE_EXPORT int getdtablesize(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 256;
    return limit.rlim_cur > INT_MAX ? INT_MAX : (int)limit.rlim_cur;
}

CSE_BEFORE_SANITIZERS_END
