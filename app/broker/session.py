"""The broker's memory of one application: its instance, its connections, what they reported.

No I/O here beyond closing descriptors: `broker.py` moves the packets. The rule that this file
keeps: at any time at most one program of an application is told to create an instance, and
everyone else waits for it or is told to attach.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

MAX_EVENTS = 100
MAX_COUNTERS = 128
MAX_CONNECTIONS = 1024


@dataclass
class Connection:
    """One connected program, identified by SO_PEERCRED."""

    fd: int
    pid: int
    uid: int
    program: str = ""
    kind: str = ""
    registered: bool = False
    vnet_hdr: bool = False
    budget: float = 0.0
    budget_at: float = 0.0
    bad: int = 0


@dataclass(frozen=True)
class Event:
    """What an instance said."""

    time: datetime
    pid: int
    text: str


@dataclass
class Session:
    """`make_device` makes a tap for a new instance; `find` looks up a peer's name."""

    name: str
    make_device: Callable[[bool], int]
    find: Callable[[str], str | None]
    listener: int = -1
    connections: dict[int, Connection] = field(default_factory=dict)
    instance: tuple[int, ...] = ()
    """Arena and tap, held here so that later programs can be given them."""
    creator: Connection | None = None
    waiting: list[Connection] = field(default_factory=list)
    counters: dict[str, str] = field(default_factory=dict)
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    refused: int = 0
    """Messages that were malformed, unknown, or over the rate."""

    def register(self, connection: Connection, fds: list[int]) -> None:
        """The instance lives. A second one of the same application keeps the first's place."""
        connection.registered = True
        if self.creator is connection:
            self.creator = None
        if self.instance:
            _close(fds)
        else:
            self.instance = tuple(fds)

    def forget(self, connection: Connection) -> None:
        """It is gone; with the last registered one, so is the instance."""
        self.connections.pop(connection.fd, None)
        if connection in self.waiting:
            self.waiting.remove(connection)
        if self.creator is connection:
            self.creator = None
        if not any(other.registered for other in self.connections.values()):
            self.drop_instance()

    def drop_instance(self) -> None:
        """Our descriptors only; what the programs hold is theirs."""
        _close(self.instance)
        self.instance = ()

    def report(self, connection: Connection, text: str) -> None:
        """An `event`."""
        self.events.append(Event(datetime.now(UTC), connection.pid, text[:500]))

    def details(self) -> dict[str, Any]:
        """For `Instance.details`."""
        return {
            "counters": {
                key: int(value) if value.lstrip("-").isdigit() else value
                for key, value in self.counters.items()
            },
            "events": [
                {"time": event.time.isoformat(), "pid": event.pid, "text": event.text}
                for event in self.events
            ],
            "programs": [
                {"pid": one.pid, "uid": one.uid, "program": one.program}
                for one in self.connections.values()
            ],
            "refused_messages": self.refused,
        }


def _close(fds: list[int] | tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
