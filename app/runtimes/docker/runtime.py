"""`Runtime` on Docker. Called by the agent.

Every container bears the installation's label; nothing without it is touched. What is known of an
application is read back from Docker and from its run directory, so a restarted agent finds all of
them. Starting costs two calls, create and start, and one inspect.
"""

from __future__ import annotations

import contextlib
import math
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from app.domain.errors import Conflict, CseError, HostLacks, NotFound, TimedOut
from app.domain.files import CommandOutput
from app.domain.launch import Launch
from app.domain.observed import ExecResult, Finding, LogLine, Observed, State
from app.domain.terminal import TerminalSession, TerminalSize
from app.runtimes import preflight, rundir
from app.runtimes.beside import Asides
from app.runtimes.docker import container, inspected, processes, streams
from app.runtimes.docker.beside import AsideContainer, ExecutedCommand
from app.runtimes.docker.containers import Containers
from app.runtimes.docker.engine import Engine, Refused
from app.runtimes.docker.imagefiles import Image, ImageFiles, inspect
from app.runtimes.docker.terminal import ContainerTerminal

_NOTICE_WAIT_S = 2.0
_SAME_IMAGE_S = 0.5
_DEFAULT_GRACE_S = 10.0
_HOLD = Path(__file__).resolve().parents[3] / "build" / "bin" / platform.machine() / "cse-hold"


