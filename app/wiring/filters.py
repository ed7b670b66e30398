"""The packet filter of this installation: NAT, published ports, anti-spoofing, counted refusals.

Two tables, `inet cse_<id>` and `bridge cse_<id>`, belong to this installation alone and hold
fixed rules; what changes are members of their sets, added and deleted by one transaction each.
Called by `wiring`. Where another firewall drops forwarded packets by policy (Docker does), rules
with our mark as their comment are added to the chain it leaves to users.
"""

from __future__ import annotations

import contextlib
import re
from ipaddress import IPv4Address, IPv4Network

from app.domain.application import PublishedPort
from app.wiring import nft
from app.wiring.nfnetlink import (
    ETHER,
    IFNAME,
    IPV4,
    PROTOCOL,
    SERVICE,
    Member,
    Netfilter,
    Set,
    Type,
    address,
    ether,
    interface,
    protocol,
    service,
)
from app.wiring.nft import NftError

_ANY = IPv4Address("0.0.0.0")

_SETS: list[tuple[str, str, tuple[Type, ...], tuple[Type, ...], bool]] = [
    ("inet", "bridges", (IFNAME,), (), False),
    ("inet", "same", (IFNAME, IFNAME), (), False),
    ("inet", "nat_subnets", (IPV4,), (), True),
    ("inet", "published", (PROTOCOL, SERVICE), (IPV4, SERVICE), False),
    ("inet", "published_at", (IPV4, PROTOCOL, SERVICE), (IPV4, SERVICE), False),
    ("bridge", "ports", (IFNAME,), (), False),
    ("bridge", "allowed", (IFNAME, ETHER, IPV4), (), False),
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
add counter bridge {t} refused
add chain bridge {t} prerouting {{ type filter hook prerouting priority -300; }}
flush chain bridge {t} prerouting
add rule bridge {t} prerouting iifname != @ports accept
add rule bridge {t} prerouting ether type ip \
iifname . ether saddr . ip saddr @allowed accept
add rule bridge {t} prerouting ether type arp iifname . ether saddr . arp saddr ip @allowed \
iifname . arp saddr ether . arp saddr ip @allowed accept
add rule bridge {t} prerouting counter name refused drop
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

    def add_network(self, bridge: str, subnet: IPv4Network, *, nat: bool) -> None:
        """Rules for one bridge. Members that another firewall needs are added too."""
        lines = [
            f'add element inet {self._table} bridges {{ "{bridge}" }}',
            f'add element inet {self._table} same {{ "{bridge}" . "{bridge}" }}',
        ]
        if nat:
            lines.append(f"add element inet {self._table} nat_subnets {{ {subnet} }}")
        nft.run("\n".join(lines))
        if not nat:
            self._try(f"delete element inet {self._table} nat_subnets {{ {subnet} }}")
        self._open_foreign_firewall(bridge)

    def remove_network(self, bridge: str, subnet: IPv4Network | None) -> None:
        """What `add_network` added."""
        self._try(f'delete element inet {self._table} bridges {{ "{bridge}" }}')
        self._try(f'delete element inet {self._table} same {{ "{bridge}" . "{bridge}" }}')
        if subnet is not None:
            self._try(f"delete element inet {self._table} nat_subnets {{ {subnet} }}")
        self._close_foreign_firewall(bridge)

    def add_application(
        self, port: str, mac: str, ip: IPv4Address, published: list[PublishedPort]
    ) -> None:
        """The bridge port may send from this MAC and address only; DNAT for published ports."""
        self._netfilter.add(self._members(port, mac, ip, published))

    def remove_application(
        self, port: str, mac: str, ip: IPv4Address, published: list[PublishedPort]
    ) -> None:
        """What `add_application` added; nothing where it is gone already."""
        self._netfilter.delete(self._members(port, mac, ip, published))

    def _members(
        self, port: str, mac: str, ip: IPv4Address, published: list[PublishedPort]
    ) -> list[Member]:
        table, name = self._table, interface(port)
        members = [
            Member("bridge", table, "allowed", name + ether(mac) + address(ip)),
            Member("bridge", table, "ports", name),
        ]
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

    def _foreign_chain(self) -> tuple[str, str] | None:
        """(chain, its rules with handles): where a dropping firewall lets users add rules."""
        for chain in ("DOCKER-USER", "FORWARD"):
            try:
                text = nft.run(f"list chain ip filter {chain}")
            except NftError:
                continue
            if chain == "DOCKER-USER" or "policy drop" in text:
                return chain, text
        return None

    def _open_foreign_firewall(self, bridge: str) -> None:
        found = self._foreign_chain()
        if found is None or self._comment(bridge) in found[1]:
            return
        chain, comment = found[0], self._comment(bridge)
        nft.run(
            f'insert rule ip filter {chain} iifname "{bridge}" accept comment "{comment}"\n'
            f'insert rule ip filter {chain} oifname "{bridge}" accept comment "{comment}"'
        )

    def _close_foreign_firewall(self, bridge: str | None) -> None:
        for chain in ("DOCKER-USER", "FORWARD"):
            try:
                text = nft.run(f"list chain ip filter {chain}")
            except NftError:
                continue
            if self._comment(bridge) not in text:
                continue
            for handle in self._handles(chain, self._comment(bridge)):
                self._try(f"delete rule ip filter {chain} handle {handle}")

    def _handles(self, chain: str, comment: str) -> list[str]:
        text = nft.run(f"list chain ip filter {chain}", handles=True)
        pattern = re.compile(rf'comment "{re.escape(comment)}[ "].*# handle (\d+)')
        return [found[1] for line in text.splitlines() if (found := pattern.search(line))]
