"""The agent within this process: composes runtimes, wiring, broker and evidence of one host.

Made by the composition root (`app/main.py`), and by `server` for agents of their own process.
Everything it knows it reads back from `STATE/apps` when it starts: it may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from app.agent import (
    capturing,
    configuring,
    identity,
    inspecting,
    instrumenting,
    leftovers,
    policy,
    probing,
)
from app.agent.doctor import examine_host
from app.agent.journal import Journal
from app.agent.names import Names
from app.agent.networks import Networks
from app.agent.replug import Replugger
from app.agent.terminals import Terminals
from app.agent.volumes import Volumes
from app.broker.broker import Broker
from app.domain.application import ApplicationSpec, RuntimeName
from app.domain.capture import CaptureRequest, Pcapng
from app.domain.errors import Conflict, CseError, HostLacks, NotFound
from app.domain.fault import Counters, FaultOrder
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
from app.domain.terminal import TerminalInput, TerminalPart, TerminalSize
from app.domain.usage import Usage
from app.runtimes import preflight, rundir
from app.runtimes.changes import Changes
from app.runtimes.namespace import NamespaceRuntime
from app.runtimes.runtime import AnyRuntime
from app.wiring import kernel_faults, netns
from app.wiring.wiring import Wiring

_TAKE_OVER_S = 1.0
_log = logging.getLogger(__name__)


class LocalAgent:
    """Implements `app.domain.ports.Agent`. The host is not touched before the first call."""

    def __init__(self, state: Path) -> None:
        self._state = state.absolute()
        self._changes = Changes()
        self._volumes = Volumes(self._state)
        self._names = Names()
        self._terminals = Terminals()
        self._policy = policy.Keeper(self._state)
        self._networks = Networks(self._state)
        self._lock = threading.RLock()
        self._opened = False
        self._runtimes: dict[RuntimeName, AnyRuntime] = {}
        self._launches: dict[str, Launch] = {}
        self._making: set[str] = set()
        self._lock_file = -1
        self._wiring_made: Wiring | None = None
        self._broker_made: Broker | None = None
        self._replugger: Replugger | None = None
        self._journal: Journal | None = None

    def close(self) -> None:
        """Let go of this host; applications go on and are found by the next agent."""
        self._terminals.close()
        with self._lock:
            if self._broker_made is not None:
                self._broker_made.close()
            for runtime in self._runtimes.values():
                runtime.close()
            self._runtimes.clear()
            if self._replugger is not None:
                self._replugger.close()
                self._replugger = None
            if self._wiring_made is not None:
                if identity.is_guest(self._state):
                    with contextlib.suppress(CseError):
                        self._wiring_made.remove_idle_networks()
                self._wiring_made.close()
            if self._journal is not None:
                self._journal.close()
                self._journal = None
            if self._lock_file >= 0:
                os.close(self._lock_file)
            self._broker_made = self._wiring_made = None
            self._lock_file, self._opened = -1, False

    def preflight(self, launch: Launch) -> Coverage:
        """See `Agent.preflight`."""
        self._open()
        self._policy.check(launch, self._state)
        return preflight.judge(launch, self._runtime(launch.spec.runtime).examine(launch))

    def create(self, launch: Launch) -> Coverage:
        """See `Agent.create`; raises PreflightRefused where the verdict is `refused`."""
        self._making.add(launch.name)
        try:
            return self._create(launch)
        finally:
            self._making.discard(launch.name)

    def _create(self, launch: Launch) -> Coverage:
        coverage = preflight.require(self.preflight(launch))
        runtime = self._runtime(launch.spec.runtime)
        whole = launch
        launch = launch.on_the_kernel() if coverage.verdict == "kernel" else launch
        present = self._launches.get(launch.name)
        if present is not None and present.id != launch.id:
            raise Conflict(f"'{launch.name}' exists already on this host", remedy="remove it first")
        # Docker's runtime finds the verdict itself, and makes the program wait for its interface.
        runtime.create(whole if whole.spec.runtime is RuntimeName.DOCKER else launch)
        try:
            inspecting.write_coverage(self._directory(launch.name), coverage)
            self._connect(launch)
        except BaseException:
            self._disconnect(launch)
            with contextlib.suppress(CseError):
                runtime.remove(launch.name)
            raise
        self._launches[launch.name] = launch
        return coverage

    def start(self, name: str) -> Observed:
        """See `Agent.start`."""
        launch = self._launch(name)
        observed = self._runtime(launch.spec.runtime).start(name)
        if self._replugger is not None:
            self._replugger.plug(observed)
        return observed

    def stop(self, name: str) -> Observed:
        """See `Agent.stop`."""
        return self._runtime_of(name).stop(name)

    def remove(self, name: str) -> None:
        """See `Agent.remove`."""
        self._open()
        launch = self._launches.get(name)
        if launch is None:
            rundir.remove(self._state, name)
            return
        runtime = self._runtime(launch.spec.runtime)
        with contextlib.suppress(NotFound):
            runtime.stop(name)
        self._disconnect(launch)
        runtime.remove(name)
        rundir.remove(self._state, name)
        self._launches.pop(name, None)
        self._changes.bump()

    def observe(self) -> list[Observed]:
        """See `Agent.observe`."""
        self._open()
        return [one for runtime in list(self._runtimes.values()) for one in runtime.observe()]

    def wait(self, name: str, timeout_s: float | None = None) -> Observed:
        """See `Agent.wait`."""
        return self._runtime_of(name).wait(name, timeout_s)

    def wait_change(self, seen: int, timeout_s: float) -> int:
        """See `Agent.wait_change`."""
        self._open()
        return self._changes.wait(seen, timeout_s)

    def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[LogLine]:
        """See `Agent.logs`."""
        return self._runtime_of(name).logs(name, follow=follow, tail=tail)

    def exec(self, name: str, command: list[str], *, timeout_s: float = 60.0) -> ExecResult:
        """See `Agent.exec`."""
        return self._runtime_of(name).exec(name, command, timeout_s=timeout_s)

    def probe(self, name: str, probe: Probe) -> Probed:
        """See `Agent.probe`."""
        launch, runtime = self._launch(name), self._runtime_of(name)
        return probing.ask(
            launch, probe, lambda words, limit: runtime.exec(name, words, timeout_s=limit)
        )

    def terminal(self, name: str, command: list[str], size: TerminalSize) -> Iterator[TerminalPart]:
        """See `Agent.terminal`."""
        return self._terminals.parts(self._runtime_of(name).terminal(name, command, size))

    def terminal_input(self, session: str, typed: TerminalInput) -> None:
        """See `Agent.terminal_input`."""
        self._terminals.write(session, typed.data)

    def terminal_resize(self, session: str, size: TerminalSize) -> None:
        """See `Agent.terminal_resize`."""
        self._terminals.resize(session, size)

    def run_foreground(self, name: str) -> int:
        """Start with this process's own terminal; returns the exit code. Namespace runtime only."""
        launch = self._launch(name)
        runtime = self._runtime(launch.spec.runtime)
        if not isinstance(runtime, NamespaceRuntime):
            raise Conflict(f"the {launch.spec.runtime} runtime has no foreground variant")
        return runtime.run_foreground(launch)

    def configure(
        self, name: str, spec: ApplicationSpec, settings: dict[str, dict[str, Any]]
    ) -> None:
        """See `Agent.configure`."""
        with self._lock:
            present = self._launch(name)
            change = configuring.change(present, spec, settings)
            if change is None:
                return
            # The message before the record of it: a kill in between only repeats both.
            rundir.write_settings(self._state, change.launch)
            for kind, values in change.told.items():
                self._broker.push(name, kind, values)
            rundir.seal(self._directory(name), change.launch)
            self._launches[name] = change.launch

    def reports(self, after: int) -> list[Report]:
        """See `Agent.reports`."""
        self._open()
        return self._journal.after(after) if self._journal is not None else []

    def instances(self, name: str) -> list[Instance]:
        """See `Agent.instances`."""
        launch = self._launch(name)
        runtime = self._runtime(launch.spec.runtime)
        reported = self._broker.details(name)
        if launch.network is not None:
            inspecting.count_filtered(reported, self._wiring.delivered_packets(name))
        subject = inspecting.subject(self._state, launch, runtime, reported)
        return inspecting.instances(launch, subject)

    def evidence(self, name: str) -> list[Claim]:
        """See `Agent.evidence`."""
        self._launch(name)
        subjects = {
            other.name: inspecting.subject(
                self._state,
                other,
                self._runtime(other.spec.runtime),
                self._broker.details(other.name),
            )
            for other in inspecting.neighbours(self._launches, name)
        }
        return inspecting.evidence(subjects.pop(name), list(subjects.values()))

    def set_faults(self, name: str, orders: list[FaultOrder]) -> dict[str, Counters]:
        """See `Agent.set_faults`."""
        launch = self._launch(name)
        known = {order.id for order in instrumenting.read_faults(self._directory(name))}
        instrumenting.write_faults(self._directory(name), orders)
        if launch.on_kernel_stack:
            self._hold_in_kernel(launch, orders, {order.id for order in orders} - known)
            return instrumenting.by_id(self.report(name, "faults"))
        return instrumenting.set_faults(self._broker.instruments(name), orders)

    def report(self, name: str, what: ReportKind) -> list[Line]:
        """See `Agent.report`."""
        launch = self._launch(name)
        if what == "faults" and launch.on_kernel_stack:
            orders = instrumenting.read_faults(self._directory(name))
            with self._kernel_namespace(launch) as place:
                return [] if place is None else kernel_faults.counted(place, orders)
        return instrumenting.report(self._broker.instruments(name), what)

    def usage(self) -> list[Usage]:
        """See `Agent.usage`."""
        running = [one.name for one in self.observe() if one.pid is not None]
        asked = {name: self._ask_counters(name) for name in running}
        return instrumenting.usage(asked, self._pids, self._broker.wires)

    def capture(self, name: str, request: CaptureRequest) -> Iterator[Pcapng]:
        """See `Agent.capture`."""
        self._launch(name)
        return capturing.start(self._broker.instruments(name), request)

    def ensure_network(self, network: NetworkSpec) -> None:
        """See `Agent.ensure_network`."""
        self._open()
        self._networks.remember(network)
        self._wiring.ensure_network(network)
        self._broker.change_network(network)

    def remove_network(self, name: str) -> None:
        """See `Agent.remove_network`; Conflict while an application is on it."""
        self._open()
        users = [
            launch.name
            for launch in self._launches.copy().values()
            if launch.network is not None and launch.network.network.name == name
        ]
        if users:
            raise Conflict(
                f"network '{name}' is used by {', '.join(users)}", remedy="remove these first"
            )
        self._wiring.remove_network(name)
        self._networks.forget(name)

    def ensure_volume(self, name: str) -> str:
        """See `Agent.ensure_volume`."""
        return str(self._volumes.ensure(name))

    def remove_volume(self, name: str) -> None:
        """See `Agent.remove_volume`; Conflict while an application mounts it."""
        self._open()
        place = str(self._volumes.path(name))
        users = [
            launch.name
            for launch in self._launches.copy().values()
            if any(mount.source == place for mount in launch.mounts)
        ]
        if users:
            raise Conflict(
                f"volume '{name}' is mounted by {', '.join(users)}", remedy="remove these first"
            )
        self._volumes.remove(name)

    def leftovers(self) -> list[Leftover]:
        """See `Agent.leftovers`."""
        self._open()
        wiring = self._wiring.networks() if os.geteuid() == 0 else []
        launches, making = self._launches.copy(), list(self._making)
        groups = self._namespace.groups()
        return list(leftovers.find(self._state, launches, making, wiring, groups))

    def discard(self, leftover: Leftover) -> None:
        """See `Agent.discard`."""
        if leftover.name not in [one.name for one in self.leftovers() if one.kind == leftover.kind]:
            return
        if leftover.kind == "half-made":
            rundir.remove(self._state, leftover.name)
        elif leftover.kind == "network":
            self.remove_network(leftover.name)
        elif leftover.kind == "control-group":
            self._namespace.remove_group(leftover.name)
        elif leftover.kind == "volume":
            self.remove_volume(leftover.name)

    def doctor(self) -> list[Finding]:
        """See `Agent.doctor`; makes nothing on the host."""
        return examine_host(self._state)

    def _open(self) -> None:
        """Take the state directory, and find again what runs. Once; Conflict where it is taken."""
        if self._opened:
            return
        with self._lock:
            if self._opened:
                return
            self._take_state()
            installation = identity.installation(self._state)
            self._journal = Journal(self._state / "reports.jsonl")
            self._runtimes[RuntimeName.NAMESPACE] = NamespaceRuntime(
                self._state, installation, self._changes.bump
            )
            self._opened = True
            for launch in rundir.sealed(self._state):
                coverage = inspecting.read_coverage(self._directory(launch.name))
                if coverage is not None and coverage.verdict == "kernel":
                    launch = launch.on_the_kernel()
                launch = self._networks.current(launch)
                self._launches[launch.name] = launch
                try:
                    self._runtime(launch.spec.runtime)
                    self._connect(launch)
                except CseError as error:
                    _log.warning("application %s was found but: %s", launch.name, error)

    def _take_state(self) -> None:
        try:
            self._state.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._lock_file = os.open(
                self._state / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise HostLacks(
                f"the state directory {self._state} cannot be used: {error.strerror}",
                remedy="choose another one with CSE_STATE_DIR",
            ) from error
        if not _locked(self._lock_file):
            os.close(self._lock_file)
            self._lock_file = -1
            raise Conflict(
                f"another agent works in {self._state}",
                remedy="stop it, or choose another state directory with CSE_STATE_DIR",
            )

    def _connect(self, launch: Launch) -> None:
        """Broker socket, name, bridge port, published ports; again for an application found."""
        binding = launch.network
        if binding is not None:  # the filter first: no device may exist without it
            self._wiring.plug(launch.name, binding, launch.spec.ports)
            self._names.add(launch)
            self._tell_names(launch, launch)
        if binding is not None and launch.on_kernel_stack:
            if launch.spec.runtime is RuntimeName.NAMESPACE:
                place = self._directory(launch.name) / "netns"
                self._wiring.make_kernel_stack(launch.name, binding, place)
            else:
                self._kernel_containers().add(launch.name, binding)
            if orders := instrumenting.read_faults(self._directory(launch.name)):
                self._hold_in_kernel(launch, orders, set())
        if launch.linked:
            self._broker.serve(
                launch.name,
                self._directory(launch.name) / "run",
                self._device_maker(launch),
                lambda name: self._names.find(binding.network.name, name) if binding else None,
                binding,
                configuring.missed(launch),
            )
            if orders := instrumenting.read_faults(self._directory(launch.name)):
                self._broker.instruments(launch.name).set_faults(orders)

    def _hold_in_kernel(self, launch: Launch, orders: list[FaultOrder], new: set[str]) -> None:
        with self._kernel_namespace(launch) as place:
            if place is not None:
                kernel_faults.hold(place, orders, new)

    @contextlib.contextmanager
    def _kernel_namespace(self, launch: Launch) -> Iterator[int | None]:
        """A descriptor of an application's network namespace; None while it has none."""
        if launch.spec.runtime is RuntimeName.NAMESPACE:
            path = self._directory(launch.name) / "netns"
        else:
            pid = next((one.pid for one in self.observe() if one.name == launch.name), None)
            path = Path(f"/proc/{pid}/ns/net")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            yield None
            return
        try:
            yield fd
        finally:
            os.close(fd)

    def _tell_names(self, changed: Launch, *more: Launch) -> None:
        """To the applications on `changed`'s network that read them from a file."""
        for launch in [*self._launches.copy().values(), *more]:
            own, network = launch.network, changed.network
            if own is None or network is None or own.network.name != network.network.name:
                continue
            if launch.on_kernel_stack:
                rundir.write_hosts(self._state, launch, self._names.table(network.network.name))

    def _disconnect(self, launch: Launch) -> None:
        self._names.forget(launch.name)
        self._tell_names(launch)
        if self._replugger is not None:
            self._replugger.forget(launch.name)
        if self._broker_made is not None:
            self._broker_made.forget(launch.name)
        if launch.network is not None:
            with contextlib.suppress(HostLacks):
                self._wiring.unplug(launch.name, launch.network, launch.spec.ports)
            netns.remove(self._directory(launch.name) / "netns")

    def _device_maker(self, launch: Launch) -> Callable[[bool], int]:
        """For the broker's thread, which must never wait for this object's lock: whoever has
        that may be waiting for the broker."""
        wiring = self._wiring if launch.network is not None else None

        def by_packet_socket() -> bool:
            present = self._launches.get(launch.name, launch)  # may be configured since
            return any(
                bound.settings.get("transport") == "packet"
                for bound in present.elements
                if bound.element.manifest.kind == "network"
            )

        def make(vnet_hdr: bool) -> int:
            if wiring is None or launch.network is None:
                raise Conflict(f"'{launch.name}' is on no network")
            if by_packet_socket():
                return wiring.open_packet_socket(launch.name, launch.network)
            return wiring.open_tap(launch.name, launch.network, vnet_hdr=vnet_hdr)

        return make

    @property
    def _wiring(self) -> Wiring:
        with self._lock:
            if self._wiring_made is None:
                self._wiring_made = Wiring(identity.network_mark(self._state))
            return self._wiring_made

    @property
    def _broker(self) -> Broker:
        with self._lock:
            if self._broker_made is None:
                self._broker_made = Broker(self._changes.bump, self._reported)
            return self._broker_made

    def _reported(self, name: str, pid: int, text: str) -> None:
        """In the broker's thread, which must not wait for this object's lock."""
        launch, journal = self._launches.get(name), self._journal
        if launch is None or journal is None:
            return
        try:
            journal.add(name, launch.id, pid, text)
        except OSError as error:
            _log.warning("application %s: a report is lost: %s", name, error)
        self._changes.bump()

    def _kernel_containers(self) -> Replugger:
        with self._lock:
            if self._replugger is None:
                docker = self._runtime(RuntimeName.DOCKER)
                self._replugger = Replugger(self._changes, self._wiring, docker.observe)
            return self._replugger

    def _runtime(self, name: RuntimeName) -> AnyRuntime:
        """Docker's is made when it is first needed: a host without Docker is fine without."""
        with self._lock:
            if name not in self._runtimes:
                from app.runtimes.docker import DockerRuntime

                self._runtimes[name] = DockerRuntime(
                    self._state, identity.installation(self._state), self._changes.bump
                )
            return self._runtimes[name]

    @property
    def _namespace(self) -> NamespaceRuntime:
        runtime = self._runtime(RuntimeName.NAMESPACE)
        assert isinstance(runtime, NamespaceRuntime)
        return runtime

    def _runtime_of(self, name: str) -> AnyRuntime:
        return self._runtime(self._launch(name).spec.runtime)

    def _launch(self, name: str) -> Launch:
        self._open()
        launch = self._launches.get(name)
        if launch is None:
            raise NotFound(f"there is no application '{name}' on this host")
        return launch

    def _ask_counters(self, name: str) -> Callable[[float], list[dict[str, str]]]:
        try:
            return self._broker.instruments(name).ask("counters")
        except Conflict:  # no element that could be asked
            return lambda _: []

    def _pids(self, name: str) -> list[int]:
        try:
            return self._runtime_of(name).pids(name)
        except CseError:  # it has ended meanwhile
            return []

    def _directory(self, name: str) -> Path:
        return rundir.application_directory(self._state, name)


def _locked(fd: int) -> bool:
    """A child that a killed agent was just about to execute has its lock for some moments yet."""
    deadline = time.monotonic() + _TAKE_OVER_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
