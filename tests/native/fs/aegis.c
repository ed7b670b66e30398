/* AEGIS-256 as it is built into libcse-crypt.so: known answers (of libsodium's own tests), from the
 * portable code and from that for this processor, and the two against each other at any length.
 *
 * Linked with the objects of libsodium by test_fs_formats.py. Prints which code was compared.
 */
#include <sodium.h>
#include <sodium/crypto_aead_aegis256.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int _sodium_runtime_get_cpu_features(void);
int _crypto_aead_aegis256_pick_best_implementation(void);
int sodium_runtime_has_armcrypto(void);

enum { ROOM = 4096, TAG = crypto_aead_aegis256_ABYTES };

static const struct {
    const char *key, *nonce, *message, *more, *sealed, *tag;
} KNOWN[] = {
    {"c88bb05b2aec1218e1a5026511e6d44de7bd502588e9e2a01591b39c5ead76ff",
     "4a485f226a73f0c4e16242e8234841cdf6af1771eb278e7f35428d03eb5b4cf0",
     "2a4c06941ec356390542d7d7833fd68fc85a00c0452281f87dee6f10180d02182791232c7007fde35dfd5a90"
     "1afa896296f9f344db717994d078fbd3a4cec8d782d2bdc205f3709827b776fd5c863a952fea97a14a6c2ee3"
     "f20432b8baa084470179078bd6a83597478b2fd9ae00ecb424822cb0d61e9a55a4",
     "38a9809dbdd2579010d38bf5314f255b",
     "b8565db06c2fa493e09b6764f4d09296422095eb6e9890f606654713bfee6f362a123688b61f254f315f18b2"
     "0bcc5ed8b0b4f2224de9f498e3ef03532a8bcddb361f5ace8ff491bab8b3d06550496501264f9f48ebad277e"
     "7492146789d0fc1a3b1e3e81598370a4183683d1fee25a9a1fe359c836932746b9",
     "5d5d35e0299dea47956a2e2143cdace4de8d228784d6717ae5a6bf5ea6b3ed04"},
    {"b8c6e8cea59ca9fd2922530ee61911c1ed1c5af98be8fb03cbb449adcea0ed83",
     "af5bc1abe7bafadee790390277874cdfcc1ac1955f249d1131555d345832f555",
     "b6c15f560be043d06aa27e15d8c901af6b19db7a15e1",
     "d899366a0b4e4d86cce5ba61aca2a84349c8de5757e008e94e7d7a3703",
     "4c8496dfa6c419ef3c4867769a9014bd17118c22eef5",
     "f81ceacaaae6263c33f836fa26d92b0f08eb0796135c7fe312c93add6a208e8a"},
    {"d4ed0fe94cda2be7e50d57833158c84180b4cb7dec95d5ba774b6b5e1b0597bd",
     "cae41ba20bfd124270b76c13d61c1dffd7a42017731546d41aa071c22b9967cc",
     "1cd4b85fa6c14d5adea84ed3167479c1cd18e77792cca73a540aa16a00e50ba62ddd12a62911b21d3ee10865"
     "16937f33ed7756c7ec93b3",
     "35564745c05bc961994ea03764eb02044f9e7b2f6130d6d1f041580d6b3ea7ade2b6e231dacc5e97db01",
     "a1f64f45985a89303d1fdacf6f31ad745a8015350f1afe63d6ecc26677f661addd3c229ed76f4c627b1e902f"
     "8ce8c42fd08baef481e86e",
     "c706b2f13d4e76b4e024a2d72540637a8d9ff5e626d6bffeb7801c58ccab0c2e"},
};

void sodium_misuse(void)
{
    abort();
}

static size_t bytes(const char *hex, unsigned char *out)
{
    size_t length = strlen(hex) / 2;
    for (size_t i = 0; i < length; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], 0};
        out[i] = (unsigned char)strtoul(digits, NULL, 16);
    }
    return length;
}

static void answers(const char *code)
{
    static unsigned char key[32], nonce[32], message[ROOM], more[ROOM], wanted[ROOM], out[ROOM],
        back[ROOM];
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        bytes(KNOWN[i].key, key);
        bytes(KNOWN[i].nonce, nonce);
        size_t length = bytes(KNOWN[i].message, message), beside = bytes(KNOWN[i].more, more);
        bytes(KNOWN[i].tag, wanted + bytes(KNOWN[i].sealed, wanted));
        crypto_aead_aegis256_encrypt(out, NULL, message, length, more, beside, NULL, nonce, key);
        if (memcmp(out, wanted, length + TAG) != 0) {
            printf("%s: answer %zu is wrong\n", code, i);
            exit(1);
        }
        if (crypto_aead_aegis256_decrypt(back, NULL, NULL, out, length + TAG, more, beside, nonce,
                                         key) != 0 ||
            memcmp(back, message, length) != 0) {
            printf("%s: answer %zu is not opened\n", code, i);
            exit(1);
        }
        out[length / 2] ^= 1;
        if (crypto_aead_aegis256_decrypt(back, NULL, NULL, out, length + TAG, more, beside, nonce,
                                         key) == 0) {
            printf("%s: answer %zu is opened though it was changed\n", code, i);
            exit(1);
        }
    }
}

/* Seals 0 … 999 bytes; all of it, behind each other. */
static void many(unsigned char *out)
{
    unsigned char key[32], nonce[32], message[1000];
    for (size_t i = 0; i < sizeof message; i++) message[i] = (unsigned char)(i * 7);
    memset(key, 3, sizeof key);
    memset(nonce, 4, sizeof nonce);
    for (size_t length = 0; length < sizeof message; length++) {
        crypto_aead_aegis256_encrypt(out, NULL, message, length, message, length % 40, NULL, nonce,
                                     key);
        out += length + TAG;
    }
}

int main(void)
{
    static unsigned char portable[1 << 20], fast[1 << 20];
    answers("portable"); /* nothing else is chosen before the processor was looked at */
    many(portable);
    _sodium_runtime_get_cpu_features();
    _crypto_aead_aegis256_pick_best_implementation();
    answers("chosen");
    many(fast);
    if (memcmp(portable, fast, sizeof fast) != 0) {
        puts("portable and chosen code differ");
        return 1;
    }
    puts((sodium_runtime_has_aesni() && sodium_runtime_has_avx()) || sodium_runtime_has_armcrypto()
             ? "aes"
             : "portable");
    return 0;
}
