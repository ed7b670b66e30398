"""Opens the database, brings its tables up to date and hands out transactions.

Called by `app/store/store.py`. SQLite runs with a write-ahead log and `synchronous=NORMAL`: a
commit costs no fsync, and a crash of the machine (not of the process) may lose the last ones.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import HostLacks
from app.store import tables

HEAD = "0005"
"""The newest migration. Alembic is imported only where the database is older: it costs 0.1 s."""


class Database:
    """One database; transactions that write come one after another."""

    def __init__(self, url: str) -> None:
        self._is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self._writer = threading.Lock()
        try:
            self._engine = _open(url)
            with self._engine.connect() as connection:
                _migrate(connection)
        except (SQLAlchemyError, OSError) as error:
            raise HostLacks(
                f"the store {make_url(url).render_as_string()} cannot be opened: {error}",
                remedy="check that its directory can be written, or set CSE_DATABASE",
            ) from error

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that sees no other writer's half-made work, in this process or another."""
        with (
            self._writer,
            self._engine.connect().execution_options(cse_write=True) as connection,
            connection.begin(),
        ):
            if not self._is_sqlite:
                row = select(tables.meta).where(tables.meta.c.key == "installation")
                connection.execute(row.with_for_update())
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @property
    def is_shared(self) -> bool:
        """Whether other servers may write to it."""
        return not self._is_sqlite

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()


def _open(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    engine = create_engine(parsed, connect_args={"check_same_thread": False, "timeout": 10})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's own BEGIN below, not the driver's
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # IMMEDIATE takes the write lock first: a read that turns into a write can deadlock.
        writes = connection.get_execution_options().get("cse_write")
        # By the driver: what SQLAlchemy does around a statement takes longer than this one.
        connection.connection.cursor().execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _migrate(connection: Connection) -> None:
    if inspect(connection).has_table("alembic_version"):
        current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        connection.rollback()
        if current == HEAD:
            return
    connection.rollback()
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()
