"""The surroundings in which the same unmodified server and clients are measured.

Used by network/*.py. `Private`: two applications, each on its own stack. `Kernel`: two namespaces
joined by a veth pair. (gvisor.py: the same with another stack inside.)
"""

from __future__ import annotations

import itertools
import os
import subprocess
from typing import Any, Protocol

from tests.acceptance.world import World
from tests.bench.harness import output
from tests.bench.worlds import call_in, need_root

# The same in every pair of namespaces: each pair is a world of its own.
SERVER, CLIENT = "10.99.77.1", "10.99.77.2"
_numbers = itertools.count()


class Place(Protocol):
    """Where one server and its clients run."""

    name: str
    address: str
    """The server's, as the clients reach it."""
    pace: float
    """Share of the usual number of requests that is enough for a slow peer."""

    def serve(self, *command: str) -> None:
        """Start the server."""

    def call(self, *command: str) -> str:
        """Standard output of a client; CannotMeasure where it failed."""


class Private:
    """Two applications of the namespace runtime, with the network element."""

    name = "network-lwip"
    pace = 1.0

    def __init__(self, world: World, **settings: Any) -> None:
        self._world = world
        self._elements = {"network-lwip": {"settings": settings}}
        number = next(_numbers)
        self.server, self.client = f"bench-server-{number}", f"bench-client-{number}"
        self.address = ""

    def serve(self, *command: str) -> None:
        run = self._world.run
        run(self.server, list(command), elements=self._elements, tmpfs=["/tmp"])
        run(self.client, ["sleep", "infinity"], elements=self._elements, tmpfs=["/tmp"])
        self.address = self._world.address(self.server)

    def call(self, *command: str) -> str:
        return call_in(self._world, self.client, *command)


class Kernel:
    """What the kernel does between two hosts: its own stack in two network namespaces."""

    name = "kernel over veth"
    pace = 1.0
    address = SERVER

    def __init__(self) -> None:
        mark = f"{os.getpid()}-{next(_numbers)}"
        self.server, self.client = f"csebs{mark}", f"csebc{mark}"
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Kernel:
        need_root()
        try:
            for name in (self.server, self.client):
                output(["ip", "netns", "add", name])
            pair = f"type veth peer name eth0 netns {self.client}"
            output(f"ip link add eth0 netns {self.server} {pair}".split())
            for name, address in ((self.server, SERVER), (self.client, CLIENT)):
                output(["ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0"])
                for link in ("lo", "eth0"):
                    output(["ip", "-n", name, "link", "set", link, "up"])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        for name in (self.server, self.client):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def serve(self, *command: str) -> None:
        quiet = subprocess.DEVNULL
        words = ["ip", "netns", "exec", self.server, *command]
        self._running.append(subprocess.Popen(words, stdout=quiet, stderr=quiet))

    def call(self, *command: str) -> str:
        return output(["ip", "netns", "exec", self.client, *command])
