"""Opens the database, brings its tables up to date and hands out transactions.

Called by `app/store/store.py`. SQLite runs with a write-ahead log and `synchronous=NORMAL`: a
commit costs no fsync, and a crash of the machine (not of the process) may lose the last ones.
PostgreSQL may serve several servers: whoever writes holds the row `installation` of `meta`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError

from app.domain.errors import HostLacks, InvalidSpecification
from app.store import tables

HEAD = "0005"
"""The newest migration. Alembic is imported only where the database is older: it costs 0.1 s."""
_MIGRATING = 0x637365
"""Key of PostgreSQL's advisory lock that only one server at a time migrates under."""


class Database:
    """One database; transactions that write come one after another."""

    def __init__(self, url: str) -> None:
        self._url = _parsed(url)
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._writer = threading.Lock()
        try:
            self._engine = _open(self._url)
            with self._engine.connect() as connection:
                _migrate(connection)
        except (SQLAlchemyError, OSError) as error:
            remedy = (
                "check that its directory can be written, or set CSE_DATABASE"
                if self._is_sqlite
                else "check that the server runs, and that user and database of CSE_DATABASE exist"
            )
            raise HostLacks(
                f"the store {self._url.render_as_string()} cannot be opened: {_reason(error)}",
                remedy=remedy,
            ) from error

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that sees no other writer's half-made work, in this process or another.

        Raises `HostLacks` where the database is away or full; nothing is changed then.
        """
        with (
            self._writer,
            self._translated(),
            self._engine.connect().execution_options(cse_write=True) as connection,
            connection.begin(),
        ):
            if not self._is_sqlite:
                row = select(tables.meta).where(tables.meta.c.key == "installation")
                connection.execute(row.with_for_update())
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view. Raises `HostLacks` where the database is away."""
        with self._translated(), self._engine.connect() as connection:
            if not self._is_sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise HostLacks(
                f"the store {self._url.render_as_string()} does not do it: {_reason(error)}",
                remedy="check that there is room on its disk"
                if self._is_sqlite
                else "check the database server; running applications are not affected",
            ) from error

    @property
    def is_shared(self) -> bool:
        """Whether other servers may write to it."""
        return not self._is_sqlite

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()


def _parsed(url: str) -> URL:
    """The URL, of a database that can be used here. Raises `InvalidSpecification`."""
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
            raise NoSuchModuleError(f"'{parsed.drivername}' is neither SQLite nor PostgreSQL")
    except (ArgumentError, NoSuchModuleError) as error:
        raise InvalidSpecification(
            f"CSE_DATABASE: {error}",
            remedy="write sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE",
        ) from error
    return parsed


def _reason(error: Exception) -> str:
    """What the driver said, in one line."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def _open(parsed: URL) -> Engine:
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
        if current is not None and current > HEAD:
            raise HostLacks(
                f"a newer version of CSE made the store {connection.engine.url} ({current})",
                remedy="run that version, or restore a backup from before",
            )
    connection.rollback()
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATING)))
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()
