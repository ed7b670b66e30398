"""The namespace runtime on real processes: shim, bubblewrap, logs, stop, restart, crash safety."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import Conflict, HostLacks, NotFound, TimedOut
from app.domain.launch import BoundMount, Launch
from app.domain.observed import Observed, State
from app.runtimes.namespace import NamespaceRuntime, status
from app.runtimes.readable import readable
from tests.integration.namespaces import launch, texts
from tests.integration.runtimes import removed_at_the_end


def run(runtime: NamespaceRuntime, one: Launch) -> Observed:
    """Create, start, and wait for the end."""
    runtime.create(one)
    runtime.start(one.name)
    return runtime.wait(one.name, 10)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[NamespaceRuntime]:
    yield from removed_at_the_end(NamespaceRuntime(tmp_path / "state", "test"))


def test_output_exit_code_and_times_are_kept(runtime: NamespaceRuntime) -> None:
    ended = run(runtime, launch("a", "sh", "-c", "echo one; echo two >&2; printf three; exit 7"))
    assert (ended.state, ended.exit_code, ended.pid) == (State.EXITED, 7, None)
    assert ended.started_at is not None and ended.finished_at is not None
    assert ended.started_at <= ended.finished_at
    assert texts(runtime, "a") == ["one", "three"] and texts(runtime, "a", "stderr") == ["two"]
    assert len(list(runtime.logs("a", tail=2))) == 2  # the order across streams is not promised


def test_a_line_longer_than_the_buffer_comes_back_whole(runtime: NamespaceRuntime) -> None:
    run(runtime, launch("a", "sh", "-c", "head -c 20000 /dev/zero | tr '\\0' x; echo; echo end"))
    assert texts(runtime, "a") == ["x" * 20000, "end"]


def test_surroundings_are_private(runtime: NamespaceRuntime, tmp_path: Path) -> None:
    secret = Path("/tmp") / f"cse-test-{os.getpid()}"
    secret.touch()
    try:
        script = (
            f"hostname; ls {secret}; ls {tmp_path}; touch /etc/x; touch /tmp/mine && echo tmp;"
            "ls /proc | grep -c '^[0-9]'; grep CapEff /proc/self/status; echo $HOME:$FOO:$USER;"
            "grep NoNewPrivs /proc/self/status"
        )
        run(runtime, launch("web-a", "sh", "-c", script, environment={"FOO": "bar"}))
    finally:
        secret.unlink()
    lines = texts(runtime, "web-a")
    assert lines[0] == "web-a" and lines[1] == "tmp" and int(lines[2]) < 8
    assert lines[3].split() == ["CapEff:", "0000000000000000"]
    assert lines[4].endswith(":bar:") and lines[5].split() == ["NoNewPrivs:", "1"]
    assert len([line for line in texts(runtime, "web-a", "stderr") if "No such file" in line]) == 2


@pytest.mark.parametrize(
    ("command", "spec", "words"),
    [
        (["/no/such/program"], {}, "/no/such/program: No such file or directory"),
        (["/etc/passwd"], {}, "/etc/passwd: Permission denied"),
        (["true"], {"working_directory": "/no/where"}, "working directory /no/where: No such file"),
    ],
)
def test_a_program_that_cannot_be_executed_fails_with_the_reason(
    runtime: NamespaceRuntime, command: list[str], spec: dict[str, Any], words: str
) -> None:
    runtime.create(launch("a", *command, **spec))
    failed = runtime.start("a")
    assert failed.state is State.FAILED and failed.exit_code is None
    assert failed.reason is not None and words in failed.reason


def test_bubblewraps_own_complaint_is_the_reason(runtime: NamespaceRuntime, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    mount = BoundMount(source=str(there), target="/mnt", read_only=True)
    runtime.create(launch("a", "true", mounts=[mount]))
    there.rmdir()
    failed = runtime.start("a")
    assert failed.state is State.FAILED
    assert failed.reason is not None and str(there) in failed.reason


def test_stop_sends_the_signal_then_kills_after_the_grace_time(runtime: NamespaceRuntime) -> None:
    script = "trap 'echo got; exit 3' USR1; echo up; while :; do sleep 0.05; done"
    polite = launch("polite", "sh", "-c", script, stop={"signal": "SIGUSR1"})
    stubborn = launch("deaf", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done",
                      stop={"grace": 0.3}, restart="always")  # fmt: skip
    for one in (polite, stubborn):
        runtime.create(one)
        assert runtime.start(one.name).state is State.RUNNING
        next(runtime.logs(one.name, follow=True))
    assert runtime.stop("polite").exit_code == 3
    assert texts(runtime, "polite") == ["up", "got"]
    began = time.monotonic()
    ended = runtime.stop("deaf")
    assert 0.2 < time.monotonic() - began < 3
    assert (ended.state, ended.exit_code, ended.restarts) == (State.EXITED, 137, 0)
    assert runtime.stop("deaf") == ended  # again: nothing left to do


def test_restart_policy_counts_and_gives_up(runtime: NamespaceRuntime) -> None:
    rule = {"policy": "on-failure", "max_retries": 2, "delay": 0.01}
    ended = run(runtime, launch("a", "sh", "-c", "echo x; exit 1", restart=rule))
    assert (ended.restarts, ended.exit_code, ended.state) == (2, 1, State.EXITED)
    assert texts(runtime, "a") == ["x"] * 3
    assert run(runtime, launch("b", "true", restart=rule)).restarts == 0


def test_stop_during_back_off_ends_it(runtime: NamespaceRuntime) -> None:
    runtime.create(launch("a", "false", restart={"policy": "always", "delay": 60}))
    runtime.start("a")
    deadline = time.monotonic() + 5
    while runtime.observe()[0].state is not State.RESTARTING and time.monotonic() < deadline:
        time.sleep(0.01)
    assert runtime.stop("a").state is State.EXITED


def test_applications_outlive_the_agent_and_are_found_again(tmp_path: Path) -> None:
    first = NamespaceRuntime(tmp_path, "test")
    first.create(launch("a", "sh", "-c", "echo up; sleep 0.6; echo done; exit 4"))
    started = first.start("a")
    first.close()
    second = NamespaceRuntime(tmp_path, "test")
    assert second.observe() == [started]
    assert second.wait("a", 5).exit_code == 4
    assert texts(second, "a") == ["up", "done"]
    second.remove("a")
    second.close()
    assert not (tmp_path / "apps" / "a").exists()


def test_a_killed_supervisor_ends_its_sandbox_and_is_noticed(
    runtime: NamespaceRuntime, tmp_path: Path
) -> None:
    runtime.create(launch("a", "sleep", "1000"))
    running = runtime.start("a")
    found = status.read(tmp_path / "state" / "apps" / "a")
    assert found is not None and running.pid is not None
    os.kill(found.shim_pid, signal.SIGKILL)
    ended = runtime.wait("a", 5)
    assert ended.exit_code == 137 and "supervisor" in (ended.reason or "")
    deadline = time.monotonic() + 5
    while Path(f"/proc/{running.pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{running.pid}").exists()
    assert runtime.start("a").state is State.RUNNING  # and can be started again


def test_a_program_that_goes_to_the_background_is_still_the_application(
    runtime: NamespaceRuntime,
) -> None:
    daemon = "(trap 'echo bye; exit 0' TERM; echo bg; while :; do sleep 0.05; done) &"
    runtime.create(launch("a", "sh", "-c", f"{daemon} exit 0"))
    runtime.start("a")
    next(runtime.logs("a", follow=True))
    time.sleep(0.2)
    observed = runtime.observe()[0]
    assert observed.state is State.RUNNING and observed.pid in runtime.pids("a")
    assert runtime.stop("a").state is State.EXITED
    assert texts(runtime, "a") == ["bg", "bye"]


def test_exec_runs_in_the_same_surroundings(runtime: NamespaceRuntime) -> None:
    runtime.create(launch("a", "sh", "-c", "echo $$ > /tmp/here; sleep 1000",
                          environment={"FOO": "bar"}, working_directory="/tmp"))  # fmt: skip
    runtime.start("a")
    time.sleep(0.1)
    script = "cat here; hostname; echo $FOO; grep CapEff /proc/self/status >&2; exit 9"
    result = runtime.exec("a", ["sh", "-c", script])
    assert (result.exit_code, result.stdout) == (9, "2\na\nbar\n")
    assert result.stderr.split()[-1] == "0" * 16
    assert runtime.exec("a", ["no-such"]).exit_code == 127
    with pytest.raises(TimedOut):
        runtime.exec("a", ["sleep", "1000"], timeout_s=0.2)
    deadline = time.monotonic() + 5
    while len(runtime.pids("a")) > 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(runtime.pids("a")) == 2  # sh and its sleep; the timed-out command is gone
    runtime.stop("a")
    with pytest.raises(Conflict):
        runtime.exec("a", ["true"])


@pytest.mark.root
def test_user_and_writable_mounts(runtime: NamespaceRuntime, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 1234, 1234)
    mounts = [
        BoundMount(source=str(data), target="/no/such/place", read_only=False),
        BoundMount(source="/etc/hostname", target="/srv/deep/name", read_only=True),
    ]
    script = "id -u; id -g; echo hi > /no/such/place/f; cat /srv/deep/name; touch /no/x;"
    script += "echo up > /dev/stdout"
    one = launch("a", "sh", "-c", script, mounts=mounts, user="1234:1234", tmpfs=["/opt"])
    assert run(runtime, one).reason is None
    assert texts(runtime, "a") == ["1234", "1234", Path("/etc/hostname").read_text().strip(), "up"]
    assert (data / "f").read_text() == "hi\n" and (data / "f").stat().st_uid == 1234
    assert any("Read-only" in line or "denied" in line for line in texts(runtime, "a", "stderr"))


@pytest.mark.root
def test_limits_are_enforced(runtime: NamespaceRuntime) -> None:
    hog = "x = bytearray(200 * 2**20); print('not stopped')"
    limits = {"memory": "64M", "pids": 5, "cpus": 0.5}
    ended = run(runtime, launch("hog", "python3", "-c", hog, limits=limits))
    assert ended.exit_code == 137 and texts(runtime, "hog") == []
    forks = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; echo through"
    run(runtime, launch("forks", "sh", "-c", forks, limits={"pids": 4}))
    assert any("fork" in line for line in texts(runtime, "forks", "stderr"))
    for name in ("hog", "forks"):
        runtime.remove(name)
    left = subprocess.run(["find", "/sys/fs/cgroup", "-name", "cse-test"], capture_output=True)
    assert left.stdout == b""


@pytest.mark.root
def test_mounts_that_come_and_go_on_the_host_do_not_fail_a_start(
    runtime: NamespaceRuntime, tmp_path: Path
) -> None:
    """As Docker's do: bubblewrap goes through all mounts of the host."""
    places = [tmp_path / f"m{number}" for number in range(30)]
    for place in places:
        place.mkdir()
    words = " ".join(str(place) for place in places)
    script = f"while :; do for d in {words}; do mount -t tmpfs none $d; done; umount {words}; done"
    churn = subprocess.Popen(["sh", "-c", script])
    try:
        for number in range(25):
            runtime.create(launch(f"a{number}", "true"))
            started = runtime.start(f"a{number}")
            assert started.state is not State.FAILED, started.reason
            assert list(runtime.logs(f"a{number}")) == []
    finally:
        churn.kill()
        churn.wait()
        for place in places:
            while subprocess.run(["umount", place], capture_output=True).returncode == 0:
                pass


