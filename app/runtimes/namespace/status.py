"""What the shim wrote about its application, and whether the shim itself still lives.

`status` (see images/_shim/status.c) is replaced as a whole, so a reader never sees half of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.domain.errors import RuntimeFailure
from app.domain.observed import Observed, State


@dataclass(frozen=True)
class Status:
    """The file's lines, typed."""

    state: State
    shim_pid: int
    shim_start: int
    init_pid: int
    pid: int
    exit_code: int
    restarts: int
    started_ns: int
    finished_ns: int
    reason: str
    lost: bool = False
    """Unfinished by its own words, but the shim is gone and will never write another."""

    @property
    def alive(self) -> bool:
        """The shim named by pid and start time exists."""
        return start_time(self.shim_pid) == self.shim_start

    @property
    def unfinished(self) -> bool:
        """By its own words; see `alive`."""
        return self.state in (State.RUNNING, State.RESTARTING)


_NUMBERS = tuple(
    name for name in Status.__dataclass_fields__ if name not in ("state", "reason", "lost")
)


def _contents(path: str) -> bytes:
    """Of a small file; a removal alone reads eight, and pathlib takes as long as the kernel."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def start_time(pid: int) -> int | None:
    """Clock ticks after boot (field 22 of /proc/PID/stat); None where there is no such process."""
    try:
        text = _contents(f"/proc/{pid}/stat")
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def read(directory: Path) -> Status | None:
    """None: never started."""
    found = _parse(directory)
    if found is None or not found.unfinished or found.alive:
        return found
    # A shim writes its last word before it ends: one found dead may have written it since.
    found = _parse(directory)
    if found is not None and found.unfinished and not found.alive:
        return replace(found, lost=True)
    return found


def _parse(directory: Path) -> Status | None:
    try:
        text = _contents(f"{directory}/status").decode(errors="replace")
    except FileNotFoundError:
        return None
    values = dict(line.partition("=")[::2] for line in text.splitlines())
    try:
        numbers: dict[str, Any] = {name: int(values[name]) for name in _NUMBERS}
        return Status(state=State(values["state"]), reason=values.get("reason", ""), **numbers)
    except (KeyError, ValueError) as error:
        raise RuntimeFailure(f"{directory}/status is damaged: {error}") from error


def observed(identifier: str, name: str, status: Status | None) -> Observed:
    """The application as the control plane sees it; a lost shim is an exit."""
    if status is None:
        return Observed(id=identifier, name=name, runtime="namespace", state=State.CREATED)
    state, exit_code, reason = status.state, status.exit_code, status.reason
    if status.lost:
        state, exit_code = State.EXITED, 137
        reason = "its supervisor is gone: the host was restarted, or the process was killed"
    running = state is State.RUNNING
    return Observed(
        id=identifier,
        name=name,
        runtime="namespace",
        state=state,
        pid=status.pid if running and status.pid > 0 else None,
        exit_code=exit_code if exit_code >= 0 and not running else None,
        started_at=_time(status.started_ns),
        finished_at=None if running else _time(status.finished_ns),
        restarts=status.restarts,
        reason=reason or None,
    )


def open_shim(status: Status) -> int | None:
    """A pidfd of the living shim, which no reuse of its pid can misdirect; None where gone."""
    try:
        fd = os.pidfd_open(status.shim_pid)
    except OSError:
        return None
    if status.alive:
        return fd
    os.close(fd)
    return None


def _time(nanoseconds: int) -> datetime | None:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC) if nanoseconds > 0 else None
