/* Contents of encrypted stores: whole files, sealed and opened by as many threads as it pays.
 *
 * Chunks do not depend on each other (format.c): the threads take parts of a file in turn and work
 * on each piece by piece, read, sealed or opened, and written while it is in the processor's cache.
 * The helpers live within one call and take no signals.
 *
 * What is opened goes to private tmpfs, where getting pages one by one costs more than the cipher.
 * So each part of a large file is asked for as huge pages first (MADV_COLLAPSE, Linux 6.1; on a
 * tmpfs mounted in any way). Where there is none, the pages come one by one. The mapping that it
 * takes is never touched: a file that is shortened meanwhile would kill the program.
 *
 * Called through the table in crypt.h.
 */
#include "contents.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum {
    CHUNK = CSE_CRYPT_CHUNK,
    PIECE = 4 * CHUNK,
    HUGE_PAGE = 2 << 20,  /* of x86_64, and of aarch64 with pages of 4 KiB */
    PART = 4 * HUGE_PAGE, /* each call for huge pages stops all processors for a moment */
    HELPERS_MAX = 3,
    HELPER_FROM = 4 * PIECE, /* for each so many bytes */
};

static int read_fully(int fd, uint8_t *data, size_t size, uint64_t at, size_t *got)
{
    *got = 0;
    while (*got < size) {
        ssize_t part = pread(fd, data + *got, size - *got, (off_t)(at + *got));
        if (part < 0 && errno == EINTR) continue;
        if (part < 0) return errno;
        if (part == 0) break;
        *got += (size_t)part;
    }
    return 0;
}

static int write_fully(int fd, const uint8_t *data, size_t size, uint64_t at)
{
    while (size > 0) {
        ssize_t part = pwrite(fd, data, size, (off_t)at);
        if (part < 0 && errno == EINTR) continue;
        if (part <= 0) return part == 0 ? EIO : errno;
        data += part;
        size -= (size_t)part;
        at += (uint64_t)part;
    }
    return 0;
}

/* ---- work shared by threads ------------------------------------------------------------------ */

struct room {
    uint8_t plain[PIECE], sealed[PIECE / CHUNK * (CHUNK + CSE_CRYPT_TAG_MAX)];
};

struct work {
    const struct cse_crypt_keys *keys;
    int plain, sealed;
    uint64_t size;
    uint8_t header[CSE_CRYPT_HEADER];
    int (*piece)(const struct work *work, uint64_t at, size_t length, struct room *room);
    size_t part;   /* so many bytes are taken at a time */
    bool huge;     /* ask for huge pages */
    uint64_t next; /* the first byte that nobody has taken */
    int error;     /* the first */
};

static uint64_t sealed_at(const struct work *work, uint64_t at)
{
    return CSE_CRYPT_HEADER + at / CHUNK * (CHUNK + work->keys->format->tag);
}

static int seal_piece(const struct work *work, uint64_t at, size_t length, struct room *room)
{
    size_t got, used = 0;
    int error = read_fully(work->plain, room->plain, length, at, &got);
    if (error != 0) return error;
    memset(room->plain + got, 0, length - got); /* shortened meanwhile: its next sealing tells */
    for (size_t from = 0; from < length; from += CHUNK) {
        size_t part = length - from < CHUNK ? length - from : CHUNK;
        cse_crypt_seal_chunk(work->keys, work->header, (at + from) / CHUNK, room->plain + from,
                             part, room->sealed + used);
        used += part + work->keys->format->tag;
    }
    return write_fully(work->sealed, room->sealed, used, sealed_at(work, at));
}

static int open_piece(const struct work *work, uint64_t at, size_t length, struct room *room)
{
    size_t tag = work->keys->format->tag, got, used = 0;
    size_t wanted = length + (length + CHUNK - 1) / CHUNK * tag;
    int error = read_fully(work->sealed, room->sealed, wanted, sealed_at(work, at), &got);
    if (error != 0 || got != wanted) return error != 0 ? error : EBADMSG;
    for (size_t to = 0; to < length; to += CHUNK) {
        size_t part = length - to < CHUNK ? length - to : CHUNK;
        if (!cse_crypt_open_chunk(work->keys, work->header, (at + to) / CHUNK, room->sealed + used,
                                  part, room->plain + to))
            return EBADMSG;
        used += part + tag;
    }
    return write_fully(work->plain, room->plain, length, at);
}

/* Huge pages for the part at `at`, if they can be had: not asked again where they cannot. Each
 * needs a first byte, which is nothing to collapse otherwise. */