class DockerRuntime:
    """Implements `app.domain.ports.Runtime`.

    `installation` marks what is ours on this Docker daemon. `changed` is called, from a thread of
    its own, after every change of a container of ours.
    """

    def __init__(
        self,
        state: Path,
        installation: str,
        changed: Callable[[], None] | None = None,
        *,
        hold: Path = _HOLD,
    ) -> None:
        self._state = state.absolute()
        self._hold = hold
        self._installation = installation
        self._engine = Engine()
        self._containers = Containers(self._engine, self._state, installation, changed)
        self._asides = Asides()
        self._images: dict[str, tuple[float, Image]] = {}

    def close(self) -> None:
        """Stop following events; applications are not affected."""
        self._containers.close()

    def examine(self, launch: Launch) -> preflight.Program:
        """The program's file in the image, for preflight; NotFound where there is no such image."""
        with self._files(launch) as files:
            return self._examine(launch, files)

    # ---- life

    def create(self, launch: Launch, *, starting: bool = False) -> None:
        """See `Runtime.create`."""
        container.check(launch)
        name = launch.name
        # Only what was sealed can be there whole; otherwise Docker tells whether the name is free.
        if rundir.load(self._state, name) is not None and self._containers.has(launch):
            return
        self._containers.open()
        with self._files(launch) as files:
            owner = files.owner()
            program = self._examine(launch, files)
        kernel = preflight.judge(launch, program).verdict == "kernel"
        linked = launch.on_the_kernel() if kernel else launch
        target = program.target if program.libc != "none" else f"glibc-{platform.machine()}"
        try:
            directory = rundir.build(self._state, linked, target, owner=owner)
            hold = self._bring_hold(directory) if kernel and launch.network else None
            body = container.body(launch, directory, self._installation, owner, hold)
            self._create(launch, body)
            rundir.seal(directory.path, launch)
        except BaseException:
            with contextlib.suppress(CseError):
                self.remove(name)
            raise

    def _create(self, launch: Launch, body: dict[str, Any]) -> None:
        try:
            with self._engine.doing(f"create '{launch.name}'"):
                name = container.container_name(launch.name)
                self._engine().create_container_from_config(body, name)
        except Refused as error:
            if error.status == 409:
                self._containers.has(launch)  # says whose the name is
            raise

    def start(self, name: str) -> Observed:
        """See `Runtime.start`."""
        identity = self._containers.id_of(name)
        self._asides.end(name)
        refused: Refused | None = None
        self._containers.forget(identity)
        try:
            with self._engine.doing(f"start '{name}'"):
                self._engine().start(identity)
        except Refused as error:
            refused = error  # Docker has noted the reason: it is the application's state now
        found = self._containers.inspect(identity)
        init = int(found["State"]["Pid"])
        if init and processes.program_of(init) is None:
            found = self._after(identity, init)
        shown = self._observed(found)
        if refused is not None and shown.state is not State.FAILED:
            raise refused
        return shown

    def stop(self, name: str) -> Observed:
        """See `Runtime.stop`."""
        identity = self._containers.id_of(name)
        launch = rundir.load(self._state, name)
        grace = launch.spec.stop.grace if launch else _DEFAULT_GRACE_S
        with self._engine.doing(f"stop '{name}'"):
            # Docker keeps the time itself, so the application ends even when we do not live on.
            self._engine().stop(identity, timeout=math.ceil(grace))
        return self._observed(self._containers.inspect(identity))

    def remove(self, name: str) -> None:
        """See `Runtime.remove`."""
        self._containers.look_again(name)
        self._asides.end(name)
        with contextlib.suppress(NotFound):
            self.stop(name)
            self._containers.remove(name)
        rundir.remove(self._state, name)

    def wait(self, name: str, timeout_s: float | None = None) -> Observed:
        """See `Runtime.wait`."""
        identity = self._containers.id_of(name)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            found = self._containers.inspect(identity)
            if inspected.over(found):
                return self._observed(found)
            left = None if deadline is None else deadline - time.monotonic()
            try:
                if left is not None and left <= 0:
                    raise TimedOut("no time left")
                with self._engine.doing(f"wait for '{name}'"):
                    self._engine().wait(identity, timeout=left)
            except TimedOut as error:
                raise TimedOut(f"'{name}' still runs after {timeout_s:g} s") from error
            if not inspected.over(self._containers.inspect(identity)):
                time.sleep(0.02)  # Docker answers at each end; it is starting it again

    # ---- what is there

    def observe(self) -> list[Observed]:
        """See `Runtime.observe`."""
        return [self._observed(found) for found in self._containers.all()]

    def pids(self, name: str) -> list[int]:
        """See `Runtime.pids`."""
        identity = self._containers.id_of(name)
        init = int(self._containers.inspect(identity)["State"]["Pid"])
        if not init:
            return []
        found = processes.all_of(init)
        if not found:  # another process namespace than the host's: only Docker can tell
            with self._engine.doing(f"list the processes of '{name}'"):
                rows = self._engine().top(identity, ps_args="-o pid")["Processes"] or []
            found = sorted(int(row[0]) for row in rows if int(row[0]) != init)
        return found

    def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[LogLine]:
        """See `Runtime.logs`."""
        identity = self._containers.id_of(name)
        return streams.log(
            self._engine,
            identity,
            tail,
            follow_until=(lambda: inspected.over(self._containers.inspect(identity)))
            if follow
            else None,
        )

    def exec(self, name: str, command: list[str], *, timeout_s: float = 60.0) -> ExecResult:
        """See `Runtime.exec`. Docker gives the command the container's environment and user."""
        return streams.execute(self._engine, self._running(name), name, command, timeout_s)

    def terminal(self, name: str, command: list[str], size: TerminalSize) -> TerminalSession:
        """See `Runtime.terminal`."""
        return ContainerTerminal(self._engine, self._running(name), name, command, size)

    def look(self, name: str, command: list[str]) -> CommandOutput:
        """See `Runtime.look`."""
        identity = self._containers.id_of(name)
        state = self._containers.inspect(identity)["State"]["Status"]
        if state == "running":
            return ExecutedCommand(self._engine, identity, name, command)
        if state == "restarting":
            raise Conflict(f"'{name}' is being started again", remedy="try once more")

        def make() -> tuple[CommandOutput, Callable[[], None]]:
            found = self._containers.inspect(identity)
            made = AsideContainer(self._engine, self._installation, found, name, command)
            return made, made.end

        return self._asides.open(name, make)

    def doctor(self) -> list[Finding]:
        """Whether Docker can be used here."""
        try:
            with self._engine.doing("tell its version"):
                version = self._engine().version()
        except CseError as error:
            text, remedy = error.detail, error.remedy or ""
            return [Finding(check="docker", ok=False, observation=text, remedy=remedy)]
        text = f"Docker {version.get('Version')} (API {version.get('ApiVersion')})"
        return [Finding(check="docker", ok=True, observation=text)]

    # ---- helpers

    def _running(self, name: str) -> str:
        """The container's id; Conflict where it does not run."""
        identity = self._containers.id_of(name)
        if self._containers.inspect(identity)["State"]["Status"] != "running":
            raise Conflict(f"'{name}' is not running", remedy=f"start it: cse start {name}")
        return identity

    def _files(self, launch: Launch) -> ImageFiles:
        image = self._image(str(launch.spec.image))
        cache = self._state / "cache" / "images"
        return ImageFiles(self._engine, cache, self._installation, launch, image)

    def _image(self, reference: str) -> Image:
        """A start asks three times within milliseconds, and each answer takes Docker two of them;
        the name may be another image's by the time of the create in any case."""
        known = self._images.get(reference)
        if known is not None and time.monotonic() - known[0] < _SAME_IMAGE_S:
            return known[1]
        image = inspect(self._engine, reference)
        self._images[reference] = (time.monotonic(), image)
        return image

    def _examine(self, launch: Launch, files: ImageFiles) -> preflight.Program:
        spec = launch.spec
        return preflight.examine(
            spec.command[0],
            files,
            path=spec.path or files.image.environment.get("PATH"),
            directory=spec.working_directory or files.image.working_directory,
        )

    def _bring_hold(self, directory: rundir.RunDirectory) -> str:
        """Copied to the application's directory, where Docker finds it on the host."""
        if not self._hold.exists():
            raise HostLacks(f"{self._hold} is not built", remedy="build it with 'make native'")
        (directory.path / "run" / "hold").touch()  # where it is mounted
        place = directory.path / "hold"
        shutil.copy(self._hold, place)
        return str(place)

    def _observed(self, found: dict[str, Any]) -> Observed:
        init = int(found["State"]["Pid"])
        pid = (processes.program_of(init, 0) or init) if init else None
        complaint = None
        if inspected.may_not_have_executed(found):
            last = list(streams.log(self._engine, str(found["Id"]), 1))
            if last and last[0].text.startswith(inspected.INIT_COMPLAINT):
                complaint = last[0].text.partition("] ")[2] or last[0].text
        return inspected.observed(found, pid=pid, complaint=complaint)

    def _after(self, identity: str, init: int) -> dict[str, Any]:
        """What Docker says once it has noticed that process 1 has ended, as it soon will."""
        deadline = time.monotonic() + _NOTICE_WAIT_S
        while True:
            found = self._containers.inspect(identity)
            settled = int(found["State"]["Pid"]) != init or not processes.has_ended(init)
            if settled or time.monotonic() > deadline:
                return found
            time.sleep(0.005)
