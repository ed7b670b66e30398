"""Faults, captures and reports of running instances: the broker's share in them.

All messages go to the program that leads the instance (it says `lead`), or to every registered
one before that. Each carries a `serial` that only grows: what a new leader meets a second time
is ignored there. Used by `broker.py`, which passes on what arrives, and through it by the agent.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_network

from app.broker.messages import BadMessage, Message, pack, parse, shown
from app.broker.session import Connection, Session
from app.domain.errors import Conflict, TimedOut
from app.domain.fault import FaultOrder

_REPORT_BYTES = 16 * 2**20
_REPORT_S = 3.0
_OUTLET_BYTES = 4 * 2**20
_MAX_CAPTURES = 4
"""CAPTURES_MAX of images/network-lwip/lwip/instruments.h."""

Send = Callable[[Connection, bytes, list[int]], bool]


@dataclass
class _Report:
    """One question under way."""

    done: threading.Event = field(default_factory=threading.Event)
    size: int = 0


@dataclass
class Instruments:
    """Of one application."""

    session: Session
    send: Send
    lock: threading.RLock
    orders: list[FaultOrder] = field(default_factory=list)
    leader: Connection | None = None
    captures: dict[int, tuple[socket.socket, int]] = field(default_factory=dict)
    """Capture → the instance's end, given to each new leader, and the bytes of a packet kept."""
    _reports: dict[int, _Report] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _serial: int = 0

    def hear(self, connection: Connection, message: Message) -> None:
        """`lead` or `reported`, from a program."""
        if message.verb == "lead":
            self.leader = connection
            self._bring_up_to_date()
        elif (report := self._reports.get(message.number("id"))) is not None:
            report.size = min(message.number("bytes"), _REPORT_BYTES)
            report.done.set()
        else:
            raise BadMessage("an answer to no question")

    def greet(self, connection: Connection) -> None:
        """A program is about to make the instance: what is to hold from the first packet on."""
        for order in self.orders:
            self._tell("fault", _fields(order, first=False), to=connection)

    def close(self) -> None:
        """The application is removed."""
        self.leader = None
        self._end_all()

    def gone(self, connection: Connection) -> None:
        """A program has left; with the instance, its captures end."""
        if self.leader is connection:
            self.leader = None
        if not self.session.instance:
            self._end_all()

    def _end_all(self) -> None:
        for outlet, _ in self.captures.values():
            outlet.close()
        self.captures.clear()
        for report in self._reports.values():
            report.done.set()

    def set_faults(self, orders: list[FaultOrder]) -> None:
        """These and no others. A `reset` is carried out where the order is new."""
        with self.lock:
            known = {order.id for order in self.orders}
            self.orders = [order for order in orders if not order.spec.only_resets]
            self._tell("faults", {"ids": ",".join(order.id for order in self.orders)})
            for order in orders:
                self._tell("fault", _fields(order, first=order.id not in known))

    def report(self, what: str) -> list[dict[str, str]]:
        """Lines of the instance's answer; empty where none lives. Raises `TimedOut`."""
        return self.ask(what)(_REPORT_S)

    def ask(self, what: str) -> Callable[[float], list[dict[str, str]]]:
        """Ask now; the result waits for the answer at most so many seconds, and must be called."""
        with self.lock:
            if not self.session.instance:
                return lambda _: []
            number, report = next(self._numbers), _Report()
            fd = os.memfd_create("cse-report", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            self._reports[number] = report
            os.ftruncate(fd, _REPORT_BYTES)
            self._tell("report", {"id": number, "what": what}, [fd])
        return partial(self._answer, number, report, fd)

    def _answer(
        self, number: int, report: _Report, fd: int, seconds: float
    ) -> list[dict[str, str]]:
        try:
            if not report.done.wait(seconds):
                raise TimedOut(
                    f"the instance of '{self.session.name}' does not answer",
                    remedy="is the program stopped by a signal or a debugger?",
                )
            return _lines(os.pread(fd, report.size, 0))
        finally:
            with self.lock:
                del self._reports[number]
            os.close(fd)

    def open_capture(self, snap_length: int) -> tuple[int, socket.socket]:
        """Number and our end; records come from it until its end of file."""
        with self.lock:
            if not self.session.instance:
                raise Conflict(
                    f"'{self.session.name}' has no network instance yet",
                    remedy="an instance starts with the program's first socket; try again then",
                )
            if len(self.captures) >= _MAX_CAPTURES:
                raise Conflict(f"'{self.session.name}' has {_MAX_CAPTURES} captures already")
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _OUTLET_BYTES)
            number = next(self._numbers)
            self.captures[number] = (theirs, snap_length)
            self._offer(number)
            return number, ours

    def end_capture(self, number: int, *, close: bool) -> None:
        """Ask for the last record; with `close`, wait for nothing more."""
        with self.lock:
            if number not in self.captures:
                return
            if close:
                self.captures.pop(number)[0].close()
            else:
                self._tell("uncapture", {"id": number})

    def _bring_up_to_date(self) -> None:
        self._tell("faults", {"ids": ",".join(order.id for order in self.orders)})
        for order in self.orders:
            self._tell("fault", _fields(order, first=False))
        for number in self.captures:
            self._offer(number)

    def _offer(self, number: int) -> None:
        outlet, snap_length = self.captures[number]
        self._tell("capture", {"id": number, "snaplen": snap_length}, [outlet.fileno()])

    def _tell(
        self,
        verb: str,
        fields: dict[str, object],
        fds: list[int] | None = None,
        to: Connection | None = None,
    ) -> None:
        self._serial = max(self._serial + 1, time.monotonic_ns())
        data = pack(verb, {**fields, "serial": self._serial})
        if to is not None:
            targets = [to]
        elif self.leader is not None and self.leader.registered:
            targets = [self.leader]
        else:
            targets = [one for one in self.session.connections.values() if one.registered]
        for target in targets:
            self.send(target, data, fds or [])


