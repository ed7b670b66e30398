/* What crypt.c (keys, names), format.c (sealed chunks) and contents.c (whole files) share. */
#ifndef CSE_CRYPT_CONTENTS_H
#define CSE_CRYPT_CONTENTS_H

#include "crypt.h"

enum {
    CSE_CRYPT_MAGIC = 8,
    CSE_CRYPT_HEADER = 64,
    CSE_CRYPT_CHUNK = 64 << 10,
    CSE_CRYPT_TAG_MAX = 32,
    CSE_CRYPT_NONCE_MAX = 32,
};

/* How the files of a store are sealed; the store's own file names it by its first bytes. */
struct cse_crypt_format {
    uint8_t store_magic[CSE_CRYPT_MAGIC], file_magic[CSE_CRYPT_MAGIC];
    size_t nonce, tag; /* bytes of them */
    unsigned subkey;   /* the number of its key among those derived from the master key */
    void (*seal)(uint8_t *out, const uint8_t *plain, size_t length, const uint8_t size[8],
                 const uint8_t *nonce, const uint8_t key[32]);
    bool (*open)(uint8_t *out, const uint8_t *sealed, size_t length, const uint8_t size[8],
                 const uint8_t *nonce, const uint8_t key[32]); /* `length` with the tag */
};

struct cse_crypt_keys {
    const struct cse_crypt_format *format;
    uint8_t names[32], proofs[32], contents[32], headers[32];
};

bool cse_crypt_random(void *out, size_t size);

/* The format that a new store gets on this machine; that of a store's file, NULL: none. */
const struct cse_crypt_format *cse_crypt_new_format(void);
const struct cse_crypt_format *cse_crypt_format_of(const uint8_t magic[CSE_CRYPT_MAGIC]);

/* A new header for a file of `size` bytes; false without random numbers. */
bool cse_crypt_header(const struct cse_crypt_keys *keys, uint64_t size,
                      uint8_t header[CSE_CRYPT_HEADER]);
/* The size that a header tells; -1: it is none that these keys made. */
int64_t cse_crypt_header_size(const struct cse_crypt_keys *keys,
                              const uint8_t header[CSE_CRYPT_HEADER]);
/* Chunk `number` of a file; `length` is that of the plain bytes. */
void cse_crypt_seal_chunk(const struct cse_crypt_keys *keys, const uint8_t *header, uint64_t number,
                          const uint8_t *plain, size_t length, uint8_t *sealed);
bool cse_crypt_open_chunk(const struct cse_crypt_keys *keys, const uint8_t *header, uint64_t number,
                          const uint8_t *sealed, size_t length, uint8_t *plain);

/* As in the table of crypt.h. */
int64_t cse_crypt_plain_size(const struct cse_crypt_keys *keys, int64_t sealed);
int cse_crypt_seal(const struct cse_crypt_keys *keys, int plain, int sealed);
int cse_crypt_open(const struct cse_crypt_keys *keys, int sealed, int plain);

#endif
