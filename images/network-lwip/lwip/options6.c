/* Socket options of IPv6, as options.c has those of the other levels. */
#include "instance.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

static int put_int(void *value, socklen_t *length, int number)
{
    if (*length > sizeof number) *length = sizeof number;
    memcpy(value, &number, *length);
    return 0;
}

int option6_get(struct sock *s, int name, void *value, socklen_t *length)
{
    if (s->family != AF_INET6) return -EOPNOTSUPP;
    switch (name) {
    case IPV6_V6ONLY: return put_int(value, length, s->v6_only);
    case IPV6_UNICAST_HOPS: return put_int(value, length, s->ttl);
    case IPV6_MTU_DISCOVER: return put_int(value, length, IPV6_PMTUDISC_WANT);
    case IPV6_MTU:
        if (s->state != CONNECTED) return -ENOTCONN;
        return put_int(value, length, instance->mtu);
    default: return -ENOPROTOOPT;
    }
}

/* Before the socket has an address only, as in Linux. */
static int set_v6_only(struct sock *s, bool wanted)
{
    if (s->bound || s->state != FRESH) return -EINVAL;
    s->v6_only = wanted;
    address_any(s, &s->local.ip);
    address_any(s, &s->remote.ip);
    return 0;
}

int option6_set(struct sock *s, int name, const void *value, socklen_t length, int number)
{
    if (s->family != AF_INET6) return -ENOPROTOOPT;
    switch (name) {
    case IPV6_V6ONLY: return set_v6_only(s, number != 0);
    case IPV6_UNICAST_HOPS:
        if (number < -1 || number > 255) return -EINVAL;
        s->ttl = (uint8_t)(number == -1 ? instance->default_ttl : number);
        tcp_apply_options(s);
        return 0;
    case IPV6_MTU_DISCOVER:
    case IPV6_FREEBIND: return 0;
    default: return -ENOPROTOOPT;
    }
}
