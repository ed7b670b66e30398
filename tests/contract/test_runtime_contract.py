"""One suite for every runtime: what `app.domain.ports.Runtime` promises, on the fake and for real.

A test that passes on the fake and fails elsewhere shows where the control plane's tests lie.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.domain.application import ApplicationSpec
from app.domain.errors import Conflict, NotFound, TimedOut
from app.domain.launch import Launch
from app.domain.observed import Observed, State
from app.domain.ports import Runtime
from app.domain.terminal import TerminalSession, TerminalSize
from app.runtimes.fake import FakeRuntime

IMAGE = "debian:trixie-slim"
TRAP = "trap '' TERM; echo ready; sleep 60; sleep 60; sleep 60; sleep 60"


class Subject:
    """One runtime, and names that no other test of this machine uses."""

    def __init__(self, runtime: Runtime, kind: str, changes: list[float]) -> None:
        self.runtime = runtime
        self.kind = kind
        self.changes = changes
        """When the runtime told of a change."""
        self._prefix = f"t{uuid.uuid4().hex[:8]}"

    def name(self, short: str) -> str:
        return f"{self._prefix}-{short}"

    def launch(self, short: str, *command: str, **spec: Any) -> Launch:
        body: dict[str, Any] = {"name": self.name(short), "command": list(command), **spec}
        if self.kind == "docker":
            body |= {"runtime": "docker", "image": IMAGE}
        made = ApplicationSpec.model_validate(body)
        launch_id = f"contract-{uuid.uuid4().hex[:12]}"
        return Launch(id=launch_id, spec=made, elements=[], network=None, mounts=[])

    def started(self, short: str, *command: str, **spec: Any) -> Observed:
        one = self.launch(short, *command, **spec)
        self.runtime.create(one)
        return self.runtime.start(one.name)

    def ended(self, short: str, *command: str, **spec: Any) -> Observed:
        self.started(short, *command, **spec)
        return self.runtime.wait(self.name(short), 20)

    def seen(self, short: str) -> Observed | None:
        name = self.name(short)
        return next((item for item in self.runtime.observe() if item.name == name), None)

    def texts(self, short: str, stream: str = "stdout") -> list[str]:
        return [line.text for line in self.runtime.logs(self.name(short)) if line.stream == stream]


@contextmanager
def fake(_: Path, changed: Callable[[], None]) -> Iterator[Runtime]:
    yield FakeRuntime(changed)


@contextmanager
def namespace(state: Path, changed: Callable[[], None]) -> Iterator[Runtime]:
    from app.runtimes.namespace import NamespaceRuntime
    from app.runtimes.namespace.runtime import SHIM

    if shutil.which("bwrap") is None:
        pytest.skip("no bubblewrap; `make setup` installs it")
    if not SHIM.exists():
        pytest.skip("the shim is not built; run `make native`")
    runtime = NamespaceRuntime(state, "contract", changed)
    yield runtime
    runtime.close()


@contextmanager
def docker(state: Path, changed: Callable[[], None]) -> Iterator[Runtime]:
    from app.runtimes.docker import DockerRuntime

    inspect = ["docker", "image", "inspect", IMAGE]
    if subprocess.run(inspect, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"no image {IMAGE}; `images/docker.sh` makes it")
    runtime = DockerRuntime(state, f"contract-{uuid.uuid4().hex}", changed)
    yield runtime
    runtime.close()


@pytest.fixture(params=["fake", "namespace", pytest.param("docker", marks=pytest.mark.docker)])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    changes: list[float] = []
    make = {"fake": fake, "namespace": namespace, "docker": docker}[request.param]
    with make(tmp_path / "state", lambda: changes.append(time.monotonic())) as runtime:
        yield Subject(runtime, request.param, changes)
        for observed in runtime.observe():
            runtime.remove(observed.name)


def test_created_is_not_yet_running(subject: Subject) -> None:
    one = subject.launch("a", "sleep", "60")
    subject.runtime.create(one)
    seen = subject.seen("a")
    assert seen is not None
    assert (seen.state, seen.id, seen.pid) == (State.CREATED, one.id, None)
    assert subject.runtime.pids(one.name) == []


def test_start_returns_a_running_program(subject: Subject) -> None:
    running = subject.started("a", "sleep", "60")
    assert running.state is State.RUNNING
    assert running.pid is not None and running.started_at is not None
    assert running.pid in subject.runtime.pids(subject.name("a"))
    assert subject.seen("a") == running


def test_output_of_both_streams_and_the_status_are_kept(subject: Subject) -> None:
    ended = subject.ended("a", "sh", "-c", "echo one; echo two >&2; echo three; exit 3")
    assert (ended.state, ended.exit_code, ended.pid) == (State.EXITED, 3, None)
    assert ended.started_at is not None and ended.finished_at is not None
    assert ended.finished_at >= ended.started_at
    assert subject.texts("a") == ["one", "three"]
    assert subject.texts("a", "stderr") == ["two"]


def test_tail_gives_the_last_lines(subject: Subject) -> None:
    subject.ended("a", "sh", "-c", "echo 1; echo 2; echo 3; echo 4")
    lines = subject.runtime.logs(subject.name("a"), tail=2)
    assert [line.text for line in lines] == ["3", "4"]
    assert list(subject.runtime.logs(subject.name("a"), tail=0)) == []


def test_follow_ends_with_the_program(subject: Subject) -> None:
    subject.started("a", "sh", "-c", "echo first; sleep 0.5; echo last")
    began = time.monotonic()
    lines = [line.text for line in subject.runtime.logs(subject.name("a"), follow=True)]
    assert lines == ["first", "last"]
    assert time.monotonic() - began < 10


def test_a_signal_gives_128_and_its_number(subject: Subject) -> None:
    ended = subject.ended("a", "sh", "-c", "kill -9 $$")
    assert ended.exit_code == 137


def test_stop_ends_a_program_that_listens(subject: Subject) -> None:
    subject.started(
        "a",
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo ready; sleep 0.2; sleep 0.2;" * 1 + "sleep 0.2;" * 100,
    )
    _await_line(subject, "a", "ready")
    stopped = subject.runtime.stop(subject.name("a"))
    assert (stopped.state, stopped.exit_code) == (State.EXITED, 5)


def test_stop_kills_after_the_grace_time(subject: Subject) -> None:
    subject.started("a", "sh", "-c", TRAP, stop={"grace": 0.5})
    _await_line(subject, "a", "ready")
    began = time.monotonic()
    stopped = subject.runtime.stop(subject.name("a"))
    assert (stopped.state, stopped.exit_code) == (State.EXITED, 137)
    assert 0.4 < time.monotonic() - began < 15


def test_calls_that_have_nothing_to_do_do_nothing(subject: Subject) -> None:
    one = subject.launch("a", "sleep", "60")
    subject.runtime.create(one)
    subject.runtime.create(one)
    first = subject.runtime.start(one.name)
    again = subject.runtime.start(one.name)
    assert again.pid == first.pid
    subject.runtime.stop(one.name)
    subject.runtime.stop(one.name)
    subject.runtime.remove(one.name)
    subject.runtime.remove(one.name)
    assert subject.seen("a") is None


def test_a_name_is_given_once(subject: Subject) -> None:
    subject.started("a", "sleep", "60")
    with pytest.raises(Conflict):
        subject.runtime.create(subject.launch("a", "sleep", "61"))
    seen = subject.seen("a")
    assert seen is not None and seen.state is State.RUNNING


def test_starting_anew_after_the_end(subject: Subject) -> None:
    subject.ended("a", "sh", "-c", "echo run")
    subject.runtime.start(subject.name("a"))
    ended = subject.runtime.wait(subject.name("a"), 20)
    assert (ended.state, ended.exit_code) == (State.EXITED, 0)
    assert subject.texts("a")[-1] == "run"


def test_remove_ends_a_running_program(subject: Subject) -> None:
    subject.started("a", "sleep", "60")
    subject.runtime.remove(subject.name("a"))
    assert subject.seen("a") is None


def test_what_is_not_there_is_not_found(subject: Subject) -> None:
    nobody = subject.name("nobody")
    for call in (
        lambda: subject.runtime.start(nobody),
        lambda: subject.runtime.stop(nobody),
        lambda: subject.runtime.wait(nobody, 1),
        lambda: subject.runtime.exec(nobody, ["true"]),
        lambda: subject.runtime.pids(nobody),
        lambda: list(subject.runtime.logs(nobody)),
    ):
        with pytest.raises(NotFound):
            call()
    subject.runtime.remove(nobody)


def test_wait_times_out(subject: Subject) -> None:
    subject.started("a", "sleep", "60")
    with pytest.raises(TimedOut):
        subject.runtime.wait(subject.name("a"), 0.2)


def test_exec_runs_in_the_same_surroundings(subject: Subject) -> None:
    subject.started("a", "sleep", "60", environment={"COLOUR": "green"})
    command = ["sh", "-c", "echo $COLOUR; echo bad >&2; exit 4"]
    result = subject.runtime.exec(subject.name("a"), command)
    assert (result.exit_code, result.stdout, result.stderr) == (4, "green\n", "bad\n")


def test_exec_that_takes_too_long_is_ended(subject: Subject) -> None:
    subject.started("a", "sleep", "60")
    began = time.monotonic()
    with pytest.raises(TimedOut):
        subject.runtime.exec(subject.name("a"), ["sleep", "30"], timeout_s=0.5)
    assert time.monotonic() - began < 15


def test_exec_needs_a_running_program(subject: Subject) -> None:
    subject.ended("a", "true")
    with pytest.raises(Conflict):
        subject.runtime.exec(subject.name("a"), ["true"])


def test_environment_and_directory(subject: Subject) -> None:
    subject.ended(
        "a",
        "sh",
        "-c",
        "echo $COLOUR; pwd",
        environment={"COLOUR": "red"},
        working_directory="/usr",
    )
    assert subject.texts("a") == ["red", "/usr"]


def test_on_failure_restarts_as_often_as_allowed(subject: Subject) -> None:
    rule = {"policy": "on-failure", "max_retries": 2}
    ended = subject.ended("a", "sh", "-c", "echo run; exit 1", restart=rule)
    assert (ended.state, ended.exit_code, ended.restarts) == (State.EXITED, 1, 2)
    assert subject.texts("a") == ["run"] * 3


def test_success_is_no_failure(subject: Subject) -> None:
    ended = subject.ended("a", "sh", "-c", "echo run", restart={"policy": "on-failure"})
    assert (ended.state, ended.restarts) == (State.EXITED, 0)


def test_a_stopped_program_is_not_restarted(subject: Subject) -> None:
    subject.started("a", "sleep", "60", restart={"policy": "always"})
    stopped = subject.runtime.stop(subject.name("a"))
    assert stopped.state is State.EXITED
    time.sleep(0.5)
    seen = subject.seen("a")
    assert seen is not None and seen.state is State.EXITED


def test_changes_are_told(subject: Subject) -> None:
    subject.started("a", "sh", "-c", "sleep 0.3")
    subject.runtime.wait(subject.name("a"), 20)
    deadline = time.monotonic() + 5
    count = len(subject.changes)
    while count == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
        count = len(subject.changes)
    assert count > 0


def test_many_at_once(subject: Subject) -> None:
    """Methods are safe to call from several threads."""
    errors: list[str] = []

    def life(index: int) -> None:
        try:
            short = f"m{index}"
            ended = subject.ended(short, "sh", "-c", f"echo {index}; exit {index}")
            assert ended.exit_code == index
            assert subject.texts(short) == [str(index)]
            subject.runtime.remove(subject.name(short))
        except Exception:  # noqa: BLE001 - told below, in the test's own thread
            errors.append(traceback.format_exc())

    threads = [threading.Thread(target=life, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, "\n".join(errors)
    assert subject.runtime.observe() == []


def _await_line(subject: Subject, short: str, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in subject.texts(short):
        assert time.monotonic() < deadline, "the program did not get ready"
        time.sleep(0.02)


def typed_into(terminal: TerminalSession, wanted: bytes, seconds: float = 20) -> bytes:
    """What the terminal shows until this is in it."""
    shown, deadline = b"", time.monotonic() + seconds
    while wanted not in shown:
        assert time.monotonic() < deadline, shown
        data = terminal.read(1.0)
        assert data is not None, shown
        shown += data
    return shown


def test_a_terminal_shows_what_the_command_writes_and_its_status(subject: Subject) -> None:
    subject.started("a", "sleep", "60")
    size = TerminalSize(rows=30, columns=100)
    terminal = subject.runtime.terminal(
        subject.name("a"), ["sh", "-c", "sleep 0.3; stty size; exit 7"], size
    )
    shown = b""
    while (data := terminal.read(5)) is not None:
        shown += data
    assert shown == b"30 100\r\n"
    assert terminal.close() == terminal.close() == 7


def test_a_terminal_takes_what_is_typed(subject: Subject) -> None:
    subject.started("a", "sleep", "60")
    command = ["sh", "-c", "echo ready; exec cat"]
    terminal = subject.runtime.terminal(subject.name("a"), command, TerminalSize())
    typed_into(terminal, b"ready\r\n")
    terminal.write(b"hello\r")
    typed_into(terminal, b"hello\r\n")
    terminal.write(b"\x03")
    while terminal.read(5) is not None:
        pass
    assert terminal.close() == 130


def test_closing_a_terminal_ends_its_command(subject: Subject) -> None:
    subject.started("a", "sleep", "60")
    terminal = subject.runtime.terminal(subject.name("a"), ["sleep", "1000"], TerminalSize())
    assert terminal.close() == 137
    assert terminal.read(1) is None
    assert seen_state(subject) is State.RUNNING


def seen_state(subject: Subject) -> State | None:
    seen = subject.seen("a")
    return seen.state if seen else None


def test_a_terminal_needs_a_running_program(subject: Subject) -> None:
    subject.ended("a", "true")
    with pytest.raises(Conflict, match="not running"):
        subject.runtime.terminal(subject.name("a"), ["sh"], TerminalSize())


def looked(subject: Subject, short: str, *command: str) -> tuple[bytes, int, str]:
    output = subject.runtime.look(subject.name(short), list(command))
    data = b""
    while (part := output.read(5)) is not None:
        data += part
    return data, *output.close()


def test_a_look_beside_a_running_program(subject: Subject) -> None:
    subject.started("a", "sleep", "60", environment={"COLOUR": "green"})
    command = ["sh", "-c", "echo $COLOUR; echo bad >&2; exit 4"]
    assert looked(subject, "a", *command) == (b"green\n", 4, "bad\n")


def test_a_look_into_the_surroundings_of_one_that_does_not_run(subject: Subject) -> None:
    subject.ended("a", "sh", "-c", "exit 3", environment={"COLOUR": "green"})
    assert looked(subject, "a", "sh", "-c", "echo $COLOUR; echo $HOSTNAME") == (
        f"green\n{subject.name('a')}\n".encode(),
        0,
        "",
    )
    data, status, _ = looked(subject, "a", "no-such-program-anywhere")
    assert data == b"" and status != 0
    seen = subject.seen("a")
    assert seen is not None and (seen.state, seen.exit_code) == (State.EXITED, 3)
    with pytest.raises(NotFound):
        subject.runtime.look(subject.name("nobody"), ["true"])


def test_a_start_ends_looks_into_what_did_not_run(subject: Subject) -> None:
    if subject.kind == "fake":
        pytest.skip("the fake's commands end before they can be read")
    one = subject.launch("a", "sleep", "60")
    subject.runtime.create(one)
    output = subject.runtime.look(one.name, ["sh", "-c", "echo begun; exec sleep 100"])
    data = b""
    while data != b"begun\n":
        data += output.read(10) or b""
    assert subject.runtime.start(one.name).state is State.RUNNING
    while output.read(10) is not None:
        pass
    assert output.close()[0] != 0
    assert looked(subject, "a", "echo", "beside") == (b"beside\n", 0, "")
