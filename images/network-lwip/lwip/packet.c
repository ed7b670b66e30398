/* Packets: the one place that every IP packet passes on its way out of the instance or into it.
 *
 * Outgoing packets come from lwIP through cse_netif_output and are given to the way that leads to
 * their destination; arriving ones come from the devices (device.c) through packet_in. What is
 * to see or touch all packets, whatever way they take, belongs here. All of it under the lock.
 */
#include "instance.h"

#include "lwip/etharp.h"
#include "lwip/ip4.h"

err_t cse_netif_output(struct netif *netif, struct pbuf *p, const ip4_addr_t *dest)
{
    if (netif == instance->loop) return netif_loop_output(netif, p);
    instance->arp_until_ms = now_ms() + 5000;
    return etharp_output(netif, p, dest);
}

/* An IP packet that has arrived, its checksums verified or vouched for; the packet is consumed. */
void packet_in(struct pbuf *p)
{
    ip4_input(p, instance->tap);
}
