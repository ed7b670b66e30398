/* What reset.c needs of farewell.c. */
#ifndef CSE_FAREWELL_H
#define CSE_FAREWELL_H

#include "lwip/etharp.h"
#include "lwip/ip_addr.h"

#include <stdint.h>

enum { PEERS_MAX = 65536, NEIGHBOURS_MAX = ARP_TABLE_SIZE };

struct peer {
    ip_addr_t local, remote;
    uint32_t sent, received;
    uint16_t local_port, remote_port;
};

struct neighbour {
    ip4_addr_t address;
    struct eth_addr hardware;
};

struct farewell {
    uint32_t peer_count, neighbour_count;
    struct neighbour neighbours[NEIGHBOURS_MAX];
    struct peer peers[PEERS_MAX];
};

void farewell_prepare(struct farewell *all);
void farewell_send(const struct farewell *all);

#endif
