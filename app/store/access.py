"""Tokens (hashed), projects and the audit log. Part of `app/store/store.py`'s transactions."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from app.domain.access import DEFAULT_PROJECT, AuditEntry, NewToken, ProjectSpec, Token, TokenSpec
from app.domain.errors import Conflict, NotFound
from app.domain.explain import did_you_mean
from app.store.clock import now, stamp
from app.store.tables import audit as audit_table
from app.store.tables import projects as project_table
from app.store.tables import tokens as token_table

_PREFIX = "cse"
_SECRET_BYTES = 32
_TRIM_EVERY = 256
_ADD_AUDIT = insert(audit_table)


def digest(token: str) -> str:
    """As it is kept. No salt, no slow hash: the secret is 256 random bits, not a password."""
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """The tokens, by name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> list[Token]:
        """Also those that are revoked or have expired."""
        rows = self._connection.execute(select(token_table).order_by(token_table.c.created))
        return [_token(row) for row in rows]

    def hashed(self) -> dict[str, Token]:
        """Hash → token, of those that are not revoked."""
        query = select(token_table).where(token_table.c.revoked.is_(None))
        return {row.hash: _token(row) for row in self._connection.execute(query)}

    def get(self, identity: str) -> Token:
        """By id, or by name: a name can be taken again when its token is revoked, and means the
        one that is valid then. Raises `NotFound`."""
        present = self.all()
        fitting = [token for token in present if identity in (token.id, token.name)]
        if fitting:
            return max(fitting, key=lambda one: (one.id == identity, one.revoked is None))
        names = [token.name for token in present]
        raise NotFound(f"there is no token '{identity}'", remedy=did_you_mean(identity, names))

    def create(self, spec: TokenSpec) -> NewToken:
        """The secret is in the answer and nowhere else. Raises `Conflict` for a name in use."""
        if any(token.name == spec.name and token.revoked is None for token in self.all()):
            raise Conflict(
                f"there is a token '{spec.name}' already",
                pointer="/name",
                remedy="choose another name, or revoke that one first",
            )
        identity = secrets.token_hex(4)
        secret = f"{_PREFIX}_{identity}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        created = datetime.now(UTC)
        expires = created + timedelta(seconds=spec.expires_in) if spec.expires_in else None
        self._connection.execute(
            insert(token_table).values(
                id=identity,
                name=spec.name,
                hash=digest(secret),
                scope=spec.scope,
                project=spec.project,
                created=stamp(created),
                expires=stamp(expires) if expires else None,
            )
        )
        return NewToken(token=secret, **self.get(identity).model_dump())

    def revoke(self, identity: str) -> Token:
        """It is refused from now on, and stays in the list."""
        token = self.get(identity)
        change = update(token_table).where(token_table.c.id == token.id)
        if token.revoked is None:
            self._connection.execute(change.values(revoked=now()))
        return self.get(token.id)

    def used(self, identity: str) -> None:
        """Just now."""
        change = update(token_table).where(token_table.c.id == identity)
        self._connection.execute(change.values(last_used=now()))


class Projects:
    """The projects, by name; `default` is always there."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.touched = False
        """Whether anything of them was written."""

    def all(self) -> list[ProjectSpec]:
        """By name."""
        rows = self._connection.execute(select(project_table.c.spec))
        found = {spec.name: spec for spec in map(_project, rows)}
        found.setdefault(DEFAULT_PROJECT, ProjectSpec(name=DEFAULT_PROJECT))
        return [found[name] for name in sorted(found)]

    def find(self, name: str) -> ProjectSpec | None:
        """None where there is none of this name."""
        query = select(project_table.c.spec).where(project_table.c.name == name)
        row = self._connection.execute(query).first()
        if row is None and name == DEFAULT_PROJECT:
            return ProjectSpec(name=DEFAULT_PROJECT)
        return _project(row) if row else None

    def get(self, name: str) -> ProjectSpec:
        """Raises `NotFound`."""
        if found := self.find(name):
            return found
        names = [project.name for project in self.all()]
        raise NotFound(f"there is no project '{name}'", remedy=did_you_mean(name, names))

    def put(self, spec: ProjectSpec) -> None:
        """Add or change."""
        table = project_table
        self.touched = True
        self._connection.execute(delete(table).where(table.c.name == spec.name))
        self._connection.execute(insert(table).values(name=spec.name, spec=spec.model_dump_json()))

    def remove(self, name: str) -> None:
        """The caller has made sure that it is empty."""
        self.touched = True
        self._connection.execute(delete(project_table).where(project_table.c.name == name))


class Audit:
    """What was asked for, by whom, oldest first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self, principal: str, method: str, path: str, status: int, request_id: str, keep: int
    ) -> None:
        """Record one, and let go of all but about the last `keep`."""
        values = {
            "time": now(),
            "principal": principal,
            "method": method,
            "path": path,
            "status": status,
            "request_id": request_id,
        }
        result = self._connection.execute(_ADD_AUDIT, values)
        last = int((result.inserted_primary_key or (0,))[0])
        if last % _TRIM_EVERY == 0:
            self._connection.execute(delete(audit_table).where(audit_table.c.id <= last - keep))

    def after(self, seen: int, limit: int) -> list[AuditEntry]:
        """The first `limit` entries with an id above `seen`."""
        query = select(audit_table).where(audit_table.c.id > seen)
        rows = self._connection.execute(query.order_by(audit_table.c.id).limit(limit))
        return [AuditEntry.model_validate(dict(row._mapping)) for row in rows]

    def latest(self, limit: int) -> list[AuditEntry]:
        """The last `limit` entries, oldest first."""
        query = select(audit_table).order_by(audit_table.c.id.desc()).limit(limit)
        rows = self._connection.execute(query)
        return [AuditEntry.model_validate(dict(row._mapping)) for row in rows][::-1]


def _token(row: Row[tuple[object, ...]]) -> Token:
    values = {key: value for key, value in row._mapping.items() if key != "hash"}
    return Token.model_validate(values)


def _project(row: Row[Any]) -> ProjectSpec:
    return ProjectSpec.model_validate_json(row[0])
