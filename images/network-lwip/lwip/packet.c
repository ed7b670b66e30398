/* Packets: the one place that every IP packet passes on its way out of the instance or into it.
 *
 * Outgoing packets of both families come from lwIP through cse_netif_output* and cse_loop_output
 * and are given to the way that leads to their destination; arriving ones come from the devices
 * (device.c) through packet_in. What is to see or touch all packets, whatever way they take,
 * belongs here: capture sees what the stack sends before faults touch it, and what has arrived
 * after them. All of it under the lock.
 */
#include "instance.h"
#include "wire.h"

#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/ip.h"

/* True if instruments have taken the packet. */
static bool instruments_took(struct pbuf *p, const struct packet_path *path)
{
    uint32_t hooks = instance->packet_hooks;
    if (path->way == WAY_OUT && (hooks & HOOK_CAPTURE)) capture_packet(p, path);
    return (hooks & HOOK_FAULTS) && fault_take(p, path);
}

err_t packet_send(struct pbuf *p, const struct packet_path *path)
{
    const ip_addr_t *to = &path->target;
    err_t result;
    if (path->link == LINK_LOOP) return netif_loop_output(path->netif, p);
    return wire_output(p, to, &result) ? result : packet_to_tap(p, to);
}

err_t packet_to_tap(struct pbuf *p, const ip_addr_t *to)
{
    instance->arp_until_ms = now_ms() + 5000;
    return IP_IS_V6(to) ? ethip6_output(instance->tap, p, ip_2_ip6(to))
                        : etharp_output(instance->tap, p, ip_2_ip4(to));
}

/* The way that leads to `to`, as far as it is known now. */
static uint8_t link_to(const struct netif *netif, const ip_addr_t *to)
{
    if (netif == instance->loop) return LINK_LOOP;
    return wire_is_up(to) ? LINK_WIRE : LINK_TAP;
}

static err_t packet_out(struct pbuf *p, const struct packet_path *path)
{
    bool looked_at = __builtin_expect(instance->packet_hooks, 0) != 0;
    if (looked_at && instruments_took(p, path)) return ERR_OK;
    return packet_send(p, path);
}

err_t cse_netif_output(struct netif *netif, struct pbuf *p, const ip4_addr_t *dest)
{
    struct packet_path path = {netif, IPADDR4_INIT(dest->addr), WAY_OUT, LINK_TAP};
    path.link = link_to(netif, &path.target);
    return packet_out(p, &path);
}

err_t cse_netif_output_ip6(struct netif *netif, struct pbuf *p, const ip6_addr_t *dest)
{
    struct packet_path path = {.netif = netif, .way = WAY_OUT};
    ip_addr_copy_from_ip6(path.target, *dest);
    path.link = link_to(netif, &path.target);
    return packet_out(p, &path);
}

/* To one of the instance's own addresses. */
err_t cse_loop_output(struct netif *netif, struct pbuf *p)
{
    struct packet_path path = {.netif = netif, .way = WAY_OUT, .link = LINK_LOOP};
    return packet_out(p, &path);
}

void packet_deliver(struct pbuf *p, const struct packet_path *path)
{
    if (instance->packet_hooks & HOOK_CAPTURE) capture_packet(p, path);
    ip_input(p, path->netif);
}

/* For lwIP where it asks an interface for its MTU: the way to `dest` may have another. */
u16_t cse_netif_mtu(const struct netif *netif, const ip4_addr_t *dest)
{
    ip_addr_t to;
    if (netif != instance->tap) return netif->mtu;
    ip_addr_copy_from_ip4(to, *dest);
    return wire_is_up(&to) ? WIRE_MTU : netif->mtu;
}

u16_t cse_netif_mtu6(const struct netif *netif, const ip6_addr_t *dest)
{
    ip_addr_t to;
    if (netif != instance->tap) return netif_mtu6(netif);
    ip_addr_copy_from_ip6(to, *dest);
    return wire_is_up(&to) ? WIRE_MTU : netif_mtu6(netif);
}

/* An IP packet that has arrived, its checksums verified or vouched for; the packet is consumed. */
void packet_in(struct pbuf *p, enum packet_link link)
{
    struct packet_path path = {.netif = instance->tap, .way = WAY_IN, .link = (uint8_t)link};
    bool looked_at = __builtin_expect(instance->packet_hooks, 0) != 0;
    if (looked_at && instruments_took(p, &path))
        pbuf_free(p);
    else
        packet_deliver(p, &path);
}
