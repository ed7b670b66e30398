"""Faults of an application on the kernel's own stack, as rules in its network namespace.

Called by the agent with the same orders that a private stack gets. One table holds them all and
is written anew at each change. A fault with an end matches a set whose members time out in the
kernel: nobody has to be there for it. What the rules cannot do is refused before, by
`domain.fault.beyond_kernel`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_network

from app.domain.errors import Conflict, HostLacks, RuntimeFailure
from app.domain.fault import FaultOrder, beyond_kernel
from app.domain.ports import Line
from app.wiring import netns, nft

_TABLE = "inet cse_faults"
_EMPTY = f"table {_TABLE}\ndelete table {_TABLE}\n"
_COUNTS = ("seen", "lost", "overflowed", "cut", "refused")
_LEAST_AT_ONCE = 1 << 17
"""Bytes. Segments leave and arrive merged, up to 64 kB at once: what is less would pass none."""
_PLACES = "/usr/sbin:/sbin:/usr/bin:/usr/local/sbin"


def hold(namespace_fd: int, orders: list[FaultOrder], new: set[str]) -> None:
    """These and no others; a `reset` is done where its order is `new`. Raises `Conflict`."""
    for order in orders:
        if beyond := [one for one, _ in beyond_kernel(order.spec) if one != "seed"]:
            raise Conflict(f"fault {order.id}: no {beyond[0]} on the kernel's own stack")
    held = [order for order in orders if not order.spec.only_resets]
    text = "".join(_rules(order) for order in held)
    chains = "".join(
        f"add chain {_TABLE} {hook} {{ type filter hook {hook} priority -200; }}\n"
        for hook in ("input", "output")
    )
    table = f"table {_TABLE}\n{chains}{text}" if held else ""

    def work() -> None:
        nft.run(_EMPTY + table)
        for order in orders:
            if order.spec.reset is not None and order.id in new:
                _reset(order)

    netns.inside(namespace_fd, work)


def counted(namespace_fd: int, orders: list[FaultOrder]) -> list[Line]:
    """What each has done, in the manner of a private stack's report."""
    text = netns.inside(
        namespace_fd, lambda: nft.run(f"list counters table {_TABLE}", as_json=True, missing="{}")
    )
    found = {
        entry["counter"]["name"]: int(entry["counter"]["packets"])
        for entry in json.loads(text).get("nftables", [])
        if "counter" in entry
    }
    lines: list[Line] = []
    for order in orders:
        line: Line = {"id": order.id}
        for what in _COUNTS:
            name = f"{_word(order)}_{what}"
            if name in found:
                line[what] = found[name]
        lines.append(line)
    return lines


def _word(order: FaultOrder) -> str:
    return "f" + re.sub(r"[^0-9a-z]", "_", order.id.lower())


def _rules(order: FaultOrder) -> str:
    """Counters, the set that ends it, and what is done in each direction."""
    word = _word(order)
    lines = [f"add counter {_TABLE} {word}_{what}" for what in _COUNTS]
    lives = ""
    if order.ends is not None:
        left_ms = max(1, round((order.ends - datetime.now(UTC)).total_seconds() * 1000))
        lives = f"meta nfproto @{word}_lives "
        lines.append(f"add set {_TABLE} {word}_lives {{ type nf_proto; flags timeout; }}")
        members = ", ".join(f"{family} timeout {left_ms}ms" for family in ("ipv4", "ipv6"))
        lines.append(f"add element {_TABLE} {word}_lives {{ {members} }}")
    for way, hook, device, side in (
        ("in", "input", "iifname", "saddr"),
        ("out", "output", "oifname", "daddr"),
    ):
        if order.spec.direction not in (way, "both"):
            continue
        for peer in _peers(order, side):
            match = f'add rule {_TABLE} {hook} {device} != "lo" {lives}{peer}'
            lines.append(f"{match}counter name {word}_seen")
            lines += [f"{match}{action}" for action in _actions(order, word)]
    return "\n".join(lines) + "\n"


def _peers(order: FaultOrder, side: str) -> list[str]:
    """Expressions, one for each peer; one that matches all where none is named."""
    networks = [ip_network(peer, strict=False) for peer in order.peers]
    return [f"{'ip' if one.version == 4 else 'ip6'} {side} {one} " for one in networks] or [""]


def _actions(order: FaultOrder, word: str) -> Iterator[str]:
    spec = order.spec
    if spec.cut is not None:
        yield f"counter name {word}_cut drop"
    if spec.refuse is not None:
        yield (
            f"tcp dport {spec.refuse} tcp flags & (syn | ack) == syn "
            f"counter name {word}_refused reject with tcp reset"
        )
    if spec.loss:
        share = round(spec.loss * 10_000)
        yield f"numgen random mod 1000000 < {share} counter name {word}_lost drop"
    if spec.rate is not None:
        per_second = spec.rate // 8
        # The kernel lets a second's worth pass at once, and the burst on top of it.
        more = max(1, _LEAST_AT_ONCE - per_second)
        yield (
            f"limit rate over {per_second} bytes/second burst {more} bytes "
            f"counter name {word}_overflowed drop"
        )


def _reset(order: FaultOrder) -> None:
    """By the kernel's own means, inet_diag(7): both ends are told."""
    program = shutil.which("ss", path=_PLACES)
    if program is None:
        raise HostLacks("the program ss is not installed", remedy="install the package 'iproute2'")
    ports = {"in": ("sport",), "out": ("dport",), "both": ("sport", "dport")}
    own = " or ".join(f"{side} = :{order.spec.reset}" for side in ports[order.spec.direction])
    peers = " or ".join(f"dst {peer}" for peer in order.peers)
    chosen = f"( {own} )" + (f" and ( {peers} )" if peers else "")
    done = subprocess.run(
        [program, "-K", "-H", "-t", "-n", chosen], capture_output=True, text=True, check=False
    )
    if "not supported" in done.stderr:
        raise HostLacks(
            "this kernel cannot reset connections of others (CONFIG_INET_DIAG_DESTROY)",
            remedy="'refuse' and 'cut' work without it",
        )
    if done.returncode != 0:
        raise RuntimeFailure(f"ss: {done.stderr.strip()}")
