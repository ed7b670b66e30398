/* Packets: the one place that every IP packet passes on its way out of the instance or into it.
 *
 * Outgoing packets come from lwIP through cse_netif_output and are given to the way that leads to
 * their destination; arriving ones come from the devices (device.c) through packet_in. What is
 * to see or touch all packets, whatever way they take, belongs here. All of it under the lock.
 */
#include "instance.h"

#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/ip.h"

static err_t packet_out(struct netif *netif, struct pbuf *p, const ip_addr_t *dest)
{
    if (netif == instance->loop) return netif_loop_output(netif, p);
    instance->arp_until_ms = now_ms() + 5000;
    return IP_IS_V6(dest) ? ethip6_output(netif, p, ip_2_ip6(dest))
                          : etharp_output(netif, p, ip_2_ip4(dest));
}

err_t cse_netif_output(struct netif *netif, struct pbuf *p, const ip4_addr_t *dest)
{
    ip_addr_t to = IPADDR4_INIT(dest->addr);
    return packet_out(netif, p, &to);
}

err_t cse_netif_output_ip6(struct netif *netif, struct pbuf *p, const ip6_addr_t *dest)
{
    ip_addr_t to;
    ip_addr_copy_from_ip6(to, *dest);
    return packet_out(netif, p, &to);
}

/* An IP packet that has arrived, its checksums verified or vouched for; the packet is consumed. */
void packet_in(struct pbuf *p)
{
    ip_input(p, instance->tap);
}
