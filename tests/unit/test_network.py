"""Networks: what follows from a subnet, in both families."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Interface, IPv6Network

import pytest
from pydantic import ValidationError

from app.domain.network import NetworkBinding, NetworkSpec, link_local, mac_for


def spec(**fields: object) -> NetworkSpec:
    return NetworkSpec.model_validate({"name": "n", "subnet": "10.9.0.0/24", **fields})


def test_subnet6_follows_from_name_and_subnet() -> None:
    one = spec()
    assert one.subnet6 is not None and one.subnet6.prefixlen == 64
    assert one.subnet6.subnet_of(IPv6Network("fd00::/8"))
    assert spec().subnet6 == one.subnet6
    others = (spec(name="m").subnet6, spec(subnet="10.8.0.0/24").subnet6)
    assert len({one.subnet6, *others}) == 3
    assert NetworkSpec.model_validate_json(one.model_dump_json()) == one


def test_an_address6_has_the_number_of_the_address() -> None:
    network = spec(subnet6="fd00:9::/64")
    assert network.gateway6 == IPv6Interface("fd00:9::1/64")
    address = IPv4Address("10.9.0.200")
    binding = NetworkBinding(network=network, address=address, mac=mac_for(address))
    assert binding.address6 == IPv6Address("fd00:9::c8")


def test_null_switches_ipv6_off() -> None:
    network = spec(subnet6=None)
    assert network.subnet6 is None and network.gateway6 is None
    assert network.address6(IPv4Address("10.9.0.5")) is None
    assert NetworkSpec.model_validate_json(network.model_dump_json()) == network


@pytest.mark.parametrize("subnet6", ["fd00::/121", "fd00::/8", "10.0.0.0/24"])
def test_subnet6_must_have_room(subnet6: str) -> None:
    with pytest.raises(ValidationError, match="subnet6"):
        spec(subnet6=subnet6)


def test_link_local_address_of_a_mac() -> None:
    assert link_local("02:c5:0a:09:00:05") == IPv6Address("fe80::c5:aff:fe09:5")
