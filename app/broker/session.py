"""The broker's memory of one application: its instance, its connections, what they reported.

No I/O here beyond closing descriptors: `broker.py` moves the packets. The rule that this file
keeps: at any time at most one program of an application is told to create an instance, and
everyone else waits for it or is told to attach.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from app.broker.messages import shown
from app.domain.network import NetworkBinding, PeerAddresses

MAX_EVENTS = 100
MAX_COUNTERS = 128
MAX_CONNECTIONS = 1024
_EVENTS_PER_S = 10.0
_EVENTS_BURST = 100.0
"""One application must not push the events of all others out of the history."""


@dataclass
class Connection:
    """One connected program, identified by SO_PEERCRED."""

    fd: int
    pid: int
    uid: int
    program: str = ""
    kind: str = ""
    registered: bool = False
    attached: bool = False
    """It was given the instance, and has not closed its connection since."""
    vnet_hdr: bool = False
    budget: float = 0.0
    budget_at: float = 0.0
    bad: int = 0


class HeldWire(NamedTuple):
    """What an instance has at one of its peers' addresses."""

    id: str = ""
    """"": from before this broker, which does not know."""
    granted_to: Connection | None = None
    """The program that was told of it; None: it told the broker."""


@dataclass(frozen=True)
class Event:
    """What an instance said."""

    time: datetime
    pid: int
    text: str


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


@dataclass
class Session:
    """`make_device` makes a tap for a new instance; `find` looks up a peer's name."""

    name: str
    make_device: Callable[[bool], int]
    find: Callable[[str], PeerAddresses | None]
    binding: NetworkBinding | None = None
    """Its place on its network, as the agent knows it."""
    discard: Callable[[Sequence[int]], None] = _close
    """Closes descriptors of an instance that has ended."""
    listener: int = -1
    connections: dict[int, Connection] = field(default_factory=dict)
    instance: tuple[int, ...] = ()
    """Arena, tap and the two bells, held here so that later programs can be given them."""
    leader: Connection | None = None
    """Whose process runs the instance's pump: it hears of wires and settings."""
    wires: dict[str, HeldWire] = field(default_factory=dict)
    """By the address of the peer."""
    wire_budget: float = 0.0
    wire_budget_at: float = 0.0
    creator: Connection | None = None
    waiting: list[Connection] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    """Kind → what was changed while it ran; told to whoever registers."""
    events_budget: float = _EVENTS_BURST
    events_budget_at: float = field(default_factory=time.monotonic)
    events_dropped: int = 0
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
        """It is gone; with the last one that has the instance, so is the instance."""
        self.connections.pop(connection.fd, None)
        if connection in self.waiting:
            self.waiting.remove(connection)
        if self.creator is connection:
            self.creator = None
        if self.leader is connection:
            self.leader = None
        if not any(one.registered or one.attached for one in self.connections.values()):
            self.drop_instance()

    @property
    def bells(self) -> tuple[int, ...]:
        """The pump's and the threads'."""
        return self.instance[2:]

    def speaker(self) -> Connection | None:
        """Where the instance hears what concerns all of it; None where none lives."""
        if self.leader is not None:
            return self.leader
        return next((one for one in self.connections.values() if one.registered), None)

    def listeners(self, kind: str) -> list[Connection]:
        """Who hears of settings of this kind: one for an instance that its processes share."""
        if kind == "network":
            speaker = self.speaker()
            return [speaker] if speaker else []
        return [one for one in self.connections.values() if one.kind == kind]

    def drop_instance(self) -> None:
        """Our descriptors only; what the programs hold is theirs."""
        instance, self.instance = self.instance, ()
        if instance:
            self.discard(instance)

    def report(self, connection: Connection, text: str) -> Event | None:
        """An `event`; None where there were too many."""
        moment = time.monotonic()
        gained = (moment - self.events_budget_at) * _EVENTS_PER_S
        self.events_budget = min(_EVENTS_BURST, self.events_budget + gained)
        self.events_budget_at = moment
        if self.events_budget < 1.0:
            self.events_dropped += 1
            return None
        self.events_budget -= 1.0
        self.events.append(Event(datetime.now(UTC), connection.pid, shown(text[:500])))
        return self.events[-1]

    def count(self, fields: Mapping[str, str]) -> None:
        """A `counters`; what is no number is left out."""
        for key, value in fields.items():
            known = key in self.counters or len(self.counters) < MAX_COUNTERS
            if known and re.fullmatch(r"-?[0-9]{1,20}", value):
                self.counters[key] = int(value)

    def details(self) -> dict[str, Any]:
        """For `Instance.details`."""
        return {
            "counters": dict(self.counters),
            "events": [
                {"time": event.time.isoformat(), "pid": event.pid, "text": event.text}
                for event in self.events
            ],
            "programs": [
                {"pid": one.pid, "uid": one.uid, "program": one.program}
                for one in self.connections.values()
            ],
            "refused_messages": self.refused,
            "dropped_events": self.events_dropped,
        }
