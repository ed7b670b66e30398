"""How many applications this host has room for, limit by limit. Called by `doctor`; looks only.

What one application takes was measured with 600 echo servers, each on a private stack: five tasks
(supervisor, bubblewrap, init, the program, its stack's thread), seven descriptors of the agent, one
inotify watch, 3 MiB of memory, half of it the kernel's. A program's own needs come on top.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.domain.observed import Finding

_MANY = 1000
"""Room for fewer is worth a word."""
_BRIDGE_PORTS = 1022  # one is the anchor's
_TASKS, _DESCRIPTORS, _MIB = 5, 7, 3


@dataclass(frozen=True)
class _Limit:
    check: str
    value: int
    shown: str
    each: int
    remedy: str


def examine() -> list[Finding]:
    """One finding for each limit that this host shows."""
    return [_finding(limit) for limit in _limits() if limit.value >= 0]


def _finding(limit: _Limit) -> Finding:
    room = limit.value // limit.each
    ok = room >= _MANY
    return Finding(
        check=f"room: {limit.check}",
        ok=ok,
        observation=f"about {room:,} applications: {limit.shown}",
        remedy="" if ok else limit.remedy,
    )


def _limits() -> Iterator[_Limit]:
    yield _Limit(
        "bridge ports",
        _BRIDGE_PORTS,
        "on each network; what comes after these has wires to the others of this host only",
        1,
        "",
    )
    tasks = min(_numbers("kernel/pid_max", "kernel/threads-max"))
    yield _Limit(
        "processes",
        tasks,
        f"{tasks:,} tasks, {_TASKS} for each",
        _TASKS,
        "sysctl kernel.pid_max=4194304 kernel.threads-max=200000",
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = min(hard if hard >= 0 else 1 << 30, *_numbers("fs/file-max"))
    yield _Limit(
        "descriptors",
        files,
        f"{files:,} open files of the agent, {_DESCRIPTORS} for each",
        _DESCRIPTORS,
        "raise the hard limit of open files of whoever starts the agent (ulimit -Hn 100000)",
    )
    watches = min(_numbers("fs/inotify/max_user_watches"))
    yield _Limit(
        "inotify",
        watches,
        f"{watches:,} watches of one user",
        1,
        "sysctl fs.inotify.max_user_watches=65536",
    )
    for name, family in (("IPv4", "ipv4"), ("IPv6", "ipv6")):
        entries = min(_numbers(f"net/{family}/neigh/default/gc_thresh3"))
        yield _Limit(
            f"{name} neighbours",
            entries,
            f"{entries:,} in this host's table; more wait for one another when it speaks to them",
            1,
            f"sysctl net.{family}.neigh.default.gc_thresh3=8192",
        )
    free = _available_mib()
    yield _Limit(
        "memory",
        free,
        f"{free:,} MiB available, {_MIB} for each and what its program needs",
        _MIB,
        "end something, or add memory",
    )


def _numbers(*names: str) -> list[int]:
    """Of /proc/sys; -1 where this kernel has no such limit."""
    found = []
    for name in names:
        try:
            found.append(int(Path("/proc/sys", name).read_text()))
        except (OSError, ValueError):
            found.append(-1)
    return found


def _available_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return -1
