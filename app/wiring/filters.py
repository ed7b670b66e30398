"""The packet filter of this installation: NAT, published ports, anti-spoofing, counted refusals.

Two tables belong to this installation alone and hold fixed rules (`ruleset`); what changes are
members of their sets, added and deleted by one transaction each.
Called by `wiring`. Where another firewall drops forwarded packets by policy (Docker does), rules
with our mark as their comment are added to the chain it leaves to users.
"""

from __future__ import annotations

import contextlib
import re
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from app.domain.application import PublishedPort
from app.domain.network import NetworkBinding, link_local
from app.wiring import nft, policies
from app.wiring.nfnetlink import (
    Member,
    Netfilter,
    Set,
    address,
    ether,
    hardware,
    interface,
    mark,
    protocol,
    service,
)
from app.wiring.nft import NftError
from app.wiring.ruleset import RULES, SETS

Gateway = IPv4Interface | IPv6Interface
"""An address of a bridge, with its network."""
_ANY = IPv4Address("0.0.0.0")
_UNSPECIFIED = IPv6Address("::")
"""The source of what an interface sends before it has an address (RFC 4862, 3810)."""

_FOREIGN_FAMILIES, _FOREIGN_CHAINS = ("ip", "ip6"), ("DOCKER-USER", "FORWARD")


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
                for family, name, key, data, interval in SETS
            ],
        )
        nft.run(RULES.format(t=self._table))

    def add_network(self, bridge: str, mac: str, gateways: list[Gateway], *, nat: bool) -> None:
        """Rules for one bridge. Members that another firewall needs are added too."""
        self._netfilter.add(self._gateway_members(gateways, mac))
        subnets = [gateway.network for gateway in gateways]
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

    def remove_network(self, bridge: str, mac: str, gateways: list[Gateway]) -> None:
        """What `add_network` and `set_policy` added."""
        self._netfilter.delete(self._gateway_members(gateways, mac))
        subnets = [gateway.network for gateway in gateways]
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

    def _gateway_members(self, gateways: list[Gateway], mac: str) -> list[Member]:
        return [
            Member(
                "bridge",
                self._table,
                "hosts" if gateway.version == 4 else "hosts6",
                gateway.ip.packed,
                hardware(mac),
            )
            for gateway in gateways
        ]

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
            Member("bridge", table, "hosts6", target.packed, hardware(binding.mac))
            for target in (own, local)
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
            Member("bridge", table, "hosts", address(ip), hardware(binding.mac)),
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
