"""Keeps the operations: looks after each convergence whether what they wait for has come about.

Nothing here acts on the host. An application that no operation waits for costs one look into a
dictionary. Made by the composition root; `settled` is called by `loop.py`, the rest by the API.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from app import tracing
from app.domain.errors import Conflict
from app.domain.observed import State
from app.domain.operation import Operation, Target
from app.domain.status import Convergence, Status
from app.store.records import ApplicationRecord
from app.store.store import Store, Transaction

log = logging.getLogger(__name__)

_AT_ONCE = 16
"""So many settled applications of a large operation are judged by one look into the store, which
has what was put off be written first."""


@dataclass
class _Open:
    """One operation that is under way. Its progress is kept here only: after a restart it is
    judged anew, from what is there."""

    operation: Operation
    targets: dict[str, Target]
    pending: set[str]
    finishing: bool = False
    end_span: Callable[[str | None], None] = lambda error: None

    def shown(self) -> Operation:
        done = len(self.targets) - len(self.pending)
        return self.operation.model_copy(
            update={"targets": list(self.targets.values()), "done": done}
        )


class OperationKeeper:
    """Implements `app.domain.operation.OperationKeeping`."""

    def __init__(self, store: Store, convergence: Callable[[], Convergence]) -> None:
        self._store = store
        self._convergence = convergence
        self._changed = threading.Condition()
        self._open: dict[str, _Open] = {}
        self._waiting: dict[str, set[str]] = {}
        """Application → operations that wait for it."""
        self._settled: set[str] = set()
        self._judging = threading.Lock()
        with store.read() as transaction:
            for operation in transaction.operations.unfinished():
                self._remember(operation)

    def begin(self, kind: str, targets: list[Target], principal: str | None) -> Operation:
        """See `OperationKeeping`."""
        operation = Operation(
            id=f"op-{secrets.token_hex(6)}",
            kind=kind,
            state="running",
            created=datetime.now(UTC),
            done=0,
            total=len(targets),
            targets=targets,
            principal=principal,
        )
        with self._store.write() as transaction:
            transaction.operations.add(operation)
        fields = {"operation_id": operation.id}
        log.info("operation %s begun: %s", operation.id, kind, extra=fields)
        with self._changed:
            self._remember(operation)
            end = tracing.longer(f"operation {kind}", operation=operation.id)
            self._open[operation.id].end_span = end
        self._look_at_all(operation.id)
        return operation

    def get(self, identity: str, wait_s: float = 0.0) -> Operation:
        """See `OperationKeeping`."""
        if wait_s:
            with self._changed:
                self._changed.wait_for(lambda: identity not in self._open, wait_s)
        self._look_at_all(identity)
        with self._changed:
            if (one := self._open.get(identity)) is not None:
                return one.shown()
        with self._store.read() as transaction:
            return transaction.operations.get(identity)

    def cancel(self, identity: str) -> Operation:
        """See `OperationKeeping`."""
        operation = self.get(identity)
        if operation.state != "running":
            raise Conflict(f"operation '{identity}' is over: {operation.state}")
        if all(target.goal != "running" for target in operation.targets):
            raise Conflict(
                "an end that is under way cannot be called off",
                remedy="wait for it, then start the application again",
            )
        undone: list[str] = []
        with self._store.write() as transaction:
            targets = [
                self._undo(transaction, target, undone)
                if target.state == "pending" and target.goal == "running"
                else target
                for target in operation.targets
            ]
        over = self._finish(operation, targets, "cancelled")
        for name in undone:
            self._convergence().wake(name)
        return over

    def settled(self, application: str) -> None:
        """A convergence of this application has ended."""
        with self._changed:
            identities = self._waiting.get(application)
            if not identities:
                return
            self._settled.add(application)
            if len(self._settled) < _AT_ONCE and all(map(self._is_far_from_over, identities)):
                return  # `get` looks by itself
        # Whoever judges takes along what others bring meanwhile: where many end at once, one look
        # into the store does for several.
        while self._settled and self._judging.acquire(blocking=False):
            try:
                self._judge_settled()
            finally:
                self._judging.release()

    def _is_far_from_over(self, identity: str) -> bool:
        one = self._open.get(identity)
        return one is not None and len(one.pending) > _AT_ONCE

    def _judge_settled(self) -> None:
        with self._changed:
            names, self._settled = self._settled, set()
            waiting = {name: list(self._waiting.get(name, ())) for name in names}
        with self._store.read() as transaction:
            records = {name: transaction.applications.find(name) for name in names}
        for name, identities in waiting.items():
            for identity in identities:
                self._judge(identity, name, records[name])

    def _look_at_all(self, identity: str) -> None:
        """Also at what has changed without a convergence."""
        with self._changed:
            one = self._open.get(identity)
            pending = list(one.pending) if one is not None else []
        if not pending:
            return
        with self._store.read() as transaction:
            records = {record.name: record for record in transaction.applications.all()}
        for name in pending:
            self._judge(identity, name, records.get(name))

    def _judge(self, identity: str, name: str, record: ApplicationRecord | None) -> None:
        """Take down what has come about; the store hears of it when all of it is over."""
        with self._changed:
            one = self._open.get(identity)
            if one is None or name not in one.pending:
                return
            target = self._judged(one.targets[name], record)
            one.targets[name] = target
            if target.state != "pending":
                one.pending.discard(name)
            if one.pending:
                return
            operation, targets = one.operation, list(one.targets.values())
        failed = any(target.state == "failed" for target in targets)
        self._finish(operation, targets, "failed" if failed else "succeeded")

    def _judged(self, target: Target, record: ApplicationRecord | None) -> Target:
        same = record is not None and record.id == target.id
        if target.goal == "removed":
            return target if same else target.model_copy(update={"state": "done"})
        if record is None or not same or record.generation != target.generation:
            return target.model_copy(update={"state": "superseded", "reason": None})
        state, reason = _reached(record, self._convergence().status(target.application))
        return target.model_copy(update={"state": state, "reason": reason})

    def _undo(self, transaction: Transaction, target: Target, undone: list[str]) -> Target:
        record = transaction.applications.find(target.application)
        if record is not None and record.generation == target.generation:
            transaction.applications.set_desired(
                target.application, "removed" if target.is_new else "stopped"
            )
            undone.append(target.application)
        return target.model_copy(update={"state": "cancelled", "reason": None})

    def _finish(self, operation: Operation, targets: list[Target], state: str) -> Operation:
        over = operation.model_copy(
            update={
                "targets": targets,
                "done": sum(target.state != "pending" for target in targets),
                "state": state,
                "finished": datetime.now(UTC),
            }
        )
        with self._changed:
            one = self._open.get(operation.id)
            if one is None or one.finishing:
                return over  # another thread saw the end as well
            one.finishing = True
        fields = {"operation_id": operation.id}
        log.info("operation %s over: %s %s", operation.id, operation.kind, state, extra=fields)
        one.end_span(None if state == "succeeded" else state)
        with self._store.write() as transaction:
            transaction.operations.save(over)
            kind, text = f"operation-{state}", f"{over.id}: {over.kind}"
            transaction.events.add(kind, None, text)
        with self._changed:
            self._open.pop(over.id, None)
            for target in targets:
                waiting = self._waiting.get(target.application, set())
                waiting.discard(over.id)
                if not waiting:
                    self._waiting.pop(target.application, None)
            self._changed.notify_all()
        return over

    def _remember(self, operation: Operation) -> None:
        targets = {target.application: target for target in operation.targets}
        pending = {name for name, target in targets.items() if target.state == "pending"}
        self._open[operation.id] = _Open(operation, targets, pending)
        for name in pending:
            self._waiting.setdefault(name, set()).add(operation.id)


def _reached(record: ApplicationRecord, status: Status) -> tuple[str, str | None]:
    """State of a target, and its reason."""
    condition, observed = status.condition, status.observed
    if condition is not None and condition.generation == record.generation:
        if condition.error is not None and condition.retry_at is None:
            return "failed", condition.detail
        return "pending", condition.detail
    if status.busy:
        return "pending", None
    ours = observed is not None and observed.id == record.id
    if record.desired == "stopped":
        alive = ours and observed is not None and observed.state is State.RUNNING
        return ("pending" if alive else "done"), None
    if not ours or observed is None or observed.state is State.CREATED:
        return "pending", None
    if observed.state is State.FAILED:
        return "failed", observed.reason
    return ("done" if record.run_done >= record.run_wanted else "pending"), None
