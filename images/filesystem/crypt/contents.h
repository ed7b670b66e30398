/* What crypt.c (keys, names) and contents.c (whole files) share. */
#ifndef CSE_CRYPT_CONTENTS_H
#define CSE_CRYPT_CONTENTS_H

#include "crypt.h"

struct cse_crypt_keys {
    uint8_t names[32], proofs[32], contents[32], headers[32];
};

bool cse_crypt_random(void *out, size_t size);
/* As in the table of crypt.h. */
int64_t cse_crypt_plain_size(int64_t sealed);
int cse_crypt_seal(const struct cse_crypt_keys *keys, int plain, int sealed);
int cse_crypt_open(const struct cse_crypt_keys *keys, int sealed, int plain);

#endif
