"""The packet filter of this installation: NAT, published ports, anti-spoofing, counted refusals.

Two tables, `inet cse_<id>` and `bridge cse_<id>`, belong to this installation alone and hold
fixed rules; what changes are members of their sets, added and deleted by one transaction each.
Called by `wiring`. Where another firewall drops forwarded packets by policy (Docker does), rules
with our mark as their comment are added to the chain it leaves to users.
"""

from __future__ import annotations

import contextlib
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from app.domain.application import PublishedPort
from app.domain.network import NetworkBinding, link_local
from app.wiring import nft, policies
from app.wiring.nfnetlink import (
    BYTES16,
    ETHER,
    IFNAME,
    IPV4,
    IPV6,
    MARK,
    PROTOCOL,
    SERVICE,
    Member,
    Netfilter,
    Set,
    Type,
    address,
    ether,
    interface,
    mark,
    protocol,
    service,
)
from app.wiring.nft import NftError

_ANY = IPv4Address("0.0.0.0")
_UNSPECIFIED = IPv6Address("::")
"""The source of what an interface sends before it has an address (RFC 4862, 3810)."""

_FOREIGN_FAMILIES, _FOREIGN_CHAINS = ("ip", "ip6"), ("DOCKER-USER", "FORWARD")

_SETS: list[tuple[str, str, tuple[Type, ...], tuple[Type, ...], bool]] = [
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
]

