/* lwIP's hooks: initial sequence numbers an outsider cannot guess (RFC 6528), the IPv6 gateway. */
#ifndef CSE_LWIP_HOOKS_H
#define CSE_LWIP_HOOKS_H
#include "lwip/ip_addr.h"
u32_t cse_tcp_isn(const ip_addr_t *local_ip, u16_t local_port, const ip_addr_t *remote_ip,
                  u16_t remote_port);
#define LWIP_HOOK_TCP_ISN cse_tcp_isn

struct netif;
const ip6_addr_t *cse_gateway6(struct netif *netif, const ip6_addr_t *destination);
#define LWIP_HOOK_ND6_GET_GW cse_gateway6
#endif
