"""Keeps the operations: looks after each convergence whether what they wait for has come about.

Nothing here acts on the host. An application that no operation waits for costs one look into a
dictionary. Made by the composition root; `settled` is called by `loop.py`, the rest by the API.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from app.domain.errors import Conflict
from app.domain.observed import State
from app.domain.operation import Operation, Target
from app.domain.status import Convergence, Status
from app.store.records import ApplicationRecord
from app.store.store import Store, Transaction


class OperationKeeper:
    """Implements `app.domain.operation.OperationKeeping`."""

    def __init__(self, store: Store, convergence: Callable[[], Convergence]) -> None:
        self._store = store
        self._convergence = convergence
        self._changed = threading.Condition()
        self._open: dict[str, Operation] = {}
        self._waiting: dict[str, set[str]] = {}
        """Application → operations that wait for it."""
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
        with self._changed:
            self._remember(operation)
        return self._look(operation.id) or operation

    def get(self, identity: str, wait_s: float = 0.0) -> Operation:
        """See `OperationKeeping`."""
        if wait_s:
            with self._changed:
                self._changed.wait_for(lambda: identity not in self._open, wait_s)
        self._look(identity)
        with self._store.read() as transaction:
            return transaction.operations.get(identity)

    def cancel(self, identity: str) -> Operation:
        """See `OperationKeeping`."""
        self._look(identity)
        undone: list[str] = []
        with self._store.write() as transaction:
            operation = transaction.operations.get(identity)
            if operation.state != "running":
                raise Conflict(f"operation '{identity}' is over: {operation.state}")
            if any(target.goal != "running" for target in operation.targets):
                raise Conflict(
                    "an end that is under way cannot be called off",
                    remedy="wait for it, then start the application again",
                )
            targets = [
                self._undo(transaction, target, undone) if target.state == "pending" else target
                for target in operation.targets
            ]
            over = _finished(operation, targets, "cancelled")
            transaction.operations.save(over)
            transaction.events.add("operation-cancelled", None, f"{identity}: {operation.kind}")
        with self._changed:
            self._forget(over)
        for name in undone:
            self._convergence().wake(name)
        return over

    def settled(self, application: str) -> None:
        """A convergence of this application has ended."""
        with self._changed:
            waiting = list(self._waiting.get(application, ()))
        for identity in waiting:
            self._look(identity)

    def _look(self, identity: str) -> Operation | None:
        """Take down what has come about; None where it is over."""
        with self._changed:
            operation = self._open.get(identity)
        if operation is None:
            return None
        with self._store.read() as transaction:
            targets = [self._judged(transaction, target) for target in operation.targets]
        if targets == operation.targets:
            return operation
        pending = any(target.state == "pending" for target in targets)
        failed = any(target.state == "failed" for target in targets)
        if pending:
            changed = _with(operation, targets)
        else:
            changed = _finished(operation, targets, "failed" if failed else "succeeded")
        with self._store.write() as transaction:
            if transaction.operations.get(identity).state != "running":
                return None
            transaction.operations.save(changed)
            if not pending:
                kind, text = f"operation-{changed.state}", f"{identity}: {operation.kind}"
                transaction.events.add(kind, None, text)
        with self._changed:
            if pending:
                self._open[identity] = changed
            else:
                self._forget(changed)
        return changed

    def _judged(self, transaction: Transaction, target: Target) -> Target:
        if target.state != "pending":
            return target
        record = transaction.applications.find(target.application)
        same = record is not None and record.id == target.id
        if target.goal == "removed":
            return target if same else target.model_copy(update={"state": "done"})
        if record is None or not same or record.generation != target.generation:
            return target.model_copy(update={"state": "superseded", "reason": None})
        status = self._convergence().status(target.application)
        state, reason = _reached(record, status)
        return target.model_copy(update={"state": state, "reason": reason})

    def _undo(self, transaction: Transaction, target: Target, undone: list[str]) -> Target:
        record = transaction.applications.find(target.application)
        if record is not None and record.generation == target.generation:
            transaction.applications.set_desired(
                target.application, "removed" if target.is_new else "stopped"
            )
            undone.append(target.application)
        return target.model_copy(update={"state": "cancelled", "reason": None})

    def _remember(self, operation: Operation) -> None:
        self._open[operation.id] = operation
        for target in operation.targets:
            self._waiting.setdefault(target.application, set()).add(operation.id)

    def _forget(self, operation: Operation) -> None:
        self._open.pop(operation.id, None)
        for target in operation.targets:
            waiting = self._waiting.get(target.application, set())
            waiting.discard(operation.id)
            if not waiting:
                self._waiting.pop(target.application, None)
        self._changed.notify_all()


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


def _with(operation: Operation, targets: list[Target]) -> Operation:
    done = sum(target.state != "pending" for target in targets)
    return operation.model_copy(update={"targets": targets, "done": done})


def _finished(operation: Operation, targets: list[Target], state: str) -> Operation:
    over = _with(operation, targets)
    return over.model_copy(update={"state": state, "finished": datetime.now(UTC)})
