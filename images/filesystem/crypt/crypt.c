/* The cipher of encrypted stores: names, links' texts and contents, with libsodium.
 *
 * A store's own file holds a random master key, sealed with the user's (XChaCha20-Poly1305); four
 * keys are derived from it. A name is hidden by a synthetic nonce (SIV): the keyed BLAKE2b of
 * directory and name is both its nonce and its proof, so that the same name is found again by
 * computing it. A file is sealed whole, with a nonce of its own each time: a header (magic, nonce,
 * size, keyed BLAKE2b of these) and chunks of 64 KiB, each with its tag (XChaCha20-Poly1305; the
 * chunk's number is in its nonce, the size in what is authenticated). So chunks can be neither
 * exchanged nor left out; a whole older version of a file can be put back unnoticed.
 *
 * Numbers are little-endian, letters base64url without padding. Called through the table in
 * crypt.h.
 */
#include "crypt.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* sodium_init also starts what is not linked here: what is used picks its code for this processor.
 */
int _sodium_runtime_get_cpu_features(void);
int _crypto_generichash_blake2b_pick_best_implementation(void);
int _crypto_onetimeauth_poly1305_pick_best_implementation(void);
int _crypto_stream_chacha20_pick_best_implementation(void);

enum {
    NONCE = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
    TAG = crypto_aead_xchacha20poly1305_ietf_ABYTES,
    MAGIC = 8,
    HEADER = 64,
    HEADER_MAC = HEADER - MAGIC - NONCE - 8,
    CHUNK = 64 << 10,
    SIV = 16,
    CHUNKS_AT_ONCE = 4,
    LETTERS = sodium_base64_VARIANT_URLSAFE_NO_PADDING,
};

static const uint8_t STORE_MAGIC[MAGIC] = "CSESTO1", FILE_MAGIC[MAGIC] = "CSEFIL1";

struct cse_crypt_keys {
    uint8_t names[32], proofs[32], contents[32], headers[32];
};

static void start(void)
{
    static bool done; /* the same each time: no harm in two threads */
    if (done) return;
    _sodium_runtime_get_cpu_features();
    _crypto_generichash_blake2b_pick_best_implementation();
    _crypto_onetimeauth_poly1305_pick_best_implementation();
    _crypto_stream_chacha20_pick_best_implementation();
    done = true;
}

static bool random_bytes(void *out, size_t size)
{
    return syscall(SYS_getrandom, out, size, 0) == (long)size;
}

/* ---- the store ----------------------------------------------------------------------------- */

static bool make(const uint8_t key[CSE_CRYPT_KEY], uint8_t config[CSE_CRYPT_CONFIG])
{
    uint8_t master[CSE_CRYPT_KEY];
    start();
    memcpy(config, STORE_MAGIC, MAGIC);
    if (!random_bytes(master, sizeof master) || !random_bytes(config + MAGIC, NONCE)) return false;
    crypto_aead_xchacha20poly1305_ietf_encrypt(config + MAGIC + NONCE, NULL, master, sizeof master,
                                               config, MAGIC, NULL, config + MAGIC, key);
    sodium_memzero(master, sizeof master);
    return true;
}

static struct cse_crypt_keys *unlock(const uint8_t key[CSE_CRYPT_KEY],
                                     const uint8_t config[CSE_CRYPT_CONFIG])
{
    uint8_t master[CSE_CRYPT_KEY];
    start();
    if (memcmp(config, STORE_MAGIC, MAGIC) != 0 ||
        crypto_aead_xchacha20poly1305_ietf_decrypt(master, NULL, NULL, config + MAGIC + NONCE,
                                                   sizeof master + TAG, config, MAGIC,
                                                   config + MAGIC, key) != 0)
        return NULL;
    struct cse_crypt_keys *keys = malloc(sizeof *keys);
    if (keys != NULL) {
        crypto_kdf_derive_from_key(keys->names, 32, 1, "CSEstore", master);
        crypto_kdf_derive_from_key(keys->proofs, 32, 2, "CSEstore", master);
        crypto_kdf_derive_from_key(keys->contents, 32, 3, "CSEstore", master);
        crypto_kdf_derive_from_key(keys->headers, 32, 4, "CSEstore", master);
    }
    sodium_memzero(master, sizeof master);
    return keys;
}

