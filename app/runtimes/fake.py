"""A runtime in memory, for tests: the same contract suite as the real ones, no host touched.

Used by `app/agent/fake.py`, `tests/contract` and whoever tries the control plane on a machine
that is not Linux. Programs are those of `fake_program.py`.
"""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Literal

from app.domain.application import ApplicationSpec
from app.domain.errors import Conflict, NotFound, TimedOut
from app.domain.files import CommandOutput
from app.domain.launch import Launch
from app.domain.observed import ExecResult, LogLine, Observed, State
from app.domain.terminal import TerminalSession, TerminalSize
from app.runtimes.fake_program import Program, exists
from app.runtimes.fake_terminal import FakeTerminal

_pids = itertools.count(100_001)
_LONGEST_DELAY_S = 30.0


class _Application:
    """One application and the thread that is its program."""

    def __init__(self, launch: Launch, given: dict[str, str], changed: Callable[[], None]) -> None:
        self._given = given
        self.launch = launch
        self.condition = threading.Condition()
        self.lines: list[LogLine] = []
        self.program: Program | None = None
        self.stopping = False
        self._changed = changed
        self.observed = Observed(
            id=launch.id, name=launch.name, runtime="fake", state=State.CREATED
        )

    @property
    def over(self) -> bool:
        """Ended for good, or never started."""
        return self.observed.state in (State.EXITED, State.FAILED, State.CREATED)

    def update(self, **values: object) -> None:
        with self.condition:
            self.observed = self.observed.model_copy(update=values)
            self.condition.notify_all()
        self._changed()

    def write(self, stream: str, text: str) -> None:
        name: Literal["stdout", "stderr"] = "stderr" if stream == "stderr" else "stdout"
        with self.condition:
            self.lines.append(LogLine(time=datetime.now(UTC), stream=name, text=text))
            self.condition.notify_all()

    def new_program(self, command: list[str], write: Callable[[str, str], None]) -> Program:
        spec = self.launch.spec
        return Program(
            command, {"HOSTNAME": spec.name, **self._given}, spec.working_directory or "/", write
        )

    def run(self) -> None:
        """The shim: run the program, and again as the restart policy says."""
        rule, restarts = self.launch.spec.restart, 0
        delay = rule.delay
        while self.program is not None:
            status = self.program.run()
            again = rule.policy == "always" or (
                rule.policy == "on-failure"
                and status != 0
                and (rule.max_retries is None or restarts < rule.max_retries)
            )
            with self.condition:
                again = again and not self.stopping
                self.program = None
            self.update(
                state=State.RESTARTING if again else State.EXITED,
                pid=None,
                exit_code=status,
                finished_at=datetime.now(UTC),
            )
            if not again:
                return
            with self.condition:
                self.condition.wait_for(lambda: self.stopping, timeout=delay)
                if self.stopping:
                    break
                self.program = self.new_program(self.launch.spec.command, self.write)
            restarts, delay = restarts + 1, min(delay * 2, _LONGEST_DELAY_S)
            self.update(
                state=State.RUNNING,
                pid=next(_pids),
                restarts=restarts,
                started_at=datetime.now(UTC),
                finished_at=None,
            )
        self.update(state=State.EXITED)


class _Output:
    """Implements `app.domain.files.CommandOutput`: all of it at the first reading."""

    def __init__(self, application: _Application, command: list[str]) -> None:
        written: dict[str, list[str]] = {"stdout": [], "stderr": []}
        program = application.new_program(
            command, lambda stream, text: written[stream].append(text + "\n")
        )
        status = program.run() if exists(command) else 127
        self._data: bytes | None = "".join(written["stdout"]).encode() or None
        self._end = status, "".join(written["stderr"])

    def read(self, timeout_s: float) -> bytes | None:
        data, self._data = self._data, None
        return data

    def close(self) -> tuple[int, str]:
        return self._end


