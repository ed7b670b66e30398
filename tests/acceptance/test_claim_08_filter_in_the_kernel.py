"""Claim 8: instructions of the instance run in kernel mode and keep packets from waking it.

The instance builds a packet filter from its own address and ports and attaches it to its device.
"""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path

from app.evidence.packet_socket import packet_socket
from tests.acceptance.world import SUBNET, World, curl, until

PACKET = {"network-lwip": {"settings": {"transport": "packet"}}}
STRAY = 400
LISTEN_TOO = """
import socket
with socket.create_server(("0.0.0.0", 8000)) as listener:
    listener.accept()[0].sendall(b"here")
"""


def _counters(world: World, name: str) -> dict[str, int]:
    counters: dict[str, int] = world.get(name, "instances")["items"][0]["details"]["counters"]
    return counters


def _settled(world: World, name: str) -> dict[str, int]:
    """Counters that nothing is on its way to: an instance tells them once a second, and what is
    filtered is what its device got without what it has told of."""
    found = _counters(world, name)
    time.sleep(1.5)
    return found if "ring_packets" in found and found == _counters(world, name) else {}


def _pump_wakes(pid: int) -> int:
    """How often the thread that serves the device has gone to sleep, and so was woken."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        if (thread / "comm").read_text().strip() == "cse-net":
            status = (thread / "status").read_text()
            return int(status.split("voluntary_ctxt_switches:")[1].split()[0])
    raise AssertionError(f"process {pid} has no thread of the instance")


def _knock(address: str, port: int, count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stray:
        for _ in range(count):
            stray.sendto(b"nobody asked", (address, port))


def _reached(address: str, port: int) -> bytes:
    with socket.create_connection((address, port), timeout=1) as client:
        return client.recv(16)


def test_the_kernel_drops_what_no_socket_wants(world: World) -> None:
    command = ["python3", "-m", "http.server", "80", "--bind", "0.0.0.0"]
    world.run("picky", command, elements=PACKET)
    address = world.address("picky")
    assert "Directory listing" in until(lambda: curl(f"http://{address}/"))
    pid = world.pids("picky")[0]
    found = packet_socket(pid)
    assert found is not None and found.instructions > 10

    before, woken = until(lambda: _settled(world, "picky"), 20), _pump_wakes(pid)
    _knock(address, 9999, STRAY)
    after = until(
        lambda: (
            (now := _counters(world, "picky"))["kernel_filtered"]
            >= before["kernel_filtered"] + STRAY
            and now
        )
    )
    assert after["rx_packets"] < before["rx_packets"] + STRAY / 4
    assert _pump_wakes(pid) < woken + STRAY / 4
    assert {verdict for verdict, _ in world.verdicts("picky")["packet-ring"]} == {"holds"}


def test_the_filter_follows_the_ports(world: World) -> None:
    command = ["python3", "-m", "http.server", "80", "--bind", "0.0.0.0"]
    world.run("moving", command, elements=PACKET)
    address = world.address("moving")
    until(lambda: curl(f"http://{address}/"))
    pid = world.pids("moving")[0]

    def instructions() -> int:
        curl(f"http://{address}/")  # whatever happens in the instance lets it look at its ports
        found = packet_socket(pid)
        assert found is not None
        return found.instructions

    one_port = until(instructions)
    with ThreadPoolExecutor(1) as beside:
        done = beside.submit(world.exec, "moving", "python3", "-c", LISTEN_TOO)
        until(lambda: instructions() > one_port)
        assert until(lambda: _reached(address, 8000)) == b"here"
        assert done.result().returncode == 0
    # What it listened on is closed; its connection waits a minute for stray packets (TIME_WAIT).
    assert instructions() >= one_port


def test_answers_to_its_own_connections_come_in(world: World) -> None:
    world.run("caller", ["sleep", "300"], elements=PACKET)
    gateway = str(next(IPv4Network(SUBNET).hosts()))
    with socket.create_server((gateway, 0)) as listener, ThreadPoolExecutor(1) as beside:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        call = (
            "import socket\n"
            f"peer = socket.create_connection(('{gateway}', {port}), timeout=10)\n"
            "peer.sendall(b'from inside')\n"
            "print(peer.recv(16).decode())"
        )
        done = beside.submit(world.exec, "caller", "python3", "-c", call)
        with listener.accept()[0] as client:
            assert client.recv(16) == b"from inside"
            client.sendall(b"answered")
        assert done.result().stdout == "answered\n", done.result().stderr