static bool new_id(uint8_t id[CSE_CRYPT_ID])
{
    return random_bytes(id, CSE_CRYPT_ID);
}

/* ---- names --------------------------------------------------------------------------------- */

static void proof(const struct cse_crypt_keys *keys, const uint8_t id[CSE_CRYPT_ID], char kind,
                  const uint8_t *text, size_t length, uint8_t out[SIV])
{
    crypto_generichash_blake2b_state state;
    crypto_generichash_blake2b_init(&state, keys->proofs, sizeof keys->proofs, SIV);
    crypto_generichash_blake2b_update(&state, id, CSE_CRYPT_ID);
    crypto_generichash_blake2b_update(&state, (const uint8_t *)&kind, 1);
    crypto_generichash_blake2b_update(&state, text, length);
    crypto_generichash_blake2b_final(&state, out, SIV);
}

static void apply(const struct cse_crypt_keys *keys, const uint8_t siv[SIV], uint8_t *text,
                  size_t length)
{
    uint8_t nonce[crypto_stream_xchacha20_NONCEBYTES] = {0};
    memcpy(nonce, siv, SIV);
    crypto_stream_xchacha20_xor(text, text, length, nonce, keys->names);
}

static bool hide(const struct cse_crypt_keys *keys, const uint8_t id[CSE_CRYPT_ID], char kind,
                 const char *text, char hidden[CSE_CRYPT_TEXT])
{
    uint8_t bytes[CSE_CRYPT_TEXT];
    size_t length = strlen(text);
    if (sodium_base64_ENCODED_LEN(SIV + length, LETTERS) > CSE_CRYPT_TEXT) return false;
    memcpy(bytes + SIV, text, length + 1);
    proof(keys, id, kind, bytes + SIV, length, bytes);
    apply(keys, bytes, bytes + SIV, length);
    sodium_bin2base64(hidden, CSE_CRYPT_TEXT, bytes, SIV + length, LETTERS);
    return true;
}

static bool show(const struct cse_crypt_keys *keys, const uint8_t id[CSE_CRYPT_ID], char kind,
                 const char *hidden, char *text, size_t room)
{
    uint8_t bytes[CSE_CRYPT_TEXT], expected[SIV];
    size_t size;
    if (sodium_base642bin(bytes, sizeof bytes, hidden, strlen(hidden), NULL, &size, NULL,
                          LETTERS) != 0 ||
        size < SIV || size - SIV >= room)
        return false;
    apply(keys, bytes, bytes + SIV, size - SIV);
    proof(keys, id, kind, bytes + SIV, size - SIV, expected);
    if (sodium_memcmp(expected, bytes, SIV) != 0) return false;
    memcpy(text, bytes + SIV, size - SIV);
    text[size - SIV] = '\0';
    return strlen(text) == size - SIV;
}

static void digest(const char *hidden, char out[CSE_CRYPT_DIGEST])
{
    uint8_t hash[32];
    start();
    crypto_generichash_blake2b(hash, sizeof hash, (const uint8_t *)hidden, strlen(hidden), NULL, 0);
    sodium_bin2base64(out, CSE_CRYPT_DIGEST, hash, sizeof hash, LETTERS);
}

/* ---- contents ------------------------------------------------------------------------------ */

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

static int64_t plain_size(int64_t sealed)
{
    int64_t data = sealed - HEADER;
    int64_t chunks = (data + CHUNK + TAG - 1) / (CHUNK + TAG);
    return data < 0 || (chunks > 0 && data - (chunks - 1) * (CHUNK + TAG) <= TAG)
               ? -1
               : data - chunks * TAG;
}

struct room {
    uint8_t plain[CHUNKS_AT_ONCE * CHUNK], sealed[CHUNKS_AT_ONCE * (CHUNK + TAG)];
};

