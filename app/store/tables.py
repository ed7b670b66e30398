"""The store's tables. A change here needs a migration in `migrations/versions`; a test compares.

Specifications are kept as the JSON their models write; only what is searched for, or must be
unique, has columns of its own.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

_NAME = String(40)
_TIME = String(32)
"""ISO 8601 in UTC: sorts as text, and SQLite has no type for it."""

meta = Table(
    "meta",
    metadata,
    Column("key", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)

networks = Table(
    "networks",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("spec", Text, nullable=False),
    Column("created", _TIME, nullable=False),
)

volumes = Table(
    "volumes",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("spec", Text, nullable=False),
    Column("created", _TIME, nullable=False),
)

applications = Table(
    "applications",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("generation", Integer, nullable=False),
    Column("spec", Text, nullable=False),
    Column("desired", String(10), nullable=False),
    Column("run_wanted", Integer, nullable=False),
    Column("run_done", Integer, nullable=False),
    Column("coverage", Text),
    Column("created", _TIME, nullable=False),
    Column("updated", _TIME, nullable=False),
)

addresses = Table(
    "addresses",
    metadata,
    Column("network", _NAME, ForeignKey("networks.name"), primary_key=True),
    Column("value", BigInteger, primary_key=True, autoincrement=False),
    Column("holder", _NAME, index=True),
    Column("taken", _TIME, nullable=False),
)
"""One row per address in use; `holder` is null for the gateway's own."""

ports = Table(
    "ports",
    metadata,
    Column("host_address", String(15), primary_key=True),
    Column("port", Integer, primary_key=True, autoincrement=False),
    Column("protocol", String(3), primary_key=True),
    Column("holder", _NAME, nullable=False, index=True),
)

faults = Table(
    "faults",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("application", _NAME, nullable=False, index=True),
    Column("spec", Text, nullable=False),
    Column("seed", String(20), nullable=False),
    Column("created", _TIME, nullable=False),
    Column("ends", _TIME),
    Column("stack", _NAME),
)
"""Those that hold; one that has ended is an event."""

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("time", _TIME, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("application", _NAME, index=True),
    Column("message", Text, nullable=False),
    sqlite_autoincrement=True,
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", _NAME, nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("scope", String(10), nullable=False),
    Column("project", _NAME),
    Column("created", _TIME, nullable=False),
    Column("expires", _TIME),
    Column("revoked", _TIME),
    Column("last_used", _TIME),
)
"""`hash`: SHA-256 of the whole token; the secret itself is nowhere."""

projects = Table(
    "projects",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("spec", Text, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("time", _TIME, nullable=False),
    Column("principal", String(60), nullable=False),
    Column("method", String(10), nullable=False),
    Column("path", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("request_id", String(64), nullable=False),
    sqlite_autoincrement=True,
)

operations = Table(
    "operations",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("kind", String(60), nullable=False),
    Column("state", String(10), nullable=False, index=True),
    Column("created", _TIME, nullable=False, index=True),
    Column("finished", _TIME),
    Column("principal", String(60)),
    Column("targets", Text, nullable=False),
)

answers = Table(
    "answers",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("created", _TIME, nullable=False, index=True),
    Column("status", Integer),
    Column("headers", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""Of requests with an `Idempotency-Key`; `status` is null until there is an answer."""