class FakeRuntime:
    """Implements `app.domain.ports.Runtime`; `changed` is called after every change of state."""

    def __init__(
        self,
        changed: Callable[[], None] = lambda: None,
        secret: Callable[[str], str] = lambda name: name,
    ) -> None:
        self._secret = secret
        self._lock = threading.Lock()
        self._applications: dict[str, _Application] = {}
        self._changed = changed

    def create(self, launch: Launch, *, starting: bool = False) -> None:
        """See `Runtime.create`."""
        with self._lock:
            present = self._applications.get(launch.name)
            if present and present.launch.id != launch.id:
                raise Conflict(
                    f"'{launch.name}' exists already on this host", remedy="remove it first"
                )
            if not present:
                self._applications[launch.name] = _Application(
                    launch, self._given(launch.spec), self._changed
                )
        self._changed()

    def _given(self, spec: ApplicationSpec) -> dict[str, str]:
        return {
            name: value if isinstance(value, str) else self._secret(value.secret)
            for name, value in spec.environment.items()
        }

    def start(self, name: str) -> Observed:
        """See `Runtime.start`."""
        application = self._get(name)
        command = application.launch.spec.command
        with application.condition:
            if application.observed.state in (State.RUNNING, State.RESTARTING):
                return application.observed
            application.stopping = False
            if exists(command):
                application.program = application.new_program(command, application.write)
        if not exists(command):
            reason = f"{command[0]}: no such program"
            application.update(state=State.FAILED, reason=reason)
            return application.observed
        application.update(
            state=State.RUNNING,
            pid=next(_pids),
            exit_code=None,
            reason=None,
            restarts=0,
            started_at=datetime.now(UTC),
            finished_at=None,
        )
        observed = application.observed
        threading.Thread(target=application.run, name=f"fake-{name}", daemon=True).start()
        return observed

    def stop(self, name: str) -> Observed:
        """See `Runtime.stop`."""
        application = self._get(name)
        rule = application.launch.spec.stop
        for number, grace in ((signal.Signals[rule.signal], rule.grace), (signal.SIGKILL, 5.0)):
            with application.condition:
                if application.over:
                    break
                application.stopping = True
                application.condition.notify_all()
                if application.program:
                    application.program.kill(number)
                application.condition.wait_for(lambda: application.over, timeout=grace)
        return application.observed

    def remove(self, name: str) -> None:
        """See `Runtime.remove`."""
        if name in self._applications:
            self.stop(name)
            with self._lock:
                self._applications.pop(name, None)
            self._changed()

    def observe(self) -> list[Observed]:
        """See `Runtime.observe`."""
        with self._lock:
            return [application.observed for application in self._applications.values()]

    def wait(self, name: str, timeout_s: float | None = None) -> Observed:
        """See `Runtime.wait`."""
        application = self._get(name)
        with application.condition:
            if not application.condition.wait_for(lambda: application.over, timeout=timeout_s):
                raise TimedOut(f"'{name}' still runs after {timeout_s:g} s")
            return application.observed

    def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[LogLine]:
        """See `Runtime.logs`."""
        application = self._get(name)
        with application.condition:
            position = 0 if tail is None else max(0, len(application.lines) - tail)
        return self._lines(application, position, follow)

    def _lines(self, application: _Application, position: int, follow: bool) -> Iterator[LogLine]:
        while True:
            with application.condition:
                while follow and not application.over and len(application.lines) <= position:
                    application.condition.wait()
                lines = application.lines[position:]
                over = application.over
            yield from lines
            position += len(lines)
            if not follow or over:
                return

    def exec(self, name: str, command: list[str], *, timeout_s: float = 60.0) -> ExecResult:
        """See `Runtime.exec`."""
        application = self._running(name)
        output: dict[str, list[str]] = {"stdout": [], "stderr": []}
        program = application.new_program(
            command, lambda stream, text: output[stream].append(text + "\n")
        )
        timer = threading.Timer(timeout_s, program.kill, (signal.SIGKILL,))
        timer.start()
        status = program.run() if exists(command) else 127
        expired = not timer.is_alive()
        timer.cancel()
        if expired:
            raise TimedOut(f"'{command[0]}' did not end within {timeout_s:g} s")
        return ExecResult(
            exit_code=status, stdout="".join(output["stdout"]), stderr="".join(output["stderr"])
        )

    def terminal(self, name: str, command: list[str], size: TerminalSize) -> TerminalSession:
        """See `Runtime.terminal`."""
        application = self._running(name)
        return FakeTerminal(command, size, lambda write: application.new_program(command, write))

    def look(self, name: str, command: list[str]) -> CommandOutput:
        """See `Runtime.look`."""
        return _Output(self._get(name), command)

    def pids(self, name: str) -> list[int]:
        """See `Runtime.pids`."""
        pid = self._get(name).observed.pid
        return [pid] if pid is not None else []

    def _running(self, name: str) -> _Application:
        application = self._get(name)
        if application.observed.state is not State.RUNNING:
            raise Conflict(f"'{name}' is not running", remedy=f"start it: cse start {name}")
        return application

    def _get(self, name: str) -> _Application:
        with self._lock:
            if name not in self._applications:
                raise NotFound(f"there is no application '{name}' on this host")
            return self._applications[name]
