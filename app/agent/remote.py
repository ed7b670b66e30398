"""The agent of another process, over its Unix socket. Made by the composition root (`app/main.py`).

A lost agent is AgentUnavailable; the next call connects again. Connections are kept for reuse,
one for each call under way.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app import tracing
from app.agent import wire
from app.domain.application import ApplicationSpec
from app.domain.capture import CaptureRequest, Pcapng
from app.domain.errors import AgentUnavailable
from app.domain.fault import Counters, FaultOrder
from app.domain.files import FilesPart, FilesRequest
from app.domain.health import Probe, Probed
from app.domain.launch import Launch
from app.domain.leftover import Leftover
from app.domain.network import NetworkSpec
from app.domain.observed import (
    Claim,
    Coverage,
    ExecResult,
    Finding,
    Instance,
    LogLine,
    Observed,
    Report,
)
from app.domain.ports import Line, ReportKind
from app.domain.secret import Secret, SecretSpec
from app.domain.terminal import TerminalInput, TerminalPart, TerminalSize
from app.domain.usage import Usage
from app.logs import request_id

_MAX_IDLE = 16


class RemoteAgent:
    """Implements `app.domain.ports.Agent`; each method is the server's of the same name."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    def preflight(self, launch: Launch) -> Coverage:
        """See `Agent.preflight`."""
        return self._call("preflight", launch)  # type: ignore[no-any-return]

    def create(self, launch: Launch, *, starting: bool = False) -> Coverage:
        """See `Agent.create`."""
        return self._call("create", launch, starting=starting)  # type: ignore[no-any-return]

    def start(self, name: str) -> Observed:
        """See `Agent.start`."""
        return self._call("start", name)  # type: ignore[no-any-return]

    def stop(self, name: str) -> Observed:
        """See `Agent.stop`."""
        return self._call("stop", name)  # type: ignore[no-any-return]

    def remove(self, name: str) -> None:
        """See `Agent.remove`."""
        self._call("remove", name)

    def observe(self) -> list[Observed]:
        """See `Agent.observe`."""
        return self._call("observe")  # type: ignore[no-any-return]

    def wait(self, name: str, timeout_s: float | None = None) -> Observed:
        """See `Agent.wait`."""
        return self._call("wait", name, timeout_s)  # type: ignore[no-any-return]

    def wait_change(self, seen: int, timeout_s: float) -> int:
        """See `Agent.wait_change`."""
        return self._call("wait_change", seen, timeout_s)  # type: ignore[no-any-return]

    def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[LogLine]:
        """See `Agent.logs`. Errors are raised at once, not at the first line."""
        stream = self._stream("logs", name, follow=follow, tail=tail)
        next(stream)
        return stream

    def exec(self, name: str, command: list[str], *, timeout_s: float = 60.0) -> ExecResult:
        """See `Agent.exec`."""
        return self._call("exec", name, command, timeout_s=timeout_s)  # type: ignore[no-any-return]

    def probe(self, name: str, probe: Probe) -> Probed:
        """See `Agent.probe`."""
        return self._call("probe", name, probe)  # type: ignore[no-any-return]

    def terminal(self, name: str, command: list[str], size: TerminalSize) -> Iterator[TerminalPart]:
        """See `Agent.terminal`. Errors are raised at once, not at the first part."""
        stream = self._stream("terminal", name, command, size)
        next(stream)
        return stream

    def terminal_input(self, session: str, typed: TerminalInput) -> None:
        """See `Agent.terminal_input`."""
        self._call("terminal_input", session, typed)

    def terminal_resize(self, session: str, size: TerminalSize) -> None:
        """See `Agent.terminal_resize`."""
        self._call("terminal_resize", session, size)

    def files(self, name: str, request: FilesRequest) -> Iterator[FilesPart]:
        """See `Agent.files`. Errors are raised at once, not at the first part."""
        stream = self._stream("files", name, request)
        next(stream)
        return stream

    def configure(
        self, name: str, spec: ApplicationSpec, settings: dict[str, dict[str, Any]]
    ) -> None:
        """See `Agent.configure`."""
        self._call("configure", name, spec, settings)

    def reports(self, after: int) -> list[Report]:
        """See `Agent.reports`."""
        return self._call("reports", after)  # type: ignore[no-any-return]

    def instances(self, name: str) -> list[Instance]:
        """See `Agent.instances`."""
        return self._call("instances", name)  # type: ignore[no-any-return]

    def evidence(self, name: str) -> list[Claim]:
        """See `Agent.evidence`."""
        return self._call("evidence", name)  # type: ignore[no-any-return]

    def set_faults(self, name: str, orders: list[FaultOrder]) -> dict[str, Counters]:
        """See `Agent.set_faults`."""
        return self._call("set_faults", name, orders)  # type: ignore[no-any-return]

    def report(self, name: str, what: ReportKind) -> list[Line]:
        """See `Agent.report`."""
        return self._call("report", name, what)  # type: ignore[no-any-return]

    def usage(self) -> list[Usage]:
        """See `Agent.usage`."""
        return self._call("usage")  # type: ignore[no-any-return]

    def capture(self, name: str, request: CaptureRequest) -> Iterator[Pcapng]:
        """See `Agent.capture`. Errors are raised at once, not at the first packet."""
        stream = self._stream("capture", name, request)
        next(stream)
        return stream

    def ensure_network(self, network: NetworkSpec) -> None:
        """See `Agent.ensure_network`."""
        self._call("ensure_network", network)

    def remove_network(self, name: str) -> None:
        """See `Agent.remove_network`."""
        self._call("remove_network", name)

    def ensure_volume(self, name: str) -> str:
        """See `Agent.ensure_volume`."""
        return self._call("ensure_volume", name)  # type: ignore[no-any-return]

    def remove_volume(self, name: str) -> None:
        """See `Agent.remove_volume`."""
        self._call("remove_volume", name)

    def put_secret(self, secret: SecretSpec) -> Secret:
        """See `Agent.put_secret`."""
        return self._call("put_secret", secret)  # type: ignore[no-any-return]

    def secrets(self) -> list[Secret]:
        """See `Agent.secrets`."""
        return self._call("secrets")  # type: ignore[no-any-return]

    def remove_secret(self, name: str) -> None:
        """See `Agent.remove_secret`."""
        self._call("remove_secret", name)

    def leftovers(self) -> list[Leftover]:
        """See `Agent.leftovers`."""
        return self._call("leftovers")  # type: ignore[no-any-return]

    def discard(self, leftover: Leftover) -> None:
        """See `Agent.discard`."""
        self._call("discard", leftover)

    def doctor(self) -> list[Finding]:
        """See `Agent.doctor`."""
        return self._call("doctor")  # type: ignore[no-any-return]

    def _call(self, name: str, *positional: Any, **named: Any) -> Any:
        method = wire.methods()[name]
        connection, frame = self._request(method, wire.bind(name, positional, named))
        self._keep(connection)
        if "error" in frame:
            raise wire.load_error(frame["error"])
        return method.result.validate_python(frame.get("result"), strict=False)

    def _stream(self, name: str, *positional: Any, **named: Any) -> Iterator[Any]:
        """First None, as soon as the agent has begun; then the items."""
        method = wire.methods()[name]
        connection, frame = self._request(method, wire.bind(name, positional, named))
        finished = False
        try:
            if "begin" in frame:
                yield None
                frame = self._next(connection)
            while "item" in frame:
                yield method.result.validate_python(frame["item"], strict=False)
                frame = self._next(connection)
            finished = True
            if "error" in frame:
                raise wire.load_error(frame["error"])
        finally:
            if finished:
                self._keep(connection)
            else:
                connection.close()

    def _request(
        self, method: wire.Method, arguments: dict[str, Any]
    ) -> tuple[socket.socket, dict[str, Any]]:
        """The connection and the first frame of the answer.

        A kept connection may be of an agent that has since been restarted: then its request was
        never read, and is sent once more on a new one.
        """
        request = {
            "method": method.name,
            "arguments": method.dump(arguments),
            "context": {"request_id": request_id.get(), **tracing.outgoing()},
        }
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is not None:
            sent = False
            with contextlib.suppress(OSError):
                if not _is_closed(kept):
                    wire.send(kept, request)
                    sent = True
            if sent:
                return kept, self._next(kept)
            kept.close()
        connection = self._connect()
        try:
            wire.send(connection, request)
            return connection, self._next(connection)
        except OSError as error:
            connection.close()
            raise self._unavailable(str(error.strerror)) from error
        except BaseException:
            connection.close()
            raise

    def _next(self, connection: socket.socket) -> dict[str, Any]:
        try:
            frame = wire.receive(connection)
        except OSError as error:
            raise self._unavailable(str(error.strerror)) from error
        if frame is None:
            raise self._unavailable("it closed the connection")
        return frame

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            place = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                connection.connect(f"/proc/self/fd/{place}/{self._path.name}")
            finally:
                os.close(place)
        except OSError as error:
            connection.close()
            raise self._unavailable(str(error.strerror)) from error
        return connection

    def _keep(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _unavailable(self, why: str) -> AgentUnavailable:
        return AgentUnavailable(
            f"the agent at {self._path} does not answer: {why}",
            remedy=f"start it: cse agent --socket {self._path}",
        )


def _is_closed(connection: socket.socket) -> bool:
    """The other end is gone: there is an end of file to read."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
