"""Who this installation is: the marks on everything it makes on the host.

Two of them are kept in the state directory. `installation` is this directory's alone and marks
containers and control groups. `network-mark` marks bridges and filters, and may be shared: `cse
run` works in a directory of its own, beside a server, on the same networks.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

_OWN, _NETWORK = "installation", "network-mark"


def installation(state: Path) -> str:
    """Made at first use."""
    return _read_or_make(state / _OWN, secrets.token_hex(6))


def network_mark(state: Path) -> str:
    """The installation's own id, unless `share_networks` said otherwise."""
    return _read_or_make(state / _NETWORK, installation(state))


def share_networks(owner: Path, guest: Path) -> None:
    """Before an agent is made in `guest`: it plugs into the networks of `owner`."""
    _read_or_make(guest / _NETWORK, network_mark(owner))


def is_guest(state: Path) -> bool:
    """It plugs into another one's networks, and leaves none of its own behind."""
    return network_mark(state) != installation(state)


def _read_or_make(path: Path, value: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(value + "\n")
        with contextlib.suppress(FileExistsError):  # another process was faster: take its value
            os.link(temporary, path)
        temporary.unlink()
    return path.read_text().strip()