static int seal_with(const struct cse_crypt_keys *keys, int plain, int sealed, struct room *room)
{
    uint8_t header[HEADER], nonce[NONCE];
    struct stat status;
    if (fstat(plain, &status) != 0) return errno;
    uint64_t size = (uint64_t)status.st_size, at = HEADER;
    memcpy(header, FILE_MAGIC, MAGIC);
    if (!random_bytes(header + MAGIC, NONCE)) return EIO;
    store_u64(header + MAGIC + NONCE, size);
    header_proof(keys, header, header + HEADER - HEADER_MAC);
    int error = write_fully(sealed, header, HEADER, 0);
    for (uint64_t done = 0; done < size && error == 0;) {
        size_t part = size - done < sizeof room->plain ? (size_t)(size - done) : sizeof room->plain;
        size_t got, used = 0;
        error = read_fully(plain, room->plain, part, done, &got);
        memset(room->plain + got, 0, part - got); /* shortened meanwhile: its next sealing tells */
        for (size_t from = 0; from < part && error == 0; from += CHUNK) {
            size_t length = part - from < CHUNK ? part - from : CHUNK;
            chunk_nonce(header, (done + from) / CHUNK, nonce);
            crypto_aead_xchacha20poly1305_ietf_encrypt(
                room->sealed + used, NULL, room->plain + from, length, header + MAGIC + NONCE, 8,
                NULL, nonce, keys->contents);
            used += length + TAG;
        }
        if (error == 0) error = write_fully(sealed, room->sealed, used, at);
        at += used;
        done += part;
    }
    return error;
}

static int open_with(const struct cse_crypt_keys *keys, int sealed, int plain, struct room *room)
{
    uint8_t header[HEADER], expected[HEADER_MAC], nonce[NONCE];
    struct stat status;
    size_t got;
    if (fstat(sealed, &status) != 0) return errno;
    int error = read_fully(sealed, header, HEADER, 0, &got);
    if (error != 0 || got != HEADER || memcmp(header, FILE_MAGIC, MAGIC) != 0)
        return error != 0 ? error : EBADMSG;
    header_proof(keys, header, expected);
    uint64_t size = load_u64(header + MAGIC + NONCE), at = HEADER;
    if (sodium_memcmp(expected, header + HEADER - HEADER_MAC, HEADER_MAC) != 0 ||
        size > INT64_MAX || plain_size(status.st_size) != (int64_t)size)
        return EBADMSG;
    for (uint64_t done = 0; done < size && error == 0;) {
        size_t part = size - done < sizeof room->plain ? (size_t)(size - done) : sizeof room->plain;
        size_t wanted = part + (part + CHUNK - 1) / CHUNK * TAG, used = 0;
        error = read_fully(sealed, room->sealed, wanted, at, &got);
        if (error == 0 && got != wanted) error = EBADMSG;
        for (size_t to = 0; to < part && error == 0; to += CHUNK) {
            size_t length = part - to < CHUNK ? part - to : CHUNK;
            chunk_nonce(header, (done + to) / CHUNK, nonce);
            if (crypto_aead_xchacha20poly1305_ietf_decrypt(
                    room->plain + to, NULL, NULL, room->sealed + used, length + TAG,
                    header + MAGIC + NONCE, 8, nonce, keys->contents) != 0)
                error = EBADMSG;
            used += length + TAG;
        }
        if (error == 0) error = write_fully(plain, room->plain, part, done);
        at += wanted;
        done += part;
    }
    return error;
}

typedef int whole_file(const struct cse_crypt_keys *, int, int, struct room *);

static int with_room(whole_file *work, const struct cse_crypt_keys *keys, int from, int to)
{
    struct room *room = malloc(sizeof *room);
    if (room == NULL) return ENOMEM;
    int error = work(keys, from, to, room);
    free(room);
    return error;
}

static int seal(const struct cse_crypt_keys *keys, int plain, int sealed)
{
    return with_room(seal_with, keys, plain, sealed);
}

static int open_sealed(const struct cse_crypt_keys *keys, int sealed, int plain)
{
    return with_room(open_with, keys, sealed, plain);
}

/* What libsodium calls where it is given lengths that cannot be; those above are constants. */
void sodium_misuse(void)
{
    __builtin_trap();
}

__attribute__((visibility("default"))) const struct cse_crypt_provider cse_crypt_provider = {
    .version = CSE_CRYPT_VERSION,
    .make = make,
    .unlock = unlock,
    .new_id = new_id,
    .hide = hide,
    .show = show,
    .digest = digest,
    .plain_size = plain_size,
    .seal = seal,
    .open = open_sealed,
};
