/* What an IP packet says about itself, and addresses as 16 bytes (IPv4 as ::ffff:a.b.c.d), so that
 * faults and reports need not care for the family. For fault.c, capture.c and report.c. */
#include "instance.h"

#include <arpa/inet.h>
#include <string.h>

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool read_ip(const uint8_t *bytes, uint16_t length, struct packet_names *names)
{
    names->version = bytes[0] >> 4;
    if (names->version == 4 && length >= 20) {
        names->header = (uint16_t)((bytes[0] & 15) * 4);
        names->protocol = bytes[9];
        memcpy(names->source, mapped, 12);
        memcpy(names->target, mapped, 12);
        memcpy(names->source + 12, bytes + 12, 4);
        memcpy(names->target + 12, bytes + 16, 4);
        return true;
    }
    if (names->version == 6 && length >= 40) {
        names->header = 40;
        names->protocol = bytes[6];
        memcpy(names->source, bytes + 8, 16);
        memcpy(names->target, bytes + 24, 16);
        return true;
    }
    return false;
}

bool packet_read_names(const struct pbuf *p, struct packet_names *names)
{
    uint8_t bytes[80];
    uint16_t length = pbuf_copy_partial(p, bytes, sizeof bytes, 0);
    memset(names, 0, sizeof *names);
    if (length < 20 || !read_ip(bytes, length, names)) return false;
    bool later_fragment = names->version == 4 && ((bytes[6] & 0x1f) != 0 || bytes[7] != 0);
    if (!later_fragment && length > names->header) names->icmp_type = bytes[names->header];
    if (later_fragment || length < names->header + 14) return true;
    if (names->protocol != IP_PROTO_TCP && names->protocol != IP_PROTO_UDP) return true;
    const uint8_t *ports = bytes + names->header;
    names->source_port = (uint16_t)(ports[0] << 8 | ports[1]);
    names->target_port = (uint16_t)(ports[2] << 8 | ports[3]);
    if (names->protocol == IP_PROTO_TCP) {
        memcpy(&names->sequence, ports + 4, 4);
        names->sequence = ntohl(names->sequence);
        names->tcp_flags = ports[13];
    }
    return true;
}

void packet_address(ip_addr_t *out, const uint8_t *bytes)
{
    memset(out, 0, sizeof *out);
    if (memcmp(bytes, mapped, sizeof mapped) == 0) {
        IP_SET_TYPE(out, IPADDR_TYPE_V4);
        memcpy(&ip_2_ip4(out)->addr, bytes + 12, 4);
    } else {
        IP_SET_TYPE(out, IPADDR_TYPE_V6);
        memcpy(ip_2_ip6(out)->addr, bytes, 16);
    }
}

void packet_address_bytes(const ip_addr_t *address, uint8_t *bytes)
{
    if (IP_IS_V6(address)) {
        memcpy(bytes, ip_2_ip6(address)->addr, 16);
        return;
    }
    memcpy(bytes, mapped, 12);
    memcpy(bytes + 12, &ip_2_ip4(address)->addr, 4);
}

/* `text` is an IPv4 or IPv6 address. */
bool packet_address_read(const char *text, uint8_t *bytes)
{
    memcpy(bytes, mapped, 12);
    return inet_pton(AF_INET, text, bytes + 12) == 1 || inet_pton(AF_INET6, text, bytes) == 1;
}
