"""What the control plane believes to be on the host, and what went wrong last.

One lock for `loop.py` (scheduling), `converge.py` (results of steps) and the API (waiting).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from app.domain.errors import AgentUnavailable, CseError, HostLacks, RuntimeFailure, TimedOut
from app.domain.observed import Observed
from app.domain.status import Condition, Status

_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 60.0
_PASSING = (AgentUnavailable, TimedOut, RuntimeFailure, HostLacks)
"""Errors that may be gone the next time."""


Difference = tuple[str, Observed | None, Observed | None]
"""Name, before, after."""


_ACTIVITY_S = 20.0
"""An instance that is busy says so every few seconds."""


class View:
    """Observations by name; every change wakes who waits."""

    def __init__(self) -> None:
        lock = threading.RLock()
        self.changed = threading.Condition(lock)
        self._quiet = threading.Condition(lock)
        """Told when no application is busy: who waits for that need not wake for each change."""
        self.busy: set[str] = set()
        self._observed: dict[str, Observed] = {}
        self._conditions: dict[str, Condition] = {}
        self._epoch = 0
        self._changed_at: dict[str, int] = {}
        self.failing = threading.Event()
        """Set when an attempt has failed: there may be another time to wait for."""
        self._activities: dict[str, tuple[str, float]] = {}
        self.synced = False
        """Whether the agent has been asked once: before that nothing is known to be absent."""

    def status(self, name: str) -> Status:
        """All that is known of one application."""
        return self.statuses([name])[0]

    def statuses(self, names: Sequence[str]) -> list[Status]:
        """The same of several, at one moment."""
        with self.changed:
            busy, observed, conditions = self.busy, self._observed, self._conditions
            activities = self._present_activities()
            return [
                Status(observed.get(name), conditions.get(name), name in busy, activities.get(name))
                for name in names
            ]

    def _present_activities(self) -> dict[str, str]:
        oldest = time.monotonic() - _ACTIVITY_S
        self._activities = {n: told for n, told in self._activities.items() if told[1] > oldest}
        return {name: text for name, (text, _) in self._activities.items()}

    def doing(self, name: str, activity: str) -> None:
        """What an instance told that it is busy with; empty: no more."""
        with self.changed:
            if activity:
                self._activities[name] = (activity, time.monotonic())
            else:
                self._activities.pop(name, None)

    def observed(self) -> dict[str, Observed]:
        """All observations."""
        with self.changed:
            return dict(self._observed)

    def wait_for(self, name: str, done: Callable[[Status], bool], timeout_s: float) -> Status:
        """Block until `done` or the time is over; the last status either way."""
        deadline = time.monotonic() + timeout_s
        with self.changed:
            while True:
                status = self.status(name)
                left = deadline - time.monotonic()
                if done(status) or left <= 0:
                    return status
                self.changed.wait(left)

    def wait_quiet(self, timeout_s: float) -> None:
        """Until no application is busy, at most so long."""
        with self.changed:
            self._quiet.wait_for(lambda: not self.busy, timeout_s)

    def settled(self, name: str) -> None:
        """It is not busy any more."""
        with self.changed:
            self.busy.discard(name)
            if not self.busy:
                self._quiet.notify_all()
            self.changed.notify_all()

    def begin_snapshot(self) -> int:
        """Before the agent is asked; pass the result to `apply_snapshot`."""
        with self.changed:
            return self._epoch

    def apply_snapshot(self, epoch: int, snapshot: list[Observed]) -> tuple[list[Difference], bool]:
        """Take over what was seen; returns the differences, and whether to look again.

        What a step has changed since `epoch` may be newer than the snapshot, or older (a program
        that ended between its start and the record of it): it is kept, and another look decides.
        """
        differences: list[Difference] = []
        unsure = False
        with self.changed:
            found = {observed.name: observed for observed in snapshot}
            for name in self._observed.keys() | found.keys():
                before, after = self._observed.get(name), found.get(name)
                if before is after or before == after:
                    continue
                if self._changed_at.get(name, 0) > epoch:
                    unsure = True
                    continue
                differences.append((name, before, after))
                self._set(name, after)
            # Of the next looks, each begins later than this one did.
            self._changed_at = {name: at for name, at in self._changed_at.items() if at > epoch}
            self.synced = True
            self.changed.notify_all()
        return differences, unsure

    def record(self, name: str, before: Observed | None, after: Observed | None) -> bool:
        """The result of a step on what was `before`; false where a snapshot says otherwise.

        Which of the two is newer cannot be told then: the caller has to look again.
        """
        with self.changed:
            undisputed = self._observed.get(name) in (before, after)
            self._epoch += 1
            self._changed_at[name] = self._epoch
            self._set(name, after)
            self.changed.notify_all()
            return undisputed

    def fail(self, name: str, generation: int, error: CseError) -> Condition:
        """Remember an error; passing ones get a time for the next attempt."""
        with self.changed:
            before = self._conditions.get(name)
            same = before is not None and before.generation == generation
            attempts = 1 + (before.attempts if before is not None and same else 0)
            retry_at = None
            if isinstance(error, _PASSING):
                delay = min(_FIRST_RETRY_S * 2.0 ** (attempts - 1), _LONGEST_RETRY_S)
                retry_at = time.monotonic() + delay
            condition = Condition(generation, error, str(error), attempts, retry_at)
            self._conditions[name] = condition
            self.changed.notify_all()
        self.failing.set()
        return condition

    def hold(self, name: str, generation: int, detail: str) -> None:
        """Remember that the application waits for others."""
        with self.changed:
            self._conditions[name] = Condition(generation, None, detail)
            self.changed.notify_all()

    def clear(self, name: str) -> None:
        """All is right again."""
        with self.changed:
            if self._conditions.pop(name, None):
                self.changed.notify_all()

    def held_by(self, name: str) -> list[str]:
        """Applications that may be waiting for this one."""
        with self.changed:
            return [
                other
                for other, condition in self._conditions.items()
                if condition.error is None and f"'{name}'" in condition.detail
            ]

    def will_retry(self, name: str) -> bool:
        """Its last attempt has failed, and there is a time for the next."""
        condition = self._conditions.get(name)
        return condition is not None and condition.retry_at is not None

    def due(self) -> tuple[list[str], float | None]:
        """Names whose next attempt is due, and seconds until the next one after those."""
        with self.changed:
            now = time.monotonic()
            times = {
                name: condition.retry_at
                for name, condition in self._conditions.items()
                if condition.retry_at is not None and name not in self.busy
            }
            later = [moment - now for moment in times.values() if moment > now]
            return [name for name, moment in times.items() if moment <= now], (
                min(later) if later else None
            )

    def _set(self, name: str, observed: Observed | None) -> None:
        if observed is None:
            self._observed.pop(name, None)
        else:
            self._observed[name] = observed