def test_every_mount_of_the_host_is_read_only_and_without_devices(
    runtime: NamespaceRuntime, tmp_path: Path
) -> None:
    """Also what is mounted below others; what is made for the application alone may be written."""
    run(runtime, launch("a", "cat", "/proc/self/mountinfo"))
    found = {}
    for line in texts(runtime, "a"):
        fields = line.split()
        found[fields[4]] = set(fields[5].split(","))
    own = ("/dev", "/tmp", "/run", "/var/tmp", "/proc")
    hosts = {place: flags for place, flags in found.items() if not place.startswith(own)}
    assert "/" in hosts and len(hosts) > 3
    for place, flags in hosts.items():
        assert {"ro", "nosuid", "nodev"} <= flags, place
    assert "rw" in found["/tmp"] and "nodev" in found["/tmp"]


def _slice_ns(pid: int) -> int:
    """What sched_getattr says (Linux 6.12 and later; before: 0)."""
    attributes = ctypes.create_string_buffer(56)
    call = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None).syscall(call, pid, attributes, 56, 0) == 0
    return int(struct.unpack_from("<Q", attributes, 24)[0])


_ESCAPE = """
import ctypes, os
if ctypes.CDLL(None).unshare(0x10000000) != 0:  # CLONE_NEWUSER: with it, chroot is allowed
    raise SystemExit(77)
outside = os.open("/", os.O_RDONLY)
os.mkdir("/tmp/inner")
os.chroot("/tmp/inner")
os.fchdir(outside)
for _ in range(50):
    os.chdir("..")
os.chroot(".")
print(*os.listdir("/tmp"))
"""


