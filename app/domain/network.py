"""Networks: one Ethernet segment of this host each, to which private stacks are plugged."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Annotated, Literal

from pydantic import Field, field_validator

from app.domain.model import Model, Name

DEFAULT_NETWORK = "default"


class Policy(Model):
    """Who may talk to whom on one network; the host and what lies beyond it are not concerned."""

    default: Literal["allow", "deny"] = "allow"
    """For two applications that `allow` does not name together."""
    allow: list[Annotated[list[Name], Field(min_length=2, max_length=2)]] = []
    """Pairs of application names; the order within a pair says nothing."""

    def permits(self, one: str, other: str) -> bool:
        """True if the two applications may exchange packets."""
        if self.default == "allow" or one == other:
            return True
        return [one, other] in self.allow or [other, one] in self.allow


class NetworkSpec(Model):
    """A bridge on this host with its subnet; the host itself has the first address."""

    name: Name
    subnet: IPv4Network = IPv4Network("10.210.0.0/16")
    nat: bool = True
    """Packets that leave this host get the host's address (masquerade)."""
    mtu: int = Field(default=65520, ge=576, le=65520)
    """Bytes of one IP packet on this segment."""
    dns: list[IPv4Address] | None = None
    """Servers for names no peer has; the host's own resolvers where absent."""
    policy: Policy = Policy()
    labels: dict[str, str] = {}

    @field_validator("subnet")
    @classmethod
    def _room_for_peers(cls, value: IPv4Network) -> IPv4Network:
        if not 8 <= value.prefixlen <= 29:
            raise ValueError(f"{value}: the prefix length must be between /8 and /29")
        return value

    @property
    def gateway(self) -> IPv4Interface:
        """The host's own address on the segment, with the prefix length."""
        return IPv4Interface((self.subnet.network_address + 1, self.subnet.prefixlen))


class NetworkBinding(Model):
    """An application's place on its network, wholly resolved (allocated by the store)."""

    network: NetworkSpec
    address: IPv4Address
    mac: str = Field(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")
    aliases: list[Name] = []


def mac_for(address: IPv4Address) -> str:
    """A locally administered MAC that follows from the address: `02:c5:` and its four bytes."""
    return "02:c5:" + ":".join(f"{byte:02x}" for byte in address.packed)
