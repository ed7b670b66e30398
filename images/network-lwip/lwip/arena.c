/* The arena: one memfd, mapped shared at the same address in every process of the application.
 *
 * Layout of the file: the instance's header (instance.h) and heap, up to ARENA_HEAP_MAX; then the
 * pages of lwIP's own variables (sections lwip_bss and lwip_data), which are mapped over the
 * library's private ones; then a copy of lwip_data as loaded, for a reset. A forked child
 * inherits the mappings; another program of the application gets the descriptor from the broker.
 * Nothing in here holds an address of code: programs have the library at different places.
 *
 * Called by instance.c when an instance starts or is joined.
 */
#include "arena.h"
#include "instance.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char cse_shared_bss_begin[], cse_shared_bss_end[];
extern char cse_shared_data_begin[], cse_shared_data_end[];

#ifndef MFD_CLOEXEC
#define MFD_CLOEXEC 1U
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static size_t bss_size(void)
{
    return (size_t)(cse_shared_bss_end - cse_shared_bss_begin);
}

static size_t data_size(void)
{
    return (size_t)(cse_shared_data_end - cse_shared_data_begin);
}

static size_t total_size(void)
{
    return ARENA_HEAP_MAX + bss_size() + 2 * data_size();
}

static char *pristine_data;

/* Maps the file's pages over lwIP's variables. */
static int map_sections(int fd)
{
    int flags = MAP_SHARED | MAP_FIXED;
    off_t at = (off_t)ARENA_HEAP_MAX;
    if (mmap(cse_shared_bss_begin, bss_size(), PROT_READ | PROT_WRITE, flags, fd, at) == MAP_FAILED)
        return -errno;
    at += (off_t)bss_size();
    if (mmap(cse_shared_data_begin, data_size(), PROT_READ | PROT_WRITE, flags, fd, at) ==
        MAP_FAILED)
        return -errno;
    at += (off_t)data_size();
    pristine_data = mmap(NULL, data_size(), PROT_READ, MAP_SHARED, fd, at);
    return pristine_data == MAP_FAILED ? -errno : 0;
}

static int map_heap(int fd)
{
    void *got = mmap((void *)ARENA_BASE, ARENA_HEAP_MAX, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, fd, 0);
    if (got == MAP_FAILED) return -errno;
    if (got != (void *)ARENA_BASE) { /* a kernel before 4.17 takes the flag for a hint */
        munmap(got, ARENA_HEAP_MAX);
        return -ENOMEM;
    }
    return 0;
}

int arena_create(void)
{
    int fd = (int)syscall(SYS_memfd_create, "cse-net-arena", MFD_CLOEXEC);
    if (fd < 0) return -errno;
    off_t bss_at = (off_t)ARENA_HEAP_MAX, data_at = bss_at + (off_t)bss_size();
    int failed = 0;
    if (syscall(SYS_ftruncate, fd, (off_t)total_size()) != 0 ||
        syscall(SYS_pwrite64, fd, cse_shared_data_begin, data_size(), data_at) < 0 ||
        syscall(SYS_pwrite64, fd, cse_shared_data_begin, data_size(),
                data_at + (off_t)data_size()) < 0)
        failed = -errno;
    if (failed == 0) failed = map_heap(fd);
    if (failed == 0) failed = map_sections(fd);
    if (failed != 0) {
        syscall(SYS_close, fd);
        return failed;
    }
    heap_init();
    return fd;
}

int arena_attach(int fd)
{
    int failed = map_heap(fd);
    if (failed == 0 && (instance->magic != INSTANCE_MAGIC || instance->layout != INSTANCE_LAYOUT ||
                        instance->shared_size != total_size()))
        failed = -ENOEXEC; /* another build of this library */
    if (failed == 0) failed = map_sections(fd);
    return failed;
}

size_t arena_size(void)
{
    return total_size();
}

/* Whole pages, with what a sanitizer keeps between variables: hence not by memset and memcpy, which
 * it watches. */
__attribute__((no_sanitize("address"))) void arena_restore_sections(void)
{
    volatile uint64_t *bss = (volatile uint64_t *)cse_shared_bss_begin;
    volatile uint64_t *data = (volatile uint64_t *)cse_shared_data_begin;
    const uint64_t *pristine = (const uint64_t *)(const void *)pristine_data;
    for (size_t i = 0; i < bss_size() / sizeof *bss; i++) bss[i] = 0;
    for (size_t i = 0; i < data_size() / sizeof *data; i++) data[i] = pristine[i];
}
