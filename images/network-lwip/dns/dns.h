/* Names through DNS servers, on the program's own sockets: with the network element linked these
 * are sockets of the private stack. Exported by libcse-dns.so, which the overlay loads at the
 * first name that no file and no peer has. */
#ifndef CSE_DNS_H
#define CSE_DNS_H

#include "stack.h"

/* `servers`: comma-separated addresses, IPv6 ones in brackets; NULL for those of /etc/resolv.conf.
 * `family`: AF_INET, AF_INET6, or AF_UNSPEC for both. Both return how many were found (0: no such
 * name or address), or -EAGAIN when no server gave an answer, or -ENOMEM. */
int cse_dns_addresses(const char *servers, const char *name, int family, char *canonical,
                      size_t canonical_size, union cse_address *addresses, int room);
int cse_dns_name(const char *servers, const union cse_address *address, char *name, size_t size);

#endif
