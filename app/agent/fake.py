"""An agent in memory, for tests of the control plane: `FakeRuntime` behind the agent's interface.

It outlives the control plane that uses it, as the real one's applications do: tests build a
second control plane on the same fake to show that it finds everything again.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from app.agent import configuring, pcapng
from app.agent.terminals import Terminals
from app.domain.application import ApplicationSpec
from app.domain.capture import CaptureRequest, Pcapng
from app.domain.errors import CseError, NotFound, PreflightRefused
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
from app.runtimes.fake import FakeRuntime
from app.runtimes.fake_program import exists


class FakeAgent:
    """Implements `app.domain.ports.Agent`."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._counter = 0
        self.kept_secrets: dict[str, tuple[SecretSpec, datetime]] = {}
        self.runtime = FakeRuntime(self._changed, self._value)
        self.networks: dict[str, NetworkSpec] = {}
        self.volumes: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        """Method and application of each call that changes something, in order."""
        self.starting: set[str] = set()
        """Applications that were made with the word that their start follows."""
        self.failures: dict[str, list[CseError]] = {}
        """Method → errors that its next calls raise: the faults of a host, made to order."""
        self.told: list[Report] = []
        self._terminals = Terminals()
        self.said: list[bytes] = []
        """What programs say of their files."""
        self.asked: list[FilesRequest] = []
        self.sick: set[str] = set()
        """Applications whose probes fail."""
        self._launches: dict[str, Launch] = {}
        self.faults: dict[str, list[FaultOrder]] = {}

    def preflight(self, launch: Launch) -> Coverage:
        """Only the programs that the fake host has; a path with `static` in it is static."""
        self._fail("preflight")
        program = launch.spec.command[0]
        if not exists(launch.spec.command) and "static" not in program:
            return self._coverage(launch, "refused", f"{program} was not found", "correct the path")
        if "static" in program and launch.linked:
            if launch.spec.fallback == "kernel":
                return self._coverage(launch, "kernel", f"{program} is statically linked", "")
            reason, remedy = f"{program} is statically linked", "use a dynamically linked build"
            return self._coverage(launch, "refused", reason, remedy)
        return self._coverage(launch, "private", "", "")

    def create(self, launch: Launch, *, starting: bool = False) -> Coverage:
        """See `Agent.create`."""
        self.calls.append(("create", launch.name))
        self._fail("create")
        coverage = self.preflight(launch)
        if coverage.verdict == "refused":
            raise PreflightRefused(coverage.reason, pointer="/command/0", remedy=coverage.remedy)
        self.runtime.create(launch, starting=starting)
        if starting:
            self.starting.add(launch.name)
        self._launches[launch.name] = launch
        return coverage

    def start(self, name: str) -> Observed:
        """See `Agent.start`."""
        self.calls.append(("start", name))
        self._fail("start")
        return self.runtime.start(name)

    def stop(self, name: str) -> Observed:
        """See `Agent.stop`."""
        self.calls.append(("stop", name))
        self._fail("stop")
        return self.runtime.stop(name)

    def remove(self, name: str) -> None:
        """See `Agent.remove`."""
        self.calls.append(("remove", name))
        self._fail("remove")
        self.runtime.remove(name)
        self._launches.pop(name, None)

    def observe(self) -> list[Observed]:
        """See `Agent.observe`."""
        self._fail("observe")
        return self.runtime.observe()

    def wait(self, name: str, timeout_s: float | None = None) -> Observed:
        """See `Agent.wait`."""
        return self.runtime.wait(name, timeout_s)

    def wait_change(self, seen: int, timeout_s: float) -> int:
        """See `Agent.wait_change`."""
        self._fail("wait_change")
        with self._change:
            self._change.wait_for(lambda: self._counter != seen, timeout=timeout_s)
            return self._counter

    def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[LogLine]:
        """See `Agent.logs`."""
        return self.runtime.logs(name, follow=follow, tail=tail)

    def exec(self, name: str, command: list[str], *, timeout_s: float = 60.0) -> ExecResult:
        """See `Agent.exec`."""
        return self.runtime.exec(name, command, timeout_s=timeout_s)

    def probe(self, name: str, probe: Probe) -> Probed:
        """See `Agent.probe`."""
        self._fail("probe")
        if name in self.sick:
            return Probed(ok=False, detail="sick")
        if probe.command is None:
            return Probed(ok=bool(self.runtime.pids(name)), detail="the fake has no sockets")
        result = self.runtime.exec(name, probe.command, timeout_s=probe.timeout)
        return Probed(ok=result.exit_code == 0, detail=result.stderr or result.stdout)

    def terminal(self, name: str, command: list[str], size: TerminalSize) -> Iterator[TerminalPart]:
        """See `Agent.terminal`."""
        return self._terminals.parts(self.runtime.terminal(name, command, size))

    def terminal_input(self, session: str, typed: TerminalInput) -> None:
        """See `Agent.terminal_input`."""
        self._terminals.write(session, typed.data)

    def terminal_resize(self, session: str, size: TerminalSize) -> None:
        """See `Agent.terminal_resize`."""
        self._terminals.resize(session, size)

    def files(self, name: str, request: FilesRequest) -> Iterator[FilesPart]:
        """See `Agent.files`: always the same, whatever is asked."""
        self._fail("files")
        self.asked.append(request)
        return iter([FilesPart(data=part) for part in self.said])

    @property
    def terminals_open(self) -> int:
        """For tests: how many commands have a terminal now."""
        return len(self._terminals)

    def configure(
        self, name: str, spec: ApplicationSpec, settings: dict[str, dict[str, Any]]
    ) -> None:
        """See `Agent.configure`."""
        self._fail("configure")
        if name not in self._launches:
            raise NotFound(f"there is no application '{name}' on this host")
        change = configuring.change(self._launches[name], spec, settings)
        if change is not None:
            self.calls.append(("configure", name))
            self._launches[name] = change.launch

    def reports(self, after: int) -> list[Report]:
        """See `Agent.reports`."""
        self._fail("reports")
        return [report for report in self.told if report.number > after]

    def tell(self, name: str, text: str) -> None:
        """Say something as an instance of this application."""
        report = Report(
            number=len(self.told) + 1,
            time=datetime.now(UTC),
            application=name,
            application_id=self._launches[name].id,
            pid=1,
            text=text,
        )
        self.told.append(report)
        self._changed()

    def instances(self, name: str) -> list[Instance]:
        """One per element of a running application, started from the beginning."""
        pids = self.runtime.pids(name)
        return [
            Instance(
                id=f"{name}.{bound.element.manifest.name}",
                application=name,
                element=bound.element.manifest.name,
                kind=bound.element.manifest.kind,
                pids=pids,
                started=bool(pids),
                settings=bound.settings,
            )
            for bound in self._launches[name].elements
        ]

    def evidence(self, name: str) -> list[Claim]:
        """One claim per element: nothing can be read about a process that is not one."""
        return [
            Claim(
                claim="library-mapped",
                title="The element's library is mapped into the program",
                observation="the fake runtime has no processes",
                verdict="unknown",
                element=instance.element,
            )
            for instance in self.instances(name)
        ]

    def set_faults(self, name: str, orders: list[FaultOrder]) -> dict[str, Counters]:
        """Remembered; the fake's programs send no packets."""
        self._fail("set_faults")
        self.runtime.pids(name)  # NotFound where there is none
        self.faults[name] = orders
        return {order.id: {"seen": 0} for order in orders}

    def report(self, name: str, what: ReportKind) -> list[Line]:
        """Of an instance without sockets and packets."""
        self.runtime.pids(name)
        if what == "faults":
            return [{"id": order.id, "seen": 0} for order in self.faults.get(name, [])]
        return []

    def usage(self) -> list[Usage]:
        """Of programs that use nothing."""
        return [
            Usage(application=one.name, memory=0, cpu=0.0)
            for one in self.runtime.observe()
            if one.pid is not None
        ]

    def capture(self, name: str, request: CaptureRequest) -> Iterator[Pcapng]:
        """The beginning of a file, and no packet."""
        self.runtime.pids(name)
        return iter([Pcapng(data=pcapng.begin(request.snaplen, request.filter))])

    def ensure_network(self, network: NetworkSpec) -> None:
        """See `Agent.ensure_network`."""
        self._fail("ensure_network")
        self.networks[network.name] = network

    def remove_network(self, name: str) -> None:
        """See `Agent.remove_network`."""
        self.networks.pop(name, None)

    def ensure_volume(self, name: str) -> str:
        """See `Agent.ensure_volume`."""
        self._fail("ensure_volume")
        self.volumes.add(name)
        return f"/var/lib/cse/volumes/{name}"

    def remove_volume(self, name: str) -> None:
        """See `Agent.remove_volume`."""
        self.volumes.discard(name)

    def put_secret(self, secret: SecretSpec) -> Secret:
        """See `Agent.put_secret`."""
        self._fail("put_secret")
        self.kept_secrets[secret.name] = (secret, datetime.now(UTC))
        return next(one for one in self.secrets() if one.name == secret.name)

    def secrets(self) -> list[Secret]:
        """See `Agent.secrets`."""
        return [
            Secret(name=name, project=spec.project, updated=updated)
            for name, (spec, updated) in sorted(self.kept_secrets.items())
        ]

    def remove_secret(self, name: str) -> None:
        """See `Agent.remove_secret`."""
        self.kept_secrets.pop(name, None)

    def _value(self, name: str) -> str:
        if name not in self.kept_secrets:
            raise NotFound(f"there is no secret '{name}' on this host")
        return self.kept_secrets[name][0].content.decode().removesuffix("\n")

    def leftovers(self) -> list[Leftover]:
        """Networks and volumes that no application uses."""
        launches = self._launches.values()
        used = {one.network.network.name for one in launches if one.network is not None}
        mounted = {mount.source.rpartition("/")[2] for one in launches for mount in one.mounts}
        return [
            *(Leftover(kind="network", name=name) for name in sorted(set(self.networks) - used)),
            *(Leftover(kind="volume", name=name) for name in sorted(self.volumes - mounted)),
        ]

    def discard(self, leftover: Leftover) -> None:
        """See `Agent.discard`."""
        self.volumes.discard(leftover.name)

    def doctor(self) -> list[Finding]:
        """See `Agent.doctor`."""
        return [Finding(check="runtime", ok=True, observation="the fake runtime needs nothing")]

    def vanish(self, name: str) -> None:
        """Lose an application behind the control plane's back, as a host that was cleaned does."""
        self.runtime.remove(name)

    def _changed(self) -> None:
        with self._change:
            self._counter += 1
            self._change.notify_all()

    def _fail(self, method: str) -> None:
        if self.failures.get(method):
            raise self.failures[method].pop(0)

    def _coverage(self, launch: Launch, verdict: str, reason: str, remedy: str) -> Coverage:
        program = launch.spec.command[0]
        return Coverage.model_validate(
            {
                "program": program if program.startswith("/") else f"/usr/bin/{program}",
                "sha256": hashlib.sha256(program.encode()).hexdigest(),
                "libc": "none" if "static" in program else "glibc",
                "machine": "x86_64",
                "static": "static" in program,
                "verdict": verdict,
                "reason": reason,
                "remedy": remedy,
            }
        )
