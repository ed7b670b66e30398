"""nftables' tables, sets and members of sets over nfnetlink; its rules are made by nft(8).

Why members: they change whenever an application comes or goes, and this takes 0.1 ms where
starting the program takes 10. (libnftables in this process would be as fast, but a crash of it
would be ours.) Why sets: newer nft programs leave notes in them (`typeof` of the key) on which
older ones crash, and on one host there may be both, as with an agent in a container.

Layout of keys: each part of a concatenation padded to four bytes, numbers in network order.
Used by `filters`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from app.domain.errors import HostLacks, RuntimeFailure

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _DELTABLE, _NEWSET, _NEWSETELEM, _DELSETELEM = 0, 2, 9, 12, 14
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_ERROR = 2
_NESTED = 0x8000
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEM, _KEY, _DATA, _DATA_VALUE = 1, 1, 2, 1
_TABLE_NAME = 1
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_LEN = 1, 2, 3, 4, 5
_SET_DATA_TYPE, _SET_DATA_LEN, _SET_ID, _SET_USERDATA = 6, 7, 10, 13
_FLAG_INTERVAL, _FLAG_MAP = 0x4, 0x8
_TYPE_BITS = 6
_FAMILIES = {"inet": 1, "bridge": 7}
_ANSWER_TIMEOUT_S = 10.0

_nlmsghdr = struct.Struct("=IHHII")
_PROTOCOLS = {"tcp": 6, "udp": 17}


@dataclass(frozen=True)
class Type:
    """One of nft's data types: its number there, bytes in a register, and byte order (1: the
    host's, 2: the network's)."""

    number: int
    length: int
    order: int


IFNAME, ETHER, IPV4 = Type(41, 16, 1), Type(9, 6, 2), Type(7, 4, 2)
IPV6, MARK = Type(8, 16, 2), Type(19, 4, 1)
BYTES16 = Type(4, 16, 2)
"""nft's `integer`, as of @th,64,128. Never as part of a longer key: older nft programs crash."""
PROTOCOL, SERVICE = Type(12, 1, 2), Type(13, 2, 2)


@dataclass(frozen=True)
class Set:
    """A set, or with `data` a map."""

    family: str
    table: str
    name: str
    key: tuple[Type, ...]
    data: tuple[Type, ...] = ()
    interval: bool = False


@dataclass(frozen=True)
class Member:
    """A member of one set, or with `data` of one map."""

    family: str
    table: str
    set: str
    key: bytes
    data: bytes | None = None


def interface(name: str) -> bytes:
    """Of type ifname."""
    return name.encode().ljust(16, b"\0")


def hardware(mac: str) -> bytes:
    """Of type ether_addr, alone."""
    return bytes.fromhex(mac.replace(":", ""))


def ether(mac: str) -> bytes:
    """The same as part of a longer key."""
    return hardware(mac) + b"\0\0"


def address(value: IPv4Address | IPv6Address) -> bytes:
    """Of type ipv4_addr or ipv6_addr."""
    return value.packed


def protocol(name: str) -> bytes:
    """Of type inet_proto."""
    return bytes([_PROTOCOLS[name], 0, 0, 0])


def mark(number: int) -> bytes:
    """Of type mark."""
    return struct.pack("=I", number)


def service(port: int) -> bytes:
    """Of type inet_service."""
    return struct.pack("!Hxx", port)