static void ask_for_huge_pages(struct work *work, uint64_t at, size_t length)
{
    size_t reserved = length + HUGE_PAGE;
    uint8_t *space =
        mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED) return;
    uint8_t *aligned = space + (-(uintptr_t)space & (HUGE_PAGE - 1));
    bool good = true;
    for (size_t from = 0; from < length && good; from += HUGE_PAGE)
        good = pwrite(work->plain, "", 1, (off_t)(at + from)) == 1;
    good = good &&
           mmap(aligned, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, work->plain,
                (off_t)at) != MAP_FAILED &&
           madvise(aligned, length, MADV_COLLAPSE) == 0;
    munmap(space, reserved);
    if (!good) __atomic_store_n(&work->huge, false, __ATOMIC_RELAXED);
}

static int do_part(struct work *work, uint64_t at, struct room *room)
{
    uint64_t end = work->size - at < work->part ? work->size : at + work->part;
    int error = 0;
    size_t huge = (size_t)(end - at) & ~(size_t)(HUGE_PAGE - 1);
    if (huge > 0 && __atomic_load_n(&work->huge, __ATOMIC_RELAXED))
        ask_for_huge_pages(work, at, huge);
    for (; at < end && error == 0; at += PIECE)
        error = work->piece(work, at, end - at < PIECE ? (size_t)(end - at) : PIECE, room);
    return error;
}

/* Takes parts until none is left. A helper without memory leaves them to the others. */
static void work_on(struct work *work, bool helper)
{
    struct room *room =
        mmap(NULL, sizeof *room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int error = room == MAP_FAILED && !helper ? ENOMEM : 0;
    while (room != MAP_FAILED && error == 0 &&
           __atomic_load_n(&work->error, __ATOMIC_RELAXED) == 0) {
        uint64_t at = __atomic_fetch_add(&work->next, work->part, __ATOMIC_RELAXED);
        if (at >= work->size) break;
        error = do_part(work, at, room);
    }
    int none = 0;
    if (error != 0)
        __atomic_compare_exchange_n(&work->error, &none, error, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED);
    if (room != MAP_FAILED) munmap(room, sizeof *room);
}

static void *help(void *work)
{
    work_on(work, true);
    return NULL;
}

static int helpers_for(uint64_t size)
{
    cpu_set_t processors;
    if (size < 2 * HELPER_FROM || sched_getaffinity(0, sizeof processors, &processors) != 0)
        return 0;
    int most = CPU_COUNT(&processors) - 1;
    if (most > HELPERS_MAX) most = HELPERS_MAX;
    return size / HELPER_FROM - 1 < (uint64_t)most ? (int)(size / HELPER_FROM) - 1 : most;
}

static int work_together(struct work *work)
{
    pthread_t threads[HELPERS_MAX];
    sigset_t every, before;
    int wanted = helpers_for(work->size), count = 0;
    if (wanted > 0) {
        sigfillset(&every);
        pthread_sigmask(SIG_SETMASK, &every, &before);
        while (count < wanted && pthread_create(&threads[count], NULL, help, work) == 0) count++;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    work_on(work, false);
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    return work->error;
}

/* ---- whole files ----------------------------------------------------------------------------- */

int cse_crypt_seal(const struct cse_crypt_keys *keys, int plain, int sealed)
{
    struct stat status;
    if (fstat(plain, &status) != 0) return errno;
    struct work work = {.keys = keys,
                        .plain = plain,
                        .sealed = sealed,
                        .size = (uint64_t)status.st_size,
                        .piece = seal_piece,
                        .part = PIECE};
    if (!cse_crypt_header(keys, work.size, work.header)) return EIO;
    int error = write_fully(sealed, work.header, CSE_CRYPT_HEADER, 0);
    return error != 0 ? error : work_together(&work);
}

int cse_crypt_open(const struct cse_crypt_keys *keys, int sealed, int plain)
{
    struct work work = {.keys = keys, .plain = plain, .sealed = sealed, .piece = open_piece};
    struct stat status;
    size_t got;
    if (fstat(sealed, &status) != 0) return errno;
    int error = read_fully(sealed, work.header, CSE_CRYPT_HEADER, 0, &got);
    if (error != 0) return error;
    if (got != CSE_CRYPT_HEADER) return EBADMSG;
    int64_t size = cse_crypt_header_size(keys, work.header);
    if (size < 0 || cse_crypt_plain_size(keys, status.st_size) != size) return EBADMSG;
    work.size = (uint64_t)size;
    work.huge = size >= HUGE_PAGE;
    work.part = size < 2 * HUGE_PAGE ? PIECE : size < 4 * PART ? HUGE_PAGE : PART;
    return work_together(&work);
}
