/* Names through DNS servers, on the program's own sockets: with the network element linked these
 * are sockets of the private stack. Exported by libcse-dns.so, which the overlay loads at the
 * first name that no file and no peer has. */
#ifndef CSE_DNS_H
#define CSE_DNS_H

#include <stddef.h>
#include <stdint.h>

/* `servers`: comma-separated addresses; NULL for those of /etc/resolv.conf. Addresses are in
 * network byte order. Both return how many were found (0: no such name or address), or -EAGAIN when
 * no server gave an answer, or -ENOMEM. */
int cse_dns_addresses(const char *servers, const char *name, char *canonical, size_t canonical_size,
                      uint32_t *addresses, int room);
int cse_dns_name(const char *servers, uint32_t address, char *name, size_t size);

#endif