class Netfilter:
    """One netfilter socket; thread-safe."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))
        self._socket.settimeout(_ANSWER_TIMEOUT_S)
        self._lock = threading.Lock()
        self._sequence = 0

    def close(self) -> None:
        """Members stay."""
        self._socket.close()

    def make(self, tables: list[tuple[str, str]], sets: list[Set]) -> None:
        """(family, name) of tables, and their sets; those that are there already stay."""
        entries = [
            (_NEWTABLE, _CREATE, _head(_FAMILIES[family], 0) + _text(_TABLE_NAME, name))
            for family, name in tables
        ]
        entries += [(_NEWSET, _CREATE, _set(one, n)) for n, one in enumerate(sets, 1)]
        self._batch(entries, "making sets")

    def delete_table(self, family: str, name: str) -> None:
        """With all that is in it; nothing where there is none."""
        body = _head(_FAMILIES[family], 0) + _text(_TABLE_NAME, name)
        self._unless_gone([(_DELTABLE, 0, body)], f"table {name}")

    def add(self, members: list[Member]) -> None:
        """All or none; those that are there already stay."""
        entries = [(_NEWSETELEM, _CREATE, _element(member)) for member in members]
        self._batch(entries, _names(members))

    def delete(self, members: list[Member]) -> None:
        """Nothing for those that are gone already, with their set or without."""
        entries = [(_DELSETELEM, 0, _element(member)) for member in members]
        if not self._unless_gone(entries, _names(members)):
            for entry in entries:  # each transaction waits for the kernel: mostly one is enough
                self._unless_gone([entry], _names(members))

    def _unless_gone(self, entries: list[tuple[int, int, bytes]], what: str) -> bool:
        """False where something of it was gone already; then nothing was done."""
        try:
            self._batch(entries, what)
            return True
        except RuntimeFailure as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno != errno.ENOENT:
                raise
            return False

    def _batch(self, entries: list[tuple[int, int, bytes]], what: str) -> None:
        """(kind, flags, body) of each message, as one transaction."""
        if not entries:
            return
        with self._lock:
            first = self._sequence
            packets = [self._message(_BATCH_BEGIN, _REQUEST, _head(0, _SUBSYSTEM))]
            packets += [
                self._message(_SUBSYSTEM << 8 | kind, _REQUEST | flags, body)
                for kind, flags, body in entries[:-1]
            ]
            kind, flags, body = entries[-1]
            packets.append(self._message(_SUBSYSTEM << 8 | kind, _REQUEST | _ACK | flags, body))
            last = self._sequence
            packets.append(self._message(_BATCH_END, _REQUEST, _head(0, _SUBSYSTEM)))
            try:
                self._socket.send(b"".join(packets))
                self._answers(first, last)
            except PermissionError as error:
                raise HostLacks(
                    "nftables: not permitted",
                    remedy="run the agent as root, or with the capability NET_ADMIN",
                ) from error
            except OSError as error:
                raise RuntimeFailure(f"nftables: {what}: {error.strerror}") from error

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return _nlmsghdr.pack(16 + len(body), kind, flags, self._sequence, 0) + body

    def _answers(self, first: int, last: int) -> None:
        """Errors in the order of their messages, then the answer to the last one, which alone asks
        for one; the first error is raised when all have come."""
        failure = sequence = 0
        while sequence != last:
            data = self._socket.recv(1 << 18)
            at = 0
            while at + 20 <= len(data):
                length, kind, _, sequence, _ = _nlmsghdr.unpack_from(data, at)
                if kind == _ERROR and sequence > first:
                    (code,) = struct.unpack_from("=i", data, at + 16)
                    failure = failure or -code
                    if sequence == first + 1:  # the batch as a whole was refused
                        raise OSError(failure, os.strerror(failure))
                at += (length + 3) & ~3
        if failure:
            raise OSError(failure, os.strerror(failure))


def _head(family: int, resource: int) -> bytes:
    """struct nfgenmsg."""
    return struct.pack("!BBH", family, 0, resource)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("!I", value))


def _concatenation(types: tuple[Type, ...]) -> tuple[int, int, int]:
    """(type, length, byte order) of a key or value of one part or several."""
    if len(types) == 1:
        return types[0].number, types[0].length, types[0].order
    number = 0
    for one in types:
        number = number << _TYPE_BITS | one.number
    return number, sum((one.length + 3) & ~3 for one in types), 0


def _set(one: Set, identity: int) -> bytes:
    number, length, order = _concatenation(one.key)
    flags = (_FLAG_MAP if one.data else 0) | (_FLAG_INTERVAL if one.interval else 0)
    notes = struct.pack("=BBI", 0, 4, order)  # for `nft list`: the key's byte order
    body = _text(_SET_TABLE, one.table) + _text(_SET_NAME, one.name)
    body += _number(_SET_FLAGS, flags) + _number(_SET_ID, identity)
    body += _number(_SET_KEY_TYPE, number) + _number(_SET_KEY_LEN, length)
    if one.data:
        number, length, order = _concatenation(one.data)
        body += _number(_SET_DATA_TYPE, number) + _number(_SET_DATA_LEN, length)
        notes += struct.pack("=BBI", 1, 4, order)
    return _head(_FAMILIES[one.family], 0) + body + _attribute(_SET_USERDATA, notes)


def _names(members: list[Member]) -> str:
    return "sets " + ", ".join(sorted({member.set for member in members}))


def _element(member: Member) -> bytes:
    value = _attribute(_KEY | _NESTED, _attribute(_DATA_VALUE, member.key))
    if member.data is not None:
        value += _attribute(_DATA | _NESTED, _attribute(_DATA_VALUE, member.data))
    elements = _attribute(_LIST_ELEM | _NESTED, value)
    return (
        _head(_FAMILIES[member.family], 0)
        + _text(_LIST_TABLE, member.table)
        + _text(_LIST_SET, member.set)
        + _attribute(_LIST_ELEMENTS | _NESTED, elements)
    )
