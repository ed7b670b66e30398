"""Turns what changes on the host into events, each told once and in order.

A program may end before its start has been recorded, and the same end may be seen by two looks:
ends are told by their time, and held back while the step that starts the program is under way.
Called by `loop.py` (looks) and `converge.py` (steps).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from app.domain.observed import Observed, State
from app.reconcile.plan import ALIVE
from app.reconcile.view import Difference
from app.store.store import Store

_End = tuple[str, datetime | None]


class History:
    """The events of one host."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._told: dict[str, _End] = {}
        self._held: dict[str, Observed | None] = {}

    def note(self, differences: Iterable[Difference]) -> None:
        """Record what the host did by itself."""
        events = []
        for name, before, after in differences:
            if after is not None and after.state is State.EXITED:
                events += self._ended(after, is_news=before is not None)
            elif before is None:
                continue
            elif after is None:
                with self._lock:
                    known = name in self._held
                    self._told.pop(name, None)
                if not known:
                    events.append(("lost", name, "disappeared from the host"))
            elif (
                after.id == before.id and before.state in ALIVE and after.restarts > before.restarts
            ):
                status = f"last status {after.exit_code}"
                events.append(("restarted", name, f"restarted ({after.restarts}), {status}"))
        self._write(events)

    @contextmanager
    def starting(self, name: str) -> Iterator[None]:
        """Around a start and the record of it: an end is told afterwards."""
        with self._lock:
            self._held[name] = None
        try:
            yield
        finally:
            with self._lock:
                held = self._held.pop(name, None)
            if held is not None:
                self._write(self._ended(held, is_news=True))

    @contextmanager
    def ending(self, name: str) -> Iterator[None]:
        """Around a step that ends the program: that it ends is no news."""
        with self._lock:
            self._held[name] = None
        try:
            yield
        finally:
            with self._lock:
                held = self._held.pop(name, None)
                if held is not None:
                    self._told[name] = (held.id, held.finished_at)

    def known(self, observed: Observed) -> None:
        """An end that a step has reported itself."""
        with self._lock:
            self._told[observed.name] = (observed.id, observed.finished_at)

    def _ended(self, observed: Observed, *, is_news: bool) -> list[tuple[str, str, str]]:
        end: _End = (observed.id, observed.finished_at)
        with self._lock:
            if observed.name in self._held:
                self._held[observed.name] = observed
                return []
            if self._told.get(observed.name) == end:
                return []
            self._told[observed.name] = end
        message = f"ended with status {observed.exit_code}"
        return [("exited", observed.name, message)] if is_news else []

    def _write(self, events: list[tuple[str, str, str]]) -> None:
        if events:
            with self._store.write() as transaction:
                for kind, name, message in events:
                    transaction.events.add(kind, name, message)
