/* The packet device's filter: instructions that the instance makes and the kernel runs, so that it
 * drops what no socket of the instance could want before the application is woken.
 *
 * Classic BPF, built from the instance's own addresses and the ports that are in use, and attached
 * anew when these have changed: at once for a new port (before a frame leaves from it), at most ten
 * times a second for ports that are free again. ARP, neighbour discovery and ICMP for the own
 * addresses pass. A connection to a port without a socket is not refused but unanswered, as behind
 * a packet filter. Called by packet_ring.c and, where a port is taken or given back, by the
 * sockets.
 */
#include "device.h"

#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/ieee.h"

#include <errno.h>
#include <linux/filter.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

enum {
    PORTS = 65536,
    RANGES_MAX = 128, /* of each protocol; beyond, neighbours are joined */
    INSTRUCTIONS_MAX = 4096,
    REFRESH_MS = 100,
    PASS = 262144,
};

/* In the arena: what the attached filter lets in. */
struct port_set {
    uint64_t bits[PORTS / 64];
};
struct filter_state {
    struct port_set tcp, udp;
    uint64_t refreshed_ms;
};

struct range {
    uint16_t first, last;
};

static struct sock_filter code[INSTRUCTIONS_MAX];
static int length;

static bool has(const struct port_set *set, uint16_t port)
{
    return (set->bits[port / 64] >> (port % 64) & 1) != 0;
}

static void add(struct port_set *set, uint16_t port)
{
    set->bits[port / 64] |= (uint64_t)1 << (port % 64);
}

/* ---- the ports ------------------------------------------------------------------------------ */

static void collect(struct filter_state *state)
{
    memset(&state->tcp, 0, sizeof state->tcp);
    memset(&state->udp, 0, sizeof state->udp);
    for (struct tcp_pcb_listen *pcb = tcp_listen_pcbs.listen_pcbs; pcb != NULL; pcb = pcb->next)
        add(&state->tcp, pcb->local_port);
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        add(&state->tcp, pcb->local_port);
    for (struct tcp_pcb *pcb = tcp_tw_pcbs; pcb != NULL; pcb = pcb->next)
        add(&state->tcp, pcb->local_port);
    for (int slot = 0; slot < UDP_HASH_SLOTS; slot++)
        for (struct udp_pcb *pcb = udp_hash[slot]; pcb != NULL; pcb = pcb->next)
            add(&state->udp, pcb->local_port);
}

static int ranges_with_gap(const struct port_set *set, uint32_t gap, struct range *out)
{
    int count = 0;
    for (uint32_t port = 1; port < PORTS; port++) {
        if (set->bits[port / 64] == 0) {
            port |= 63;
            continue;
        }
        if (!has(set, (uint16_t)port)) continue;
        if (count > 0 && port - out[count - 1].last <= gap) {
            out[count - 1].last = (uint16_t)port;
        } else {
            if (count == RANGES_MAX) return -1;
            out[count++] = (struct range){(uint16_t)port, (uint16_t)port};
        }
    }
    return count;
}

static int ranges_of(const struct port_set *set, struct range *out)
{
    int count = -1;
    for (uint32_t gap = 1; count < 0; gap *= 2) count = ranges_with_gap(set, gap, out);
    return count;
}

/* ---- the instructions ----------------------------------------------------------------------- */

static void emit(uint16_t operation, uint8_t if_true, uint8_t if_false, uint32_t value)
{
    if (length < INSTRUCTIONS_MAX)
        code[length++] = (struct sock_filter){operation, if_true, if_false, value};
}

static void load_byte(uint32_t at)
{
    emit(BPF_LD | BPF_B | BPF_ABS, 0, 0, at);
}

static void load_half(uint32_t at)
{
    emit(BPF_LD | BPF_H | BPF_ABS, 0, 0, at);
}

static void load_word(uint32_t at)
{
    emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, at);
}

static void end(bool pass)
{
    emit(BPF_RET | BPF_K, 0, 0, pass ? PASS : 0);
}

static void pass_if(uint32_t value)
{
    emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, value);
    end(true);
}

static void drop_unless(uint32_t value)
{
    emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, value);
    end(false);
}

/* With the destination port loaded. */
static void judge_port(const struct port_set *set)
{
    struct range ranges[RANGES_MAX];
    int count = ranges_of(set, ranges);
    for (int i = 0; i < count; i++) {
        emit(BPF_JMP | BPF_JGE | BPF_K, 0, 2, ranges[i].first);
        emit(BPF_JMP | BPF_JGT | BPF_K, 1, 0, ranges[i].last);
        end(true);
    }
    end(false);
}

/* A jump over what is emitted between this and `land`. */
static int jump_unless(uint32_t value)
{
    emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, value);
    emit(BPF_JMP | BPF_JA, 0, 0, 0);
    return length - 1;
}

static void land(int jump)
{
    code[jump].k = (uint32_t)(length - jump - 1);
}

/* With the protocol loaded; `load_port` puts the destination port in its place. */
static void judge_transport(const struct filter_state *state, void (*load_port)(void))
{
    int udp = jump_unless(IP_PROTO_TCP);
    load_port();
    judge_port(&state->tcp);
    land(udp);
    int other = jump_unless(IP_PROTO_UDP);
    load_port();
    judge_port(&state->udp);
    land(other);
    end(false);
}

static void load_port4(void)
{
    emit(BPF_LDX | BPF_B | BPF_MSH, 0, 0, ETHERNET_HEADER); /* the IP header's length */
    emit(BPF_LD | BPF_H | BPF_IND, 0, 0, ETHERNET_HEADER + 2);
}

