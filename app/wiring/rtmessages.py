"""rtnetlink(7) messages of our own, several in one call to the kernel.

Used where pyroute2 (`netlink`) would cost more than the request itself: on the way to every start
(`taps`), in an application's own namespace (`netns`), and where many interfaces go at once
(`disposal`).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from app.wiring.netlink import LinkRequest

_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 17, 20, 24
_REQUEST, _ACK, _REPLACE, _CREATE = 0x1, 0x4, 0x100, 0x400
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _RTA_GATEWAY = 1, 2, 4, 5
_IFLA_MTU, _IFLA_MASTER, _IFLA_IFALIAS, _IFLA_GROUP = 4, 10, 20, 27
_IFA_F_NODAD = 0x02
_UP = 1
_MAIN_TABLE, _BOOT, _UNIVERSE, _UNICAST = 254, 3, 0, 1
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ANSWER = struct.Struct("=16xi")  # nlmsghdr, error number
LOOPBACK = 1
"""Its index in every namespace."""


def send(requests: list[bytes]) -> None:
    """All at once, in the calling thread's namespace; the first refusal is raised as OSError."""
    for error in answers(requests):
        if error:
            raise OSError(error, os.strerror(error))


def answers(requests: list[bytes]) -> Iterator[int]:
    """The kernel's error number for each, 0 where it was done. A hundred at most: all the answers
    must have room in the socket's buffer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as carrier:
        carrier.send(b"".join(requests))
        for _ in requests:
            yield -_ANSWER.unpack_from(carrier.recv(8192))[0]


def link_up(index: int) -> bytes:
    """No other change."""
    return _request(_RTM_NEWLINK, 0, _link(index, _UP, _UP))


def changed_link(index: int, request: LinkRequest) -> bytes:
    """What the request says of an interface that is to be up, its name left as it is."""
    body = _link(index, _UP, _UP)
    for kind, number in (
        (_IFLA_MTU, request.mtu),
        (_IFLA_MASTER, request.master),
        (_IFLA_GROUP, request.group),
    ):
        if number is not None:
            body += _number(kind, number)
    if request.alias is not None:
        body += _attribute(_IFLA_IFALIAS, request.alias.encode())
    return _request(_RTM_NEWLINK, 0, body)


def link_in_group(index: int, group: int) -> bytes:
    """It belongs to this group from now on."""
    return _request(_RTM_NEWLINK, 0, _link(index) + _number(_IFLA_GROUP, group))


def delete_group(group: int) -> bytes:
    """All interfaces of it, in one go: the kernel waits once for those who still use them."""
    return _request(_RTM_DELLINK, 0, _link(0) + _number(_IFLA_GROUP, group))


def new_address(index: int, address: IPv4Interface | IPv6Interface) -> bytes:
    """In the place of the same one; of IPv6 without a search for duplicates."""
    if isinstance(address, IPv6Interface):
        values: dict[int, IPv4Address | IPv6Address] = {_IFA_ADDRESS: address.ip}
        family, flags = socket.AF_INET6, _IFA_F_NODAD
    else:
        broadcast = address.network.broadcast_address
        values = {_IFA_ADDRESS: address.ip, _IFA_LOCAL: address.ip, _IFA_BROADCAST: broadcast}
        family, flags = socket.AF_INET, 0
    body = struct.pack("=BBBBI", family, address.network.prefixlen, flags, 0, index)
    body += b"".join(_attribute(kind, value.packed) for kind, value in values.items())
    return _request(_RTM_NEWADDR, _CREATE | _REPLACE, body)


def new_default_route(gateway: IPv4Address | IPv6Address) -> bytes:
    """In the main table, in the place of an equal one."""
    family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
    body = struct.pack("=8BI", family, 0, 0, 0, _MAIN_TABLE, _BOOT, _UNIVERSE, _UNICAST, 0)
    return _request(
        _RTM_NEWROUTE, _CREATE | _REPLACE, body + _attribute(_RTA_GATEWAY, gateway.packed)
    )


def _link(index: int, flags: int = 0, mask: int = 0) -> bytes:
    """struct ifinfomsg."""
    return struct.pack("=BxHiII", 0, 0, index, flags, mask)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _request(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK | flags, 0, 0) + body
