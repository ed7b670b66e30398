/* libFuzzer target of libcse-crypt.so: any bytes as a sealed file, a hidden name and a store's own
 * file; and whatever was sealed, with one byte changed, is never taken for good.
 *
 * Built and run for a while by tests/native/test_fs_fuzz.py.
 */
#include "crypt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

extern const struct cse_crypt_provider cse_crypt_provider;

/* A store of the first format, of the key 0xab, 0xab, … */
static const uint8_t FIRST[CSE_CRYPT_CONFIG] = {
    'C',  'S',  'E',  'S',  'T',  'O',  '1',  0,    0xee, 0xfd, 0x5a, 0x5b, 0xb4, 0x20, 0xcd, 0xad,
    0x72, 0x0e, 0x7f, 0x4e, 0x82, 0xcb, 0x6a, 0x61, 0x76, 0x76, 0x7b, 0x3a, 0xad, 0xfe, 0x72, 0xfc,
    0x2b, 0x51, 0xbd, 0x55, 0xf2, 0xc5, 0x55, 0xf0, 0xc8, 0xd8, 0x13, 0xa2, 0x14, 0x8c, 0x2a, 0x94,
    0xf1, 0x3d, 0x08, 0x2f, 0x3c, 0x62, 0x14, 0x1d, 0x47, 0xcb, 0x61, 0xca, 0x7c, 0xcc, 0x6c, 0x9f,
    0x20, 0x8e, 0xc0, 0xe9, 0x7d, 0x34, 0x7c, 0x60, 0x00, 0xb5, 0x87, 0x25, 0x35, 0xbd, 0xe1, 0xab};

static int file_of(const uint8_t *data, size_t size)
{
    int fd = memfd_create("file", MFD_CLOEXEC);
    if (write(fd, data, size) != (ssize_t)size) abort();
    return fd;
}

static void change_one_byte(const struct cse_crypt_keys *keys, const uint8_t *data, size_t size)
{
    int plain = file_of(data, size), sealed = file_of(NULL, 0), out = file_of(NULL, 0);
    struct stat status;
    uint8_t byte;
    if (cse_crypt_provider.seal(keys, plain, sealed) != 0 || fstat(sealed, &status) != 0) abort();
    if (cse_crypt_provider.plain_size(keys, status.st_size) != (int64_t)size) abort();
    if (cse_crypt_provider.open(keys, sealed, out) != 0) abort();
    off_t at = (off_t)((data[0] | (size > 1 ? data[1] : 0) << 8 | (size > 2 ? data[2] : 0) << 16) %
                       status.st_size);
    if (pread(sealed, &byte, 1, at) != 1) abort();
    byte ^= (uint8_t)(1 << data[0] % 8);
    if (pwrite(sealed, &byte, 1, at) != 1) abort();
    if (cse_crypt_provider.open(keys, sealed, out) != EBADMSG) abort();
    close(plain);
    close(sealed);
    close(out);
}

static void try_with(const struct cse_crypt_keys *keys, const uint8_t *data, size_t size)
{
    static const uint8_t id[CSE_CRYPT_ID] = "of a directory";
    char text[CSE_CRYPT_TEXT], again[CSE_CRYPT_TEXT], plain[4096];
    size_t length = size < sizeof text - 1 ? size : sizeof text - 1;
    memcpy(text, data, length);
    text[length] = '\0';
    if (cse_crypt_provider.show(keys, id, 'n', text, plain, sizeof plain)) abort();
    if (strlen(text) < sizeof plain && cse_crypt_provider.hide(keys, id, 'n', text, again) &&
        (!cse_crypt_provider.show(keys, id, 'n', again, plain, sizeof plain) ||
         strcmp(plain, text) != 0))
        abort();
    int sealed = file_of(data, size), out = file_of(NULL, 0);
    if (cse_crypt_provider.open(keys, sealed, out) == 0) abort();
    close(sealed);
    close(out);
    change_one_byte(keys, data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cse_crypt_keys *keys, *first;
    static const uint8_t key[CSE_CRYPT_KEY] = "a key of thirty-two bytes, fixed";
    uint8_t config[CSE_CRYPT_CONFIG], old[CSE_CRYPT_KEY];
    memset(old, 0xab, sizeof old);
    if (keys == NULL && (!cse_crypt_provider.make(key, config) ||
                         (keys = cse_crypt_provider.unlock(key, config)) == NULL ||
                         (first = cse_crypt_provider.unlock(old, FIRST)) == NULL))
        abort();
    if (size == 0) return 0;
    if (size >= CSE_CRYPT_CONFIG && cse_crypt_provider.unlock(key, data) != NULL) abort();
    try_with(keys, data, size);
    try_with(first, data, size);
    return 0;
}
