/* What libsodium's configure would write; included by sodium.h (element.mk). */
#ifndef sodium_version_H
#define sodium_version_H
#define SODIUM_VERSION_STRING        "1.0.20"
#define SODIUM_LIBRARY_VERSION_MAJOR 26
#define SODIUM_LIBRARY_VERSION_MINOR 2
#endif
