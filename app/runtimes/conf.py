"""Settings files as the libraries read them: lines of `key=value` (see ARCHITECTURE.md).

Called by `rundir` when it writes `/run/cse/<kind>.conf`, and by the agent for `set` messages.
"""

from __future__ import annotations

import os
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings and lists → `{"mounts.0.path": "/srv"}`; null members are left out."""
    if value is None:
        return {}
    if isinstance(value, dict):
        members = [(str(key), member) for key, member in value.items()]
    elif isinstance(value, list | tuple):
        members = [(str(number), member) for number, member in enumerate(value)]
    elif isinstance(value, bool):
        return {prefix: "true" if value else "false"}
    else:
        return {prefix: str(value)}
    flat: dict[str, str] = {}
    for key, member in members:
        flat |= flatten(member, f"{prefix}.{key}" if prefix else key)
    return flat


def escape(text: str) -> str:
    """The bytes that would end or break a line, percent-encoded."""
    return text.replace("%", "%25").replace("\n", "%0A").replace("\0", "%00")


def to_lines(values: dict[str, str]) -> str:
    """The text of a settings file."""
    return "".join(f"{escape(key)}={escape(value)}\n" for key, value in values.items())


def resolvers() -> list[str]:
    """This host's name servers that another host could reach, as IPv4 texts.

    systemd-resolved lists only its stub on 127.0.0.53 in /etc/resolv.conf; a private stack
    cannot reach it, so the servers behind it are taken.
    """
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            found = os.stat(path)
        except OSError:
            continue
        if servers := _servers(path, found.st_ino, found.st_mtime_ns):
            return list(servers)
    return []


@lru_cache(8)
def _servers(path: str, inode: int, changed_ns: int) -> tuple[str, ...]:
    """Read anew where the file is another one or was written to."""
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = ip_address(words[1])
        except ValueError:
            continue
        if address.version == 4 and not address.is_loopback:
            found.append(str(address))
    return tuple(found)
