/* Contents of encrypted stores: whole files, sealed and opened by as many threads as it pays.
 *
 * A file is sealed with a nonce of its own each time: a header (magic, nonce, size, keyed BLAKE2b
 * of these) and chunks of 64 KiB, each with its tag (XChaCha20-Poly1305; the chunk's number is in
 * its nonce, the size in what is authenticated). So chunks can be neither exchanged nor left out; a
 * whole older version of a file can be put back unnoticed. Numbers are little-endian.
 *
 * Chunks do not depend on each other: the threads take parts of a file in turn, each read, worked
 * on and written while it is in the processor's cache. The helpers live within one call and take no
 * signals. Called through the table in crypt.h.
 */
#include "contents.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sodium.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    NONCE = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
    TAG = crypto_aead_xchacha20poly1305_ietf_ABYTES,
    MAGIC = 8,
    HEADER = 64,
    HEADER_MAC = HEADER - MAGIC - NONCE - 8,
    CHUNK = 64 << 10,
    PART = 4 * CHUNK,
    HELPERS_MAX = 3,
    HELPER_FROM = 4 * PART, /* for each so many bytes */
};

static const uint8_t FILE_MAGIC[MAGIC] = "CSEFIL1";

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

static void store_u64(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < 8; i++) at[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t load_u64(const uint8_t *at)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value |= (uint64_t)at[i] << 8 * i;
    return value;
}

static void header_proof(const struct cse_crypt_keys *keys, const uint8_t *header, uint8_t *out)
{
    crypto_generichash_blake2b(out, HEADER_MAC, header, HEADER - HEADER_MAC, keys->headers,
                               sizeof keys->headers);
}

/* The nonce of a chunk: the file's, with the chunk's number in its last bytes. */
static void chunk_nonce(const uint8_t *header, uint64_t number, uint8_t nonce[NONCE])
{
    memcpy(nonce, header + MAGIC, NONCE);
    store_u64(nonce + NONCE - 8, load_u64(nonce + NONCE - 8) ^ (number + 1));
}

int64_t cse_crypt_plain_size(int64_t sealed)
{
    int64_t data = sealed - HEADER;
    int64_t chunks = (data + CHUNK + TAG - 1) / (CHUNK + TAG);
    return data < 0 || (chunks > 0 && data - (chunks - 1) * (CHUNK + TAG) <= TAG)
               ? -1
               : data - chunks * TAG;
}

/* ---- work shared by threads ------------------------------------------------------------------ */

struct room {
    uint8_t plain[PART], sealed[PART / CHUNK * (CHUNK + TAG)];
};

struct work {
    const struct cse_crypt_keys *keys;
    int plain, sealed;
    uint64_t size;
    uint8_t header[HEADER];
    int (*part)(const struct work *work, uint64_t at, size_t length, struct room *room);
    uint64_t next; /* the first byte that nobody has taken */
    int error;     /* the first */
};

static size_t sealed_length(size_t length)
{
    return length + (length + CHUNK - 1) / CHUNK * TAG;
}

static uint64_t sealed_at(uint64_t at)
{
    return HEADER + at / CHUNK * (CHUNK + TAG);
}

static int seal_part(const struct work *work, uint64_t at, size_t length, struct room *room)
{
    uint8_t nonce[NONCE];
    size_t got, used = 0;
    int error = read_fully(work->plain, room->plain, length, at, &got);
    if (error != 0) return error;
    memset(room->plain + got, 0, length - got); /* shortened meanwhile: its next sealing tells */
    for (size_t from = 0; from < length; from += CHUNK) {
        size_t part = length - from < CHUNK ? length - from : CHUNK;
        chunk_nonce(work->header, (at + from) / CHUNK, nonce);
        crypto_aead_xchacha20poly1305_ietf_encrypt(room->sealed + used, NULL, room->plain + from,
                                                   part, work->header + MAGIC + NONCE, 8, NULL,
                                                   nonce, work->keys->contents);
        used += part + TAG;
    }
    return write_fully(work->sealed, room->sealed, used, sealed_at(at));
}

static int open_part(const struct work *work, uint64_t at, size_t length, struct room *room)
{
    uint8_t nonce[NONCE];
    size_t got, used = 0, wanted = sealed_length(length);
    int error = read_fully(work->sealed, room->sealed, wanted, sealed_at(at), &got);
    if (error != 0 || got != wanted) return error != 0 ? error : EBADMSG;
    for (size_t to = 0; to < length; to += CHUNK) {
        size_t part = length - to < CHUNK ? length - to : CHUNK;
        chunk_nonce(work->header, (at + to) / CHUNK, nonce);
        if (crypto_aead_xchacha20poly1305_ietf_decrypt(
                room->plain + to, NULL, NULL, room->sealed + used, part + TAG,
                work->header + MAGIC + NONCE, 8, nonce, work->keys->contents) != 0)
            return EBADMSG;
        used += part + TAG;
    }
    return write_fully(work->plain, room->plain, length, at);
}

/* Takes parts until none is left. A helper without memory leaves them to the others. */
static void work_on(struct work *work, bool helper)
{
    struct room *room =
        mmap(NULL, sizeof *room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int error = room == MAP_FAILED && !helper ? ENOMEM : 0;
    while (room != MAP_FAILED && error == 0 &&
           __atomic_load_n(&work->error, __ATOMIC_RELAXED) == 0) {
        uint64_t at = __atomic_fetch_add(&work->next, PART, __ATOMIC_RELAXED);
        if (at >= work->size) break;
        error =
            work->part(work, at, work->size - at < PART ? (size_t)(work->size - at) : PART, room);
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

/* ---- whole files ------------------------------------------------------------------------------
 */

int cse_crypt_seal(const struct cse_crypt_keys *keys, int plain, int sealed)
{
    struct stat status;
    if (fstat(plain, &status) != 0) return errno;
    struct work work = {.keys = keys,
                        .plain = plain,
                        .sealed = sealed,
                        .size = (uint64_t)status.st_size,
                        .part = seal_part};
    memcpy(work.header, FILE_MAGIC, MAGIC);
    if (!cse_crypt_random(work.header + MAGIC, NONCE)) return EIO;
    store_u64(work.header + MAGIC + NONCE, work.size);
    header_proof(keys, work.header, work.header + HEADER - HEADER_MAC);
    int error = write_fully(sealed, work.header, HEADER, 0);
    return error != 0 ? error : work_together(&work);
}

int cse_crypt_open(const struct cse_crypt_keys *keys, int sealed, int plain)
{
    uint8_t expected[HEADER_MAC];
    struct work work = {.keys = keys, .plain = plain, .sealed = sealed, .part = open_part};
    struct stat status;
    size_t got;
    if (fstat(sealed, &status) != 0) return errno;
    int error = read_fully(sealed, work.header, HEADER, 0, &got);
    if (error != 0) return error;
    if (got != HEADER || memcmp(work.header, FILE_MAGIC, MAGIC) != 0) return EBADMSG;
    header_proof(keys, work.header, expected);
    work.size = load_u64(work.header + MAGIC + NONCE);
    if (sodium_memcmp(expected, work.header + HEADER - HEADER_MAC, HEADER_MAC) != 0 ||
        work.size > INT64_MAX || cse_crypt_plain_size(status.st_size) != (int64_t)work.size)
        return EBADMSG;
    return work_together(&work);
}
