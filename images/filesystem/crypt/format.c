/* How the bytes of an encrypted file lie in its store.
 *
 * A file is a header of 64 bytes (magic, nonce, size, keyed BLAKE2b of these in what is left) and
 * chunks of 64 KiB, each with its tag. The nonce is a new one at each sealing; a chunk's is the
 * file's with the chunk's number in its last bytes, and the file's size is authenticated with each.
 * So chunks can be neither exchanged nor left out; a whole older version of a file can be put back
 * unnoticed. Numbers are little-endian.
 *
 * There are two formats, a store has one of them for all its files: AEGIS-256 (RFC draft
 * irtf-cfrg-aegis-aead), whose rounds are those of AES, and XChaCha20-Poly1305. Where the processor
 * has instructions for AES the first is six times as fast, elsewhere the second is; so a new store
 * gets what is faster where it is made. Either opens on every machine. Called by contents.c and, to
 * know a store's format, by crypt.c.
 */
#include "contents.h"

#include <sodium.h>
#include <sodium/crypto_aead_aegis256.h>
#include <string.h>

/* Not in the installed headers of this version: it came with AEGIS. */
int sodium_runtime_has_armcrypto(void);

static void seal_aegis(uint8_t *out, const uint8_t *plain, size_t length, const uint8_t size[8],
                       const uint8_t *nonce, const uint8_t key[32])
{
    crypto_aead_aegis256_encrypt(out, NULL, plain, length, size, 8, NULL, nonce, key);
}

static bool open_aegis(uint8_t *out, const uint8_t *sealed, size_t length, const uint8_t size[8],
                       const uint8_t *nonce, const uint8_t key[32])
{
    return crypto_aead_aegis256_decrypt(out, NULL, NULL, sealed, length, size, 8, nonce, key) == 0;
}

static void seal_chacha(uint8_t *out, const uint8_t *plain, size_t length, const uint8_t size[8],
                        const uint8_t *nonce, const uint8_t key[32])
{
    crypto_aead_xchacha20poly1305_ietf_encrypt(out, NULL, plain, length, size, 8, NULL, nonce, key);
}

static bool open_chacha(uint8_t *out, const uint8_t *sealed, size_t length, const uint8_t size[8],
                        const uint8_t *nonce, const uint8_t key[32])
{
    return crypto_aead_xchacha20poly1305_ietf_decrypt(out, NULL, NULL, sealed, length, size, 8,
                                                      nonce, key) == 0;
}

static const struct cse_crypt_format CHACHA = {
    .store_magic = "CSESTO1",
    .file_magic = "CSEFIL1",
    .nonce = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
    .tag = crypto_aead_xchacha20poly1305_ietf_ABYTES,
    .subkey = 3,
    .seal = seal_chacha,
    .open = open_chacha,
};
static const struct cse_crypt_format AEGIS = {
    .store_magic = "CSESTO2",
    .file_magic = "CSEFIL2",
    .nonce = crypto_aead_aegis256_NPUBBYTES,
    .tag = crypto_aead_aegis256_ABYTES,
    .subkey = 5,
    .seal = seal_aegis,
    .open = open_aegis,
};

const struct cse_crypt_format *cse_crypt_new_format(void)
{
    bool aes =
        (sodium_runtime_has_aesni() && sodium_runtime_has_avx()) || sodium_runtime_has_armcrypto();
    return aes ? &AEGIS : &CHACHA;
}

const struct cse_crypt_format *cse_crypt_format_of(const uint8_t magic[CSE_CRYPT_MAGIC])
{
    if (memcmp(magic, AEGIS.store_magic, CSE_CRYPT_MAGIC) == 0) return &AEGIS;
    return memcmp(magic, CHACHA.store_magic, CSE_CRYPT_MAGIC) == 0 ? &CHACHA : NULL;
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

/* ---- the header ------------------------------------------------------------------------------ */

/* Where the size is in a header; the proof comes behind it. */
static size_t size_at(const struct cse_crypt_format *format)
{
    return CSE_CRYPT_MAGIC + format->nonce;
}

static void header_proof(const struct cse_crypt_keys *keys, const uint8_t *header, uint8_t *out)
{
    size_t before = size_at(keys->format) + 8;
    crypto_generichash_blake2b(out, CSE_CRYPT_HEADER - before, header, before, keys->headers,
                               sizeof keys->headers);
}

bool cse_crypt_header(const struct cse_crypt_keys *keys, uint64_t size,
                      uint8_t header[CSE_CRYPT_HEADER])
{
    const struct cse_crypt_format *format = keys->format;
    memcpy(header, format->file_magic, CSE_CRYPT_MAGIC);
    if (!cse_crypt_random(header + CSE_CRYPT_MAGIC, format->nonce)) return false;
    store_u64(header + size_at(format), size);
    header_proof(keys, header, header + size_at(format) + 8);
    return true;
}

int64_t cse_crypt_header_size(const struct cse_crypt_keys *keys,
                              const uint8_t header[CSE_CRYPT_HEADER])
{
    uint8_t expected[CSE_CRYPT_HEADER];
    size_t before = size_at(keys->format) + 8;
    if (memcmp(header, keys->format->file_magic, CSE_CRYPT_MAGIC) != 0) return -1;
    header_proof(keys, header, expected);
    if (sodium_memcmp(expected, header + before, CSE_CRYPT_HEADER - before) != 0) return -1;
    return (int64_t)load_u64(header + size_at(keys->format));
}

int64_t cse_crypt_plain_size(const struct cse_crypt_keys *keys, int64_t sealed)
{
    int64_t tag = (int64_t)keys->format->tag, each = CSE_CRYPT_CHUNK + tag;
    int64_t data = sealed - CSE_CRYPT_HEADER, chunks = (data + each - 1) / each;
    return data < 0 || (chunks > 0 && data - (chunks - 1) * each <= tag) ? -1 : data - chunks * tag;
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static void chunk_nonce(const struct cse_crypt_format *format, const uint8_t *header,
                        uint64_t number, uint8_t nonce[CSE_CRYPT_NONCE_MAX])
{
    memcpy(nonce, header + CSE_CRYPT_MAGIC, format->nonce);
    uint8_t *last = nonce + format->nonce - 8;
    store_u64(last, load_u64(last) ^ (number + 1));
}

void cse_crypt_seal_chunk(const struct cse_crypt_keys *keys, const uint8_t *header, uint64_t number,
                          const uint8_t *plain, size_t length, uint8_t *sealed)
{
    uint8_t nonce[CSE_CRYPT_NONCE_MAX];
    chunk_nonce(keys->format, header, number, nonce);
    keys->format->seal(sealed, plain, length, header + size_at(keys->format), nonce,
                       keys->contents);
}

bool cse_crypt_open_chunk(const struct cse_crypt_keys *keys, const uint8_t *header, uint64_t number,
                          const uint8_t *sealed, size_t length, uint8_t *plain)
{
    uint8_t nonce[CSE_CRYPT_NONCE_MAX];
    chunk_nonce(keys->format, header, number, nonce);
    return keys->format->open(plain, sealed, length + keys->format->tag,
                              header + size_at(keys->format), nonce, keys->contents);
}
