/* What peers are told after a reset: their connections are gone, which they would else find out
 * when they next send, and one that only waits for an answer never.
 *
 * The list of connections may be torn, so each step of the walk is checked, and their numbers are
 * not relied on: a peer answers what is not exactly in order with an acknowledgement, and gets the
 * right reset for that (RFC 5961). Hardware addresses are kept too, since ARP holds back
 * only a few packets for each. Called by reset.c.
 */
#include "farewell.h"
#include "instance.h"

#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/etharp.h"
#include "lwip/prot/iana.h"

#include <string.h>

static bool in_heap(const struct tcp_pcb *pcb)
{
    uintptr_t at = (uintptr_t)pcb, first = ARENA_BASE + sizeof *instance;
    return at >= first && at <= ARENA_KEPT - sizeof *pcb && at % 8 == 0;
}

/* Before lwIP's state goes. */
void farewell_prepare(struct farewell *all)
{
    all->peer_count = all->neighbour_count = 0;
    const struct tcp_pcb *pcb = tcp_active_pcbs;
    for (uint32_t steps = 0; in_heap(pcb) && steps < PEERS_MAX; steps++, pcb = pcb->next) {
        if (pcb->state < SYN_RCVD || pcb->state > LAST_ACK) continue;
        all->peers[all->peer_count++] = (struct peer){.local = pcb->local_ip,
                                                      .remote = pcb->remote_ip,
                                                      .sent = pcb->snd_nxt,
                                                      .received = pcb->rcv_nxt,
                                                      .local_port = pcb->local_port,
                                                      .remote_port = pcb->remote_port};
    }
    for (size_t i = 0; i < NEIGHBOURS_MAX; i++) {
        ip4_addr_t *address;
        struct netif *netif;
        struct eth_addr *hardware;
        if (etharp_get_entry(i, &address, &netif, &hardware))
            all->neighbours[all->neighbour_count++] = (struct neighbour){*address, *hardware};
    }
}

/* As if the neighbour had answered a question of ours once more. */
static void remember(const struct neighbour *neighbour)
{
    struct netif *netif = instance->tap;
    struct pbuf *p = pbuf_alloc(PBUF_RAW, SIZEOF_ETHARP_HDR, PBUF_RAM);
    if (p == NULL) return;
    struct etharp_hdr *arp = p->payload;
    memset(arp, 0, sizeof *arp);
    arp->hwtype = PP_HTONS(LWIP_IANA_HWTYPE_ETHERNET);
    arp->proto = PP_HTONS(ETHTYPE_IP);
    arp->hwlen = ETH_HWADDR_LEN;
    arp->protolen = sizeof(ip4_addr_t);
    arp->opcode = PP_HTONS(ARP_REPLY);
    memcpy(&arp->shwaddr, &neighbour->hardware, ETH_HWADDR_LEN);
    memcpy(&arp->sipaddr, &neighbour->address, sizeof(ip4_addr_t));
    memcpy(&arp->dhwaddr, netif->hwaddr, ETH_HWADDR_LEN);
    memcpy(&arp->dipaddr, netif_ip4_addr(netif), sizeof(ip4_addr_t));
    etharp_input(p, netif);
}

/* A reset is heard if it is at or ahead of what the peer has received, an empty segment from before
 * that is answered if it is behind: one of them gets through. */
static void part_from(const struct peer *peer)
{
    struct tcp_pcb gone;
    memset(&gone, 0, sizeof gone);
    gone.local_ip = peer->local;
    gone.remote_ip = peer->remote;
    gone.local_port = peer->local_port;
    gone.remote_port = peer->remote_port;
    gone.snd_nxt = peer->sent;
    gone.rcv_nxt = peer->received;
    gone.ttl = (u8_t)instance->default_ttl;
    tcp_rst(NULL, peer->sent, peer->received, &peer->local, &peer->remote, peer->local_port,
            peer->remote_port);
    tcp_keepalive(&gone);
}

/* When it is made anew. */
void farewell_send(const struct farewell *all)
{
    for (uint32_t i = 0; i < all->neighbour_count; i++) remember(&all->neighbours[i]);
    for (uint32_t i = 0; i < all->peer_count; i++) part_from(&all->peers[i]);
}
