"""The Docker daemon goes away and comes back: with live-restore nothing that runs is disturbed,
without it what is to run is running again; what has no container goes on as ever; nothing stays.

The daemon is the test's own, with everything of it in a directory of its own; the machine's is
asked for an image only.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.world import NETWORK, control_plane, until
from tests.integration.test_evidence import BUILT

IMAGE = "debian:trixie-slim"
ECHO = """
use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalPort => 7, Listen => 5, ReuseAddr => 1) or die;
while (my $peer = $listener->accept) {
    next if fork;
    while (sysread($peer, my $data, 4096)) { syswrite($peer, $data) }
    exit;
}
"""
pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.native,
    pytest.mark.slow,
    pytest.mark.skipif(not BUILT.is_dir(), reason="network-lwip is not built; run `make native`"),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="no dockerd to start"),
]


class Daemon:
    """dockerd without rules and with a bridge of its own: with none it would remove the one of the
    machine's daemon."""

    def __init__(self, home: Path, live_restore: bool) -> None:
        self.home = home
        self.address = f"unix://{home}/s"
        self._group = f"/{home.name}"
        self._bridge = f"dr{os.getpid()}"
        address = f"10.{250 + os.getpid() % 5}.{os.getpid() // 5 % 256}.1/24"
        for words in ("link add {} type bridge", f"addr add {address} dev {{}}", "link set {} up"):
            subprocess.run(["ip", *words.format(self._bridge).split()], check=True)
        self._words = ["dockerd", "-H", self.address, "--pidfile", f"{home}/p"]
        self._words += ["--data-root", f"{home}/d", "--exec-root", f"{home}/e"]
        self._words += [
            "--cgroup-parent",
            self._group,
            "--bridge",
            self._bridge,
            "--iptables=false",
        ]
        self._words += ["--ip6tables=false", "--ip-forward=false", "--shutdown-timeout", "3"]
        self._words += ["--containerd", f"{home}/c", *["--live-restore"] * live_restore]
        self._process: subprocess.Popen[bytes] | None = None
        # A service of its own, as distributions have it: it outlives a dockerd that is killed.
        (home / "containerd.toml").write_text(
            f'version = 2\nroot = "{home}/r"\nstate = "{home}/t"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{home}/c"\n'
        )
        self._containerd = self._spawn(["containerd", "--config", f"{home}/containerd.toml"])

    def _spawn(self, words: list[str]) -> subprocess.Popen[bytes]:
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(words, stdout=log, stderr=log)

    def start(self) -> None:
        self._process = self._spawn(self._words)
        try:
            until(lambda: self.docker("version"), 30)
        except AssertionError as error:
            error.add_note((self.home / "log").read_text()[-2000:])
            raise

    def end(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)
        self._process = None

    def docker(self, *words: str) -> str:
        done = subprocess.run(
            ["docker", "-H", self.address, *words], capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:
            raise OSError(done.stderr)
        return done.stdout

    def clean(self) -> None:
        """With all that it has started, also where the test or the daemon has failed."""
        with contextlib.suppress(AssertionError, OSError):
            if self._process is None:
                self.start()
            for container in self.docker("ps", "-aq").split():
                self.docker("rm", "-f", container)
        if self._process is not None:
            self.end(signal.SIGTERM)
        groups = [*Path("/sys/fs/cgroup").glob(f"*{self._group}")]
        for procs in [one for group in groups for one in group.rglob("cgroup.procs")]:
            for pid in procs.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        self._containerd.terminate()
        self._containerd.wait(20)
        subprocess.run(["ip", "link", "del", self._bridge], check=True)
        for entry in Path("/proc").glob("[0-9]*"):  # supervisors, which name its directory
            with contextlib.suppress(OSError):
                if str(self.home) in (entry / "cmdline").read_text():
                    os.kill(int(entry.name), signal.SIGKILL)
        for row in reversed(Path("/proc/mounts").read_text().splitlines()):
            if row.split()[1].startswith(str(self.home)):
                subprocess.run(["umount", "-l", row.split()[1]], check=True)
        for group in groups:
            for place in sorted((one for one in group.rglob("*") if one.is_dir()), reverse=True):
                until(functools.partial(_removed, place))
            until(functools.partial(_removed, group))


def _removed(group: Path) -> bool:
    group.rmdir()  # busy until the last process of it has been waited for
    return True


@contextlib.contextmanager
def daemon(live_restore: bool) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="cse-dockerd-") as home:
        made = Daemon(Path(home), live_restore)
        saved = subprocess.run(["docker", "save", IMAGE], capture_output=True)
        if saved.returncode:
            pytest.skip(f"no image {IMAGE}; `images/base.sh` makes it")
        made.start()
        try:
            words = ["docker", "-H", made.address, "load"]
            subprocess.run(words, input=saved.stdout, check=True, capture_output=True)
            yield made
        finally:
            made.clean()


