"""Names and ownership marks of what this installation makes on the host.

An interface's alias (`cse <installation> network <name>`) and group say whose it is; nothing
without our mark is ever changed or deleted. Its name has 15 characters at most and is only a name.
"""

from __future__ import annotations

import hashlib

from app.domain.network import DEFAULT_NETWORK
from app.wiring.netlink import Link

DEFAULT_BRIDGE = "cse0"


def _hash(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def network_alias(installation: str, network: str) -> str:
    """Of a network's bridge."""
    return f"cse {installation} network {network}"


def application_alias(installation: str, application: str) -> str:
    """Of an application's tap or veth."""
    return f"cse {installation} application {application}"


def is_ours(installation: str, link: Link) -> bool:
    """Any mark of this installation. The group counts too: the kernel sets it as it makes an
    interface, the alias only with a second message, before which this process may die."""
    ours = link.alias.startswith(f"cse {installation} ")
    groups = (group_of(installation), ending_group_of(installation))
    return ours or (not link.alias and link.group in groups)


def bridge_name(installation: str, network: str, *, taken: bool) -> str:
    """`cse0` for the default network, unless another installation of this host has it."""
    if network == DEFAULT_NETWORK and not taken:
        return DEFAULT_BRIDGE
    return f"cse-{_hash(installation, network)[:10]}"


def port_name(installation: str, application: str) -> str:
    """The application's bridge port: known before the tap exists, so that its filter can be."""
    return f"cst{_hash(installation, application)[:11]}"


def anchor_name(installation: str, network: str) -> str:
    """The port that keeps a network's bridge up; its other end has a `p` after the name."""
    return f"csa{_hash(installation, network)[:10]}"


def group_of(installation: str) -> int:
    """Interface group: `ip link show group N` lists one installation's interfaces."""
    return 0x43000000 | int(_hash(installation)[:6], 16)


def ending_group_of(installation: str) -> int:
    """The group of interfaces that are being taken away (`disposal`)."""
    return 0x44000000 | int(_hash(installation)[:6], 16)
