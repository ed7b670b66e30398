"""Contents of archives that applications of one project and one user share (setting `shared`).

`STATE/shared/PROJECT-UID/` is bound, to read and write, into each application that asks for it; the
library keeps one directory in it for each archive (its name is the archive's identity), with index,
skeleton and filled files, and holds a lock on its file `users` while a process uses it. Whoever
shares trusts: any of these applications could change what the others see (ARCHITECTURE.md).
`rundir` calls `bring`, the agent `evict` and `remove`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from app.domain.launch import Launch
from app.runtimes.hostpaths import Place


@dataclass(frozen=True)
class Idle:
    """An archive's directory that no process uses."""

    name: str
    """`PROJECT-UID/IDENTITY`."""
    bytes: int
    used: float
    """When a process last began to use it."""


def bring(state: Path, launch: Launch, data: str, place: Place) -> Place:
    """`place`, with the directory of the host in the place of `true` where it asks for sharing.

    `data` belongs to the user that the application runs as.
    """
    if place.format != "shared-contents":
        return place
    owner = os.stat(data)
    directory = state / "shared" / f"{launch.spec.project}-{owner.st_uid}"
    with contextlib.suppress(FileExistsError):
        directory.parent.mkdir(mode=0o711, exist_ok=True)
        directory.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(directory, owner.st_uid, owner.st_gid)
    return replace(place, value=str(directory))


def evict(state: Path, bound: int) -> None:
    """Remove idle directories, least recently used first, until all take at most `bound` bytes."""
    if not (state / "shared").is_dir():
        return
    total = sum(_size(path) for path in _directories(state))
    for one in sorted(idle(state), key=lambda one: one.used):
        if total <= bound:
            return
        if remove(state, one.name):
            total -= one.bytes


def idle(state: Path) -> Iterator[Idle]:
    """Those that nobody uses now."""
    for path in _directories(state):
        with _locked(path) as free:
            if free:
                with contextlib.suppress(FileNotFoundError):
                    used = (path / "users").stat().st_mtime
                    name = str(path.relative_to(state / "shared"))
                    yield Idle(name, _size(path), used)


def remove(state: Path, name: str) -> bool:
    """Remove one, unless it is used. Who opens it meanwhile finds another one in its place."""
    path = state / "shared" / name
    with _locked(path) as free:
        if free:
            gone = path.with_name(f".gone-{path.name}")
            shutil.rmtree(gone, ignore_errors=True)
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
    return free


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether no process holds it; none can begin to in the block. The owner may have put anything
    there: links are not followed."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(path / "users", flags)
    except FileNotFoundError:
        yield not path.is_symlink() and path.is_dir()  # half-made by a process that died
        return
    except OSError:
        yield False
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:
        free = False
    try:
        yield free
    finally:
        os.close(file)


def _directories(state: Path) -> Iterator[Path]:
    for scope in _below(state / "shared"):
        yield from _below(scope)


def _below(directory: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        found = [
            Path(one.path) for one in os.scandir(directory) if one.is_dir(follow_symlinks=False)
        ]
        return sorted(path for path in found if not path.name.startswith(".gone-"))
    return []


def _size(directory: Path) -> int:
    total = 0
    for top, _, files in os.walk(directory):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{top}/{name}").st_blocks * 512
    return total