@pytest.fixture
def state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cse-restart-") as directory:
        yield Path(directory)


class Plane:
    """A control plane that knows this daemon only."""

    def __init__(self, api: httpx.Client) -> None:
        self.api = api

    def create(self, name: str, command: list[str], **spec: Any) -> dict[str, Any]:
        body = {"name": name, "command": command, "stop": {"grace": "1s"}, **spec}
        answer = self.api.post("/v1/applications", params={"wait": 60}, json=body)
        assert answer.status_code == 201, answer.text
        return self.status(name, "running")

    def server(self, name: str, restart: str = "no") -> dict[str, Any]:
        return self.create(
            name,
            ["perl", "-e", ECHO],
            runtime="docker",
            image=IMAGE,
            elements={"network-lwip": {}},
            network={"name": NETWORK},
            restart=restart,
        )

    def status(self, name: str, state: str = "") -> dict[str, Any]:
        def look() -> dict[str, Any]:
            found: dict[str, Any] = self.api.get(f"/v1/applications/{name}").json()["status"]
            if state not in ("", found["state"]):
                raise LookupError(found)
            return found

        found: dict[str, Any] = until(look, 30)
        return found

    def kinds(self, name: str) -> list[str]:
        items = self.api.get("/v1/events", params={"application": name}).json()["items"]
        return [item["kind"] for item in items]

    def remove_all(self) -> None:
        for item in self.api.get("/v1/applications").json()["items"]:
            answer = self.api.delete(f"/v1/applications/{item['name']}", params={"wait": 30})
            assert answer.status_code in (200, 204), answer.text


@contextlib.contextmanager
def planes(state: Path, made: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    monkeypatch.setenv("DOCKER_HOST", made.address)
    with control_plane(state) as api:
        yield Plane(api)
        mark = (state / "network-mark").read_text().strip()
        Plane(api).remove_all()
        assert made.docker("ps", "-aq") == ""
        left = api.post("/v1/gc?dry_run=true").json()["items"]
        assert [one for one in left if one["kind"] != "network"] == []
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout
    assert mark not in links
    assert str(state) not in Path("/proc/mounts").read_text()


def echoes(connection: socket.socket, text: bytes) -> bool:
    connection.sendall(text)
    return connection.recv(100) == text


def connected(address: str) -> socket.socket:
    made: socket.socket = until(lambda: socket.create_connection((address, 7), timeout=5), 20)
    return made


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_with_live_restore_nothing_is_disturbed(
    state: Path, monkeypatch: pytest.MonkeyPatch, end: signal.Signals
) -> None:
    with daemon(live_restore=True) as made, planes(state, made, monkeypatch) as plane:
        before = plane.server("kept", restart="always")
        plane.server("unwanted")
        bystander = plane.create("beside", ["sleep", "9999"])
        with connected(before["address"]) as connection:
            assert echoes(connection, b"before")
            made.end(end)
            assert echoes(connection, b"without a daemon")
            # The other runtime goes on: what ends is noticed, what is wanted is made.
            os.kill(bystander["pid"], signal.SIGKILL)
            plane.status("beside", "exited")
            plane.create("new", ["sleep", "9999"])
            assert plane.status("kept")["state"] == "running"
            plane.api.delete("/v1/applications/unwanted", params={"wait": 0})
            made.start()
            assert echoes(connection, b"after")
            until(lambda: "unwanted" not in plane.api.get("/v1/applications").text, 40)
            assert echoes(connection, b"and after the look")
        after = plane.status("kept", "running")
        assert (after["pid"], after["restarts"]) == (before["pid"], 0)
        assert not {"lost", "exited", "restarted"} & {*plane.kinds("kept")}
        os.kill(after["pid"], signal.SIGKILL)  # events are heard again
        until(lambda: plane.status("kept", "running")["pid"] != before["pid"], 30)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_without_live_restore_what_is_to_run_runs_again(
    state: Path, monkeypatch: pytest.MonkeyPatch, end: signal.Signals
) -> None:
    with daemon(live_restore=False) as made, planes(state, made, monkeypatch) as plane:
        before = plane.server("again", restart="always")
        plane.server("once")
        made.end(end)
        time.sleep(0.5)
        made.start()
        with connected(before["address"]) as connection:
            assert echoes(connection, b"again")
        until(lambda: plane.status("again", "running")["pid"] != before["pid"], 30)
        plane.status("once", "exited")  # its policy says so
        assert plane.kinds("once").count("exited") == 1 and "lost" not in plane.kinds("again")
        answer = plane.api.post("/v1/applications/once/start", params={"wait": 30})
        assert answer.status_code == 200, answer.text
        with connected(plane.status("once", "running")["address"]) as connection:
            assert echoes(connection, b"once more")
