"""What happened, in order, with persistent ids. Part of `app/store/store.py`'s transactions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Row, delete, func, insert, select

from app.domain.errors import Gone
from app.domain.observed import Report
from app.domain.resources import Event
from app.store.clock import now, stamp
from app.store.tables import events, meta

_INSERT = insert(events)
_LAST_REPORT = "last-report"
_TRIM_EVERY = 256
"""Events between two deletions of old ones: a delete with each would cost more than it saves."""


class Events:
    """The events, oldest first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.added = 0
        self._last_id = 0

    def add(
        self, kind: str, application: str | None, message: str, time: datetime | None = None
    ) -> None:
        """Record one; `time`: when it happened, where that is not now."""
        result = self._connection.execute(
            _INSERT,
            {
                "time": stamp(time) if time else now(),
                "kind": kind,
                "application": application,
                "message": message.replace("\0", "\ufffd"),  # PostgreSQL takes none
            },
        )
        self._last_id = int((result.inserted_primary_key or (0,))[0])
        self.added += 1

    def add_reports(self, reports: list[Report], installation: str) -> None:
        """What instances of this store's applications told. Their numbers are remembered in the
        same transaction, so that none is recorded twice."""
        last = self.last_report()
        for report in reports:
            if report.number > last and report.application_id.startswith(f"{installation}-"):
                self.add("reported", report.application, report.text, report.time)
            last = max(last, report.number)
        row = {"key": _LAST_REPORT, "value": str(last)}
        self._connection.execute(delete(meta).where(meta.c.key == _LAST_REPORT))
        self._connection.execute(insert(meta).values(row))

    def last_report(self) -> int:
        """The number to ask the agent from."""
        query = select(meta.c.value).where(meta.c.key == _LAST_REPORT)
        return int(self._connection.execute(query).scalar() or 0)

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

    def require(self, seen: int) -> None:
        """Raises `Gone` where events after `seen` have been deleted, or it is not of this store."""
        bounds = self._connection.execute(select(func.min(events.c.id), func.max(events.c.id)))
        first, last = bounds.one()
        if (first is None and seen == 0) or (first is not None and first - 1 <= seen <= last):
            return
        what = "is newer than any event here" if seen > (last or 0) else "is kept no longer"
        raise Gone(
            f"what followed event {seen} {what}; there are {first or 0} to {last or 0}",
            remedy="read the state anew, then follow from the last event that "
            "GET /v1/events?limit=1 shows",
        )

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
