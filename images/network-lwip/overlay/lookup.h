/* Names to addresses and back, in the order of this project: what the text says itself, the
 * application's /etc/hosts, the peers known to the broker, DNS through the private stack. */
#ifndef CSE_LOOKUP_H
#define CSE_LOOKUP_H

#include "../stack.h"

enum { LOOKUP_ADDRESSES_MAX = 32, LOOKUP_NAME_MAX = 256 };

struct lookup {
    int count; /* 0: no such name */
    union cse_address addresses[LOOKUP_ADDRESSES_MAX];
    char canonical[LOOKUP_NAME_MAX];
};

/* What text says of itself: an address of either family, its scope included. */
bool lookup_numeric(const char *text, union cse_address *address);
/* 0, or an EAI_* value: EAI_NONAME, EAI_AGAIN, EAI_MEMORY. `family` is AF_UNSPEC for both; the
 * order is that of use. */
int lookup_addresses(const char *name, int family, struct lookup *found);
/* True if this instance has an IPv6 address beside the link-local one. */
bool lookup_has_ipv6(void);
/* The name of an address; the same values. */
int lookup_name(const union cse_address *address, char *name, size_t size);

#endif
