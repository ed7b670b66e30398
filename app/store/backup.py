"""Copies of the store in one file, taken while a server runs, and put back while none does.

Of SQLite only: PostgreSQL has tools of its own. Called by `cse backup` and `cse restore`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import make_url

from app.domain.errors import Conflict, HostLacks, InvalidSpecification


def save(url: str, target: Path) -> None:
    """A consistent copy; whole or not at all. Raises `HostLacks`, `InvalidSpecification`."""
    source = _file(url)
    if not source.is_file():
        raise HostLacks(f"there is no store at {source}", remedy="name it with CSE_DATABASE")
    fresh = target.with_name(f".{target.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)  # it holds environments and settings
        with closing(sqlite3.connect(source)) as ours, closing(sqlite3.connect(fresh)) as copy:
            ours.backup(copy)
        fresh.replace(target)
    except (OSError, sqlite3.Error) as error:
        fresh.unlink(missing_ok=True)
        raise HostLacks(f"{target} cannot be written: {error}", remedy="make room there") from error


def put_back(url: str, source: Path) -> None:
    """Instead of the present store, which is kept beside it as `….before-restore`."""
    target = _file(url)
    _check(source)
    if target.exists():
        if _is_in_use(target):
            raise Conflict(f"a server uses {target}", remedy="stop it first; applications go on")
        target.replace(target.with_name(target.name + ".before-restore"))
    for leftover in ("-wal", "-shm"):
        target.with_name(target.name + leftover).unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    save(f"sqlite:///{source}", target)


def _check(source: Path) -> None:
    try:
        with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as copy:
            if copy.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise InvalidSpecification(f"{source} is damaged", remedy="take another backup")
            copy.execute("SELECT value FROM meta WHERE key = 'installation'").fetchone()
    except sqlite3.Error as error:
        raise InvalidSpecification(
            f"{source} is no backup of a store: {error}", remedy="give a file of 'cse backup'"
        ) from error


def _is_in_use(path: Path) -> bool:
    """A server holds connections open: without them SQLite would get the file for itself."""
    try:
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as probe:
            probe.execute("PRAGMA locking_mode=EXCLUSIVE")
            probe.execute("PRAGMA journal_mode=DELETE")
            probe.execute("BEGIN EXCLUSIVE")
            probe.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    return False


def _file(url: str) -> Path:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise InvalidSpecification(
            f"the store is {parsed.get_backend_name()}, not SQLite",
            remedy="use its own tools, for example pg_dump",
        )
    return Path(parsed.database)
