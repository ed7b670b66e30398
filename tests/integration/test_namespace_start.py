"""How programs of the namespace runtime are started: sandboxes held ready, the shims' launcher."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.domain.launch import BoundMount
from app.domain.observed import State
from app.runtimes.namespace import NamespaceRuntime
from tests.integration.namespaces import launch, texts
from tests.integration.runtimes import removed_at_the_end


def shims_of(runtime: NamespaceRuntime, name: str) -> list[int]:
    """Pids of the supervisor processes of an application."""
    directory = os.fsencode(runtime._directory(name))
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if directory in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def until_held(runtime: NamespaceRuntime, name: str) -> int:
    """The pid of the process that will become the program, waiting in its sandbox."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pids = shims_of(runtime, name)
        for _ in ("bubblewrap", "init", "the program"):
            pids = [child for pid in pids for child in children(pid)]
        if pids:
            return pids[0]
        time.sleep(0.005)
    raise AssertionError("no program is held")


def until(what: Callable[[], bool]) -> bool:
    """Whether it comes about soon."""
    deadline = time.monotonic() + 5
    while not (done := what()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return done


def children(pid: int) -> list[int]:
    """Of this process, now."""
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[NamespaceRuntime]:
    yield from removed_at_the_end(NamespaceRuntime(tmp_path / "state", "test"))


def test_supervisors_outlive_what_they_were_forked_from(runtime: NamespaceRuntime) -> None:
    for name in "ab":
        runtime.create(launch(name, "sleep", "60"))
        assert runtime.start(name).state is State.RUNNING
        assert len(shims_of(runtime, name)) == 1  # with its directory in what `ps` shows
        launcher = runtime._launcher._pid
        os.kill(launcher, signal.SIGKILL)
        os.waitid(os.P_PID, launcher, os.WEXITED | os.WNOWAIT)
    assert [one.state for one in runtime.observe()] == [State.RUNNING] * 2
    assert runtime.stop("a").state is State.EXITED  # and no zombie is left of its shim
    assert until(lambda: shims_of(runtime, "a") == [])


def test_nothing_but_the_applications_outlives_an_agent(tmp_path: Path) -> None:
    made = NamespaceRuntime(tmp_path, "test")
    made.create(launch("a", "sleep", "60"))
    made.start("a")
    launcher = made._launcher._pid
    made.close()
    assert not Path(f"/proc/{launcher}").exists()
    again = NamespaceRuntime(tmp_path, "test")
    assert again.observe()[0].state is State.RUNNING
    again.remove("a")
    again.close()


def test_a_held_program_is_ready_and_executed_when_it_is_started(
    runtime: NamespaceRuntime,
) -> None:
    runtime.create(launch("a", "sh", "-c", "echo up; sleep 60"), starting=True)
    held = until_held(runtime, "a")
    assert runtime.observe()[0].state is State.CREATED and runtime.pids("a") == []
    assert texts(runtime, "a") == []
    started = runtime.start("a")
    assert started.state is State.RUNNING and started.pid == held
    assert next(runtime.logs("a", follow=True)).text == "up"


def test_a_held_program_that_cannot_be_executed_fails_with_the_reason(
    runtime: NamespaceRuntime,
) -> None:
    runtime.create(launch("a", "/nonexistent"), starting=True)
    until_held(runtime, "a")
    failed = runtime.start("a")
    assert (failed.state, failed.reason) == (
        State.FAILED,
        "/nonexistent: No such file or directory",
    )


def test_a_sandbox_that_fails_while_it_is_held_is_told_at_the_start(
    runtime: NamespaceRuntime, tmp_path: Path
) -> None:
    mount = BoundMount(source=str(tmp_path / "nowhere"), target="/mnt", read_only=True)
    runtime.create(launch("a", "true", mounts=[mount]), starting=True)
    failed = runtime.start("a")
    assert failed.state is State.FAILED and "nowhere" in (failed.reason or "")


def test_a_held_program_is_restarted_without_being_held(runtime: NamespaceRuntime) -> None:
    restart = {"policy": "on-failure", "max_retries": 2, "delay": 0.01}
    runtime.create(launch("a", "sh", "-c", "echo up; exit 3", restart=restart), starting=True)
    runtime.start("a")
    assert runtime.wait("a", 10).restarts == 2 and texts(runtime, "a") == ["up"] * 3


@pytest.mark.parametrize("end", ["remove", "stop"])
def test_nothing_stays_of_a_held_program_that_is_not_started(
    runtime: NamespaceRuntime, end: str
) -> None:
    runtime.create(launch("a", "sleep", "60"), starting=True)
    held = until_held(runtime, "a")
    shims = shims_of(runtime, "a")
    assert shims
    getattr(runtime, end)("a")
    assert not Path(f"/proc/{held}").exists()
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in shims))
    if end == "stop":
        assert runtime.observe()[0].state is State.CREATED
        assert runtime.start("a").state is State.RUNNING


def test_what_is_held_ends_with_the_agent_and_is_started_by_the_next_one(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        first = NamespaceRuntime(tmp_path, "test")
        first.create(launch("a", "sleep", "60"), starting=True)
        until_held(first, "a")
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    second = NamespaceRuntime(tmp_path, "test")
    try:
        assert second.observe()[0].state is State.CREATED
        assert second.start("a").state is State.RUNNING  # perhaps while the other's still ends
        assert len(shims_of(second, "a")) == 1
    finally:
        second.remove("a")
        second.close()


def test_a_held_sandbox_that_is_gone_is_made_again_by_the_start(runtime: NamespaceRuntime) -> None:
    runtime.create(launch("a", "sleep", "60"), starting=True)
    until_held(runtime, "a")
    for pid in shims_of(runtime, "a"):
        os.kill(pid, signal.SIGKILL)
    assert runtime.start("a").state is State.RUNNING
