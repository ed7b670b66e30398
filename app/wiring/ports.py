"""Published ports of the host: is one free, who has it, and keeping it. Called by `wiring`.

The kernel's NAT would take packets away from a program that listens on the same port without a
word; so a port is bound (not listened on) here as long as it is published.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from pathlib import Path

from app.domain.application import PublishedPort
from app.domain.errors import Conflict, InvalidSpecification

_LISTEN, _UDP_BOUND = "0A", "07"


class HostPorts:
    """The sockets that keep published ports, by application."""

    def __init__(self) -> None:
        self._kept: dict[str, list[socket.socket]] = {}
        self._owners: dict[tuple[str, int], list[tuple[IPv4Address, str]]] = {}

    def keep(self, application: str, ports: list[PublishedPort]) -> None:
        """All or none. Raises Conflict naming who has the port."""
        self.release(application)
        kept: list[socket.socket] = []
        self._kept[application] = kept
        try:
            for number, one in enumerate(ports):
                kept.append(self._bind(one, f"/ports/{number}"))
                key = (one.protocol, one.host_port)
                self._owners.setdefault(key, []).append((one.host_address, application))
        except BaseException:
            self.release(application)
            raise

    def release(self, application: str) -> None:
        """Other programs may have the ports."""
        for one in self._kept.pop(application, []):
            one.close()
        for owners in self._owners.values():
            owners[:] = [owner for owner in owners if owner[1] != application]

    def _bind(self, one: PublishedPort, pointer: str) -> socket.socket:
        kind = socket.SOCK_STREAM if one.protocol == "tcp" else socket.SOCK_DGRAM
        made = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
        try:
            made.bind((str(one.host_address), one.host_port))
            return made
        except OSError as error:
            made.close()
            holder = self._holder(one)
            if error.errno == 99:  # EADDRNOTAVAIL
                raise InvalidSpecification(
                    f"this host has no address {one.host_address}", pointer=pointer
                ) from error
            raise Conflict(
                f"port {one.host_port}/{one.protocol} of this host is taken by {holder}",
                pointer=pointer,
                remedy="publish another host port, or stop what uses this one",
            ) from error

    def _holder(self, one: PublishedPort) -> str:
        for _, application in self._owners.get((one.protocol, one.host_port), []):
            return f"application '{application}'"
        inode = _inode_of(one)
        return _process_with(inode) if inode else "another program"


def _inode_of(one: PublishedPort) -> str | None:
    """The socket that has the port, from /proc/net."""
    state = _LISTEN if one.protocol == "tcp" else _UDP_BOUND
    for table in (one.protocol, f"{one.protocol}6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rsplit(":", 1)[1], 16) == one.host_port and fields[3] == state:
                return fields[9]
    return None


def _process_with(inode: str) -> str:
    wanted = f"socket:[{inode}]"
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            for fd in (process / "fd").iterdir():
                if str(fd.readlink()) == wanted:
                    name = (process / "comm").read_text().strip()
                    return f"process {process.name} ({name})"
        except OSError:
            continue
    return "another program"
