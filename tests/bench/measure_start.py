"""Start of an application through REST, in both runtimes, against bare bwrap and `docker run -d`.

The same event ends the clock on both sides: the call has returned and the program has written to a
pipe that it was given. The element is linked and its instance plugged into the bridge on our side.
Of many at once the last call's return is measured. One by one, a connection that is open and the
standard library's client are used: httpx alone takes 0.3 ms, and is nothing of the server's.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.acceptance.world import World
from tests.bench.harness import CannotMeasure, Figure, alternate, output
from tests.bench.worlds import docker_lacks, need_programs, ours

ROUNDS = 15
DOCKER_ROUNDS = 7
AT_ONCE = 8
IMAGE = "cse/example"
COMMAND = ["sh", "-c", "echo up >/bench/started; exec sleep 1000"]
BWRAP = (
    "--dev-bind / / --proc /proc --dev /dev "
    "--unshare-pid --unshare-net --unshare-ipc --unshare-uts --die-with-parent"
)
_CASES: dict[str, dict[str, Any]] = {"no element": {}, "network-lwip": {"network-lwip": {}}}


class Bell:
    """A named pipe in a directory that the program sees as /bench."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o777)
        os.mkfifo(folder / "started")
        (folder / "started").chmod(0o666)
        # Open for both, so that neither side waits for the other.
        self._fd = os.open(folder / "started", os.O_RDWR | os.O_NONBLOCK)

    def wait(self) -> None:
        if not select.select([self._fd], [], [], 20)[0]:
            raise CannotMeasure("the program did not start within 20 s")
        os.read(self._fd, 100)

    def time_ms(self, start: Callable[[], object]) -> float:
        """From before the call until it has returned and the program runs."""
        began = time.monotonic()
        start()
        self.wait()
        return (time.monotonic() - began) * 1e3


@contextlib.contextmanager
def bell() -> Iterator[Bell]:
    with tempfile.TemporaryDirectory(prefix="cse-bench-") as folder:
        yield Bell(Path(folder))


def starter(world: World, ring: Bell, elements: dict[str, Any]) -> Callable[[], float]:
    """Starts an application, removes it outside of the measured time."""
    numbers = itertools.count()
    mounts = [{"from": str(ring.folder), "path": "/bench", "read_only": False}]

    def once() -> float:
        name = f"bench-start-{next(numbers)}"
        spec = world.specification(name, COMMAND, elements=elements, mounts=mounts)
        with closing(HTTPConnection(world.api.base_url.host, world.api.base_url.port)) as server:
            server.connect()
            try:
                return ring.time_ms(lambda: _create(server, spec))
            finally:
                world.remove(name)

    return once


def _create(server: HTTPConnection, spec: dict[str, Any]) -> None:
    headers = {"Content-Type": "application/json"}
    # Head and body in one segment, as curl sends them: else the server wakes twice.
    server.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    server.request("POST", "/v1/applications?wait=120", json.dumps(spec), headers)
    server.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    answer = server.getresponse()
    text = answer.read()
    if answer.status != 201:
        raise CannotMeasure(f"an application does not start: {text.decode()}")


def bare_bwrap(ring: Bell) -> Callable[[], float]:
    def once() -> float:
        started: list[subprocess.Popen[bytes]] = []
        words = ["bwrap", *BWRAP.split(), "--bind", str(ring.folder), "/bench", "--", *COMMAND]
        try:
            # A group of its own: bubblewrap's child may not have asked yet to die with its parent.
            return ring.time_ms(
                lambda: started.append(subprocess.Popen(words, start_new_session=True))
            )
        finally:
            for process in started:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    return once


def docker_run(ring: Bell) -> Callable[[], float]:
    numbers = itertools.count()
    options = ["--network", "none", "--cap-drop", "ALL", "-v", f"{ring.folder}:/bench"]

    def once() -> float:
        name = f"cse-bench-{os.getpid()}-{next(numbers)}"
        try:
            words = ["docker", "run", "-d", "--name", name, *options, IMAGE, *COMMAND]
            return ring.time_ms(lambda: output(words))
        finally:
            subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)

    return once


def _all_ms(start: Callable[[str], object], remove: Callable[[str], object]) -> float:
    """Milliseconds until AT_ONCE calls made at the same time have returned."""
    names = [f"bench-{os.getpid()}-{number}" for number in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        began = time.monotonic()
        try:
            list(pool.map(start, names))
            return (time.monotonic() - began) * 1e3
        finally:
            list(pool.map(remove, names))


def many_applications(world: World) -> float:
    elements = _CASES["network-lwip"]
    return _all_ms(lambda name: world.run(name, ["sleep", "99"], elements=elements), world.remove)


def many_containers() -> float:
    words = ["docker", "run", "-d", "--network", "none", "--cap-drop", "ALL", "--name"]
    return _all_ms(
        lambda name: output([*words, name, IMAGE, "sleep", "99"]),
        lambda name: output(["docker", "rm", "-f", name]),
    )


def measure() -> list[Figure]:
    need_programs("bwrap")
    figures = []
    with bell() as ring:
        with ours() as world:
            for title, elements in _CASES.items():
                both = alternate(ROUNDS, starter(world, ring, elements), bare_bwrap(ring))
                figure = f"start through REST, namespace, {title}"
                figures.append(Figure.compare(figure, "ms", *both, "bare bwrap", at_most=2.0))
        if reason := docker_lacks():
            print(f"cannot measure the docker runtime: {reason}", file=sys.stderr)
            return figures
        with ours("docker") as world:
            elements = _CASES["network-lwip"]
            both = alternate(DOCKER_ROUNDS, starter(world, ring, elements), docker_run(ring))
            figure = "start through REST, docker, network-lwip"
            figures.append(Figure.compare(figure, "ms", *both, "docker run -d", at_most=1.05))
            both = alternate(DOCKER_ROUNDS, lambda: many_applications(world), many_containers)
            figure = f"{AT_ONCE} at once through REST, docker, network-lwip"
            figures.append(Figure.compare(figure, "ms", *both, "docker run -d", at_most=1.05))
    return figures