def _fields(order: FaultOrder, *, first: bool) -> dict[str, object]:
    spec = order.spec
    fields: dict[str, object] = {
        "id": order.id,
        "in": int(spec.direction != "out"),
        "out": int(spec.direction != "in"),
        "loss_ppm": round(spec.loss * 10_000),
        "reorder_ppm": round(spec.reorder * 10_000),
        "duplicate_ppm": round(spec.duplicate * 10_000),
        "corrupt_ppm": round(spec.corrupt * 10_000),
        "delay_us": round(spec.delay * 1e6),
        "jitter_us": round(spec.jitter * 1e6),
        "bits_per_second": spec.rate or 0,
        "cut": int(spec.cut is not None),
        "refuse": spec.refuse or 0,
        "reset": spec.reset or 0 if first else 0,
        "seed": order.seed,
    }
    if order.peers:
        fields["peers"] = ",".join(_peer(peer) for peer in order.peers)
    if order.ends is not None:
        left = (order.ends - datetime.now(UTC)).total_seconds()
        fields["until_ms"] = max(1, round((time.monotonic() + left) * 1000))
    if spec.only_resets:
        fields["until_ms"] = round(time.monotonic() * 1000) + 50
    return {key: value for key, value in fields.items() if value != 0 or key == "seed"}


def _peer(text: str) -> str:
    """With the bits that count in the 16-byte form of the address."""
    network = ip_network(text, strict=False)
    bits = network.prefixlen + (96 if network.version == 4 else 0)
    return f"{network.network_address}/{bits}"


def _lines(data: bytes) -> list[dict[str, str]]:
    """What a stranger wrote: lines that are not words are left out."""
    found = []
    for line in data.splitlines():
        try:
            found.append({key: shown(value) for key, value in parse(line).fields.items()})
        except BadMessage:
            continue
    return found
