"""Links, addresses and routes over rtnetlink(7), by pyroute2. Used by `wiring` and `taps`.

One request per thing to be made: an interface that is created, marked, plugged in and brought up
by one message costs a fraction of the usual sequence of calls. Interfaces are named in requests,
so that no index has to be looked up first.

A pyroute2 socket works in the thread that made it: another thread that uses it gets a socket of
its own, which stays open until `close`, so a server's threads would add up. Hence a thread of
its own. pyroute2 is imported when that thread is first needed: it takes 0.1 s and 20 MB, which
commands without a network do without.

What is set in an application's own namespace is not asked for here but in `netns`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any, TypeVar

from app.domain.errors import HostLacks, RuntimeFailure

_RTM_GETLINK = 18
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_IFF_UP = 1
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Link:
    """An interface of this host; `master` is the index of the bridge it is plugged into."""

    index: int
    name: str
    alias: str
    mtu: int
    master: int
    up: bool
    mac: str
    group: int


@dataclass(frozen=True)
class LinkRequest:
    """What the interface `name` is to have; None: left as it is."""

    name: str
    mtu: int | None = None
    alias: str | None = None
    group: int | None = None
    master: int | None = None
    mac: str | None = None
    up: bool = True
    netns_fd: int | None = None
    mute: bool = False
    """Answers no ARP request."""

    def attributes(self) -> dict[str, str | int]:
        """By pyroute2's names."""
        known = {
            "ifname": self.name,
            "mtu": self.mtu,
            "ifalias": self.alias,
            "group": self.group,
            "master": self.master,
            "address": self.mac,
            "net_ns_fd": self.netns_fd,
        }
        return {name: value for name, value in known.items() if value is not None}

    def keywords(self) -> dict[str, str | int | bool]:
        """The same with what is a flag of the interface."""
        flags = {"state": "up" if self.up else "down"} | ({"arp": False} if self.mute else {})
        return self.attributes() | flags


