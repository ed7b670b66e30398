"""Limits of memory, processors and processes, by control groups of either version.

One group per limited application: `cse-<installation>/<name>` under the version 2 hierarchy, or
under each version 1 controller. Made by `runtime` at create; the shim joins before it starts
bubblewrap. Version 2 is used where its root offers the controllers, else version 1.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from app.domain.application import Limits
from app.domain.errors import HostLacks

_PERIOD_US = 100_000
_SUPERVISORS = 2
"""bubblewrap and init are in the group with the program, and are not counted against it."""


class ControlGroups:
    """The groups of one installation; `root` is the mount point of this host's hierarchies."""

    def __init__(self, installation_id: str, root: Path = Path("/sys/fs/cgroup")) -> None:
        self._group = f"cse-{installation_id[:12]}"
        self._root = root
        self._lock = threading.Lock()
        """The common group comes with its first member and goes with its last."""

    def kind(self) -> str:
        """`v2`, `v1`, or `` where neither offers a controller we could use."""
        if self._unified() is not None:
            return "v2"
        return "v1" if (self._root / "memory" / "cgroup.procs").exists() else ""

    def make(self, name: str, limits: Limits) -> list[str]:
        """The groups to join, empty where nothing is limited. Raises HostLacks."""
        wanted = _wanted(limits)
        if not wanted:
            return []
        try:
            with self._lock:
                unified = self._unified()
                if unified is not None:
                    return [self._make_v2(unified, name, limits, wanted)]
                return [self._make_v1(controller, name, limits) for controller in wanted]
        except OSError as error:
            self.remove(name)
            raise HostLacks(
                f"limits cannot be set here: {error}",
                pointer="/limits",
                remedy="run the agent as root with control groups mounted, or leave 'limits' out",
            ) from error

    def names(self) -> list[str]:
        """Of the groups that are there."""
        unified = self._unified()
        parents = [unified] if unified else []
        parents += [self._root / controller for controller in ("memory", "cpu", "pids")]
        found: set[str] = set()
        for parent in parents:
            with contextlib.suppress(OSError):
                found |= {
                    entry.name for entry in (parent / self._group).iterdir() if entry.is_dir()
                }
        return sorted(found)

    def remove(self, name: str) -> None:
        """After the last process of it has ended."""
        unified = self._unified()
        parents = [unified] if unified else []
        parents += [self._root / controller for controller in ("memory", "cpu", "pids")]
        with self._lock:
            for parent in parents:
                with contextlib.suppress(OSError):
                    (parent / self._group / name).rmdir()
                with contextlib.suppress(OSError):  # the last one takes the common group along
                    (parent / self._group).rmdir()

    def _unified(self) -> Path | None:
        for place in (self._root, self._root / "unified"):
            try:
                offered = (place / "cgroup.controllers").read_text().split()
            except OSError:
                continue
            if {"memory", "pids"} <= set(offered):
                return place
        return None

    def _make_v2(self, root: Path, name: str, limits: Limits, wanted: list[str]) -> str:
        group = root / self._group
        group.mkdir(exist_ok=True)
        enable = " ".join(f"+{controller}" for controller in wanted)
        for place in (root, group):
            (place / "cgroup.subtree_control").write_text(enable)
        own = group / name
        own.mkdir(exist_ok=True)
        if limits.memory is not None:
            (own / "memory.max").write_text(str(limits.memory))
            if (own / "memory.swap.max").exists():
                (own / "memory.swap.max").write_text("0")
        if limits.cpus is not None:
            (own / "cpu.max").write_text(f"{round(limits.cpus * _PERIOD_US)} {_PERIOD_US}")
        if limits.pids is not None:
            (own / "pids.max").write_text(str(limits.pids + _SUPERVISORS))
        return str(own)

    def _make_v1(self, controller: str, name: str, limits: Limits) -> str:
        own = self._root / controller / self._group / name
        if not os.access(self._root / controller / "cgroup.procs", os.F_OK):
            raise FileNotFoundError(f"control group controller '{controller}' is not mounted")
        own.mkdir(parents=True, exist_ok=True)
        if controller == "memory":
            (own / "memory.limit_in_bytes").write_text(str(limits.memory))
            if (own / "memory.memsw.limit_in_bytes").exists():
                (own / "memory.memsw.limit_in_bytes").write_text(str(limits.memory))
        elif controller == "cpu" and limits.cpus is not None:
            (own / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (own / "cpu.cfs_quota_us").write_text(str(round(limits.cpus * _PERIOD_US)))
        elif controller == "pids" and limits.pids is not None:
            (own / "pids.max").write_text(str(limits.pids + _SUPERVISORS))
        return str(own)


def _wanted(limits: Limits) -> list[str]:
    pairs = (("memory", limits.memory), ("cpu", limits.cpus), ("pids", limits.pids))
    return [controller for controller, value in pairs if value is not None]
