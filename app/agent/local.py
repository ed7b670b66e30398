"""The agent within this process: composes runtimes, wiring, broker and evidence of one host.

Made by the composition root (`app/main.py`), and by `server` for agents of their own process.
Everything it knows it reads back from `STATE/apps` when it starts: it may be killed at any moment.
What it holds of the host is in `host`, what ties an application to the host in `connecting`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from app.agent import capturing, configuring, files, inspecting, policy, probing
from app.agent.connecting import Connector
from app.agent.doctor import examine_host
from app.agent.host import Host
from app.agent.looking import Looker
from app.agent.shared import Shared
from app.agent.terminals import Terminals
from app.domain.application import ApplicationSpec, RuntimeName
from app.domain.capture import CaptureRequest, Pcapng
from app.domain.errors import Conflict, CseError, HostLacks, NotFound
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
from app.runtimes import preflight, rundir, sharing
from app.runtimes.namespace import NamespaceRuntime
from app.runtimes.secrets import Secrets

_log = logging.getLogger(__name__)


class LocalAgent:
    """Implements `app.domain.ports.Agent`. The host is not touched before the first call."""

    def __init__(self, state: Path) -> None:
        self._host = Host(state, self._adopt)
        self._connector = Connector(self._host)
        self._looker = Looker(self._host, self._connector)
        self._making: set[str] = set()
        self._shared = Shared(self._host, self._making)
        self._terminals = Terminals()
        self._policy = policy.Keeper(self._host.state)

    def close(self) -> None:
        """Let go of this host; applications go on and are found by the next agent."""
        self._terminals.close()
        self._host.close()

    def preflight(self, launch: Launch) -> Coverage:
        """See `Agent.preflight`."""
        self._host.open()
        self._policy.check(launch, self._host.state)
        return preflight.judge(launch, self._host.runtime(launch.spec.runtime).examine(launch))

    def create(self, launch: Launch, *, starting: bool = False) -> Coverage:
        """See `Agent.create`; raises PreflightRefused where the verdict is `refused`."""
        self._making.add(launch.name)
        try:
            return self._create(launch, starting)
        except OSError as error:
            raise HostLacks(
                f"'{launch.name}' cannot be made in {self._host.state}: {error.strerror}",
                remedy="make room on that disk",
            ) from error
        finally:
            self._making.discard(launch.name)

    def _create(self, launch: Launch, starting: bool) -> Coverage:
        coverage = preflight.require(self.preflight(launch))
        sharing.evict(self._host.state, self._policy.shared_bytes())
        runtime = self._host.runtime(launch.spec.runtime)
        whole = launch
        launch = launch.on_the_kernel() if coverage.verdict == "kernel" else launch
        present = self._host.launches.get(launch.name)
        if present is not None and present.id != launch.id:
            raise Conflict(f"'{launch.name}' exists already on this host", remedy="remove it first")
        # Docker's runtime finds the verdict itself, and makes the program wait for its interface.
        made = whole if whole.spec.runtime is RuntimeName.DOCKER else launch
        runtime.create(made, starting=starting)
        try:
            inspecting.write_coverage(self._host.directory(launch.name), coverage)
            self._connector.connect(launch)
        except BaseException:
            self._connector.disconnect(launch)
            with contextlib.suppress(CseError):
                runtime.remove(launch.name)
            raise
        self._host.launches[launch.name] = launch
        return coverage

    def start(self, name: str) -> Observed:
        """See `Agent.start`."""
        launch = self._host.launch(name)
        rundir.write_secrets(self._host.state, launch)
        observed = self._host.runtime(launch.spec.runtime).start(name)
        self._host.note(observed)
        self._host.plug_container(observed)
        return observed

    def stop(self, name: str) -> Observed:
        """See `Agent.stop`."""
        observed = self._host.runtime_of(name).stop(name)
        self._host.note(observed)
        return observed

    def remove(self, name: str) -> None:
        """See `Agent.remove`."""
        self._host.open()
        launch = self._host.launches.get(name)
        if launch is None:  # half-made, if anything
            self._host.namespace.remove(name)
            return
        runtime = self._host.runtime(launch.spec.runtime)
        with contextlib.suppress(NotFound):
            runtime.stop(name)
        self._connector.disconnect(launch)
        runtime.remove(name)
        rundir.remove(self._host.state, name)
        self._host.launches.pop(name, None)
        sharing.evict(self._host.state, self._policy.shared_bytes())
        self._host.changes.bump()

    def observe(self) -> list[Observed]:
        """See `Agent.observe`."""
        self._host.open()
        return self._host.observe()

    def wait(self, name: str, timeout_s: float | None = None) -> Observed:
        """See `Agent.wait`."""
        return self._host.runtime_of(name).wait(name, timeout_s)

    def wait_change(self, seen: int, timeout_s: float) -> int:
        """See `Agent.wait_change`."""
        self._host.open()
        return self._host.changes.wait(seen, timeout_s)

    def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[LogLine]:
        """See `Agent.logs`."""
        return self._host.runtime_of(name).logs(name, follow=follow, tail=tail)

    def exec(self, name: str, command: list[str], *, timeout_s: float = 60.0) -> ExecResult:
        """See `Agent.exec`."""
        return self._host.runtime_of(name).exec(name, command, timeout_s=timeout_s)

    def probe(self, name: str, probe: Probe) -> Probed:
        """See `Agent.probe`."""
        launch, runtime = self._host.launch(name), self._host.runtime_of(name)
        return probing.ask(
            launch, probe, lambda words, limit: runtime.exec(name, words, timeout_s=limit)
        )

    def terminal(self, name: str, command: list[str], size: TerminalSize) -> Iterator[TerminalPart]:
        """See `Agent.terminal`."""
        return self._terminals.parts(self._host.runtime_of(name).terminal(name, command, size))

    def terminal_input(self, session: str, typed: TerminalInput) -> None:
        """See `Agent.terminal_input`."""
        self._terminals.write(session, typed.data)

    def terminal_resize(self, session: str, size: TerminalSize) -> None:
        """See `Agent.terminal_resize`."""
        self._terminals.resize(session, size)

    def files(self, name: str, request: FilesRequest) -> Iterator[FilesPart]:
        """See `Agent.files`."""
        launch, runtime = self._host.launch(name), self._host.runtime_of(name)
        coverage = inspecting.read_coverage(self._host.directory(name))
        return files.ask(
            self._host.state, launch, coverage, request, lambda words: runtime.look(name, words)
        )

    def run_foreground(self, name: str) -> int:
        """Start with this process's own terminal; returns the exit code. Namespace runtime only."""
        launch = self._host.launch(name)
        runtime = self._host.runtime(launch.spec.runtime)
        if not isinstance(runtime, NamespaceRuntime):
            raise Conflict(f"the {launch.spec.runtime} runtime has no foreground variant")
        return runtime.run_foreground(launch)

    def configure(
        self, name: str, spec: ApplicationSpec, settings: dict[str, dict[str, Any]]
    ) -> None:
        """See `Agent.configure`."""
        with self._host.lock:
            present = self._host.launch(name)
            change = configuring.change(present, spec, settings)
            if change is None:
                return
            # The message before the record of it: a kill in between only repeats both.
            rundir.write_settings(self._host.state, change.launch)
            for kind, values in change.told.items():
                self._host.broker.push(name, kind, values)
            rundir.seal(self._host.directory(name), change.launch)
            self._host.launches[name] = change.launch

    def reports(self, after: int) -> list[Report]:
        """See `Agent.reports`."""
        self._host.open()
        return self._host.reports(after)

    def instances(self, name: str) -> list[Instance]:
        """See `Agent.instances`."""
        return self._looker.instances(name)

    def evidence(self, name: str) -> list[Claim]:
        """See `Agent.evidence`."""
        return self._looker.evidence(name)

    def set_faults(self, name: str, orders: list[FaultOrder]) -> dict[str, Counters]:
        """See `Agent.set_faults`."""
        return self._looker.set_faults(name, orders)

    def report(self, name: str, what: ReportKind) -> list[Line]:
        """See `Agent.report`."""
        return self._looker.report(name, what)

    def usage(self) -> list[Usage]:
        """See `Agent.usage`."""
        self._host.open()
        return self._looker.usage()

    def capture(self, name: str, request: CaptureRequest) -> Iterator[Pcapng]:
        """See `Agent.capture`."""
        self._host.launch(name)
        return capturing.start(self._host.broker.instruments(name), request)

    def ensure_network(self, network: NetworkSpec) -> None:
        """See `Agent.ensure_network`."""
        self._shared.ensure_network(network)

    def remove_network(self, name: str) -> None:
        """See `Agent.remove_network`; Conflict while an application is on it."""
        self._shared.remove_network(name)

    def ensure_volume(self, name: str) -> str:
        """See `Agent.ensure_volume`."""
        return self._shared.ensure_volume(name)

    def remove_volume(self, name: str) -> None:
        """See `Agent.remove_volume`; Conflict while an application mounts it."""
        self._shared.remove_volume(name)

    def put_secret(self, secret: SecretSpec) -> Secret:
        """See `Agent.put_secret`."""
        self._host.open()
        return Secrets(self._host.state).put(secret)

    def secrets(self) -> list[Secret]:
        """See `Agent.secrets`."""
        return Secrets(self._host.state).all()

    def remove_secret(self, name: str) -> None:
        """See `Agent.remove_secret`."""
        Secrets(self._host.state).remove(name)

    def leftovers(self) -> list[Leftover]:
        """See `Agent.leftovers`."""
        return self._shared.leftovers()

    def discard(self, leftover: Leftover) -> None:
        """See `Agent.discard`."""
        self._shared.discard(leftover)

    def doctor(self) -> list[Finding]:
        """See `Agent.doctor`; makes nothing on the host."""
        return examine_host(self._host.state)

    def _adopt(self, launches: Iterable[Launch]) -> None:
        """The applications that are there when this agent begins. Who reads names from a file has
        those of before until all are known again."""
        for launch in launches:
            self._find_again(launch)
        self._connector.tell_names()

    def _find_again(self, launch: Launch) -> None:
        coverage = inspecting.read_coverage(self._host.directory(launch.name))
        if coverage is not None and coverage.verdict == "kernel":
            launch = launch.on_the_kernel()
        launch = self._shared.current(launch)
        self._host.launches[launch.name] = launch
        try:
            self._host.runtime(launch.spec.runtime)
            self._connector.connect(launch, tell=False)
        except CseError as error:
            _log.warning("application %s was found but: %s", launch.name, error)
