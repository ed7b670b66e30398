/* The escape report: calls that an overlay could not serve and that reached the kernel or failed.
 *
 * A table of fixed-size rows in <run dir>/data/escapes.<kind>, mapped by every process of the
 * application and read by the agent (app/evidence) at any time, also after the program ended.
 * Rows are claimed with compare-and-swap, so no lock can be left held.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ROWS = 64, NAME_BYTES = 40 };

struct escape_row {
    uint64_t count;
    uint64_t claimed;      /* 0 free, 1 being named, 2 named */
    char name[NAME_BYTES]; /* NUL-padded */
    uint64_t reserved;
}; /* 64 bytes, little-endian as the machine */

static struct escape_row *rows;

static struct escape_row *map_rows(void)
{
    struct escape_row *mapped = __atomic_load_n(&rows, __ATOMIC_ACQUIRE);
    if (mapped != NULL) return mapped == MAP_FAILED ? NULL : mapped;
    char path[4096];
    snprintf(path, sizeof path, "%s/data/escapes.%s", cse_run_dir(), cse_settings_kind());
    int fd = (int)libc(syscall)(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    mapped = MAP_FAILED;
    /* Room for all of it, or none: a page that finds no room when it is touched is a SIGBUS. */
    long bytes = (long)(ROWS * sizeof *rows);
    long roomy = fd >= 0 ? libc(syscall)(SYS_fallocate, fd, 0, 0L, bytes) : -1;
    if (fd >= 0 && roomy != 0 && errno == EOPNOTSUPP)
        roomy = libc(syscall)(SYS_ftruncate, fd, bytes);
    if (fd >= 0 && roomy == 0)
        mapped = mmap(NULL, ROWS * sizeof *rows, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0) libc(syscall)(SYS_close, fd);
    struct escape_row *expected = NULL;
    if (!__atomic_compare_exchange_n(&rows, &expected, mapped, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        if (mapped != MAP_FAILED) munmap(mapped, ROWS * sizeof *rows);
        mapped = expected;
    }
    return mapped == MAP_FAILED ? NULL : mapped;
}

/* The row named `what`, claimed if new; NULL when the table is full. */
static struct escape_row *row_of(struct escape_row *table, const char *what)
{
    for (int i = 0; i < ROWS; i++) {
        uint64_t state = __atomic_load_n(&table[i].claimed, __ATOMIC_ACQUIRE);
        if (state == 0) {
            if (__atomic_compare_exchange_n(&table[i].claimed, &state, 1, false, __ATOMIC_ACQ_REL,
                                            __ATOMIC_ACQUIRE)) {
                size_t length = strnlen(what, NAME_BYTES - 1);
                memcpy(table[i].name, what, length);
                __atomic_store_n(&table[i].claimed, 2, __ATOMIC_RELEASE);
                return &table[i];
            }
        }
        /* A row still being named may turn out the same name twice: the agent adds rows up. */
        if (state == 2 && strncmp(table[i].name, what, NAME_BYTES - 1) == 0) return &table[i];
    }
    return NULL;
}

void cse_escape(const char *what)
{
    int saved_errno = errno;
    cse_trace("%s", what);
    struct escape_row *table = map_rows();
    struct escape_row *row = table != NULL ? row_of(table, what) : NULL;
    if (row != NULL) __atomic_fetch_add(&row->count, 1, __ATOMIC_RELAXED);
    errno = saved_errno;
}
