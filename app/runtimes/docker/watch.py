"""Docker's event stream: says when a container of ours changed, so that nobody has to poll.

Made by `runtime` when somebody wants to be told (`changed`). Beside telling, it keeps the answers
of `inspect` fresh: they are remembered until an event about their container comes in. And it knows
who went over a memory limit: Docker itself does not say so of a container whose end it heard first.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from app.domain.errors import CseError
from app.runtimes.docker.container import INSTALLATION_LABEL
from app.runtimes.docker.engine import Engine

_SILENT = ("exec_create", "exec_start", "exec_die", "exec_detach", "top", "attach", "archive-path")


class Watch:
    """One thread; it connects again for as long as it lives."""

    def __init__(self, engine: Engine, installation: str, changed: Callable[[], None]) -> None:
        self._engine = engine
        self._installation = installation
        self._changed = changed
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        self._over_limit: set[str] = set()
        self._changes = 0
        self._connected = False
        self._stream: Any = None
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="docker-events", daemon=True).start()

    def known(self, container: str) -> dict[str, Any] | None:
        """The remembered answer of `inspect`, where it is known to be true still."""
        with self._lock:
            return self._known.get(container) if self._connected else None

    def was_over_limit(self, container: str) -> bool:
        """The kernel has killed something in it for memory since it was started."""
        with self._lock:
            return container in self._over_limit

    def ticket(self) -> int:
        """Taken before a question, and given back with its answer."""
        with self._lock:
            return self._changes

    def remember(self, container: str, inspected: dict[str, Any], ticket: int) -> None:
        """Keep an answer until the container changes; not one that a change has overtaken."""
        with self._lock:
            if self._connected and ticket == self._changes:
                self._known[container] = inspected

    def forget(self, container: str) -> None:
        """Called at our own changes, whose events may still be under way."""
        with self._lock:
            self._changes += 1
            self._known.pop(container, None)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        with contextlib.suppress(Exception):
            if self._stream is not None:
                self._stream.close()

    def _run(self) -> None:
        pause = 0.5
        while not self._closed.is_set():
            began = time.monotonic()
            with contextlib.suppress(CseError):
                self._follow()
            with self._lock:
                self._connected = False
                self._known.clear()
            pause = 0.5 if time.monotonic() - began > 10 else min(pause * 2, 10.0)
            self._closed.wait(pause)

    def _follow(self) -> None:
        filters = {"type": "container", "label": f"{INSTALLATION_LABEL}={self._installation}"}
        with self._engine.doing("follow its events"):
            self._stream = self._engine().events(filters=filters, decode=True)
            with self._lock:
                self._connected = True
            self._changed()  # whatever happened while nobody listened
            for event in self._stream:
                if self._closed.is_set():
                    return
                action = str(event.get("Action", "")).partition(":")[0]
                if action in _SILENT:
                    continue
                container = str(event.get("id", ""))
                with self._lock:
                    if action == "oom":
                        self._over_limit.add(container)
                    elif action in ("start", "destroy"):
                        self._over_limit.discard(container)
                self.forget(container)
                self._changed()
