"""Allocation of what must not be shared: addresses of a network, ports of the host.

Works on the connection of a write transaction, so two creations never get the same. Called by
`app/store/store.py` only.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from app.domain.application import PublishedPort
from app.domain.errors import Conflict, InvalidSpecification
from app.domain.network import NetworkSpec
from app.store.clock import now
from app.store.tables import addresses, ports

_ANY = "0.0.0.0"

# Built once: SQLAlchemy takes longer to build a statement than SQLite to execute it.
_TAKE = insert(addresses)
_RELEASE = delete(addresses).where(addresses.c.holder == bindparam("of"))
_RELEASE_PORTS = delete(ports).where(ports.c.holder == bindparam("of"))
_AFTER = addresses.alias()
_LOWEST_FREE = select(func.min(addresses.c.value) + 1).where(
    addresses.c.network == bindparam("of"),
    ~select(_AFTER.c.value)
    .where(_AFTER.c.network == addresses.c.network, _AFTER.c.value == addresses.c.value + 1)
    .exists(),
)


def reserve_gateway(connection: Connection, network: NetworkSpec) -> None:
    """The first address is the host's own; its row also starts the search for gaps."""
    _take(connection, network.name, int(network.gateway.ip), None)


def allocate(
    connection: Connection, network: NetworkSpec, holder: str, wanted: IPv4Address | None
) -> IPv4Address:
    """The wanted address, or the lowest free one. Raises with pointer `/network/address`."""
    if wanted is not None:
        _check_wanted(connection, network, holder, wanted)
        value = int(wanted)
    else:
        value = _lowest_free(connection, network)
    _take(connection, network.name, value, holder)
    return IPv4Address(value)


def address_of(connection: Connection, holder: str) -> tuple[str, IPv4Address] | None:
    """Network and address that the holder has."""
    query = select(addresses.c.network, addresses.c.value).where(addresses.c.holder == holder)
    row = connection.execute(query).first()
    return (row[0], IPv4Address(row[1])) if row else None


def release(connection: Connection, holder: str) -> None:
    """Give back the holder's address."""
    connection.execute(_RELEASE, {"of": holder})


def take_ports(connection: Connection, holder: str, wanted: Iterable[PublishedPort]) -> None:
    """Make these the holder's ports, and no others. Raises `Conflict` naming who has one."""
    release_ports(connection, holder)
    for index, port in enumerate(wanted):
        query = select(ports.c.host_address, ports.c.holder).where(
            ports.c.port == port.host_port, ports.c.protocol == port.protocol
        )
        own = str(port.host_address)
        for taken, other in connection.execute(query):
            if _ANY in (taken, own) or taken == own:
                raise Conflict(
                    f"host port {port.host_port}/{port.protocol} is published by "
                    + ("this application twice" if other == holder else f"application '{other}'"),
                    pointer=f"/ports/{index}",
                    remedy=f"choose another host port, or remove it from '{other}'",
                )
        connection.execute(
            insert(ports).values(
                host_address=own, port=port.host_port, protocol=port.protocol, holder=holder
            )
        )


def release_ports(connection: Connection, holder: str) -> None:
    """Give back the holder's ports."""
    connection.execute(_RELEASE_PORTS, {"of": holder})


def _check_wanted(
    connection: Connection, network: NetworkSpec, holder: str, wanted: IPv4Address
) -> None:
    pointer, subnet = "/network/address", network.subnet
    if wanted not in subnet or wanted in (subnet.network_address, subnet.broadcast_address):
        raise InvalidSpecification(
            f"{wanted} is not an address of network '{network.name}'",
            pointer=pointer,
            remedy=f"choose one out of {subnet}, or leave 'address' out",
        )
    query = select(addresses.c.holder).where(
        addresses.c.network == network.name, addresses.c.value == int(wanted)
    )
    row = connection.execute(query).first()
    if row and row[0] != holder:
        owner = f"application '{row[0]}'" if row[0] else "the host (gateway)"
        raise Conflict(
            f"{wanted} belongs to {owner}",
            pointer=pointer,
            remedy="choose another one, or leave 'address' out",
        )


def _lowest_free(connection: Connection, network: NetworkSpec) -> int:
    """One more than the lowest taken address whose successor is free."""
    value = connection.execute(_LOWEST_FREE, {"of": network.name}).scalar()
    if value is None or value >= int(network.subnet.broadcast_address):
        raise Conflict(
            f"network '{network.name}' has no free address left in {network.subnet}",
            pointer="/network/name",
            remedy="remove applications, or use a network with a larger subnet",
        )
    return int(value)


def _take(connection: Connection, network: str, value: int, holder: str | None) -> None:
    connection.execute(
        _TAKE, {"network": network, "value": value, "holder": holder, "taken": now()}
    )
