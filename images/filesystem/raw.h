/* System calls without libc: no interposed function in between, no errno, no cancellation point.
 *
 * The overlay's own questions to the kernel go this way; what the program asked for goes through
 * the next definition of the function it called, so that other overlays (a faked clock) still see
 * it. Results are negative errno values.
 */
#ifndef CSE_FS_RAW_H
#define CSE_FS_RAW_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
static inline long raw6(long n, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static inline long raw6(long n, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
#else
#error "raw.h knows x86_64 and aarch64"
#endif

#define RAW_PICK(_1, _2, _3, _4, _5, _6, _7, name, ...) name
#define RAW0(n)                                         raw6(n, 0, 0, 0, 0, 0, 0)
#define RAW1(n, a)                                      raw6(n, (long)(a), 0, 0, 0, 0, 0)
#define RAW2(n, a, b)                                   raw6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define RAW3(n, a, b, c)       raw6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define RAW4(n, a, b, c, d)    raw6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define RAW5(n, a, b, c, d, e) raw6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define RAW6(n, a, b, c, d, e, f)                                                                  \
    raw6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/* raw(SYS_close, fd): the system call by number, with as many arguments as it takes. */
#define raw(...) RAW_PICK(__VA_ARGS__, RAW6, RAW5, RAW4, RAW3, RAW2, RAW1, RAW0)(__VA_ARGS__)

/* The kernel's struct stat is glibc's and musl's on these machines. */
#define raw_lstat(path, status)     raw(SYS_newfstatat, AT_FDCWD, path, status, AT_SYMLINK_NOFOLLOW)
#define raw_fstat(fd, status)       raw(SYS_fstat, fd, status)
#define raw_open(path, flags, mode) ((int)raw(SYS_openat, AT_FDCWD, path, flags, mode))
#define raw_close(fd)               ((void)raw(SYS_close, fd))

/* A file of the overlay's own, shared; MAP_FAILED where that fails. The mmap that the program calls
 * would remember what the descriptor is, which nobody sees closed. */
static inline void *raw_map(int fd, size_t size, int protection)
{
    long address = raw(SYS_mmap, NULL, size, protection, MAP_SHARED, fd, 0);
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address is what it is
    return address < 0 && address > -4096 ? MAP_FAILED : (void *)address;
}

#endif
