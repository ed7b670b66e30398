/* Socket options of IPv6, as options.c has those of the other levels. */
#include "instance.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif
#ifndef IPV6_DONTFRAG
#define IPV6_DONTFRAG 62
#endif
#ifndef IPV6_AUTOFLOWLABEL
#define IPV6_AUTOFLOWLABEL 70
#endif
#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif
#ifndef IPV6_ADDR_PREFERENCES
#define IPV6_ADDR_PREFERENCES 72
#endif

static int put_int(void *value, socklen_t *length, int number)
{
    if (*length > sizeof number) *length = sizeof number;
    memcpy(value, &number, *length);
    return 0;
}

static int telling(const struct sock *s, void *value, socklen_t *length, int what)
{
    return put_int(value, length, (s->telling & what) != 0);
}

int option6_get(struct sock *s, int name, void *value, socklen_t *length)
{
    if (s->family != AF_INET6) return -EOPNOTSUPP;
    switch (name) {
    case IPV6_V6ONLY: return put_int(value, length, s->v6_only);
    case IPV6_UNICAST_HOPS: return put_int(value, length, s->hops);
    case IPV6_MULTICAST_HOPS: return put_int(value, length, s->multicast_hops);
    case IPV6_MULTICAST_LOOP: return put_int(value, length, !s->no_multicast_loop6);
    case IPV6_MULTICAST_IF: return put_int(value, length, s->multicast_interface6);
    case IPV6_MULTICAST_ALL: return put_int(value, length, 1);
    case IPV6_TCLASS: return put_int(value, length, s->traffic_class);
    case IPV6_RECVPKTINFO: return telling(s, value, length, CSE_TELL_PKTINFO6);
    case IPV6_RECVHOPLIMIT: return telling(s, value, length, CSE_TELL_HOPLIMIT);
    case IPV6_RECVTCLASS: return telling(s, value, length, CSE_TELL_TCLASS);
    case IPV6_RECVERR: return put_int(value, length, s->receive_error6);
    case IPV6_MTU_DISCOVER: return put_int(value, length, IPV6_PMTUDISC_WANT);
    case IPV6_DONTFRAG:
    case IPV6_FREEBIND: return put_int(value, length, 0);
    case IPV6_AUTOFLOWLABEL: return put_int(value, length, 1);
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

static int set_telling(struct sock *s, int what, int wanted)
{
    s->telling = (uint8_t)(wanted ? s->telling | what : s->telling & ~what);
    return 0;
}

/* A byte with -1 for the default. */
static int set_byte(struct sock *s, uint8_t *place, uint8_t *of_tcp, int number, int otherwise)
{
    if (number < -1 || number > 255) return -EINVAL;
    *place = (uint8_t)(number == -1 ? otherwise : number);
    if (s->kind == KIND_TCP) *of_tcp = *place;
    tcp_apply_options(s);
    return 0;
}

int option6_set(struct sock *s, int name, const void *value, socklen_t length, int number)
{
    if (s->family != AF_INET6) return -ENOPROTOOPT;
    switch (name) {
    case IPV6_V6ONLY: return set_v6_only(s, number != 0);
    case IPV6_UNICAST_HOPS: return set_byte(s, &s->hops, &s->ttl, number, instance->default_ttl);
    case IPV6_TCLASS: return set_byte(s, &s->traffic_class, &s->tos, number, 0);
    case IPV6_RECVPKTINFO: return set_telling(s, CSE_TELL_PKTINFO6, number);
    case IPV6_RECVHOPLIMIT: return set_telling(s, CSE_TELL_HOPLIMIT, number);
    case IPV6_RECVTCLASS: return set_telling(s, CSE_TELL_TCLASS, number);
    case IPV6_RECVERR:
        s->receive_error6 = number != 0;
        if (!s->receive_error6) problem_drop(s);
        return 0;
    case IPV6_MTU_DISCOVER:
    case IPV6_MTU:
    case IPV6_DONTFRAG:
    case IPV6_AUTOFLOWLABEL:
    case IPV6_MULTICAST_ALL:
    case IPV6_ADDR_PREFERENCES:
    case IPV6_FREEBIND: return 0;
    default: return -ENOPROTOOPT;
    }
}
