"""The client that programs use: the generated methods, and what takes more than one request."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from app.client.errors import PreconditionFailed, Unreachable
from app.client.operations import Operations
from app.domain.application import ApplicationSpec
from app.domain.errors import CseError
from app.domain.operation import Operation
from app.domain.resources import Application, Event

_ONE_WAIT_S = 60.0
_SILENCE_S = 45.0
"""A stream of events says at least every 15 s that it is alive."""
_LONGEST_PAUSE_S = 10.0
_ATTEMPTS = 20


class OperationFailed(CseError):
    """An operation did not bring about what it was for."""

    def __init__(self, operation: Operation) -> None:
        reasons = [
            f"{one.application}: {one.reason or one.state}"
            for one in operation.targets
            if one.state != "done"
        ]
        super().__init__(f"{operation.kind}: {operation.state} ({'; '.join(reasons)})")
        self.operation = operation


class Client(Operations):
    """One server. Threads may share it; `with` closes its connections.

    Each operation of the interface is a method (`operations.py`, generated), each page of a list
    an answer (`list_applications`) or part of an iterator (`each_application`). Errors are
    subclasses of `ProblemError`; `last` has the ETag and operation of the thread's last answer.
    """

    def wait(self, operation: str | None = None, timeout_s: float = 600.0) -> Operation | None:
        """Until this operation is over: by default the one that the last answer named, None where
        it named none. Raises `OperationFailed`, TimeoutError."""
        identity = operation or self.last.operation
        if identity is None:
            return None
        deadline = time.monotonic() + timeout_s
        while True:
            left = max(0.0, min(_ONE_WAIT_S, deadline - time.monotonic()))
            found = self.get_operation(identity, wait=left)
            if found.state == "succeeded":
                return found
            if found.state != "running":
                raise OperationFailed(found)
            if time.monotonic() >= deadline:
                raise TimeoutError(f"operation {identity} is not over after {timeout_s:g} s")

    def update_application(
        self,
        name: str,
        change: Callable[[ApplicationSpec], ApplicationSpec],
        *,
        wait: float | None = None,
    ) -> Application:
        """Read it, change it, write it back; again where somebody else was quicker."""
        for attempt in range(_ATTEMPTS):
            present = self.get_application(name)
            etag = self.last.etag
            try:
                spec = change(present.spec)
                return self.replace_application(name, spec, wait=wait, if_match=etag)
            except PreconditionFailed:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0, 0.01 * 2 ** min(attempt, 6)))
        raise AssertionError("not reached")

    def events(
        self, after: int | None = None, *, application: str | None = None
    ) -> Iterator[Event]:
        """What happens from now on, or after an event, for ever: where the connection breaks off
        it is made again, and nothing is left out or comes twice.

        Raises `Gone` where events after that one are kept no longer: read the resources anew.
        """
        if after is None:
            latest = self.list_events(limit=1).items
            after = latest[-1].id if latest else 0
        pause = 0.1
        while True:
            query = {"follow": True, "after": after, "application": application}
            try:
                for event in self._lines("/v1/events", Event, query=query, timeout_s=_SILENCE_S):
                    yield event
                    after, pause = event.id, 0.1
            except Unreachable:
                time.sleep(pause)
                pause = min(_LONGEST_PAUSE_S, pause * 2)
