"""The interfaces between the rooms; each implementation passes one contract suite.

`Runtime` is implemented by `app/runtimes` (namespace, docker, and a fake for tests); `Agent` by
`app/agent` (in this process, or over a Unix socket). Every method raises `CseError` only, and is
safe to call from several threads and to call again after a crash: `create`, `stop`, `remove` and
the `ensure_*` methods do nothing where nothing is left to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol

from app.domain.application import ApplicationSpec
from app.domain.capture import CaptureRequest, Pcapng
from app.domain.fault import Counters, FaultOrder
from app.domain.files import CommandOutput, FilesPart, FilesRequest
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
from app.domain.secret import Secret, SecretSpec
from app.domain.terminal import TerminalInput, TerminalPart, TerminalSession, TerminalSize
from app.domain.usage import Usage

ReportKind = Literal["sockets", "faults", "counters"]
"""What an instance can be asked."""
Line = dict[str, int | float | str]


class Runtime(Protocol):
    """Puts programs into their surroundings; keeps no state that it cannot read back."""

    def create(self, launch: Launch, *, starting: bool = False) -> None:
        """Make everything but the process. A half-made application is removed again on error.
        `starting`: `start` follows; what can be done for it beforehand may be."""

    def start(self, name: str) -> Observed:
        """Start the program and return when it has been executed, or has failed to."""

    def stop(self, name: str) -> Observed:
        """End the program by its `StopRule`; returns when it has ended."""

    def remove(self, name: str) -> None:
        """Remove everything that `create` made, ending the program first where it runs."""

    def observe(self) -> list[Observed]:
        """Every application that bears this installation's mark."""

    def wait(self, name: str, timeout_s: float | None = None) -> Observed:
        """Return when the program has ended for good; `TimedOut` if it did not in time."""

    def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[LogLine]:
        """Oldest first; with `follow`, ends when the program has ended for good."""

    def exec(self, name: str, command: list[str], *, timeout_s: float = 60.0) -> ExecResult:
        """Run a command in the running application's surroundings, with its elements linked."""

    def terminal(self, name: str, command: list[str], size: TerminalSize) -> TerminalSession:
        """The same in a terminal of its own, beside the running application."""

    def look(self, name: str, command: list[str]) -> CommandOutput:
        """Run a command for its output's bytes: beside the running application as `exec` does, or,
        of one that does not run, in the same surroundings, made for it alone; a start ends it."""

    def pids(self, name: str) -> list[int]:
        """All processes of the application, in the host's process namespace."""


class Agent(Protocol):
    """The only part with privilege: runtimes, wiring, broker and evidence of one host."""

    def preflight(self, launch: Launch) -> Coverage:
        """Read the program before it is started; changes nothing."""

    def create(self, launch: Launch, *, starting: bool = False) -> Coverage:
        """Preflight, run directory, broker, wiring, runtime; all of it or none. `starting`: see
        `Runtime.create`."""

    def start(self, name: str) -> Observed:
        """See `Runtime.start`."""

    def stop(self, name: str) -> Observed:
        """See `Runtime.stop`."""

    def remove(self, name: str) -> None:
        """See `Runtime.remove`; also what wiring and broker made for it."""

    def observe(self) -> list[Observed]:
        """All applications of all runtimes of this host."""

    def wait(self, name: str, timeout_s: float | None = None) -> Observed:
        """See `Runtime.wait`."""

    def wait_change(self, seen: int, timeout_s: float) -> int:
        """Block until the host's change counter differs from `seen`; returns the counter."""

    def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[LogLine]:
        """See `Runtime.logs`."""

    def exec(self, name: str, command: list[str], *, timeout_s: float = 60.0) -> ExecResult:
        """See `Runtime.exec`."""

    def probe(self, name: str, probe: Probe) -> Probed:
        """Ask the program whether it does its work; NotFound where there is none of this name."""

    def terminal(self, name: str, command: list[str], size: TerminalSize) -> Iterator[TerminalPart]:
        """See `Runtime.terminal`; who stops reading the parts ends the command."""

    def terminal_input(self, session: str, typed: TerminalInput) -> None:
        """Type into a terminal whose parts are being read; NotFound where it has ended."""

    def terminal_resize(self, session: str, size: TerminalSize) -> None:
        """Change the size of a terminal whose parts are being read."""

    def files(self, name: str, request: FilesRequest) -> Iterator[FilesPart]:
        """What the application sees of files, running or not. Whoever stops reading ends it."""

    def configure(
        self, name: str, spec: ApplicationSpec, settings: dict[str, dict[str, Any]]
    ) -> None:
        """Change settings of elements: where `spec` differs from that of the `create`, or of the
        last `configure`, take the value out of `settings` (element → all its settings, resolved).
        The next start finds them, and a running program is told. Nothing where nothing differs."""

    def reports(self, after: int) -> list[Report]:
        """What instances told since the report of this number, oldest first. Kept on the host
        until there are too many; `wait_change` returns when there are new ones."""

    def instances(self, name: str) -> list[Instance]:
        """The element instances of one application."""

    def evidence(self, name: str) -> list[Claim]:
        """Claim, observation, verdict for each instance of one application."""

    def set_faults(self, name: str, orders: list[FaultOrder]) -> dict[str, Counters]:
        """These faults hold for the application's packets, and no others; kept over restarts.

        What each has done so far, by id; empty while no instance runs.
        """

    def report(self, name: str, what: ReportKind) -> list[Line]:
        """What the application's network instance says of itself; empty while none runs."""

    def usage(self) -> list[Usage]:
        """What each running application has used so far."""

    def capture(self, name: str, request: CaptureRequest) -> Iterator[Pcapng]:
        """Packets as they pass, as parts of a pcapng file; empty parts while none do."""

    def ensure_network(self, network: NetworkSpec) -> None:
        """Make or adjust the bridge, its address, NAT and filters."""

    def remove_network(self, name: str) -> None:
        """Remove what `ensure_network` made."""

    def ensure_volume(self, name: str) -> str:
        """Make the volume's directory; returns its absolute path on this host."""

    def remove_volume(self, name: str) -> None:
        """Delete the volume and what is in it."""

    def put_secret(self, secret: SecretSpec) -> Secret:
        """Keep it, in the place of one of this name; programs get it when they are created, those
        that have it as a file also when they are started."""

    def secrets(self) -> list[Secret]:
        """All of this host, by name, without values."""

    def remove_secret(self, name: str) -> None:
        """Nothing where there is none."""

    def leftovers(self) -> list[Leftover]:
        """What this installation made here and no application of this host needs."""

    def discard(self, leftover: Leftover) -> None:
        """Remove one of `leftovers`; nothing where it has become needed, or is gone."""

    def doctor(self) -> list[Finding]:
        """What this host has and lacks, with remedies."""
