/* lwIP as the network element uses it: raw API, no threads, no timers of its own, all state and
 * memory in the application's arena. Included by lwIP's opt.h.
 */
#ifndef CSE_LWIPOPTS_H
#define CSE_LWIPOPTS_H

#include <stdint.h>

#define NO_SYS               1
#define LWIP_TIMERS          0
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_SOCKET          0
#define LWIP_NETCONN         0
/* Only the counters of RFC 1213, for reports (report.c). */
#define LWIP_STATS         1
#define MIB2_STATS         1
#define LWIP_STATS_DISPLAY 0
#define LINK_STATS         0
#define ETHARP_STATS       0
#define IP_STATS           0
#define IPFRAG_STATS       0
#define ICMP_STATS         0
#define UDP_STATS          0
#define TCP_STATS          0
#define MEM_STATS          0
#define MEMP_STATS         0
#define SYS_STATS          0
#define LWIP_SINGLE_NETIF  0

/* Memory comes from the arena (heap.c). */
#define MEM_ALIGNMENT   8
#define MEM_SIZE        (64 * 1024 * 1024)
#define MEMP_MEM_MALLOC 1
#define MEMP_MEM_INIT   1

#define LWIP_IPV4                 1
#define LWIP_ARP                  1
#define ARP_TABLE_SIZE            127
#define ARP_QUEUEING              1
#define ARP_QUEUE_LEN             64
#define LWIP_ICMP                 1
#define LWIP_RAW                  0
#define LWIP_DHCP                 0
#define LWIP_DNS                  0
#define LWIP_IGMP                 1
#define IP_DEFAULT_TTL            64
#define LWIP_ICMP6_HL             64
#define IP_REASSEMBLY             1
#define IP_FRAG                   1
#define IP_REASS_MAX_PBUFS        512
#define LWIP_IP_FRAG_COPY         1
#define LWIP_NETIF_TX_SINGLE_PBUF 0
#define IP_SOF_BROADCAST          1
#define SO_REUSE                  1
#define SO_REUSE_RXTOALL          1
#define LWIP_NETBUF_RECVINFO      0

/* IPv6. Addresses come from the control plane: no autoconfiguration, and no wait for duplicates.
 * Router advertisements are not heard (patch 0040), the gateway is a setting. */
#define LWIP_IPV6                       1
#define LWIP_IPV6_SCOPES                1
#define LWIP_IPV6_AUTOCONFIG            0
#define LWIP_IPV6_SEND_ROUTER_SOLICIT   0
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS   0
#define LWIP_IPV6_NUM_ADDRESSES         3
#define IPV6_FRAG_COPYHEADER            1
#define LWIP_ND6_NUM_NEIGHBORS          127
#define LWIP_ND6_NUM_DESTINATIONS       127
#define LWIP_ND6_TCP_REACHABILITY_HINTS 1
#define LWIP_ND6_QUEUEING               1
#define LWIP_ND6_ALLOW_RA_UPDATES       0
#define LWIP_ND6_ROUTER_DISCOVERY       0
#define LWIP_ND6_NUM_PREFIXES           1
#define LWIP_ND6_NUM_ROUTERS            1

#define LWIP_ETHERNET       1
#define ETH_PAD_SIZE        0
#define PBUF_POOL_BUFSIZE   1600
#define LWIP_NETIF_HOSTNAME 0
#define LWIP_HAVE_LOOPIF    0
#define LWIP_NETIF_LOOPBACK 1
/* Bounded, so that a program that talks to itself cannot fill the arena. */
#define LWIP_LOOPBACK_MAX_PBUFS 4096

/* The device layer makes and checks checksums of TCP and UDP (device.c), or lets the kernel. */
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1

#define LWIP_UDP     1
#define LWIP_UDPLITE 0

/* TCP: sizes are run-time settings, kept with the rest of the state. */
#define LWIP_TCP                       1
#define LWIP_DISABLE_TCP_SANITY_CHECKS 1
#define LWIP_TCP_MSS_AT_RUN_TIME       1
#define LWIP_TCP_SHARED_LISTEN         1
extern uint32_t cse_tcp_mss, cse_tcp_window, cse_tcp_send_buffer;
#define TCP_MSS                  cse_tcp_mss
#define TCP_WND                  cse_tcp_window
#define TCP_SND_BUF              cse_tcp_send_buffer
#define TCP_SND_QUEUELEN         4096
#define TCP_OVERSIZE             1400
#define TCP_WND_UPDATE_THRESHOLD LWIP_MIN((pcb->rcv_most / 4), (cse_tcp_mss * 2))
/* Where a connection's buffers begin (buffers.c); TCP_WND and TCP_SND_BUF are as far as they go. */
#define TCP_WND_START       131072
#define TCP_SND_BUF_START   65536
#define LWIP_WND_SCALE      1
#define TCP_RCV_SCALE       8
#define TCP_QUEUE_OOSEQ     1
#define LWIP_TCP_SACK_OUT   1
#define LWIP_TCP_TIMESTAMPS 1
#define LWIP_TCP_KEEPALIVE  1
#define TCP_LISTEN_BACKLOG  0
#define LWIP_EVENT_API      1
#define LWIP_CALLBACK_API   0
#define LWIP_TCP_RTO_TIME   1000
#define TCP_MSL             30000UL
#define TCP_SYNMAXRTX       6

/* Congestion control is the element's (congestion.c). */
extern uint32_t cse_tcp_initial_window, cse_tcp_delayed_ack_ms, cse_tcp_congestion;
extern uint32_t cse_tcp_rto_least_us;
#define LWIP_TCP_CALC_INITIAL_CWND(mss) (cse_tcp_initial_window * (mss))
#define TCP_DELAYED_ACK_MS              cse_tcp_delayed_ack_ms
#define TCP_CONGESTION_DEFAULT          ((u8_t)cse_tcp_congestion)

/* Ports that are given out, Linux's range. */
#define TCP_LOCAL_PORT_RANGE_START        32768
#define TCP_LOCAL_PORT_RANGE_END          60999
#define TCP_ENSURE_LOCAL_PORT_RANGE(port) ((u16_t)(32768 + (port) % 28231))
#define UDP_LOCAL_PORT_RANGE_START        TCP_LOCAL_PORT_RANGE_START
#define UDP_LOCAL_PORT_RANGE_END          TCP_LOCAL_PORT_RANGE_END
#define UDP_ENSURE_LOCAL_PORT_RANGE(port) TCP_ENSURE_LOCAL_PORT_RANGE(port)

#define LWIP_HOOK_FILENAME "hooks.h"

#endif
