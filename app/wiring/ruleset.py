"""The sets and fixed rules of an installation's two tables, `inet cse_<id>` and `bridge cse_<id>`.

Used by `filters`, which fills the sets. A bridge hands a broadcast to every port, and looks at
these rules for each: with a thousand applications that is a thousand times the work, and a wake-up
each where it is let through. So what one application sends and only one other needs (a question for
an address) is turned to that one by its MAC before the bridge floods it, and what nobody needs (who
listens to which group, for routers of multicasts) ends there.
"""

from __future__ import annotations

from app.wiring.nfnetlink import (
    BYTES16,
    ETHER,
    IFNAME,
    IPV4,
    IPV6,
    MARK,
    PROTOCOL,
    SERVICE,
    Type,
)

SETS: list[tuple[str, str, tuple[Type, ...], tuple[Type, ...], bool]] = [
    ("inet", "bridges", (IFNAME,), (), False),
    ("inet", "same", (IFNAME, IFNAME), (), False),
    ("inet", "nat_subnets", (IPV4,), (), True),
    ("inet", "published", (PROTOCOL, SERVICE), (IPV4, SERVICE), False),
    ("inet", "published_at", (IPV4, PROTOCOL, SERVICE), (IPV4, SERVICE), False),
    ("inet", "nat_subnets6", (IPV6,), (), True),
    ("inet", "published6", (PROTOCOL, SERVICE), (IPV6, SERVICE), False),
    ("bridge", "homes", (IFNAME,), (MARK,), False),
    ("bridge", "closed", (MARK,), (), False),
    ("bridge", "pairs", (MARK, IFNAME, IFNAME), (), False),
    ("bridge", "members", (MARK, IPV4), (), False),
    ("bridge", "members6", (MARK, IPV6), (), False),
    ("bridge", "ports", (IFNAME,), (), False),
    ("bridge", "allowed", (IFNAME, ETHER, IPV4), (), False),
    ("bridge", "allowed6", (IFNAME, ETHER, IPV6), (), False),
    ("bridge", "owners6", (BYTES16,), (MARK,), False),
    ("bridge", "numbers6", (IFNAME, MARK), (), False),
    ("bridge", "macs", (IFNAME, ETHER), (), False),
    ("bridge", "targets", (IFNAME, IPV4), (), False),
    ("bridge", "hosts", (IPV4,), (ETHER,), False),
    ("bridge", "hosts6", (BYTES16,), (ETHER,), False),
]
"""(family, name, key, data, whether its members are intervals)."""

