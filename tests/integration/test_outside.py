"""A private stack with its segment's large MTU talks to a host behind one of 1,500 bytes.

The host's rules lower the MSS of forwarded connections, the kernel cuts the large frames (GSO) and
fragments datagrams: nothing depends on ICMP messages, and no application needs a smaller MTU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.world import ROOT, World, control_plane, until

pytestmark = pytest.mark.root
PROGRAMS = ROOT / "tests/native/net"
MOUNTS = [{"from": str(PROGRAMS), "path": "/opt/programs"}]
BYTES = "4000000"
ECHO = """
import socket
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.bind(("0.0.0.0", 7101))
while True:
    data, address = echo.recvfrom(65536)
    echo.sendto(data, address)
"""
ASK = """
import socket, sys
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(5)
for size in (100, 1472, 1473, 9000, 60000):
    asking.sendto(bytes(size), (sys.argv[1], 7101))
    print(len(asking.recv(65536)))
"""


@dataclass
class Outside:
    """A namespace that this host routes to, as to any network beyond its interfaces."""

    name: str
    address: str
    mtu: int

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]


@pytest.fixture(params=[1500, 1280])
def outside(request: pytest.FixtureRequest) -> Iterator[Outside]:
    number = os.getpid() % 200
    made = Outside(f"outside{os.getpid()}", f"198.18.{number}.2", request.param)
    near, mtu = f"out{os.getpid()}", str(made.mtu)
    commands = [
        f"netns add {made.name}",
        f"link add {near} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {made.name}",
        f"addr add 198.18.{number}.1/24 dev {near}",
        f"link set {near} up",
        f"-n {made.name} addr add {made.address}/24 dev eth0",
        f"-n {made.name} link set lo up",
        f"-n {made.name} link set eth0 up",
        f"-n {made.name} route add default via 198.18.{number}.1",
    ]
    servers = []
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        for words in ((str(PROGRAMS / "transfer.py"), "serve", "7100"), ("-c", ECHO)):
            servers.append(subprocess.Popen(made.command(sys.executable, *words)))
        yield made
    finally:
        for server in servers:
            server.kill()
            server.wait()
        subprocess.run(["ip", "netns", "del", made.name], check=False, capture_output=True)


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with control_plane(tmp_path_factory.mktemp("o")) as api:
        made = World(api, "namespace")
        yield made
        made.remove_all()


def test_streams_and_datagrams_cross_a_smaller_mtu(world: World, outside: Outside) -> None:
    world.run("talker", ["sleep", "300"], elements={"network-lwip": {}}, mounts=MOUNTS)
    program = "/opt/programs/transfer.py"

    def send() -> str:
        done = world.exec(
            "talker", "python3", program, "send", outside.address, "7100", BYTES, "100000"
        )
        if done.returncode != 0:
            raise LookupError(done.stderr)
        return done.stdout

    assert until(send, 20) == "intact\n"
    asked = world.exec("talker", "python3", "-c", ASK, outside.address)
    assert asked.stdout.split() == ["100", "1472", "1473", "9000", "60000"], asked.stderr


def test_outside_reaches_in(world: World, outside: Outside) -> None:
    command = ["python3", "/opt/programs/transfer.py", "serve", "7100"]
    world.run("server", command, elements={"network-lwip": {}}, mounts=MOUNTS)
    words = [
        sys.executable,
        str(Path(PROGRAMS, "transfer.py")),
        "send",
        world.address("server"),
        "7100",
    ]

    def send() -> str:
        return subprocess.check_output(
            outside.command(*words, BYTES, "100000"), text=True, stderr=subprocess.PIPE
        )

    assert until(send, 20) == "intact\n"