def test_a_program_that_leaves_a_chroot_of_its_own_is_still_in_its_sandbox(
    runtime: NamespaceRuntime,
) -> None:
    ended = run(runtime, launch("a", "/usr/bin/python3", "-c", _ESCAPE, user="nobody"))
    if ended.exit_code == 77:
        pytest.skip("this host allows no user namespaces in a sandbox")
    assert (ended.exit_code, texts(runtime, "a")) == (0, ["inner"]), texts(runtime, "a", "stderr")


def test_the_supervisor_need_not_wait_for_its_program_to_yield(runtime: NamespaceRuntime) -> None:
    runtime.create(launch("a", "sleep", "60"))
    started = runtime.start("a")
    found = status.read(runtime._directory("a"))
    assert found is not None and started.pid is not None
    if (usual := _slice_ns(os.getpid())) == 0:
        pytest.skip("this kernel does not tell slices")
    assert _slice_ns(found.shim_pid) < usual == _slice_ns(started.pid)
    assert _slice_ns(found.init_pid) < usual


def test_unknown_names_and_other_ids_are_refused(runtime: NamespaceRuntime) -> None:
    with pytest.raises(NotFound):
        runtime.start("nobody")
    one = launch("a", "true")
    runtime.create(one)
    runtime.create(one)
    with pytest.raises(Conflict):
        runtime.create(one.model_copy(update={"id": "other"}))
    runtime.remove("a")
    runtime.remove("a")


