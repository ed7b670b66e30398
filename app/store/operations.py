"""Operations, and answers of idempotent requests. Part of `app/store/store.py`'s transactions."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from app.domain.errors import NotFound
from app.domain.operation import Operation, Target
from app.store.clock import StoredClock, WallClock, now, stamp
from app.store.tables import answers as answer_table
from app.store.tables import operations as table

_KEPT = 1000
"""Operations that are over."""
_ANSWERS_KEPT = timedelta(hours=24)
_CLOCK = "answers-clock"


class Operations:
    """The operations, newest last."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, operation: Operation) -> None:
        """A new one."""
        self._connection.execute(insert(table).values(**_values(operation)))

    def save(self, operation: Operation) -> None:
        """Its targets and state have changed."""
        change = update(table).where(table.c.id == operation.id)
        self._connection.execute(change.values(**_values(operation)))
        if operation.state != "running":
            self._trim(operation.id)

    def get(self, identity: str) -> Operation:
        """Raises `NotFound`."""
        row = self._connection.execute(select(table).where(table.c.id == identity)).first()
        if row is None:
            raise NotFound(
                f"there is no operation '{identity}'",
                remedy="the last thousand that are over are kept: GET /v1/operations",
            )
        return _operation(row)

    def unfinished(self) -> list[Operation]:
        """Those that are under way."""
        query = select(table).where(table.c.state == "running")
        return [_operation(row) for row in self._connection.execute(query)]

    def page(self, before: str, limit: int, state: str | None) -> list[Operation]:
        """The newest first; `before`: the `created` of the last one of the part before."""
        query = select(table).order_by(table.c.created.desc(), table.c.id.desc()).limit(limit)
        if before:
            query = query.where(table.c.created < before)
        if state is not None:
            query = query.where(table.c.state == state)
        return [_operation(row) for row in self._connection.execute(query)]

    def _trim(self, just_over: str) -> None:
        over = table.c.state != "running"
        count = self._connection.execute(
            select(func.count()).select_from(table).where(over)
        ).scalar()
        if (count or 0) > _KEPT * 1.1:
            # What was made later than now was made before the clock was set back.
            order = (table.c.created > now()).desc(), table.c.created
            oldest = select(table.c.id).where(over, table.c.id != just_over).order_by(*order)
            ids = self._connection.execute(oldest.limit((count or 0) - _KEPT)).scalars().all()
            self._connection.execute(delete(table).where(table.c.id.in_(ids)))


class Answer(NamedTuple):
    """What a request with an `Idempotency-Key` was answered; `status` is None while it is not."""

    request: str
    """Hash of method, path and body."""
    status: int | None = None
    headers: list[tuple[str, str]] = []
    body: bytes = b""


class Answers:
    """By key; each client has keys of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, key: str) -> Answer | None:
        """None where the key is new, or was used more than a day ago."""
        row = self._connection.execute(
            select(answer_table).where(answer_table.c.key == key)
        ).first()
        if row is None:
            return None
        headers = [(name, value) for name, value in json.loads(row.headers)]
        return Answer(row.request, row.status, headers, row.body)

    def begin(self, key: str, request: str, clock: WallClock) -> None:
        """Before the request is carried out; old ones are forgotten."""
        self._follow(clock)
        moment = clock.now()
        limit = stamp(moment - _ANSWERS_KEPT)
        self._connection.execute(delete(answer_table).where(answer_table.c.created < limit))
        values = {"key": key, "request": request, "created": stamp(moment)}
        self._connection.execute(insert(answer_table).values(**values, headers="[]", body=b""))

    def _follow(self, clock: WallClock) -> None:
        """They stay as old as they are when the clock is set."""
        present = StoredClock.of(clock)
        moved = present.set_since(StoredClock.read(self._connection, _CLOCK))
        if moved is None:
            return
        present.write(self._connection, _CLOCK)
        times = select(answer_table.c.key, answer_table.c.created)
        for key, created in self._connection.execute(times).all() if moved else ():
            change = update(answer_table).where(answer_table.c.key == key)
            later = stamp(datetime.fromisoformat(created) + moved)
            self._connection.execute(change.values(created=later))

    def save(self, key: str, answer: Answer) -> None:
        """The request has been answered so."""
        change = update(answer_table).where(answer_table.c.key == key)
        self._connection.execute(
            change.values(
                status=answer.status, headers=json.dumps(answer.headers), body=answer.body
            )
        )

    def forget(self, key: str) -> None:
        """It may be tried again."""
        self._connection.execute(delete(answer_table).where(answer_table.c.key == key))


def _values(operation: Operation) -> dict[str, object]:
    return {
        "id": operation.id,
        "kind": operation.kind,
        "state": operation.state,
        "created": stamp(operation.created),
        "finished": stamp(operation.finished) if operation.finished else None,
        "principal": operation.principal,
        "targets": json.dumps([one.model_dump(mode="json") for one in operation.targets]),
    }


def _operation(row: Row[tuple[object, ...]]) -> Operation:
    values = dict(row._mapping)
    targets = [Target.model_validate(one) for one in json.loads(values.pop("targets"))]
    done = sum(target.state != "pending" for target in targets)
    return Operation(targets=targets, done=done, total=len(targets), **values)