class Netlink:
    """One rtnetlink socket of the host's network namespace, usable from any thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cse-netlink")
        self._route: Any = None  # an IPRoute; of `_thread` only

    def close(self) -> None:
        """Nothing that was made goes away."""
        self._thread.submit(self._drop).result()
        self._thread.shutdown()

    def create(self, kind: str, request: LinkRequest, peer: LinkRequest | None = None) -> None:
        """`kind`: bridge, or veth with its `peer`, which is down at first."""
        words: dict[str, Any] = dict(request.keywords())
        if kind == "bridge":
            # Without a querier, which we have none of, it floods all multicast with snooping, too;
            # but each port that comes or goes would have it look through all the others.
            words["br_mcast_snooping"] = 0
        if peer is not None:
            words["peer"] = peer.attributes()
        self._do(
            f"making {kind} {request.name}", lambda route: route.link("add", kind=kind, **words)
        )

    def change(self, request: LinkRequest) -> None:
        """Everything the request names, in one message."""
        words = request.keywords()
        self._do(f"changing interface {request.name}", lambda route: route.link("set", **words))

    def delete(self, index: int) -> None:
        """Nothing where it is gone already."""
        try:
            self._do(f"deleting interface {index}", lambda route: route.link("del", index=index))
        except RuntimeFailure as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.ENODEV:
                raise

    def add_address(self, index: int, address: IPv4Interface | IPv6Interface) -> None:
        """Nothing where the interface has it already."""
        words = _address_words(address)
        self._do(
            f"adding address {address}",
            lambda route: route.addr("replace", index=index, **words),
        )

    def delete_address(self, index: int, address: IPv4Interface | IPv6Interface) -> None:
        """It must be there."""
        words = _address_words(address)
        self._do(
            f"deleting address {address}", lambda route: route.addr("del", index=index, **words)
        )

    def links(self, kind: str | None = None) -> list[Link]:
        """All interfaces, or those of a kind. 0.3 ms for each that the kernel tells of: so that
        one host may have many, the kernel picks the kind, and no application's start asks."""
        words: dict[str, Any] = {}
        if kind is not None:
            words["IFLA_LINKINFO"] = {"attrs": [("IFLA_INFO_KIND", kind)]}
        command = (_RTM_GETLINK, _NLM_F_REQUEST | _NLM_F_DUMP)
        return self._do(
            "listing interfaces",
            lambda route: [_link(found) for found in route.link(command, **words)],
        )

    def link(self, name: str) -> Link | None:
        """One interface by its name, asked for alone."""
        # Not "get": that asks for an acknowledgement as well, which pyroute2 0.9 never reads
        # and keeps.
        command = (_RTM_GETLINK, _NLM_F_REQUEST)
        try:
            return self._do(
                f"looking for interface {name}",
                lambda route: _link(route.link(command, ifname=name)[0]),
            )
        except RuntimeFailure as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENODEV:
                return None
            raise

    def addresses6(self) -> list[tuple[int, IPv6Interface]]:
        """(interface index, address) of every IPv6 address of this host, link-local ones left
        out."""
        return self._do(
            "listing IPv6 addresses",
            lambda route: [
                (found["index"], address)
                for found in route.addr("dump", family=socket.AF_INET6)
                if not (
                    address := IPv6Interface((_local(found), found["prefixlen"]))
                ).ip.is_link_local
            ],
        )

    def addresses(self) -> list[tuple[int, IPv4Interface]]:
        """(interface index, address) of every IPv4 address of this host."""
        return self._do(
            "listing addresses",
            lambda route: [
                (found["index"], IPv4Interface((_local(found), found["prefixlen"])))
                for found in route.addr("dump", family=socket.AF_INET)
            ],
        )

    def _do(self, what: str, work: Callable[[Any], _Result]) -> _Result:
        try:
            answer = self._thread.submit(self._work, work)
        except RuntimeError as error:
            raise RuntimeFailure(f"{what}: this agent is closing") from error
        try:
            return answer.result()
        except PermissionError as error:
            raise HostLacks(
                f"{what}: not permitted",
                remedy="private stacks need an agent that runs as root; other elements do not",
            ) from error
        except OSError as error:
            raise RuntimeFailure(f"{what}: {error.strerror}") from error

    def _work(self, work: Callable[[Any], _Result]) -> _Result:
        """In the thread. The kernel's refusals are raised as OSError."""
        from pyroute2 import IPRoute, NetlinkError

        if self._route is None:
            self._route = IPRoute()
        try:
            return work(self._route)
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code)) from error
        except OSError:
            self._drop()  # pyroute2 gives the error of a socket again at every later call
            raise

    def _drop(self) -> None:
        route, self._route = self._route, None
        if route is not None:
            route.close()


def index_of(name: str) -> int | None:
    """An interface's index, where that alone is wanted, in the calling thread's namespace."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def silence_ipv6(name: str) -> None:
    """No link-local address and no router solicitation: for interfaces that are ports only."""
    with contextlib.suppress(OSError):
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")


def allow_ipv6(name: str) -> bool:
    """The interface may have IPv6 addresses, hears no router advertisements, and does not wait
    for duplicates. False where this host's kernel has no IPv6."""
    place = Path(f"/proc/sys/net/ipv6/conf/{name}")
    try:
        for setting, value in (("accept_ra", "0"), ("accept_dad", "0"), ("disable_ipv6", "0")):
            (place / setting).write_text(value)
    except OSError:
        return False
    return True


def _address_words(address: IPv4Interface | IPv6Interface) -> dict[str, str | int]:
    host, length = str(address.ip), address.network.prefixlen
    if isinstance(address, IPv6Interface):
        return {"address": host, "prefixlen": length, "family": socket.AF_INET6}
    broadcast = str(address.network.broadcast_address)
    return {"address": host, "local": host, "broadcast": broadcast, "prefixlen": length}


def _local(found: Any) -> str:
    return str(found.get("local") or found.get("address"))


def _link(found: Any) -> Link:
    alias = found.get("ifalias")
    return Link(
        index=found["index"],
        name=found.get("ifname"),
        alias=alias if isinstance(alias, str) else "",  # bytes where it is no text: not ours
        mtu=found.get("mtu"),
        master=found.get("master") or 0,
        up=bool(found["flags"] & _IFF_UP),
        mac=found.get("address") or "",
        group=found.get("group") or 0,
    )