_RULES = """
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
add chain bridge {t} prerouting {{ type filter hook prerouting priority -300; }}
flush chain bridge {t} prerouting
add rule bridge {t} prerouting iifname != @ports accept
add rule bridge {t} prerouting ether type ip \
iifname . ether saddr . ip saddr @allowed accept
add rule bridge {t} prerouting ether type arp iifname . ether saddr . arp saddr ip @allowed \
iifname . arp saddr ether . arp saddr ip @allowed accept
add rule bridge {t} prerouting icmpv6 type {{ nd-router-advert, nd-redirect }} \
counter name refused drop comment "applications are no routers"
add rule bridge {t} prerouting icmpv6 type nd-neighbor-advert \
meta mark set @th,64,128 map @owners6 comment "whose address is advertised"
add rule bridge {t} prerouting icmpv6 type nd-neighbor-advert \
iifname . meta mark != @numbers6 counter name refused drop
add rule bridge {t} prerouting icmpv6 type nd-neighbor-advert meta mark set 0
add rule bridge {t} prerouting ether type ip6 \
iifname . ether saddr . ip6 saddr @allowed6 accept
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
add counter bridge {t} strayed
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


class Filters:
    """`mark` (the installation's id) names the tables and stands in every comment."""

    def __init__(self, mark: str) -> None:
        self._netfilter = Netfilter()
        self._mark = mark
        self._table = "cse_" + re.sub(r"[^0-9a-z]", "_", mark.lower())[:12]

    def ensure(self) -> None:
        """Both tables with their rules; members of sets stay."""
        self._netfilter.make(
            [("inet", self._table), ("bridge", self._table)],
            [
                Set(family, self._table, name, key, data, interval)
                for family, name, key, data, interval in _SETS
            ],
        )
        nft.run(_RULES.format(t=self._table))

    def add_network(
        self, bridge: str, subnets: list[IPv4Network | IPv6Network], *, nat: bool
    ) -> None:
        """Rules for one bridge. Members that another firewall needs are added too."""
        lines = [
            f'add element inet {self._table} bridges {{ "{bridge}" }}',
            f'add element inet {self._table} same {{ "{bridge}" . "{bridge}" }}',
        ]
        if nat:
            lines += [f"add element {self._nat_member(subnet)}" for subnet in subnets]
        nft.run("\n".join(lines))
        for subnet in [] if nat else subnets:
            self._try(f"delete element {self._nat_member(subnet)}")
        self._open_foreign_firewall(bridge)

    def set_policy(self, subnet: IPv4Network, pairs: set[tuple[str, str]] | None) -> None:
        """Which ports of a network may exchange frames with each other; None: all."""
        if pairs is None:
            policies.open_network(self._netfilter, self._table, subnet)
        else:
            policies.close_network(self._netfilter, self._table, subnet, pairs)

    def _nat_member(self, subnet: IPv4Network | IPv6Network) -> str:
        name = "nat_subnets" if subnet.version == 4 else "nat_subnets6"
        return f"inet {self._table} {name} {{ {subnet} }}"

    def remove_network(self, bridge: str, subnets: list[IPv4Network | IPv6Network]) -> None:
        """What `add_network` and `set_policy` added."""
        for subnet in subnets:
            if isinstance(subnet, IPv4Network):
                self.set_policy(subnet, set())
                self.set_policy(subnet, None)
        self._try(f'delete element inet {self._table} bridges {{ "{bridge}" }}')
        self._try(f'delete element inet {self._table} same {{ "{bridge}" . "{bridge}" }}')
        for subnet in subnets:
            self._try(f"delete element {self._nat_member(subnet)}")
        self._close_foreign_firewall(bridge)

    def add_application(
        self, port: str, binding: NetworkBinding, published: list[PublishedPort]
    ) -> None:
        """The bridge port may send from its MAC and addresses only; DNAT for published ports."""
        self._netfilter.add(self._members(port, binding, published))

    def remove_application(
        self, port: str, binding: NetworkBinding, published: list[PublishedPort]
    ) -> None:
        """What `add_application` added; nothing where it is gone already."""
        self._netfilter.delete(self._members(port, binding, published))

    def _members6(
        self, port: str, binding: NetworkBinding, own: IPv6Address, published: list[PublishedPort]
    ) -> list[Member]:
        table, name = self._table, interface(port)
        local = link_local(binding.mac)
        members = [
            Member("bridge", table, "allowed6", name + ether(binding.mac) + address(source))
            for source in (own, local, _UNSPECIFIED)
        ]
        home = policies.number_of(binding.network.subnet)
        members.append(Member("bridge", table, "members6", home + address(own)))
        number = mark(int(binding.address))
        members.append(Member("bridge", table, "numbers6", name + number))
        members += [
            Member("bridge", table, "owners6", target.packed, number) for target in (own, local)
        ]
        members += [
            Member(
                "inet",
                table,
                "published6",
                protocol(one.protocol) + service(one.host_port),
                address(own) + service(one.container_port),
            )
            for one in published
            if one.host_address == _ANY
        ]
        return members

    def _members(
        self, port: str, binding: NetworkBinding, published: list[PublishedPort]
    ) -> list[Member]:
        table, name, ip = self._table, interface(port), binding.address
        home = policies.number_of(binding.network.subnet)
        members = [
            Member("bridge", table, "allowed", name + ether(binding.mac) + address(ip)),
            Member("bridge", table, "macs", name + ether(binding.mac)),
            Member("bridge", table, "targets", name + address(ip)),
            Member("bridge", table, "ports", name),
            Member("bridge", table, "homes", name, home),
            Member("bridge", table, "members", home + address(ip)),
        ]
        if binding.address6 is not None:
            members += self._members6(port, binding, binding.address6, published)
        for one in published:
            key = protocol(one.protocol) + service(one.host_port)
            to = address(ip) + service(one.container_port)
            if one.host_address == _ANY:
                members.append(Member("inet", table, "published", key, to))
            else:
                at = address(one.host_address) + key
                members.append(Member("inet", table, "published_at", at, to))
        return members

    def refused_packets(self) -> int | None:
        """Packets whose source was not their sender's; None where it cannot be read."""
        try:
            text = nft.run(f"list counter bridge {self._table} refused")
        except NftError:
            return None
        found = re.search(r"packets (\d+)", text)
        return int(found[1]) if found else None

    def has_applications(self) -> bool:
        """Any bridge port of any agent with this mark is allowed to send."""
        return "elements" in nft.run(f"list set bridge {self._table} ports")

    def close(self) -> None:
        """Rules and members stay."""
        self._netfilter.close()

    def remove(self) -> None:
        """Both tables and every rule elsewhere that bears our mark."""
        for family in ("inet", "bridge"):
            self._netfilter.delete_table(family, self._table)
        self._close_foreign_firewall(None)

    def _try(self, command: str) -> None:
        with contextlib.suppress(NftError):
            nft.run(command)

    def _comment(self, bridge: str | None) -> str:
        return f"cse {self._mark}" + (f" {bridge}" if bridge else "")

    def _foreign_chain(self, family: str) -> tuple[str, str] | None:
        """(chain, its rules with handles): where a dropping firewall lets users add rules."""
        for chain in _FOREIGN_CHAINS:
            try:
                text = nft.run(f"list chain {family} filter {chain}")
            except NftError:
                continue
            if chain == "DOCKER-USER" or "policy drop" in text:
                return chain, text
        return None

    def _open_foreign_firewall(self, bridge: str) -> None:
        for family in _FOREIGN_FAMILIES:
            found = self._foreign_chain(family)
            if found is None or self._comment(bridge) in found[1]:
                continue
            place, comment = f"{family} filter {found[0]}", self._comment(bridge)
            nft.run(
                f'insert rule {place} iifname "{bridge}" accept comment "{comment}"\n'
                f'insert rule {place} oifname "{bridge}" accept comment "{comment}"'
            )

    def _close_foreign_firewall(self, bridge: str | None) -> None:
        for family in _FOREIGN_FAMILIES:
            for chain in _FOREIGN_CHAINS:
                place = f"{family} filter {chain}"
                try:
                    text = nft.run(f"list chain {place}")
                except NftError:
                    continue
                if self._comment(bridge) not in text:
                    continue
                for handle in self._handles(place, self._comment(bridge)):
                    self._try(f"delete rule {place} handle {handle}")

    def _handles(self, place: str, comment: str) -> list[str]:
        text = nft.run(f"list chain {place}", handles=True)
        pattern = re.compile(rf'comment "{re.escape(comment)}[ "].*# handle (\d+)')
        return [found[1] for line in text.splitlines() if (found := pattern.search(line))]