def test_a_very_long_state_path_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    runtime = NamespaceRuntime(deep, "test")
    assert run(runtime, launch("a", "echo", "hi")).exit_code == 0
    assert texts(runtime, "a") == ["hi"]
    runtime.remove("a")
    runtime.close()


def test_without_the_shim_the_remedy_is_named(tmp_path: Path) -> None:
    runtime = NamespaceRuntime(tmp_path, "test", shim=tmp_path / "none")
    with pytest.raises(HostLacks, match="make native"):
        runtime.create(launch("a", "true"))
    assert not (tmp_path / "apps").exists()
    runtime.close()


def test_the_foreground_variant_passes_stdio_and_exit_code(
    runtime: NamespaceRuntime, capfd: pytest.CaptureFixture[str]
) -> None:
    one = launch("a", "sh", "-c", "echo out; echo err >&2; exit 5")
    runtime.create(one)
    assert runtime.run_foreground(one) == 5
    assert tuple(capfd.readouterr()) == ("out\n", "err\n")


def test_what_the_agent_inherited_is_not_held_by_applications(tmp_path: Path) -> None:
    """A lock or a pipe of whoever started the agent would be theirs for as long as they run."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    made = NamespaceRuntime(tmp_path / "state", "test")
    try:
        made.create(launch("a", "sleep", "100", stop={"signal": "SIGKILL"}))
        assert made.start("a").state is State.RUNNING
        os.close(writer)
        assert readable(reader, 5)  # not at once: a process that is just being made has a copy
        assert os.read(reader, 1) == b""  # the end: nobody else has the other end
        assert made.observe()[0].state is State.RUNNING
    finally:
        made.remove("a")
        made.close()
        os.close(reader)
