"""What is really there: states, processes, instances, coverage, claims and verdicts."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from app.domain.model import Model


class State(StrEnum):
    """Where an application is in its life."""

    CREATED = "created"
    RUNNING = "running"
    RESTARTING = "restarting"
    EXITED = "exited"
    FAILED = "failed"
    """The runtime could not start it; `Observed.reason` says why."""


class Observed(Model):
    """One application as its runtime sees it."""

    id: str
    name: str
    runtime: str
    state: State
    pid: int | None = None
    """Of the program itself, in the host's process namespace."""
    exit_code: int | None = None
    """0 to 255; 128 + N when a signal N ended it."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    restarts: int = 0
    reason: str | None = None


class Coverage(Model):
    """What preflight found out about one program before it was started."""

    program: str
    """Absolute path as the application sees it."""
    sha256: str
    interpreter: str | None = None
    libc: Literal["glibc", "musl", "none"] = "none"
    machine: str = ""
    static: bool = False
    set_id: bool = False
    file_capabilities: bool = False
    go: bool = False
    verdict: Literal["private", "kernel", "refused"]
    """`private`: linked with its elements; `kernel`: started on the kernel's own service in a
    private namespace, as `fallback: kernel` allows; `refused`: not started."""
    reason: str = ""
    remedy: str = ""


class Instance(Model):
    """One running copy of an element inside one application."""

    id: str
    """`APPLICATION.ELEMENT`."""
    application: str
    element: str
    kind: str
    pids: list[int]
    """Processes of the application that have the element's library mapped."""
    started: bool
    """Elements start at the first call that needs them; false: linked, but not yet used."""
    settings: dict[str, Any] = {}
    """In force: as specified, changed while it runs, or by default."""
    details: dict[str, Any] = {}
    """Reported by the instance through the broker: address, counters, escapes."""


class Report(Model):
    """Something that an instance told through the broker (`event TEXT`)."""

    number: int
    """Rises with each report of a host, also across restarts of its agent."""
    time: datetime
    application: str
    application_id: str
    pid: int
    text: str

    @property
    def activity(self) -> str | None:
        """What keeps the instance busy; "": no more; None: the report is of something else.
        The words are those of images/filesystem/progress.c."""
        if ": its archive is being indexed: " in self.text:
            return self.text
        return "" if ": its archive is indexed: " in self.text else None


class Claim(Model):
    """One statement about an application's privacy, checked against what the kernel shows."""

    claim: str
    """Stable short name, as in `library-mapped`."""
    title: str
    observation: str
    """What was read, and where."""
    verdict: Literal["holds", "fails", "unknown"]
    element: str | None = None


class LogLine(Model):
    """One line (or what was there of it) of a program's output."""

    time: datetime
    stream: Literal["stdout", "stderr"]
    text: str


class ExecResult(Model):
    """A command run to its end beside an application, in the same surroundings."""

    exit_code: int
    stdout: str
    stderr: str


class Finding(Model):
    """One line of `cse doctor`."""

    check: str
    ok: bool
    observation: str
    remedy: str = ""
