"""Faults that hold, with their ends. Part of `app/store/store.py`'s transactions."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, Row, delete, insert, select, update

from app.domain.errors import Conflict, NotFound
from app.domain.explain import did_you_mean
from app.domain.fault import MAX_FAULTS, Fault, FaultSpec
from app.store.clock import StoredClock
from app.store.tables import faults as table

_ALL = select(table).order_by(table.c.created, table.c.id)
_CLOCK = "clock"


class Faults:
    """The faults, oldest first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> list[Fault]:
        """Of all applications."""
        return [_fault(row) for row in self._connection.execute(_ALL)]

    def of(self, application: str) -> list[Fault]:
        """Of one application."""
        rows = self._connection.execute(_ALL.where(table.c.application == application))
        return [_fault(row) for row in rows]

    def get(self, application: str, fault_id: str) -> Fault:
        """Raises `NotFound`."""
        present = {fault.id: fault for fault in self.of(application)}
        if fault_id not in present:
            raise NotFound(
                f"'{application}' has no fault '{fault_id}'",
                remedy=did_you_mean(fault_id, present) if present else "it may have ended",
            )
        return present[fault_id]

    def add(self, fault: Fault) -> None:
        """Raises `Conflict` where the application has as many as an instance can hold."""
        if len(self.of(fault.application)) >= MAX_FAULTS:
            raise Conflict(
                f"'{fault.application}' has {MAX_FAULTS} faults already",
                remedy="remove one, or give one fault several effects",
            )
        self._connection.execute(
            insert(table).values(
                id=fault.id,
                application=fault.application,
                spec=fault.spec.model_dump_json(),
                seed=str(fault.seed),
                created=fault.created.isoformat(),
                ends=fault.ends.isoformat() if fault.ends else None,
                stack=fault.stack,
            )
        )

    def postpone(self, by: timedelta) -> set[str]:
        """Move every end by so much; returns the applications that this concerns."""
        ending = [fault for fault in self.all() if fault.ends is not None]
        for fault in ending:
            assert fault.ends is not None
            change = update(table).where(table.c.id == fault.id)
            self._connection.execute(change.values(ends=(fault.ends + by).isoformat()))
        return {fault.application for fault in ending}

    def clock(self) -> StoredClock | None:
        """How the wall clock stood to the time since boot when the ends were last right."""
        return StoredClock.read(self._connection, _CLOCK)

    def set_clock(self, clock: StoredClock) -> None:
        """The ends are right by a wall clock that stands so."""
        clock.write(self._connection, _CLOCK)

    def remove(self, fault_id: str) -> None:
        """It holds no longer."""
        self._connection.execute(delete(table).where(table.c.id == fault_id))


def _fault(row: Row[tuple[object, ...]]) -> Fault:
    values = row._mapping
    return Fault(
        id=values["id"],
        application=values["application"],
        spec=FaultSpec.model_validate_json(values["spec"]),
        seed=int(values["seed"]),
        created=datetime.fromisoformat(values["created"]),
        ends=datetime.fromisoformat(values["ends"]) if values["ends"] else None,
        stack=values["stack"],
    )
