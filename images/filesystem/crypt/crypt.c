/* The cipher of encrypted stores: keys, names and links' texts, with libsodium.
 *
 * A store's own file holds a random master key, sealed with the user's (XChaCha20-Poly1305); four
 * keys are derived from it, that of contents by the store's format (format.c). A name is hidden by
 * a synthetic nonce (SIV): the keyed BLAKE2b of directory and name is both its nonce and its proof,
 * so that the same name is found again by computing it. Contents: contents.c.
 *
 * Letters are base64url without padding. Called through the table in crypt.h.
 */
#include "contents.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* sodium_init also starts what is not linked here: what is used picks its code for this processor.
 */
int _sodium_runtime_get_cpu_features(void);
int _crypto_aead_aegis256_pick_best_implementation(void);
int _crypto_generichash_blake2b_pick_best_implementation(void);
int _crypto_onetimeauth_poly1305_pick_best_implementation(void);
int _crypto_stream_chacha20_pick_best_implementation(void);

enum {
    NONCE = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
    TAG = crypto_aead_xchacha20poly1305_ietf_ABYTES,
    MAGIC = CSE_CRYPT_MAGIC,
    SIV = 16,
    LETTERS = sodium_base64_VARIANT_URLSAFE_NO_PADDING,
};

static void start(void)
{
    static bool done; /* the same each time: no harm in two threads */
    if (done) return;
    _sodium_runtime_get_cpu_features();
    _crypto_aead_aegis256_pick_best_implementation();
    _crypto_generichash_blake2b_pick_best_implementation();
    _crypto_onetimeauth_poly1305_pick_best_implementation();
    _crypto_stream_chacha20_pick_best_implementation();
    done = true;
}

bool cse_crypt_random(void *out, size_t size)
{
    return syscall(SYS_getrandom, out, size, 0) == (long)size;
}

/* ---- the store ----------------------------------------------------------------------------- */

static bool make(const uint8_t key[CSE_CRYPT_KEY], uint8_t config[CSE_CRYPT_CONFIG])
{
    uint8_t master[CSE_CRYPT_KEY];
    start();
    memcpy(config, cse_crypt_new_format()->store_magic, MAGIC);
    if (!cse_crypt_random(master, sizeof master) || !cse_crypt_random(config + MAGIC, NONCE))
        return false;
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
    const struct cse_crypt_format *format = cse_crypt_format_of(config);
    if (format == NULL || crypto_aead_xchacha20poly1305_ietf_decrypt(
                              master, NULL, NULL, config + MAGIC + NONCE, sizeof master + TAG,
                              config, MAGIC, config + MAGIC, key) != 0)
        return NULL;
    struct cse_crypt_keys *keys = malloc(sizeof *keys);
    if (keys != NULL) {
        keys->format = format;
        crypto_kdf_derive_from_key(keys->names, 32, 1, "CSEstore", master);
        crypto_kdf_derive_from_key(keys->proofs, 32, 2, "CSEstore", master);
        crypto_kdf_derive_from_key(keys->contents, 32, format->subkey, "CSEstore", master);
        crypto_kdf_derive_from_key(keys->headers, 32, 4, "CSEstore", master);
    }
    sodium_memzero(master, sizeof master);
    return keys;
}

static bool new_id(uint8_t id[CSE_CRYPT_ID])
{
    return cse_crypt_random(id, CSE_CRYPT_ID);
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
    .plain_size = cse_crypt_plain_size,
    .seal = cse_crypt_seal,
    .open = cse_crypt_open,
};
