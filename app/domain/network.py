"""Networks: one Ethernet segment of this host each, to which private stacks are plugged."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_network,
)
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

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


def _without_default(schema: dict[str, Any]) -> None:
    """An absent field and null are not the same here."""
    schema.pop("default", None)


class NetworkSpec(Model):
    """A bridge on this host with its subnet; the host itself has the first address."""

    name: Name
    subnet: IPv4Network = IPv4Network("10.210.0.0/16")
    subnet6: IPv6Network | None = Field(default=None, json_schema_extra=_without_default)
    """Where absent, a unique local prefix that follows from name and subnet; null: no IPv6. An
    application's IPv6 address has the number of its IPv4 address in the subnet."""
    nat: bool = True
    """Packets that leave this host get the host's address (masquerade)."""
    mtu: int = Field(default=65520, ge=576, le=65520)
    """Bytes of one IP packet on this segment."""
    dns: list[IPv4Address | IPv6Address] | None = None
    """Servers for names no peer has; the host's own resolvers where absent."""
    policy: Policy = Policy()
    labels: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _choose_subnet6(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "subnet6" in data or "name" not in data:
            return data
        subnet = data.get("subnet", cls.model_fields["subnet"].default)
        return {**data, "subnet6": unique_local(str(data["name"]), str(subnet))}

    @model_validator(mode="after")
    def _room_in_subnet6(self) -> NetworkSpec:
        if self.subnet6 is None:
            return self
        most = 128 - (32 - self.subnet.prefixlen)
        if not 16 <= self.subnet6.prefixlen <= most:
            raise ValueError(
                f"subnet6 {self.subnet6}: the prefix length must be between /16 and /{most}, "
                f"so that each address of {self.subnet} has one there"
            )
        return self

    @field_validator("subnet")
    @classmethod
    def _room_for_peers(cls, value: IPv4Network) -> IPv4Network:
        if not 8 <= value.prefixlen <= 29:
            raise ValueError(f"{value}: the prefix length must be between /8 and /29")
        return value

    @property
    def gateway(self) -> IPv4Interface:
        """The host's own address on the segment, with the prefix length."""
        return _gateway(self.subnet)

    @property
    def gateway6(self) -> IPv6Interface | None:
        """The host's own IPv6 address on the segment, with the prefix length."""
        return None if self.subnet6 is None else _gateway6(self.subnet6)

    def address6(self, address: IPv4Address) -> IPv6Address | None:
        """The IPv6 address that belongs to an IPv4 address of the subnet."""
        if self.subnet6 is None:
            return None
        return self.subnet6.network_address + (int(address) - int(self.subnet.network_address))


@lru_cache(1024)
def _gateway(subnet: IPv4Network) -> IPv4Interface:
    return IPv4Interface((subnet.network_address + 1, subnet.prefixlen))


@lru_cache(1024)
def _gateway6(subnet6: IPv6Network) -> IPv6Interface:
    return IPv6Interface((subnet6.network_address + 1, subnet6.prefixlen))


class NetworkBinding(Model):
    """An application's place on its network, wholly resolved (allocated by the store)."""

    network: NetworkSpec
    address: IPv4Address
    mac: str = Field(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")
    aliases: list[Name] = []

    @property
    def address6(self) -> IPv6Address | None:
        """None where the network has no IPv6."""
        return self.network.address6(self.address)


class PeerAddresses(NamedTuple):
    """Where an application is found by its peers."""

    address: IPv4Address
    address6: IPv6Address | None = None


def unique_local(name: str, subnet: str) -> str:
    """A /64 out of fd00::/8 (RFC 4193), the same for the same name and subnet."""
    digest = hashlib.sha256(f"cse network {name} {ip_network(subnet, strict=False)}".encode())
    return str(IPv6Network((b"\xfd" + digest.digest()[:7] + bytes(8), 64)))


def link_local(mac: str) -> IPv6Address:
    """The address that an interface makes of its MAC (RFC 4291, appendix A)."""
    parts = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([parts[0] ^ 2]) + parts[1:3] + b"\xff\xfe" + parts[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + identifier)


def mac_for(address: IPv4Address) -> str:
    """A locally administered MAC that follows from the address: `02:c5:` and its four bytes."""
    return "02:c5:" + ":".join(f"{byte:02x}" for byte in address.packed)
