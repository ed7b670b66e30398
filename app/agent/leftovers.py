"""Finds and removes what nobody on this host needs any more. Called by `local` for `cse gc`.

Only what bears this installation's mark is looked at. What an application that is just being made
has already is not a leftover: `busy` names those.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from app.domain.launch import Launch
from app.domain.leftover import Leftover
from app.runtimes import rundir, sharing


def find(
    state: Path,
    launches: Mapping[str, Launch],
    busy: Iterable[str],
    networks: Iterable[str],
    groups: Iterable[str],
) -> Iterator[Leftover]:
    """`networks`: names of those whose bridges are there; `groups`: of control groups."""
    known = {*launches, *busy}
    for name in _entries(state / "apps"):
        if name not in known:
            place = rundir.application_directory(state, name)
            yield Leftover(kind="half-made", name=name, detail=f"{place} holds no application")
    used = {one.network.network.name for one in launches.values() if one.network is not None}
    for name in sorted(set(networks) - used):
        yield Leftover(kind="network", name=name, detail="a bridge to which nobody is plugged")
    for name in sorted(set(groups) - known):
        yield Leftover(kind="control-group", name=name, detail="a group without an application")
    mounted = {mount.source for one in launches.values() for mount in one.mounts}
    for name in _entries(state / "volumes"):
        if str(state / "volumes" / name) not in mounted:
            yield Leftover(kind="volume", name=name, detail="a volume that nobody mounts")
    for one in sharing.idle(state):
        detail = f"contents of an archive that nobody uses, {one.bytes >> 20} MiB"
        yield Leftover(kind="shared-contents", name=one.name, detail=detail)


def _entries(directory: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
    return []
