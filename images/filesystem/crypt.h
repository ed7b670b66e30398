/* The table between the overlay and the cipher of encrypted stores (libcse-crypt.so, libsodium).
 *
 * The overlay opens the library when an encrypted mount is first used. It owns paths, descriptors
 * and the plain tree on private tmpfs; the implementation turns names and whole files into what
 * lies in the store and back. Format of a store: crypt/crypt.c, crypt/format.c.
 */
#ifndef CSE_FS_CRYPT_H
#define CSE_FS_CRYPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CSE_CRYPT_VERSION = 2,
    CSE_CRYPT_KEY = 32,
    CSE_CRYPT_ID = 16,     /* of a directory */
    CSE_CRYPT_CONFIG = 80, /* bytes of the store's own file */
    CSE_CRYPT_TEXT = 8192, /* room for a name or a link's text, hidden */
    CSE_CRYPT_DIGEST = 44, /* room for the digest that stands for a long name */
};

struct cse_crypt_keys;

struct cse_crypt_provider {
    int version;
    /* A new store's own file; false without random numbers. */
    bool (*make)(const uint8_t key[CSE_CRYPT_KEY], uint8_t config[CSE_CRYPT_CONFIG]);
    /* The keys of a store; NULL: `key` does not open it. */
    struct cse_crypt_keys *(*unlock)(const uint8_t key[CSE_CRYPT_KEY],
                                     const uint8_t config[CSE_CRYPT_CONFIG]);
    bool (*new_id)(uint8_t id[CSE_CRYPT_ID]);
    /* `text` of the directory `id` as printable letters, the same ones each time; false: too long.
     * `kind` parts names from links' texts. */
    bool (*hide)(const struct cse_crypt_keys *keys, const uint8_t id[CSE_CRYPT_ID], char kind,
                 const char *text, char hidden[CSE_CRYPT_TEXT]);
    /* The other way; false when these keys did not hide it so. */
    bool (*show)(const struct cse_crypt_keys *keys, const uint8_t id[CSE_CRYPT_ID], char kind,
                 const char *hidden, char *text, size_t room);
    /* Letters that stand for a hidden name which is too long for a file name. */
    void (*digest)(const char *hidden, char out[CSE_CRYPT_DIGEST]);
    /* The bytes of a file whose sealed form has so many; -1: none has. */
    int64_t (*plain_size)(const struct cse_crypt_keys *keys, int64_t sealed);
    /* Whole files, from the start of one descriptor to another. 0 or errno; EBADMSG: not what was
     * sealed with these keys. */
    int (*seal)(const struct cse_crypt_keys *keys, int plain, int sealed);
    int (*open)(const struct cse_crypt_keys *keys, int sealed, int plain);
};

#define CSE_CRYPT_PROVIDER_SYMBOL "cse_crypt_provider"

#endif
