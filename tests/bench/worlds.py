"""The two surroundings that programs are measured in: ours through REST, and the kernel's own.

Used by the measure_*.py files. Both remove all that they made, also after an error.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from tests.acceptance.world import World, control_plane, until
from tests.bench.harness import CannotMeasure, output

SERVER, CLIENT = "10.99.77.1", "10.99.77.2"


def need_root() -> None:
    """Taps and namespaces cannot be made without."""
    if os.geteuid() != 0:
        raise CannotMeasure("needs root")
    if not Path("/dev/net/tun").exists():
        raise CannotMeasure("needs /dev/net/tun")


def need_programs(*names: str) -> None:
    """Programs of Debian packages that a figure is measured with."""
    for name in names:
        if not any(Path(folder, name).exists() for folder in os.get_exec_path()):
            raise CannotMeasure(f"no {name} on this machine; `make setup` installs it")


def docker_lacks() -> str | None:
    """Why the docker runtime cannot be measured here, or None."""
    try:
        shown = subprocess.run(
            ["docker", "image", "inspect", "cse/example"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return "no docker client"
    return None if shown.returncode == 0 else "no daemon or no image; `make images` brings both"


@contextlib.contextmanager
def ours(runtime: str = "namespace") -> Iterator[World]:
    """A control plane of its own, and applications on its test network."""
    need_root()
    with tempfile.TemporaryDirectory(prefix="cse-bench-") as state, contextlib.ExitStack() as stack:
        try:
            api: httpx.Client = stack.enter_context(control_plane(Path(state)))
        except AssertionError as error:
            raise CannotMeasure(f"the control plane does not start: {error}") from error
        world = World(api, runtime)
        stack.callback(world.remove_all)
        yield world


class Veth:
    """Two network namespaces joined by a veth pair: what the kernel does between two hosts."""

    def __init__(self) -> None:
        self._names = (f"csebs{os.getpid()}", f"csebc{os.getpid()}")
        self._servers: list[subprocess.Popen[bytes]] = []

    def _ip(self, *words: str) -> None:
        output(["ip", *words])

    def __enter__(self) -> Veth:
        need_root()
        server, client = self._names
        try:
            for name in self._names:
                self._ip("netns", "add", name)
            peer = ("peer", "name", "eth0", "netns", client)
            self._ip("link", "add", "eth0", "netns", server, "type", "veth", *peer)
            for name, address in ((server, SERVER), (client, CLIENT)):
                self._ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
                self._ip("-n", name, "link", "set", "lo", "up")
                self._ip("-n", name, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._servers:
            process.kill()
            process.wait()
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def serve(self, *command: str) -> None:
        """Start a server in the first namespace."""
        self._servers.append(
            subprocess.Popen(
                ["ip", "netns", "exec", self._names[0], *command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def call(self, *command: str) -> str:
        """Standard output of a client in the second namespace."""
        return output(["ip", "netns", "exec", self._names[1], *command])


def call_in(world: World, name: str, *command: str) -> str:
    """Standard output of a client beside an application, on that application's private stack."""
    done = world.exec(name, *command)
    if done.returncode != 0:
        raise CannotMeasure(f"{' '.join(command)} in {name}: {done.stderr.strip()}")
    return str(done.stdout)


def ready(attempt: Callable[[], object], seconds: float = 10) -> None:
    """Wait until a first call to a fresh server succeeds."""

    def once() -> bool:
        try:
            attempt()
        except CannotMeasure as error:
            raise LookupError(str(error)) from error
        return True

    try:
        until(once, seconds)
    except AssertionError as error:
        raise CannotMeasure(f"no answer from the server: {error}") from error
