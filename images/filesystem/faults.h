/* Faults of files: the table that the agent keeps, and what a call has to ask.
 *
 * Where no fault holds, a call pays one load and one branch: `fs_faulty`. faults.c has the theory.
 */
#ifndef CSE_FS_FAULTS_H
#define CSE_FS_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum { FS_FAULTS_MAX = 16, FS_FAULT_PATTERN = 448, FS_FAULTS_VERSION = 1 };

enum fs_op { /* the order is that of app/domain/fault.py, Operation */
             FS_OP_OPEN = 1 << 0,
             FS_OP_READ = 1 << 1,
             FS_OP_WRITE = 1 << 2,
             FS_OP_FSYNC = 1 << 3,
             FS_OP_CLOSE = 1 << 4,
             FS_OP_STAT = 1 << 5,
             FS_OP_READDIR = 1 << 6,
             FS_OP_MKDIR = 1 << 7,
             FS_OP_RENAME = 1 << 8,
             FS_OP_LINK = 1 << 9,
             FS_OP_UNLINK = 1 << 10,
             FS_OP_TRUNCATE = 1 << 11,
             FS_OP_ATTRIBUTES = 1 << 12,
             FS_OP_WHOLE = 1 << 30, /* libc moves all bytes or fails: none can be short */
};

/* <run dir>/filesystem.faults, written by app/agent/file_faults.py; little-endian. */
struct fs_fault {
    uint64_t serial; /* 0: none; written last when a fault begins, first when it ends */
    uint32_t operations;
    int32_t error; /* 0: none */
    uint32_t rate_ppm;
    uint32_t shorten;
    uint64_t delay_us, jitter_us;
    uint64_t full_after; /* bytes written; UINT64_MAX: never */
    uint64_t seed;
    uint64_t until_ms; /* of the wall clock; 0: until it is removed */
    char pattern[FS_FAULT_PATTERN];
};

struct fs_fault_table {
    uint32_t version;
    uint32_t operations; /* of all faults together */
    uint64_t reserved[7];
    struct fs_fault faults[FS_FAULTS_MAX];
};

extern const struct fs_fault_table *fs_fault_table; /* never NULL */

/* Whether any fault may meet one of these operations. */
static inline bool fs_faulty(unsigned operations)
{
    uint32_t held = __atomic_load_n(&fs_fault_table->operations, __ATOMIC_RELAXED);
    return __builtin_expect((held & operations) != 0, 0);
}

/* What an operation met: the caller hands it back with its result. */
struct fs_meeting {
    unsigned full; /* faults with a limit of bytes, by number */
    size_t size;   /* bytes that were counted there */
};

/* The operation waits as long as the faults say. False with errno where it is to fail; *size
 * (where not NULL) is the bytes that it may move. */
bool fs_meet_fd(struct fs_meeting *meeting, unsigned operation, int fd, size_t *size);
/* Bytes that were not moved are given back; the result unchanged. */
ssize_t fs_met(const struct fs_meeting *meeting, ssize_t result);
/* The same for operations that move none. */
bool fs_fault_fd(unsigned operation, int fd);
bool fs_fault_path(unsigned operation, int dirfd, const char *path);

/* A line at the head of a call: what the program names may meet a fault. */
#define FAULT(operation, dirfd, path, failed)                                                      \
    if (fs_faulty(operation) && !fs_fault_path(operation, dirfd, path)) return failed
#define FAULT_FD(operation, fd, failed)                                                            \
    if (fs_faulty(operation) && !fs_fault_fd(operation, fd)) return failed

/* Work of the library's own, through libraries that call read and write: no fault meets it. */
extern __thread int fs_shielded;

/* calls_data.c: calls by number, for syscall(). *done false: none of these. */
long fs_data_by_number(long number, const long a[6], bool *done);
enum {
    FS_OP_DATA = FS_OP_READ | FS_OP_WRITE | FS_OP_FSYNC | FS_OP_TRUNCATE | FS_OP_CLOSE |
    FS_OP_READDIR
};
/* An open file is mapped while a fault of its data holds: what happens there is not seen. */
void fs_fault_mapped(int fd);
/* fdguard.c (core) asks before a close is done: the errno that it is to give, or 0. */
int cse_close_error(int fd);
int cse_fclose_error(FILE *stream);
/* Sets a stream's error mark, as a failing call of libc does. calls_stream.c */
void fs_stream_failed(FILE *stream);

/* faults.c: exported for the tests of patterns alone. */
bool fs_pattern_matches(const char *pattern, const char *path);

#endif
