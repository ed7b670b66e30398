"""The docker runtime on a real daemon: isolation, output, stop, restart, exec, crash safety."""

from __future__ import annotations

import json
import platform
import stat
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from app.domain.application import ApplicationSpec
from app.domain.element import Element, ElementManifest, LibrarySet
from app.domain.errors import (
    Conflict,
    CseError,
    HostLacks,
    InvalidSpecification,
    NotFound,
    TimedOut,
)
from app.domain.launch import BoundElement, BoundMount, Launch
from app.domain.network import NetworkBinding, NetworkSpec
from app.domain.observed import Observed, State
from app.runtimes.docker import DockerRuntime
from app.runtimes.preflight import judge
from tests.integration.runtimes import removed_at_the_end

pytestmark = pytest.mark.docker
IMAGE = "debian:trixie-slim"
PRIVATE = NetworkBinding(
    network=NetworkSpec(name="none"), address=IPv4Address("10.210.9.9"), mac="02:c5:0a:d2:09:09"
)


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode:
        pytest.skip(f"no image {IMAGE}; `images/base.sh` makes it")


@pytest.fixture
def prefix() -> str:
    """Names of this test only: the daemon is shared."""
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[DockerRuntime]:
    yield from removed_at_the_end(DockerRuntime(tmp_path / "state", f"test-{uuid.uuid4().hex}"))


@pytest.fixture
def told() -> threading.Event:
    return threading.Event()


@pytest.fixture
def watched(tmp_path: Path, told: threading.Event) -> Iterator[DockerRuntime]:
    """One that follows Docker's events, and sets `told` after each change."""
    made = DockerRuntime(tmp_path / "state", f"test-{uuid.uuid4().hex}", told.set)
    yield from removed_at_the_end(made)


@pytest.fixture
def element(tmp_path: Path) -> BoundElement:
    """A network element of this machine's glibc; its library is one that does nothing."""
    target = f"glibc-{platform.machine()}"
    library = tmp_path / "element/lib" / target / "libnothing.so"
    library.parent.mkdir(parents=True)
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "/dev/null", "-o", str(library)]
    subprocess.run(command, check=True)
    manifest = ElementManifest(
        name="nothing",
        kind="network",
        version="1.0.0",
        summary="links, and does nothing",
        license="Apache-2.0",
        libraries={target: LibrarySet(preload=["libnothing.so"])},
    )
    directory = str(tmp_path / "element")
    return BoundElement(element=Element(manifest=manifest, directory=directory), settings={})


def launch(name: str, *command: str, mounts: list[BoundMount] | None = None, **spec: Any) -> Launch:
    body = {"name": name, "command": list(command), "runtime": "docker", "image": IMAGE, **spec}
    made = ApplicationSpec.model_validate(body)
    identity = uuid.uuid4().hex
    return Launch(id=identity, spec=made, elements=[], network=PRIVATE, mounts=mounts or [])


def run(runtime: DockerRuntime, one: Launch) -> Observed:
    """Create, start, and wait for the end."""
    runtime.create(one)
    runtime.start(one.name)
    return runtime.wait(one.name, 20)


def texts(runtime: DockerRuntime, name: str, stream: str = "stdout") -> list[str]:
    return [line.text for line in runtime.logs(name) if line.stream == stream]


def test_output_exit_code_and_times_are_kept(runtime: DockerRuntime, prefix: str) -> None:
    ended = run(runtime, launch(prefix, "sh", "-c", "echo one; echo two >&2; printf three; exit 7"))
    assert (ended.state, ended.exit_code, ended.pid) == (State.EXITED, 7, None)
    assert ended.started_at is not None and ended.finished_at is not None
    assert ended.started_at <= ended.finished_at
    assert texts(runtime, prefix) == ["one", "three"] and texts(runtime, prefix, "stderr") == [
        "two"
    ]
    assert [line.text for line in runtime.logs(prefix, tail=1)] == ["three"]


def test_a_line_longer_than_dockers_buffer_comes_back_whole(
    runtime: DockerRuntime, prefix: str
) -> None:
    run(runtime, launch(prefix, "sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo; echo end"))
    assert texts(runtime, prefix) == ["x" * 40000, "end"]


