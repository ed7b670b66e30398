"""The host's change counter: rises whenever something that `observe` shows may have changed.

Runtimes call `bump` from the threads that hear of it; the agent's `wait_change` and the runtimes'
`wait` block on it, so that nobody polls.
"""

from __future__ import annotations

import threading
import time


class Changes:
    """A counter and those who wait for it."""

    def __init__(self) -> None:
        self._count = 0
        self._condition = threading.Condition()

    @property
    def count(self) -> int:
        """The present value."""
        return self._count

    def bump(self) -> None:
        """Something changed."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout_s: float | None) -> int:
        """Block until the counter differs from `seen` or the time is over; returns the counter."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._condition:
            while self._count == seen:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._condition.wait(left)
            return self._count
