"""The hosts file of a network, which programs on the kernel's stack look names up in.

`STATE/networks/NAME.hosts` is bound as /etc/hosts into every application of that network on the
kernel's stack, also across restarts: each change is one write, seen at once by all of them.
`rundir` binds it, `app/agent/connecting.py` writes it, and it is gone with its network.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_ALWAYS = "127.0.0.1 localhost\n"


def path(state: Path, network: str) -> Path:
    """Where it lies on this host."""
    return state / "networks" / f"{network}.hosts"


def make(state: Path, network: str) -> Path:
    """It is there when this returns; what is in it stays."""
    place = path(state, network)
    if not place.exists():
        write(state, network, ())
    return place


def write(state: Path, network: str, names: Iterable[tuple[str, str]]) -> None:
    """(address, name) of all that are on the network.

    In place: what is bound into the applications is this file, not its name. Of two calls at once,
    either may be the last.
    """
    place = path(state, network)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    text = _ALWAYS + "".join(f"{address} {name}\n" for address, name in names)
    with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644), "wb") as file:
        file.write(text.encode())
        file.truncate()


def remove(state: Path, network: str) -> None:
    """Nobody is on the network any more."""
    path(state, network).unlink(missing_ok=True)
