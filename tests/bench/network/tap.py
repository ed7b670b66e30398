"""To and from a process of the kernel's stack on the same bridge, over the tap; the peer is two
such processes, each in a namespace of its own, joined by veth pairs through that bridge.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network

from tests.acceptance.world import SUBNET
from tests.bench.harness import CannotMeasure, Figure, alternate, output, program
from tests.bench.worlds import call_in, ours, ready

PORT = "7000"
ROUNDS = 5
PEER = "kernel over veth and bridge"
# Title, unit, the program's units in one of these, its arguments, target.
_CASES: list[tuple[str, str, float, list[str], dict[str, float]]] = [
    ("TCP round trip, 64 B,", "µs", 1e3, ["rtt", "64", "5000"], {"at_most": 1 / 0.8}),
    ("TCP stream", "Gbit/s", 1e9, ["stream", "1000"], {"at_least": 0.8}),
]


def bridge() -> tuple[str, int]:
    """(name, MTU) of the test network's bridge: the interface that has its first address."""
    gateway = str(IPv4Network(SUBNET)[1])
    for link in json.loads(output(["ip", "-j", "addr", "show"])):
        if any(address.get("local") == gateway for address in link["addr_info"]):
            return link["ifname"], link["mtu"]
    raise CannotMeasure(f"no interface has {gateway}")


class Beside:
    """A namespace with the kernel's stack on that bridge."""

    def __init__(self, number: int) -> None:
        self.name = f"csebt{os.getpid()}-{number}"
        self.address = f"{SUBNET.rsplit('.', 1)[0]}.{200 + number}"
        self._port = f"bt{os.getpid()}-{number}"

    def make(self) -> None:
        on, mtu = bridge()
        length = SUBNET.rsplit("/", 1)[1]
        for command in (
            f"netns add {self.name}",
            f"link add {self._port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {self.name}",
            f"link set {self._port} master {on} up",
            f"-n {self.name} addr add {self.address}/{length} dev eth0",
            f"-n {self.name} link set lo up",
            f"-n {self.name} link set eth0 up",
        ):
            output(["ip", *command.split()])

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)


@contextlib.contextmanager
def beside(number: int) -> Iterator[Beside]:
    made = Beside(number)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def measure() -> list[Figure]:
    tcp = program("tcp")
    with ours() as world, beside(1) as one, beside(2) as two:
        server = subprocess.Popen(one.command(tcp, "server", PORT))
        try:
            world.run("bench-server", [tcp, "server", PORT], elements={"network-lwip": {}})
            world.run("bench-client", ["sleep", "infinity"], elements={"network-lwip": {}})
            address = world.address("bench-server")

            def out(mode: str, *rest: str) -> Callable[[], float]:
                words = [tcp, mode, one.address, PORT, *rest]
                return lambda: float(call_in(world, "bench-client", *words))

            def into(mode: str, *rest: str) -> Callable[[], float]:
                return lambda: float(output(two.command(tcp, mode, address, PORT, *rest)))

            def kernel(mode: str, *rest: str) -> Callable[[], float]:
                return lambda: float(output(two.command(tcp, mode, one.address, PORT, *rest)))

            for way in (out, into, kernel):
                ready(way("rtt", "64", "10"))
            figures = []
            for name, way in (("from an application", out), ("to an application", into)):
                for title, unit, scale, words, target in _CASES:
                    both = alternate(ROUNDS, way(*words), kernel(*words))
                    mine, theirs = ([value / scale for value in side] for side in both)
                    figure = f"{title} {name}, tap"
                    figures.append(Figure.compare(figure, unit, mine, theirs, PEER, **target))
            return figures
        finally:
            server.kill()
            server.wait()
