/* Descriptors of the library, kept out of the program's way.
 *
 * They lie above the program's soft limit where the hard limit leaves room (the soft limit is
 * raised for that, and fdguard.c keeps reporting the old one), so that the program can use every
 * number it was promised; else as high as possible. fdguard.c refuses to let the program close
 * them.
 */
#include "ownfd.h"
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OWN_MAX = 1 << 20, OWN_ROOM = 65536, OWN_FEW = 128, OWN_SPARE = 64 };

/* One bit per descriptor number; shared by threads, copied by fork like the descriptors. */
static uint64_t own_bits[OWN_MAX / 64];
static int own_count;
struct cse_own_limits cse_own_limits;

CSE_BEFORE_SANITIZERS

static void set_bit(int fd, bool on)
{
    uint64_t bit = UINT64_C(1) << (fd % 64);
    uint64_t before = on ? __atomic_fetch_or(&own_bits[fd / 64], bit, __ATOMIC_RELAXED)
                         : __atomic_fetch_and(&own_bits[fd / 64], ~bit, __ATOMIC_RELAXED);
    if (((before & bit) != 0) != on) __atomic_fetch_add(&own_count, on ? 1 : -1, __ATOMIC_RELAXED);
}

bool cse_is_own_fd(int fd)
{
    if (fd < 0 || fd >= OWN_MAX || __atomic_load_n(&own_count, __ATOMIC_RELAXED) == 0) return false;
    return (__atomic_load_n(&own_bits[fd / 64], __ATOMIC_RELAXED) >> (fd % 64)) & 1;
}

/* First number that a descriptor of ours may get; decided once per program. */
static int first_own(void)
{
    if (cse_own_limits.first != 0) return cse_own_limits.first;
    struct rlimit limit;
    if (libc(syscall)(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) != 0) return 3;
    rlim_t soft = limit.rlim_cur, room = OWN_ROOM;
    if (soft > OWN_MAX - OWN_FEW) soft = OWN_MAX - OWN_FEW;
    if (soft + room > OWN_MAX) room = OWN_MAX - soft;
    if (limit.rlim_max != RLIM_INFINITY && soft + room > limit.rlim_max) {
        room = limit.rlim_max > soft ? limit.rlim_max - soft : 0;
    }
    if (room >= OWN_FEW && soft == limit.rlim_cur) {
        struct rlimit raised = {.rlim_cur = soft + room, .rlim_max = limit.rlim_max};
        if (libc(syscall)(SYS_prlimit64, 0, RLIMIT_NOFILE, &raised, NULL) == 0) {
            cse_own_limits.program_soft = soft;
            cse_own_limits.raised_soft = raised.rlim_cur;
            return cse_own_limits.first = (int)soft;
        }
    }
    /* No room above: take the upper end of what there is. */
    int first = (int)(soft > 2 * OWN_FEW ? soft - OWN_FEW : soft / 2);
    return cse_own_limits.first = first > 3 ? first : 3;
}

int cse_own_fd(int fd)
{
    int saved_errno;
    int moved = (int)libc(syscall)(SYS_fcntl, fd, F_DUPFD_CLOEXEC, first_own());
    /* A limit lowered since then, or a room above that many threads have filled: any number. */
    if (moved < 0 && (errno == EINVAL || errno == EMFILE))
        moved = (int)libc(syscall)(SYS_fcntl, fd, F_DUPFD_CLOEXEC, first_own() / 2);
    if (moved < 0 && (errno == EINVAL || errno == EMFILE))
        moved = (int)libc(syscall)(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3);
    saved_errno = errno;
    if (moved >= OWN_MAX) {
        libc(syscall)(SYS_close, moved);
        moved = -1;
        saved_errno = EMFILE;
    }
    libc(syscall)(SYS_close, fd);
    if (moved >= 0) set_bit(moved, true);
    errno = saved_errno;
    return moved;
}

void cse_own_close(int fd)
{
    if (fd < 0) return;
    int saved_errno = errno;
    set_bit(fd, false);
    libc(syscall)(SYS_close, fd);
    errno = saved_errno;
}

bool cse_own_crowded(int fd)
{
    struct rlimit limit;
    rlim_t used = (rlim_t)fd + (rlim_t)__atomic_load_n(&own_count, __ATOMIC_RELAXED);
    if (used < OWN_FEW || libc(syscall)(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) != 0)
        return false;
    rlim_t spare = limit.rlim_cur / 8 < OWN_SPARE ? limit.rlim_cur / 8 : OWN_SPARE;
    return used + spare > limit.rlim_cur;
}

int cse_own_next(int fd)
{
    if (__atomic_load_n(&own_count, __ATOMIC_RELAXED) == 0) return -1;
    for (int word = fd / 64; fd >= 0 && word < OWN_MAX / 64; word++) {
        uint64_t bits = __atomic_load_n(&own_bits[word], __ATOMIC_RELAXED);
        if (word == fd / 64) bits &= ~UINT64_C(0) << (fd % 64);
        if (bits != 0) return word * 64 + __builtin_ctzll(bits);
    }
    return -1;
}

CSE_BEFORE_SANITIZERS_END
