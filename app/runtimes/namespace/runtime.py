"""The namespace runtime: one shim process and one bubblewrap sandbox per application.

Why: it needs neither Docker nor an image, works without root (for elements that need no tap),
and starts in milliseconds. The agent makes one; everything it knows it reads back from
`STATE/apps`, so that it may be killed at any moment.

What the shim and the files are: images/_shim/shim.c.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

from app.domain.application import Limits
from app.domain.errors import Conflict, HostLacks, NotFound, RuntimeFailure, TimedOut
from app.domain.files import CommandOutput
from app.domain.launch import Launch
from app.domain.observed import ExecResult, LogLine, Observed, State
from app.domain.terminal import TerminalSession, TerminalSize
from app.runtimes import preflight, rundir
from app.runtimes.beside import Asides, PipedCommand
from app.runtimes.changes import Changes
from app.runtimes.namespace import logs, pidfd, sandbox, status, users
from app.runtimes.namespace.cgroups import ControlGroups
from app.runtimes.namespace.examined import Examined
from app.runtimes.namespace.launcher import Launcher
from app.runtimes.namespace.processes import Processes
from app.runtimes.namespace.seen import Seen
from app.runtimes.namespace.watch import Watcher
from app.runtimes.readable import readable
from app.runtimes.terminal import PseudoTerminal

NAME = "namespace"
_ANNOUNCE_TIMEOUT_S = 60.0
_STOP_SLACK_S = 10.0
_KILL_TIMEOUT_S = 5.0
SHIM = Path(__file__).resolve().parents[3] / "build" / "bin" / platform.machine() / "cse-shim"


class _Held(NamedTuple):
    """A sandbox whose program is not executed yet."""

    announcements: int
    gate: int
    """A byte written there lets the program go; closed without one, all is undone."""


class NamespaceRuntime:
    """Implements `app.domain.ports.Runtime`; `changed` is called after every change of state."""

    def __init__(
        self,
        state: Path,
        installation_id: str,
        changed: Callable[[], None] = lambda: None,
        *,
        shim: Path = SHIM,
    ) -> None:
        self._state = state.absolute()
        self._shim = shim
        self._changed = changed
        self._changes = Changes()
        self._groups = ControlGroups(installation_id)
        self._lock = threading.Lock()
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._launches: dict[str, Launch] = {}
        self._seen = Seen()
        self._processes = Processes()
        self._inherited = sandbox.inherited_descriptors()
        self._examined = Examined()
        self._asides = Asides()
        self._launcher = Launcher(shim, self._inherited)
        self._held: dict[str, _Held] = {}
        self._attended: set[str] = set()
        """Applications that a step ends or starts: it reads itself how they are, and tells."""
        self._hidden = [str(self._state.resolve())]
        sandbox.raise_open_files()
        self._watcher = Watcher(self._heard)
        for launch in rundir.sealed(self._state):
            if launch.spec.runtime == NAME:
                self._adopt(launch)

    def close(self) -> None:
        """Stop watching; applications go on."""
        for name in list(self._held):
            self._give_up(name)
        self._launcher.close()
        self._watcher.close()

    def examine(self, launch: Launch) -> preflight.Program:
        """Read the program's file as the application will see it."""
        return self._examined.examine(launch, self._hidden)

    def create(self, launch: Launch, *, starting: bool = False) -> None:
        """See `Runtime.create`. `starting`: the sandbox is made at once, and its program held."""
        with self._lock_of(launch.name):
            present = self._launches.get(launch.name)
            if present is not None:
                if present.id == launch.id:
                    return
                raise Conflict(
                    f"'{launch.name}' exists already on this host", remedy="remove it first"
                )
            self._require_shim()
            target = self.examine(launch).target if launch.elements else ""
            user = users.resolve(launch.spec.user)
            try:
                made = self._make(launch, target, user)
                if starting and not launch.on_kernel_stack:  # its namespace is made after this
                    self._hold(launch.name)
                rundir.seal(made.path, launch)
            except BaseException:
                self._give_up(launch.name)
                self._groups.remove(launch.name)
                shutil.rmtree(rundir.application_directory(self._state, launch.name), True)
                raise
            self._adopt(launch)
        self._notify()

    def start(self, name: str) -> Observed:
        """See `Runtime.start`."""
        with self._lock_of(name):
            present = self._observed(name)
            if present.state in (State.RUNNING, State.RESTARTING):
                return present
            self._asides.end(name)
            self._attended.add(name)
            try:
                answer = self._let_go(name) or self._run_shim(name)
            finally:  # before the status is read: what is heard from now on may be newer
                self._attended.discard(name)
                self._notify()
            heard = self._seen.number(name)
            found = status.read(self._directory(name))
            if found is None or (answer.startswith("failed") and found.unfinished):
                raise RuntimeFailure(f"'{name}' was not started: {answer or 'the shim died'}")
            if found.unfinished:
                self._watcher.add_shim(name, found)
            observed = status.observed(self._launch(name).id, name, found)
            self._seen.keep(observed, heard)
            return observed

    def stop(self, name: str) -> Observed:
        """See `Runtime.stop`."""
        launch = self._launch(name)
        self._stop(launch)
        return self._observed(name)

    def remove(self, name: str) -> None:
        """See `Runtime.remove`."""
        with self._lock_of(name):
            self._asides.end(name)
            self._give_up(name)
            launch = self._launches.get(name)
            if launch is not None:
                self._stop(launch)
                self._watcher.forget(name)
                self._launches.pop(name, None)
                self._seen.forget(name)
            if launch is None or launch.spec.limits != Limits():
                self._groups.remove(name)
            rundir.remove(self._state, name)
        self._notify()

    def observe(self) -> list[Observed]:
        """See `Runtime.observe`."""
        found = []
        for name in sorted(self._launches.copy()):
            with suppress(NotFound):  # removed by another thread since the copy was made
                found.append(self._seen.current(name) or self._look(name))
        return found

    def wait(self, name: str, timeout_s: float | None = None) -> Observed:
        """See `Runtime.wait`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            seen = self._changes.count
            present = self._observed(name)
            if present.state not in (State.RUNNING, State.RESTARTING):
                return present
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimedOut(f"'{name}' still runs after {timeout_s:g} s")
            self._changes.wait(seen, left)

    def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[LogLine]:
        """See `Runtime.logs`."""
        self._launch(name)
        return logs.read(
            self._directory(name), follow=follow, tail=tail, ended=lambda: self._is_over(name)
        )

    def exec(self, name: str, command: list[str], *, timeout_s: float = 60.0) -> ExecResult:
        """See `Runtime.exec`."""
        self._require_running(name)
        process = subprocess.Popen(
            [self._shim, "exec", self._directory(name), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise TimedOut(f"'{command[0]}' did not end within {timeout_s:g} s") from None
        return ExecResult(
            exit_code=process.returncode,
            stdout=out.decode(errors="replace"),
            stderr=err.decode(errors="replace"),
        )

    def terminal(self, name: str, command: list[str], size: TerminalSize) -> TerminalSession:
        """See `Runtime.terminal`."""
        self._require_running(name)
        words = [str(self._shim), "exec", str(self._directory(name)), *command]
        try:
            return PseudoTerminal(words, size, self._inherited)
        except OSError as error:
            raise HostLacks(f"no terminal can be opened: {error.strerror}") from error

    def look(self, name: str, command: list[str]) -> CommandOutput:
        """See `Runtime.look`."""
        words = [str(self._directory(name)), *command]
        if self._observed(name).state is State.RUNNING:
            return PipedCommand([self._shim, "exec", *words])

        def make() -> tuple[CommandOutput, Callable[[], None]]:
            with self._lock_of(name):
                state = self._observed(name).state
                if state is State.RESTARTING:
                    raise Conflict(f"'{name}' is being started again", remedy="try once more")
                kind = "exec" if state is State.RUNNING else "aside"
                made = PipedCommand([self._shim, kind, *words])
                return made, made.end

        return self._asides.open(name, make)

    def pids(self, name: str) -> list[int]:
        """See `Runtime.pids`."""
        self._launch(name)
        found = status.read(self._directory(name))
        if found is None or not found.unfinished or found.init_pid <= 0 or not found.alive:
            return []
        init = found.init_pid
        return sorted(pid for pid in self._processes.beside(init) if pid != init)

    def groups(self) -> list[str]:
        """Names of the control groups that are there."""
        return self._groups.names()

    def remove_group(self, name: str) -> None:
        """Of an application that is no more."""
        self._groups.remove(name)

    def run_foreground(self, launch: Launch) -> int:
        """Start with this process's own stdin, stdout and stderr, return the exit code.

        The application must have been created; output is not logged and nothing is restarted.
        """
        with self._lock_of(launch.name):
            pid = os.posix_spawn(
                self._shim, [str(self._shim), "foreground", str(self._directory(launch.name))], {}
            )
        while True:
            try:
                _, ended = os.waitpid(pid, 0)
                return os.waitstatus_to_exitcode(ended) & 0xFF
            except KeyboardInterrupt:
                continue  # the program got the terminal's SIGINT too, and decides

    def _make(self, launch: Launch, target: str, user: users.User | None) -> rundir.RunDirectory:
        owner = (user.uid, user.gid) if user else None
        made = rundir.build(self._state, launch, target, owner=owner)
        groups = self._groups.make(launch.name, launch.spec.limits)
        text = sandbox.shim_specification(launch, made, user, self._hidden, groups)
        _write_privately(made.path / "shim.spec", text)
        return made

    def _adopt(self, launch: Launch) -> None:
        directory = self._directory(launch.name)
        self._launches[launch.name] = launch
        self._seen.heard(launch.name)
        self._watcher.add(launch.name, directory)
        found = status.read(directory)
        if found is not None and found.unfinished:
            self._watcher.add_shim(launch.name, found)

    def _run_shim(self, name: str) -> str:
        """The line that the shim announces: `running`, or `failed REASON`."""
        return self._announced(name, self._launcher.launch(self._directory(name)))

    def _hold(self, name: str) -> None:
        """Have the sandbox made while the rest of the application is; `start` lets it go."""
        reader, gate = os.pipe()
        self._attended.add(name)
        try:
            announcements = self._launcher.launch(self._directory(name), [reader])
        except BaseException:
            os.close(gate)
            self._attended.discard(name)
            raise
        finally:
            os.close(reader)
        self._held[name] = _Held(announcements, gate)

    def _let_go(self, name: str) -> str:
        """As `_run_shim`; empty where none is held, or not any more."""
        held = self._held.pop(name, None)
        if held is None:
            return ""
        with suppress(BrokenPipeError):
            os.write(held.gate, b"!")
        os.close(held.gate)
        return self._announced(name, held.announcements)

    def _give_up(self, name: str) -> None:
        """The sandbox that is held, if one is, ends unused; returns when it has ended."""
        held = self._held.pop(name, None)
        if held is not None:
            os.close(held.gate)
            with suppress(TimedOut):
                self._announced(name, held.announcements)
            self._attended.discard(name)

    def _announced(self, name: str, announcements: int) -> str:
        """The shim's line, empty where it ended without one."""
        with os.fdopen(announcements, "rb") as file:
            if not readable(announcements, _ANNOUNCE_TIMEOUT_S):
                raise TimedOut(f"'{name}' was not started within {_ANNOUNCE_TIMEOUT_S:g} s")
            return file.readline().decode(errors="replace").strip()

    def _stop(self, launch: Launch) -> None:
        self._give_up(launch.name)
        found = status.read(self._directory(launch.name))
        if found is None or not found.unfinished:
            return
        self._attended.add(launch.name)
        try:
            self._end(launch.name, found, launch.spec.stop.grace)
        finally:
            self._attended.discard(launch.name)
            self._seen.heard(launch.name)
            self._notify()

    def _end(self, name: str, found: status.Status, grace_s: float) -> None:
        """SIGTERM to the shim means stop; SIGKILL, should it hang, ends the sandbox with it."""
        fd = self._watcher.take_shim(name, found.shim_pid) or status.open_shim(found)
        if fd is None:
            return
        try:
            for number, patience in (
                (signal.SIGTERM, grace_s + _STOP_SLACK_S),
                (signal.SIGKILL, _KILL_TIMEOUT_S),
            ):
                try:
                    pidfd.send_signal(fd, number)
                except ProcessLookupError:
                    return
                if readable(fd, patience):
                    return
            self._watcher.add_shim(name, found)
            raise TimedOut(f"process {found.shim_pid} does not end")
        finally:
            os.close(fd)

    def _observed(self, name: str) -> Observed:
        launch = self._launch(name)
        return status.observed(launch.id, name, status.read(self._directory(name)))

    def _look(self, name: str) -> Observed:
        """The same for a look at all, which the next one need not repeat."""
        launch, heard = self._launch(name), self._seen.number(name)
        found = status.read(self._directory(name))
        observed = self._seen.kept(status.observed(launch.id, name, found))
        # Of what is not watched, nothing would be heard when it ends.
        if found is None or not found.unfinished or self._watcher.has_shim(name, found.shim_pid):
            self._seen.keep(observed, heard)
        return observed

    def _is_over(self, name: str) -> bool:
        try:
            return self._observed(name).state not in (State.RUNNING, State.RESTARTING)
        except NotFound:
            return True

    def _launch(self, name: str) -> Launch:
        launch = self._launches.get(name)
        if launch is None:
            raise NotFound(f"there is no application '{name}' on this host")
        return launch

    def _lock_of(self, name: str) -> threading.Lock:
        with self._lock:
            found = self._locks.get(name)
            if found is None:
                found = self._locks[name] = threading.Lock()
            return found

    def _directory(self, name: str) -> Path:
        return rundir.application_directory(self._state, name)

    def _require_running(self, name: str) -> None:
        if self._observed(name).state is not State.RUNNING:
            raise Conflict(f"'{name}' is not running", remedy=f"start it: cse start {name}")

    def _require_shim(self) -> None:
        if not self._shim.exists():
            raise HostLacks(
                f"the supervisor program {self._shim} is not built", remedy="run 'make native'"
            )

    def _heard(self, name: str) -> None:
        launch = self._launches.get(name)
        if launch is not None:
            self._seen.heard(name)
        if name in self._attended:
            return  # whoever starts or ends it reads what was heard of here, and tells
        if launch is not None:
            found = status.read(self._directory(name))
            if found is not None and found.unfinished and found.alive:
                self._watcher.add_shim(name, found)
        self._notify()

    def _notify(self) -> None:
        self._changes.bump()
        self._changed()


def _write_privately(path: Path, text: bytes) -> None:
    """The program's environment is in it, and with it secrets."""
    path.unlink(missing_ok=True)
    rundir.write_new(str(path), text, 0o600)
