"""Programs of `cse run`: each has a directory, `STATE/runs/NAME`, locked while its command lives.

`app/cli/local.py` makes and removes them; `POST /v1/gc` asks which there are. A command that is
killed leaves its program running, until the next one finds its lock free. So a program has an
address only while it has its directory, and who has none may lose it, however young it is; nobody
else, however old: clocks may be set.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def directory(state: Path, name: str) -> Iterator[Path]:
    """That of a new program, locked in the block; whoever has ended the program removes it."""
    home = state / "runs" / name
    lock = _make(home)
    while lock is None:  # somebody took it for one that is gone
        lock = _make(home)
    try:
        yield home
    finally:
        os.close(lock)


def gone(state: Path) -> Iterator[Path]:
    """Directories whose commands are no more; each is locked until the next is asked for."""
    for name in sorted(names(state)):
        home = state / "runs" / name
        with suppress(OSError):
            lock = _open(home)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield home
            finally:
                os.close(lock)


def names(state: Path) -> set[str]:
    """Of the programs that there are, or may be."""
    with suppress(FileNotFoundError):
        return {path.name for path in (state / "runs").iterdir()}
    return set()


def _make(home: Path) -> int | None:
    """The descriptor that holds the lock; None where the directory was removed meanwhile."""
    home.mkdir(mode=0o711, parents=True, exist_ok=True)
    try:
        lock = _open(home)
    except FileNotFoundError:
        return None
    fcntl.flock(lock, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(lock), _lock_of(home).stat()):
            return lock
    os.close(lock)
    return None


def _open(home: Path) -> int:
    return os.open(_lock_of(home), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _lock_of(home: Path) -> Path:
    return home / "lock"
