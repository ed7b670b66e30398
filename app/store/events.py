"""What happened, in order, with persistent ids. Part of `app/store/store.py`'s transactions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Row, delete, insert, select

from app.store.clock import now
from app.store.records import Event
from app.store.tables import events

_INSERT = insert(events)
_TRIM_EVERY = 256
"""Events between two deletions of old ones: a delete with each would cost more than it saves."""


class Events:
    """The events, oldest first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.added = 0
        self._last_id = 0

    def add(self, kind: str, application: str | None, message: str) -> None:
        """Record one."""
        result = self._connection.execute(
            _INSERT,
            {"time": now(), "kind": kind, "application": application, "message": message},
        )
        self._last_id = int((result.inserted_primary_key or (0,))[0])
        self.added += 1

    def after(self, seen: int, *, application: str | None = None, limit: int = 100) -> list[Event]:
        """The first `limit` events with an id above `seen`."""
        query = select(events).where(events.c.id > seen).order_by(events.c.id).limit(limit)
        if application is not None:
            query = query.where(events.c.application == application)
        return [_event(row) for row in self._connection.execute(query)]

    def latest(self, *, application: str | None = None, limit: int = 100) -> list[Event]:
        """The last `limit` events, oldest first."""
        query = select(events).order_by(events.c.id.desc()).limit(limit)
        if application is not None:
            query = query.where(events.c.application == application)
        return [_event(row) for row in self._connection.execute(query)][::-1]

    def trim(self, keep: int) -> None:
        """Delete all but about the last `keep`."""
        if self._last_id % _TRIM_EVERY < self.added:
            self._connection.execute(delete(events).where(events.c.id <= self._last_id - keep))


def _event(row: Row[tuple[object, ...]]) -> Event:
    values = row._mapping
    return Event(
        id=values["id"],
        time=datetime.fromisoformat(values["time"]),
        kind=values["kind"],
        application=values["application"],
        message=values["message"],
    )