def test_the_container_has_no_network_no_capability_and_no_way_up(
    runtime: DockerRuntime, prefix: str
) -> None:
    script = "cat /proc/self/status; ls /sys/class/net; cat /proc/net/route | wc -l; hostname"
    run(runtime, launch(prefix, "sh", "-c", script))
    shown = texts(runtime, prefix)
    for field in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
        assert f"{field}:\t0000000000000000" in shown
    assert "NoNewPrivs:\t1" in shown
    assert shown[-3:] == ["lo", "1", prefix]


def test_without_a_network_element_it_is_the_kernels_own_network(
    runtime: DockerRuntime, prefix: str
) -> None:
    plain = launch(prefix, "sleep", "60").model_copy(update={"network": None})
    runtime.create(plain)
    started = runtime.start(prefix)
    own = Path("/proc/self/ns/net").readlink()
    assert Path(f"/proc/{started.pid}/ns/net").readlink() == own


def test_limits_user_directory_environment_mounts_and_tmpfs(
    runtime: DockerRuntime, prefix: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "given").write_text("from the host")
    mount = BoundMount(source=str(tmp_path / "given"), target="/srv/given", read_only=True)
    script = """id -un; pwd; echo $COLOUR; cat /srv/given; echo
        echo x 2>&- >/srv/given && echo written; echo y >/scratch/y && cat /scratch/y; sleep 60"""
    spec = {
        "user": "www-data",
        "working_directory": "/usr/share",
        "environment": {"COLOUR": "blue"},
        "tmpfs": ["/scratch"],
        "limits": {"memory": "64M", "cpus": 0.5, "pids": 7},
    }
    runtime.create(launch(prefix, "sh", "-c", script, mounts=[mount], **spec))
    runtime.start(prefix)
    until(lambda: len(texts(runtime, prefix)) >= 5)
    assert texts(runtime, prefix) == ["www-data", "/usr/share", "blue", "from the host", "y"]
    limits = inspected(prefix)["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"]) == (64 * 2**20, 500_000_000)
    # As many as asked for, beside Docker's init, which is not the application's.
    forks = "for n in 1 2 3 4 5 6 7 8; do sleep 9 & done; wait"
    refused = runtime.exec(prefix, ["sh", "-c", forks], timeout_s=20)
    assert "Cannot fork" in refused.stderr


def test_pid_is_the_programs_own_and_pids_are_all_of_its_processes(
    runtime: DockerRuntime, prefix: str
) -> None:
    runtime.create(launch(prefix, "sh", "-c", "sleep 61 & exec sleep 60"))
    started = runtime.start(prefix)
    assert started.state is State.RUNNING and started.pid
    until(lambda: "60" in command_line(started.pid))
    both = {"sleep 60", "sleep 61"}
    until(lambda: {command_line(pid) for pid in runtime.pids(prefix)} == both)
    assert runtime.observe()[0].pid == started.pid


def test_a_program_that_is_not_there_fails_with_the_reason(
    runtime: DockerRuntime, prefix: str
) -> None:
    one = launch(prefix, "no-such-program")
    assert "no such program" in runtime.examine(one).problem
    runtime.create(one)
    failed = runtime.start(prefix)
    assert failed.state is State.FAILED and "no-such-program" in str(failed.reason)
    assert [seen.state for seen in runtime.observe()] == [State.FAILED]


def test_examine_reads_the_program_inside_the_image(runtime: DockerRuntime, prefix: str) -> None:
    one = launch(prefix, "sh")
    program = runtime.examine(one)
    assert (program.path, program.libc, program.static) == ("/usr/bin/dash", "glibc", False)
    inside = run(runtime, launch(prefix, "sha256sum", "/bin/sh"))
    assert inside.exit_code == 0
    assert texts(runtime, prefix)[0].split()[0] == program.sha256
    assert judge(one, program).verdict == "private"
    setuid = runtime.examine(launch(prefix, "passwd"))
    assert setuid.set_id