static void load_port6(void)
{
    load_half(ETHERNET_HEADER + 40 + 2);
}

static void judge_ipv4(const struct filter_state *state)
{
    uint32_t own = lwip_ntohl(instance->address);
    uint32_t broadcast = own | ~lwip_ntohl(instance->netmask);
    load_word(ETHERNET_HEADER + 16);
    emit(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, own);
    emit(BPF_JMP | BPF_JEQ | BPF_K, 2, 0, broadcast);
    emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, ~0U);
    end(false);
    load_half(ETHERNET_HEADER + 6);
    emit(BPF_JMP | BPF_JSET | BPF_K, 0, 1, 0x1fff); /* later fragments have no ports */
    end(true);
    load_byte(ETHERNET_HEADER + 9);
    pass_if(IP_PROTO_ICMP);
    judge_transport(state, load_port4);
}

/* Own addresses: what follows is left if the packet is for one of them. */
static void judge_address6(const ip6_addr_t *own)
{
    for (uint32_t word = 0; word < 4; word++) {
        load_word(ETHERNET_HEADER + 24 + 4 * word);
        /* the next address's first instruction lies behind the pass at the end */
        emit(BPF_JMP | BPF_JEQ | BPF_K, 0, (uint8_t)(2 * (3 - word) + 1),
             lwip_ntohl(own->addr[word]));
    }
}

static void judge_ipv6(const struct filter_state *state)
{
    enum { ICMP6 = 58, TCP = 6, UDP = 17 };
    load_byte(ETHERNET_HEADER + 24);
    emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, 0xff); /* groups: discovery only */
    load_byte(ETHERNET_HEADER + 6);
    pass_if(ICMP6);
    int found[LWIP_IPV6_NUM_ADDRESSES], count = 0;
    for (int i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++) {
        if (!ip6_addr_isvalid(netif_ip6_addr_state(instance->tap, i))) continue;
        judge_address6(netif_ip6_addr(instance->tap, i));
        emit(BPF_JMP | BPF_JA, 0, 0, 0);
        found[count++] = length - 1;
    }
    end(false);
    for (int i = 0; i < count; i++) land(found[i]);
    load_byte(ETHERNET_HEADER + 6);
    /* Extension headers, fragments among them: lwIP looks for the port itself. */
    emit(BPF_JMP | BPF_JEQ | BPF_K, 2, 0, TCP);
    emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, UDP);
    end(true);
    judge_transport(state, load_port6);
}

static void build(const struct filter_state *state)
{
    length = 0;
    load_half(12);
    int ipv4 = jump_unless(ETHTYPE_ARP);
    load_word(ETHERNET_HEADER + 24); /* whom it asks for or answers */
    drop_unless(lwip_ntohl(instance->address));
    end(true);
    land(ipv4);
    int ipv6 = jump_unless(ETHTYPE_IP);
    judge_ipv4(state);
    land(ipv6);
    int other = jump_unless(ETHTYPE_IPV6);
    judge_ipv6(state);
    land(other);
    end(false);
}

/* ---- when ----------------------------------------------------------------------------------- */

static int attach_code(void)
{
    struct sock_fprog program = {(unsigned short)length, code};
    long done =
        syscall(SYS_setsockopt, me.tap, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
    return done == 0 ? 0 : -errno;
}

static int attach(void)
{
    struct filter_state *state = instance->filter;
    if (state == NULL) return -ENOMEM;
    collect(state);
    build(state);
    instance->ports_taken = instance->ports_freed = false;
    state->refreshed_ms = now_ms();
    instance->filters_attached++;
    return attach_code();
}

/* A socket has taken a port, or has given it back. */
void filter_ports_changed(bool taken)
{
    if (taken)
        instance->ports_taken = true;
    else
        instance->ports_freed = true;
}

void filter_refresh(void)
{
    struct filter_state *state = instance->filter;
    bool due =
        instance->ports_freed && state != NULL && now_ms() > state->refreshed_ms + REFRESH_MS;
    if ((!instance->ports_taken && !due) || state == NULL) return;
    int failed = attach();
    if (failed != 0) trace("the packet filter was not attached: %d", failed);
}

/* A frame is about to leave: answers to its source port must come in. */
void filter_sees(const char *frame, size_t size)
{
    const uint8_t *at = (const uint8_t *)frame;
    const struct filter_state *state = instance->filter;
    if (state == NULL || size < ETHERNET_HEADER + 20 + 4) return;
    uint16_t kind = (uint16_t)(at[12] << 8 | at[13]);
    const uint8_t *ip = at + ETHERNET_HEADER, *transport = NULL;
    if (kind == ETHTYPE_IP && (ip[0] & 15) == 5) transport = ip + 20;
    if (kind == ETHTYPE_IPV6) transport = ip + 40;
    if (transport == NULL || transport + 4 > at + size) return;
    uint8_t protocol = kind == ETHTYPE_IP ? ip[9] : ip[6];
    uint16_t port = (uint16_t)(transport[0] << 8 | transport[1]);
    if ((protocol == IP_PROTO_TCP && !has(&state->tcp, port)) ||
        (protocol == IP_PROTO_UDP && !has(&state->udp, port)))
        instance->ports_taken = true;
}

/* Nothing comes in before the first own filter. */
int filter_setup(void)
{
    length = 0;
    end(false);
    return attach_code();
}

/* When the instance has its interfaces, also after a reset: its heap is new. */
void filter_start(void)
{
    instance->filter = heap_alloc(sizeof *instance->filter);
    instance->ports_taken = true;
}
