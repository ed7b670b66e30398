/* The settings that an instance begins with, and their bounds.
 *
 * The control plane checks settings against element.json before it writes them, what is given by
 * hand as CSE_NETWORK_<KEY> nobody has looked at: an instance is made of good settings only, and
 * what is wrong with one is reported by its name. Called by instance.c, and for the bounds by
 * tune.c.
 */
#include "instance.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct bound {
    const char *key;
    long least, most;
} bounds[] = {
    {"prefix", 0, 32},
    {"prefix6", 0, 128},
    {"mtu", 576, 65520}, /* element.json says 1280; a network may have less */
    {"network_mtu", 576, 65520},
    {"mss", 536, 65480},
    {"spin", 0, 100000},
    {"ttl", 1, 255},
    {"receive_buffer", 4096, 16 << 20},
    {"send_buffer", 4096, 16 << 20},
    {"initial_window", 1, 1000},
    {"delayed_ack", 0, 500},
    {"rto_min", 5, 10000},
    {"keepalive.idle", 1, 32767},
    {"keepalive.interval", 1, 32767},
    {"keepalive.probes", 1, 127},
};
enum { BOUNDS = sizeof bounds / sizeof *bounds };

static const struct word {
    const char *key, *words[2];
} words[] = {
    {"mode", {"direct", "relay"}},
    {"congestion", {"cubic", "reno"}},
    {"transport", {"tap", "packet"}},
};

static const struct named_address {
    const char *key;
    int family;
} addresses[] = {
    {"address", AF_INET}, {"gateway", AF_INET}, {"address6", AF_INET6}, {"gateway6", AF_INET6}};

/* ---- judging ----------------------------------------------------------------------------------
 */

static bool is_number(const char *text, long *number)
{
    char *end;
    errno = 0;
    *number = strtol(text, &end, 10);
    return *text != '\0' && *end == '\0' && errno == 0;
}

static bool read_mac(const char *text, uint8_t *mac)
{
    unsigned part[6];
    char more;
    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", part, part + 1, part + 2, part + 3, part + 4,
               part + 5, &more) != 6)
        return false;
    for (int i = 0; i < 6; i++) mac[i] = (uint8_t)part[i];
    return true;
}

/* "network: setting mtu (CSE_NETWORK_MTU) is '99999', must be a number from 576 to 65520" */
static bool wrong(const char *key, const char *value, const char *must)
{
    char variable[32], line[512];
    size_t length = 0;
    for (; key[length] != '\0' && length + 1 < sizeof variable; length++)
        variable[length] = (char)(key[length] == '.'                         ? '_'
                                  : key[length] >= 'a' && key[length] <= 'z' ? key[length] - 32
                                                                             : key[length]);
    variable[length] = '\0';
    snprintf(line, sizeof line, "network: setting %s (CSE_NETWORK_%s) is '%.100s', must be %s", key,
             variable, value, must);
    host->report(line);
    return false;
}

static bool numbers_good(void)
{
    for (size_t i = 0; i < BOUNDS; i++) {
        const char *text = host->setting(bounds[i].key);
        long number;
        char must[64];
        if (text == NULL ||
            (is_number(text, &number) && number >= bounds[i].least && number <= bounds[i].most))
            continue;
        snprintf(must, sizeof must, "a number from %ld to %ld", bounds[i].least, bounds[i].most);
        return wrong(bounds[i].key, text, must);
    }
    return true;
}

static bool words_good(void)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const char *text = host->setting(words[i].key);
        char must[64];
        if (text == NULL || strcmp(text, words[i].words[0]) == 0 ||
            strcmp(text, words[i].words[1]) == 0)
            continue;
        snprintf(must, sizeof must, "%s or %s", words[i].words[0], words[i].words[1]);
        return wrong(words[i].key, text, must);
    }
    return true;
}

static bool addresses_good(void)
{
    uint8_t ignored[sizeof(struct in6_addr)];
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        const char *text = host->setting(addresses[i].key);
        if (text != NULL && inet_pton(addresses[i].family, text, ignored) != 1)
            return wrong(addresses[i].key, text,
                         addresses[i].family == AF_INET ? "an IPv4 address" : "an IPv6 address");
    }
    if (host->setting("address") == NULL) return wrong("address", "", "an IPv4 address");
    const char *mac = host->setting("mac");
    return mac == NULL || read_mac(mac, ignored) ||
           wrong("mac", mac, "a hardware address (02:c5:00:00:00:01)");
}

bool settings_good(void)
{
    return numbers_good() && words_good() && addresses_good();
}

/* ---- reading ----------------------------------------------------------------------------------
 */

long setting_clamped(const char *key, long value)
{
    for (size_t i = 0; i < BOUNDS; i++)
        if (strcmp(bounds[i].key, key) == 0)
            return LWIP_MAX(bounds[i].least, LWIP_MIN(value, bounds[i].most));
    return value;
}

long setting_bounded(const char *key, long otherwise)
{
    return setting_clamped(key, host->setting_number(key, otherwise));
}

static uint32_t address_of(const char *key)
{
    const char *text = host->setting(key);
    struct in_addr address;
    return text != NULL && inet_pton(AF_INET, text, &address) == 1 ? address.s_addr : 0;
}

static void take_address6(const char *key, ip6_addr_t *out)
{
    const char *text = host->setting(key);
    struct in6_addr address;
    ip6_addr_set_zero(out);
    if (text == NULL || inet_pton(AF_INET6, text, &address) != 1) return;
    memcpy(out->addr, &address, sizeof out->addr);
}

static void take_mac(void)
{
    const char *text = host->setting("mac");
    if (text != NULL && read_mac(text, instance->mac)) return;
    uint32_t random = cse_lwip_random();
    instance->mac[0] = 0x02; /* locally administered */
    instance->mac[1] = 0xc5;
    memcpy(instance->mac + 2, &random, 4);
}

void instance_read_settings(void)
{
    const char *name = host->setting("name");
    snprintf(instance->name, sizeof instance->name, "%s", name != NULL ? name : "");
    instance->address = address_of("address");
    long prefix = setting_bounded("prefix", 24);
    instance->netmask = htonl(prefix == 0 ? 0 : ~(uint32_t)0 << (32 - prefix));
    instance->gateway = address_of("gateway");
    take_address6("address6", &instance->address6);
    take_address6("gateway6", &instance->gateway6);
    instance->prefix6 = (uint8_t)setting_bounded("prefix6", 64);
    instance->mtu = (uint16_t)setting_bounded("mtu", 1500);
    instance->largest_mtu = (uint16_t)setting_bounded("network_mtu", instance->mtu);
    if (instance->mtu > instance->largest_mtu) instance->mtu = instance->largest_mtu;
    instance->spin_us = (uint32_t)setting_bounded("spin", 100);
    take_mac();
    instance->default_ttl = (int)setting_bounded("ttl", 64);
    instance->receive_buffer = (int)setting_bounded("receive_buffer", 4 << 20);
    instance->send_buffer = (int)setting_bounded("send_buffer", 4 << 20);
    const char *mode = host->setting("mode");
    instance->direct_mode = mode == NULL || strcmp(mode, "relay") != 0;
    instance->keep_idle = (int)setting_bounded("keepalive.idle", 7200);
    instance->keep_interval = (int)setting_bounded("keepalive.interval", 75);
    instance->keep_count = (int)setting_bounded("keepalive.probes", 9);
}