RULES = """
add chain inet {t} raw {{ type filter hook prerouting priority -300; }}
add chain inet {t} prerouting {{ type nat hook prerouting priority -100; }}
add chain inet {t} output {{ type nat hook output priority -100; }}
add chain inet {t} forward {{ type filter hook forward priority 0; }}
add chain inet {t} postrouting {{ type nat hook postrouting priority 100; }}
flush chain inet {t} raw
flush chain inet {t} prerouting
flush chain inet {t} output
flush chain inet {t} forward
flush chain inet {t} postrouting
add rule inet {t} raw iifname @bridges ip daddr 127.0.0.0/8 drop \
comment "route_localnet must not open the host's loopback to applications"
add rule inet {t} prerouting dnat ip to ip daddr . meta l4proto . th dport map @published_at
add rule inet {t} prerouting fib daddr type local dnat ip to meta l4proto . th dport map @published
add rule inet {t} output dnat ip to ip daddr . meta l4proto . th dport map @published_at
add rule inet {t} output fib daddr type local dnat ip to meta l4proto . th dport map @published
add rule inet {t} prerouting meta nfproto ipv6 fib daddr type local \
dnat ip6 to meta l4proto . th dport map @published6
add rule inet {t} output ip6 daddr != ::1 fib daddr type local \
dnat ip6 to meta l4proto . th dport map @published6
add rule inet {t} forward oifname @bridges tcp flags & (syn | rst) == syn \
tcp option maxseg size set rt mtu
add rule inet {t} forward iifname @bridges tcp flags & (syn | rst) == syn \
tcp option maxseg size set rt mtu
add rule inet {t} forward ct status dnat accept
add rule inet {t} forward iifname . oifname @same accept
add rule inet {t} forward iifname @bridges oifname @bridges ct state new drop \
comment "networks are apart"
add rule inet {t} postrouting ip saddr 127.0.0.0/8 oifname @bridges masquerade
add rule inet {t} postrouting iifname . oifname @same ct status dnat masquerade
add rule inet {t} postrouting ip saddr @nat_subnets oifname != @bridges masquerade
add rule inet {t} postrouting ip6 saddr @nat_subnets6 oifname != @bridges masquerade
add counter bridge {t} refused
add counter bridge {t} strayed
add chain bridge {t} prerouting {{ type filter hook prerouting priority -300; }}
flush chain bridge {t} prerouting
add rule bridge {t} prerouting iifname != @ports accept
add rule bridge {t} prerouting ip protocol igmp counter name strayed drop \
comment "no router of multicasts asks for it"
add rule bridge {t} prerouting icmpv6 type {{ mld-listener-query, mld-listener-report, \
mld-listener-done, mld2-listener-report }} counter name strayed drop
add rule bridge {t} prerouting ether type ip \
iifname . ether saddr . ip saddr @allowed accept
add rule bridge {t} prerouting ether type arp iifname . ether saddr . arp saddr ip != @allowed \
counter name refused drop
add rule bridge {t} prerouting ether type arp iifname . arp saddr ether . arp saddr ip != @allowed \
counter name refused drop
add rule bridge {t} prerouting arp operation request ether daddr set arp daddr ip map @hosts \
comment "asked is its owner alone"
add rule bridge {t} prerouting ether type arp accept
add rule bridge {t} prerouting icmpv6 type {{ nd-router-advert, nd-redirect }} \
counter name refused drop comment "applications are no routers"
add rule bridge {t} prerouting icmpv6 type nd-neighbor-advert \
meta mark set @th,64,128 map @owners6 comment "whose address is advertised"
add rule bridge {t} prerouting icmpv6 type nd-neighbor-advert \
iifname . meta mark != @numbers6 counter name refused drop
add rule bridge {t} prerouting icmpv6 type nd-neighbor-advert meta mark set 0
add rule bridge {t} prerouting ether type ip6 \
iifname . ether saddr . ip6 saddr != @allowed6 counter name refused drop
add rule bridge {t} prerouting icmpv6 type nd-neighbor-solicit \
ether daddr set @th,64,128 map @hosts6
add rule bridge {t} prerouting ether type ip6 accept
add rule bridge {t} prerouting counter name refused drop
add chain bridge {t} forward {{ type filter hook forward priority 0; }}
flush chain bridge {t} forward
add rule bridge {t} forward iifname @ports meta mark set iifname map @homes \
comment "whose network, see policies.py"
add rule bridge {t} forward iifname @ports meta mark @closed \
meta mark . iifname . oifname != @pairs counter name refused drop
add rule bridge {t} forward iifname @ports meta mark set 0
add chain bridge {t} input {{ type filter hook input priority 0; }}
flush chain bridge {t} input
add rule bridge {t} input iifname @ports meta mark set iifname map @homes \
comment "nor by way of the host, as of a router"
add rule bridge {t} input iifname @ports meta mark @closed \
meta mark . ip daddr @members counter name refused drop
add rule bridge {t} input iifname @ports meta mark @closed \
meta mark . ip6 daddr @members6 counter name refused drop
add rule bridge {t} input iifname @ports meta mark set 0
add chain bridge {t} postrouting {{ type filter hook postrouting priority 0; }}
flush chain bridge {t} postrouting
add rule bridge {t} postrouting oifname != @ports accept
add rule bridge {t} postrouting ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 \
oifname . ether daddr != @macs counter name strayed drop \
comment "a bridge sends what it does not know where to, to everybody"
add rule bridge {t} postrouting arp operation request \
oifname . arp daddr ip != @targets counter name strayed drop comment "asked is its owner alone"
add rule bridge {t} postrouting icmpv6 type nd-neighbor-solicit meta mark set 0
add rule bridge {t} postrouting icmpv6 type nd-neighbor-solicit \
meta mark set @th,64,128 map @owners6
add rule bridge {t} postrouting icmpv6 type nd-neighbor-solicit \
oifname . meta mark != @numbers6 counter name strayed drop
add rule bridge {t} postrouting icmpv6 type nd-neighbor-solicit meta mark set 0
"""
