/* Names to addresses and back, in the order of this project: what the text says itself, the
 * application's /etc/hosts, the peers known to the broker, DNS through the private stack. */
#ifndef CSE_LOOKUP_H
#define CSE_LOOKUP_H

#include <stddef.h>
#include <stdint.h>

enum { LOOKUP_ADDRESSES_MAX = 32, LOOKUP_NAME_MAX = 256 };

struct lookup {
    int count;                                /* 0: no such name */
    uint32_t addresses[LOOKUP_ADDRESSES_MAX]; /* network byte order */
    char canonical[LOOKUP_NAME_MAX];
};

/* 0, or an EAI_* value: EAI_NONAME, EAI_AGAIN, EAI_MEMORY. */
int lookup_addresses(const char *name, struct lookup *found);
/* The name of an address; the same values. */
int lookup_name(uint32_t address, char *name, size_t size);

#endif
