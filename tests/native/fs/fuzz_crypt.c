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
    if (cse_crypt_provider.plain_size(status.st_size) != (int64_t)size) abort();
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cse_crypt_keys *keys;
    static const uint8_t key[CSE_CRYPT_KEY] = "a key of thirty-two bytes, fixed";
    uint8_t config[CSE_CRYPT_CONFIG];
    char text[CSE_CRYPT_TEXT], again[CSE_CRYPT_TEXT], plain[4096];
    if (keys == NULL && (!cse_crypt_provider.make(key, config) ||
                         (keys = cse_crypt_provider.unlock(key, config)) == NULL))
        abort();
    if (size == 0) return 0;
    if (size >= CSE_CRYPT_CONFIG && cse_crypt_provider.unlock(key, data) != NULL) abort();
    size_t length = size < sizeof text - 1 ? size : sizeof text - 1;
    memcpy(text, data, length);
    text[length] = '\0';
    if (cse_crypt_provider.show(keys, key, 'n', text, plain, sizeof plain)) abort();
    if (strlen(text) < sizeof plain && cse_crypt_provider.hide(keys, key, 'n', text, again) &&
        (!cse_crypt_provider.show(keys, key, 'n', again, plain, sizeof plain) ||
         strcmp(plain, text) != 0))
        abort();
    int sealed = file_of(data, size), out = file_of(NULL, 0);
    if (cse_crypt_provider.open(keys, sealed, out) == 0) abort();
    close(sealed);
    close(out);
    change_one_byte(keys, data, size);
    return 0;
}
