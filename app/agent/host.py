"""What an agent holds of its host while it is open: the state directory, runtimes, wiring, broker.

Made by `local`; shared with `connecting`. Each part is made when it is first needed: a host without
Docker, or without root, is fine without.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from app.agent import identity, instrumenting, state_lock
from app.agent.journal import Journal
from app.agent.replug import Replugger
from app.broker.broker import Broker
from app.domain.application import RuntimeName
from app.domain.errors import AgentUnavailable, CseError, HostLacks, NotFound
from app.domain.launch import Launch
from app.domain.observed import Observed, Report, State
from app.runtimes import disposal, rundir
from app.runtimes.changes import Changes
from app.runtimes.namespace import NamespaceRuntime
from app.runtimes.runtime import AnyRuntime
from app.wiring import kernel_faults, netns
from app.wiring.wiring import Wiring

_log = logging.getLogger(__name__)


class Host:
    """`adopt` is called once, by `open`, with the applications that are found."""

    def __init__(self, state: Path, adopt: Callable[[Iterable[Launch]], None]) -> None:
        self.state = state.absolute()
        self.changes = Changes()
        self.lock = threading.RLock()
        self.launches: dict[str, Launch] = {}
        self._adopt = adopt
        self._opened = self._closed = False
        self._runtimes: dict[RuntimeName, AnyRuntime] = {}
        self._known: dict[str, Observed] = {}
        self._away: set[RuntimeName] = set()
        self._lock_file = -1
        self._wiring: Wiring | None = None
        self._broker: Broker | None = None
        self._replugger: Replugger | None = None
        self._journal: Journal | None = None

    def open(self) -> None:
        """Take the state directory, and find again what runs. Once; Conflict where it is taken,
        AgentUnavailable after `close`."""
        if self._opened:
            return
        with self.lock:
            if self._opened:
                return
            if self._closed:  # a thread that asks late would take it from the next agent
                raise AgentUnavailable(f"the agent of {self.state} has been closed")
            self._lock_file = state_lock.take(self.state)
            disposal.sweep(self.state)
            self._journal = Journal(self.state / "reports.jsonl")
            self._runtimes[RuntimeName.NAMESPACE] = NamespaceRuntime(
                self.state, identity.installation(self.state), self.changes.bump
            )
            try:
                self._adopt(rundir.sealed(self.state))
            finally:  # not before: who comes meanwhile would not find what is there
                self._opened = True

    def close(self) -> None:
        """Let go of this host; applications go on and are found by the next agent."""
        with self.lock:
            self._closed = True
            if self._broker is not None:
                self._broker.close()
            for runtime in self._runtimes.values():
                runtime.close()
            self._runtimes.clear()
            disposal.finish(self.state)
            if self._replugger is not None:
                self._replugger.close()
                self._replugger = None
            if self._wiring is not None:
                if identity.is_guest(self.state):
                    with contextlib.suppress(CseError):
                        self._wiring.remove_idle_networks()
                self._wiring.close()
            if self._journal is not None:
                self._journal.close()
                self._journal = None
            if self._lock_file >= 0:
                os.close(self._lock_file)
            self._broker = self._wiring = None
            self._lock_file, self._opened = -1, False

    def directory(self, name: str) -> Path:
        """`STATE/apps/NAME`."""
        return rundir.application_directory(self.state, name)

    def launch(self, name: str) -> Launch:
        """Of an application that exists. Raises NotFound."""
        self.open()
        launch = self.launches.get(name)
        if launch is None:
            raise NotFound(f"there is no application '{name}' on this host")
        return launch

    def runtime(self, name: RuntimeName) -> AnyRuntime:
        """Docker's is made when it is first needed."""
        with self.lock:
            if name not in self._runtimes:
                from app.runtimes.docker import DockerRuntime

                self._runtimes[name] = DockerRuntime(
                    self.state, identity.installation(self.state), self.changes.bump
                )
            return self._runtimes[name]

    def runtime_of(self, name: str) -> AnyRuntime:
        """The runtime of an application that exists. Raises NotFound."""
        return self.runtime(self.launch(name).spec.runtime)

    @property
    def namespace(self) -> NamespaceRuntime:
        """The namespace runtime, with what no other has."""
        runtime = self.runtime(RuntimeName.NAMESPACE)
        assert isinstance(runtime, NamespaceRuntime)
        return runtime

    def observe(self) -> list[Observed]:
        """All applications of the runtimes that have been needed so far."""
        return [one for name in list(self._runtimes) for one in self._seen_by(name)]

    def _seen_by(self, name: RuntimeName) -> list[Observed]:
        """While the Docker daemon is away, what was known last: its containers may live on, and the
        other runtime's applications are looked after as ever."""
        try:
            found = self._runtimes[name].observe()
        except HostLacks as error:
            if name not in self._away:
                _log.warning("applications of the %s runtime are not seen: %s", name, error)
            self._away.add(name)
            return [
                self._known.get(launch.name) or _unseen(launch, error)
                for launch in list(self.launches.values())
                if launch.spec.runtime is name
            ]
        if name in self._away:
            _log.warning("applications of the %s runtime are seen again", name)
            self._away.discard(name)
        for one in found:
            self.note(one)
        return found

    def note(self, observed: Observed) -> None:
        """How an application is, as a step or a look has found."""
        if observed.runtime != RuntimeName.NAMESPACE:  # that is never away
            self._known[observed.name] = observed

    def pids(self, name: str) -> list[int]:
        """Of an application's processes; none where it has ended meanwhile."""
        try:
            return self.runtime_of(name).pids(name)
        except CseError:
            return []

    @property
    def wiring(self) -> Wiring:
        """Made at its first use."""
        with self.lock:
            if self._wiring is None:
                self._wiring = Wiring(identity.network_mark(self.state))
            return self._wiring

    @property
    def broker(self) -> Broker:
        """Made at its first use."""
        with self.lock:
            if self._broker is None:
                self._broker = Broker(self.changes.bump, self._reported)
            return self._broker

    @property
    def kernel_containers(self) -> Replugger:
        """Made when the first container with a kernel stack is created or found."""
        with self.lock:
            if self._replugger is None:
                docker = self.runtime(RuntimeName.DOCKER)
                self._replugger = Replugger(
                    self.changes, self.wiring, docker.observe, self._hold_faults
                )
            return self._replugger

    def _hold_faults(self, name: str, pid: int) -> None:
        """In the network namespace of a container that has just been started."""
        orders = instrumenting.read_faults(self.directory(name), files=False)
        with netns.opened(Path(f"/proc/{pid}/ns/net")) as place:
            if orders and place is not None:
                kernel_faults.hold(place, orders, set())

    def plug_container(self, observed: Observed) -> None:
        """After a start: its interface, where the program in a container waits for one."""
        if self._replugger is not None:
            self._replugger.plug(observed)

    def forget(self, name: str) -> None:
        """An application's broker socket and interface, without making either part for that."""
        self._known.pop(name, None)
        if self._replugger is not None:
            self._replugger.forget(name)
        if self._broker is not None:
            self._broker.forget(name)

    def reports(self, after: int) -> list[Report]:
        """What instances told since the report of this number."""
        return self._journal.after(after) if self._journal is not None else []

    def tell(self, name: str, text: str) -> None:
        """Becomes an event of the application, as what its instances report."""
        self._reported(name, 0, text)

    def _reported(self, name: str, pid: int, text: str) -> None:
        """In the broker's thread, which must not wait for this object's lock."""
        launch, journal = self.launches.get(name), self._journal
        if launch is None or journal is None:
            return
        try:
            journal.add(name, launch.id, pid, text)
        except OSError as error:
            _log.warning("application %s: a report is lost: %s", name, error)
        self.changes.bump()


def _unseen(launch: Launch, error: HostLacks) -> Observed:
    """Of what has not been seen since this agent began: not absent, for then it would be made."""
    return Observed(
        id=launch.id,
        name=launch.name,
        runtime=launch.spec.runtime,
        state=State.FAILED,
        reason=f"not seen: {error.detail}",
    )
