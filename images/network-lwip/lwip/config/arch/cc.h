/* Compiler and platform, as lwIP wants to know them. Included by lwIP's arch.h. */
#ifndef CSE_LWIP_CC_H
#define CSE_LWIP_CC_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

/* A failed assertion is traced and marks the instance broken; the host process lives on. */
void cse_lwip_assertion(const char *message);
uint32_t cse_lwip_random(void);

#define LWIP_PLATFORM_DIAG(x)
#define LWIP_PLATFORM_ASSERT(x)               cse_lwip_assertion(x)
#define LWIP_RAND()                           cse_lwip_random()
#define LWIP_NO_CTYPE_H                       0
#define LWIP_DONT_PROVIDE_BYTEORDER_FUNCTIONS 0
#define LWIP_CHKSUM                           cse_lwip_checksum
uint16_t cse_lwip_checksum(const void *data, int length);

#endif
