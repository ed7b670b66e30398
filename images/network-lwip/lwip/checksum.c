/* The Internet checksum, eight bytes at a time. Called by lwIP (LWIP_CHKSUM) and device.c. */
#include "lwip/arch.h"

#include <string.h>

/* Sum of 16-bit words in memory order, folded, not complemented (RFC 1071). */
uint16_t cse_lwip_checksum(const void *data, int length)
{
    const unsigned char *at = data;
    uint64_t sum = 0;
    while (length >= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        sum += word;
        sum += sum < word; /* end-around carry */
        at += 8;
        length -= 8;
    }
    if (length > 0) {
        uint64_t word = 0;
        memcpy(&word, at, (size_t)length);
        sum += word;
        sum += sum < word;
    }
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}
