"""Forwarding of IPv6 on this host: whether it leads anywhere, and switching it on without harm.

Called by `wiring` for each network with IPv6, and by `doctor`. A Linux host that forwards stops
hearing router advertisements, by which it may have its own default route: so interfaces that hear
them are told to go on (accept_ra 2) before forwarding is switched on.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

_CONF = Path("/proc/sys/net/ipv6/conf")
_ROUTES = Path("/proc/net/ipv6_route")
_UP, _GATEWAY, _REJECT = 0x1, 0x2, 0x200


def kernel_has_ipv6() -> bool:
    """Not switched off at boot or for all interfaces."""
    try:
        return (_CONF / "all/disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


def default_route6() -> str | None:
    """The interface by which this host reaches other networks over IPv6."""
    try:
        lines = _ROUTES.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        flags = int(words[8], 16)
        if words[1] == "00" and flags & _UP and flags & _GATEWAY and not flags & _REJECT:
            return words[9]
    return None


def forward_ipv6() -> None:
    """Switch forwarding on, if there is somewhere to forward to; what cannot be written stays."""
    if default_route6() is None:
        return
    with contextlib.suppress(OSError):
        if (_CONF / "all/forwarding").read_text().strip() == "1":
            return
        for place in _CONF.iterdir():
            setting = place / "accept_ra"
            if place.name != "all" and setting.read_text().strip() == "1":
                setting.write_text("2")
        (_CONF / "all/forwarding").write_text("1")