def test_a_program_from_a_mount_is_read_on_the_host(
    runtime: DockerRuntime, prefix: str, tmp_path: Path
) -> None:
    script = tmp_path / "mine"
    script.write_text("#!/bin/sh\necho mine\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    mount = BoundMount(source=str(script), target="/opt/mine", read_only=True)
    program = runtime.examine(launch(prefix, "/opt/mine", mounts=[mount]))
    assert (program.path, program.libc) == ("/opt/mine", "glibc")
    run(runtime, launch(prefix, "/opt/mine", mounts=[mount]))
    assert texts(runtime, prefix) == ["mine"]


def test_reading_an_image_leaves_no_container(runtime: DockerRuntime, prefix: str) -> None:
    runtime.examine(launch(prefix, "cat"))
    label = f"label=cse.installation.reader={runtime._installation}"
    listed = subprocess.run(["docker", "ps", "-aq", "--filter", label], capture_output=True)
    assert listed.stdout == b""


def test_an_image_that_is_not_there_is_named_with_the_remedy(
    runtime: DockerRuntime, prefix: str
) -> None:
    with pytest.raises(NotFound) as caught:
        runtime.create(launch(prefix, "true", image="cse/no-such-image"))
    assert caught.value.pointer == "/image" and "docker pull" in str(caught.value.remedy)
    with pytest.raises(InvalidSpecification) as unknown:
        runtime.create(launch(prefix, "true", user="nobody-of-that-name"))
    assert unknown.value.pointer == "/user"
    assert runtime.observe() == []


def test_no_daemon_is_said_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    absent = DockerRuntime(tmp_path / "state", "test")
    with pytest.raises(HostLacks) as caught:
        absent.observe()
    assert "dockerd" in str(caught.value) or "daemon" in str(caught.value)
    assert [finding.ok for finding in absent.doctor()] == [False]


def test_stop_sends_the_signal_and_kills_after_the_grace_time(
    runtime: DockerRuntime, prefix: str
) -> None:
    gentle = "trap 'echo asked; exit 5' USR1; echo ready; while :; do sleep 0.1; done"
    runtime.create(launch(prefix, "sh", "-c", gentle, stop={"signal": "SIGUSR1", "grace": 10}))
    runtime.start(prefix)
    until(lambda: "ready" in texts(runtime, prefix))
    assert runtime.stop(prefix).exit_code == 5
    assert texts(runtime, prefix) == ["ready", "asked"]
    assert runtime.stop(prefix).exit_code == 5  # nothing left to do

    deaf = f"{prefix}-deaf"
    runtime.create(launch(deaf, "sh", "-c", "trap '' TERM; sleep 60 & wait", stop={"grace": 1}))
    runtime.start(deaf)
    began = time.monotonic()
    assert runtime.stop(deaf).exit_code == 137
    assert 0.8 < time.monotonic() - began < 8


def test_a_program_without_handlers_ends_at_once(runtime: DockerRuntime, prefix: str) -> None:
    """It is not process 1, for which the kernel ignores such signals."""
    runtime.create(launch(prefix, "sleep", "60"))
    runtime.start(prefix)
    began = time.monotonic()
    assert runtime.stop(prefix).exit_code == 143
    assert time.monotonic() - began < 5


def test_docker_restarts_it_by_the_policy_and_not_after_a_stop(
    runtime: DockerRuntime, prefix: str
) -> None:
    one = launch(prefix, "sh", "-c", "echo run; exit 3", restart="on-failure:2")
    runtime.create(one)
    runtime.start(prefix)
    followed = [line.text for line in runtime.logs(prefix, follow=True)]
    ended = runtime.wait(prefix, 30)
    assert (ended.state, ended.exit_code, ended.restarts) == (State.EXITED, 3, 2)
    assert followed == ["run"] * 3 == texts(runtime, prefix)

    always = f"{prefix}-always"
    runtime.create(launch(always, "sleep", "60", restart="always"))
    first = runtime.start(always).pid
    subprocess.run(["kill", "-9", str(first)], check=True)
    again = until(lambda: running_pid(runtime, always, first))
    assert again != first
    assert runtime.stop(always).state is State.EXITED
    time.sleep(0.5)
    states = {seen.name: seen.state for seen in runtime.observe()}
    assert states[always] is State.EXITED

    with pytest.raises(InvalidSpecification, match="100 ms"):
        runtime.create(launch(f"{prefix}-c", "true", restart={"policy": "always", "delay": 5}))


def test_exec_has_the_applications_surroundings(runtime: DockerRuntime, prefix: str) -> None:
    runtime.create(launch(prefix, "sleep", "60", user="daemon", environment={"A": "b"}))
    runtime.start(prefix)
    done = runtime.exec(prefix, ["sh", "-c", "id -un; echo $A; hostname; echo bad >&2; exit 9"])
    assert (done.exit_code, done.stderr) == (9, "bad\n")
    assert done.stdout.split() == ["daemon", "b", prefix]
    assert runtime.exec(prefix, ["no-such-command"]).exit_code == 127
    with pytest.raises(TimedOut):
        runtime.exec(prefix, ["sleep", "77"], timeout_s=0.5)
    until(lambda: len(runtime.pids(prefix)) == 1)  # the command was ended
    runtime.stop(prefix)
    with pytest.raises(Conflict, match="not running"):
        runtime.exec(prefix, ["true"])


def test_wait_times_out_and_logs_follow_to_the_end(runtime: DockerRuntime, prefix: str) -> None:
    runtime.create(launch(prefix, "sh", "-c", "echo a; sleep 1; echo b"))
    runtime.start(prefix)
    with pytest.raises(TimedOut):
        runtime.wait(prefix, 0.2)
    assert [line.text for line in runtime.logs(prefix, follow=True)] == ["a", "b"]


def test_memory_limit_is_given_as_the_reason(watched: DockerRuntime, prefix: str) -> None:
    """By who follows the events: Docker may hear of the kill after it has noted the end."""
    eater = launch(prefix, "sh", "-c", "tail /dev/zero", limits={"memory": "16M"})
    assert watched.observe() == []
    assert run(watched, eater).exit_code == 137
    until(lambda: "memory limit" in str(watched.observe()[0].reason))


def test_nothing_unmarked_is_touched(runtime: DockerRuntime, prefix: str) -> None:
    foreign = f"cse-{prefix}"
    made = ["docker", "create", "--name", foreign, "--network", "none", IMAGE, "true"]
    subprocess.run(made, check=True, capture_output=True)
    try:
        with pytest.raises(Conflict, match="not of this installation"):
            runtime.create(launch(prefix, "true"))
        runtime.remove(prefix)
        for step in (runtime.start, runtime.stop, runtime.pids):
            with pytest.raises(NotFound):
                step(prefix)
        assert inspected(prefix)["Name"] == f"/{foreign}"
        assert runtime.observe() == []
    finally:
        subprocess.run(["docker", "rm", "-f", foreign], check=True, capture_output=True)


def test_a_second_runtime_finds_everything_again(
    runtime: DockerRuntime, prefix: str, tmp_path: Path
) -> None:
    one = launch(prefix, "sh", "-c", "echo here; sleep 60")
    runtime.create(one)
    started = runtime.start(prefix)
    other = DockerRuntime(tmp_path / "state", runtime._installation)
    assert [(seen.id, seen.pid) for seen in other.observe()] == [(one.id, started.pid)]
    other.create(one)  # nothing left to do
    with pytest.raises(Conflict, match="remove it first"):
        other.create(launch(prefix, "true"))
    assert texts(runtime, prefix) == ["here"]
    other.remove(prefix)
    other.remove(prefix)
    assert runtime.observe() == [] and not (tmp_path / "state/apps" / prefix).exists()


def test_what_a_killed_agent_left_half_made_is_removed(
    runtime: DockerRuntime, prefix: str, tmp_path: Path
) -> None:
    one = launch(prefix, "sleep", "60")
    runtime.create(one)
    (tmp_path / "state/apps" / prefix / "launch.json").unlink()  # not yet written when it died
    other = DockerRuntime(tmp_path / "state", runtime._installation)
    assert other.observe() == [] and not (tmp_path / "state/apps" / prefix).exists()
    other.create(launch(prefix, "sleep", "60"))
    assert [seen.name for seen in other.observe()] == [prefix]


def test_changes_are_told(watched: DockerRuntime, told: threading.Event, prefix: str) -> None:
    watched.create(launch(prefix, "sleep", "60"))
    pid = watched.start(prefix).pid
    assert watched.observe()[0].state is State.RUNNING
    time.sleep(0.3)
    told.clear()
    subprocess.run(["kill", "-9", str(pid)], check=True)
    assert told.wait(5)
    until(lambda: watched.observe()[0].state is State.EXITED)
    assert watched.observe()[0].exit_code == 137


def test_elements_are_linked_from_a_read_only_mount_shared_by_all(
    runtime: DockerRuntime, prefix: str, element: BoundElement
) -> None:
    names = [f"{prefix}-1", f"{prefix}-2"]
    for name in names:
        one = launch(name, "sleep", "60", user="www-data")
        runtime.create(one.model_copy(update={"elements": [element]}))
    pids = [runtime.start(name).pid for name in names]
    files = set()
    for pid in pids:
        rows = Path(f"/proc/{pid}/maps").read_text().splitlines()
        files |= {tuple(row.split()[3:]) for row in rows if row.endswith("/libnothing.so")}
    assert len(files) == 1  # one device and inode for both
    tried = runtime.exec(names[0], ["sh", "-c", "rm /run/cse/lib/nothing/*; echo x > /run/cse/x"])
    assert tried.stderr.count("Read-only file system") == 2
    written = "echo 1 >/run/cse/data/x && echo 2 >/run/cse/private/x && cat /run/cse/*/x"
    assert runtime.exec(names[0], ["sh", "-c", written]).stdout == "1\n2\n"
    assert runtime.exec(names[1], ["sh", "-c", "ls /run/cse/data /run/cse/private"]).stdout == (
        "/run/cse/data:\n\n/run/cse/private:\n"
    )
    shown = runtime.exec(names[0], ["sh", "-c", "grep -c libnothing /proc/self/maps"])
    assert int(shown.stdout) > 0  # exec'ed commands are linked too


def until(what: Any, seconds: float = 10.0) -> Any:
    """The first true result of `what`."""
    deadline = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < deadline, "not so in time"
        time.sleep(0.05)
    return result


def running_pid(runtime: DockerRuntime, name: str, before: int | None) -> int | None:
    """The pid of a program that has been started again."""
    try:
        seen = {one.name: one for one in runtime.observe()}[name]
    except CseError:
        return None
    return seen.pid if seen.state is State.RUNNING and seen.pid != before else None


def command_line(pid: int | None) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def inspected(name: str) -> Any:
    shown = subprocess.run(["docker", "inspect", f"cse-{name}"], capture_output=True, check=True)
    return json.loads(shown.stdout)[0]


@pytest.mark.root
def test_a_static_program_is_held_until_its_kernel_interface_is_there(
    runtime: DockerRuntime, prefix: str, element: BoundElement
) -> None:
    """`fallback: kernel`: what it sees at its first instruction is a network that is ready."""
    busybox = BoundMount(source="/bin/busybox", target="/opt/busybox", read_only=True)
    one = launch(prefix, "/opt/busybox", "ip", "route", mounts=[busybox], fallback="kernel")
    one = one.model_copy(update={"elements": [element]})
    program = runtime.examine(one)
    assert program.static and judge(one, program).verdict == "kernel"
    runtime.create(one)
    started = runtime.start(prefix)
    assert started.state is State.RUNNING and "LD_PRELOAD" not in str(inspected(prefix)["Config"])
    inside = ["nsenter", "-t", str(started.pid), "-n", "ip"]
    subprocess.run([*inside, "link", "add", "eth0", "type", "veth"], check=True)
    subprocess.run([*inside, "addr", "add", "10.210.9.9/16", "dev", "eth0"], check=True)
    subprocess.run([*inside, "link", "set", "eth0", "up"], check=True)
    time.sleep(0.1)
    assert runtime.observe()[0].state is State.RUNNING
    subprocess.run([*inside, "route", "add", "default", "via", "10.210.0.1"], check=True)
    assert runtime.wait(prefix, 10).exit_code == 0
    assert "default via 10.210.0.1 dev eth0" in texts(runtime, prefix)[0]
