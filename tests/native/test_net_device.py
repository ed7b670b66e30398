"""The device under load: what leaves and arrives in large frames is what was sent.

The peer is a kernel's stack in a namespace on the same bridge, behind an interface of 1,500 bytes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.native.net.lab import Host, Lab, ip, need, retry

pytestmark = [pytest.mark.native, pytest.mark.root]
TRANSFER = str(Path(__file__).parent / "net/transfer.py")
PORT = "7100"
MEGABYTES = 8_000_000


@dataclass
class Peer:
    """A namespace with the kernel's stack, and the transfer server in it."""

    name: str
    address: str
    address6: str
    port: str
    """Its interface on the bridge."""

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def check(self, *words: str) -> str:
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def peer(lab: Lab) -> Iterator[Peer]:
    number = lab.take_number()
    six = f"{lab.network6}{number:x}"
    made = Peer(f"{lab.bridge}-peer", lab.address(number), six, f"{lab.bridge}p")
    ip("netns", "add", made.name)
    try:
        other = ("peer", "name", "eth0", "netns", made.name)
        ip("link", "add", made.port, "type", "veth", *other)
        ip("link", "set", made.port, "master", lab.bridge, "up")
        ip("-n", made.name, "addr", "add", f"{made.address}/{lab.prefix}", "dev", "eth0")
        with_six = ("addr", "add", f"{made.address6}/64", "dev", "eth0", "nodad")
        ip("-n", made.name, *with_six)
        for link in ("lo", "eth0"):
            ip("-n", made.name, "link", "set", link, "up")
        server = subprocess.Popen(made.command(sys.executable, TRANSFER, "serve", PORT))
        try:
            yield made
        finally:
            server.kill()
            server.wait()
    finally:
        ip("netns", "del", made.name)


def send_to_peer(host: Host, peer: Peer, size: int, count: int = MEGABYTES) -> None:
    words = (sys.executable, TRANSFER, "send", peer.address, PORT, str(count), str(size))
    assert retry(lambda: host.check(*words, timeout=60)) == "intact\n"


def serve_for_peer(host: Host, peer: Peer, size: int) -> None:
    process = host.start(sys.executable, TRANSFER, "serve", PORT)
    words = (sys.executable, TRANSFER, "send", host.address, PORT, str(MEGABYTES), str(size))
    assert retry(lambda: peer.check(*words)) == "intact\n"
    host.stop(process)


def test_every_byte_arrives_over_ipv6(host: Host, peer: Peer) -> None:
    words = (TRANSFER, "send", peer.address6, PORT, str(MEGABYTES), "100000")
    assert retry(lambda: host.check(sys.executable, *words, timeout=60)) == "intact\n"
    process = host.start(sys.executable, TRANSFER, "serve", PORT)
    words = (TRANSFER, "send", host.address6, PORT, str(MEGABYTES), "100000")
    assert retry(lambda: peer.check(sys.executable, *words)) == "intact\n"
    host.stop(process)


def received_by(interface: str) -> tuple[int, int]:
    """(bytes, frames) that came into the bridge from a device."""
    counters = Path("/sys/class/net", interface, "statistics")
    return tuple(int((counters / f"rx_{what}").read_text()) for what in ("bytes", "packets"))  # type: ignore[return-value]


@pytest.fixture(params=["tap", "packet"])
def host(lab: Lab, request: pytest.FixtureRequest) -> Host:
    made = lab.host()
    made.transport = request.param
    return made


@pytest.mark.parametrize("size", [1_000_000, 1460, 100])
def test_every_byte_arrives(host: Host, peer: Peer, size: int) -> None:
    send_to_peer(host, peer, size, count=MEGABYTES if size > 1000 else 500_000)


def test_served_bytes_arrive(host: Host, peer: Peer) -> None:
    serve_for_peer(host, peer, 1_000_000)


TAKE_ALL = """
import socket, sys
with socket.create_server(("", int(sys.argv[1]))) as listener:
    connection, _ = listener.accept()
    while connection.recv(1 << 20): pass
"""
SEND_THEN_COMPUTE = """
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    print("connected", flush=True)
    now = time.monotonic()
    while time.monotonic() < now + 1: connection.sendall(bytes(100_000))
    while True: pass
"""


def test_pings_are_answered_while_a_thread_streams_and_while_it_computes(
    host: Host, peer: Peer
) -> None:
    """A thread that streams reads the device itself, in place of the library's own thread."""
    need("ping")
    sink = subprocess.Popen(peer.command(sys.executable, "-c", TAKE_ALL, "7200"))
    words = (sys.executable, "-c", SEND_THEN_COMPUTE, peer.address, "7200")
    try:
        retry(lambda: "7200" in peer.check("ss", "-Hlnt"))
        sender = subprocess.Popen(host.command(*words), stdout=subprocess.PIPE, text=True)
        host.processes.append(sender)
        assert sender.stdout is not None and sender.stdout.readline() == "connected\n"
        told = peer.check("ping", "-q", "-i", "0.02", "-c", "90", "-W", "5", host.address)
        assert " 0% packet loss" in told, told
        assert sender.poll() is None
    finally:
        sink.kill()
        sink.wait()


def test_without_virtio_headers(lab: Lab, peer: Peer) -> None:
    host = lab.host()
    host.virtio_headers = False
    send_to_peer(host, peer, 100_000)
    serve_for_peer(host, peer, 100_000)


@pytest.mark.parametrize("family", [4, 6])
def test_segments_leave_as_one_frame(lab: Lab, peer: Peer, family: int) -> None:
    host = lab.host()
    address = host.address if family == 4 else host.address6
    process = host.start(sys.executable, TRANSFER, "serve", PORT)
    words = (sys.executable, TRANSFER, "send", address, PORT, str(MEGABYTES), "1000000")
    assert retry(lambda: peer.check(*words)) == "intact\n"
    length, frames = received_by(host.tap)
    host.stop(process)
    assert length > MEGABYTES
    assert length / frames > 4 * 1500, f"{frames} frames of {length / frames:.0f} bytes"


def test_every_byte_arrives_where_frames_are_lost(lab: Lab, peer: Peer) -> None:
    """Segments that are sent again meet frames that hold them."""
    rules = f"""
    table bridge {lab.bridge} {{
        chain forward {{
            type filter hook forward priority 0;
            oifname "{peer.port}" numgen random mod 100 0 drop
            iifname "{peer.port}" numgen random mod 100 0 drop
        }}
    }}"""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        send_to_peer(lab.host(), peer, 100_000, count=3_000_000)
    finally:
        subprocess.run(["nft", "delete", "table", "bridge", lab.bridge], check=True)
