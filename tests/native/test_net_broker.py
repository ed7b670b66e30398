"""A running instance and its broker: settings change live, and either may outlive the other."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from app.broker.broker import Broker
from tests.native.net.lab import Host, Lab, retry

pytestmark = [pytest.mark.native, pytest.mark.root]

IP_RECVTTL = 12
TIMESTAMPS = 12
"""What the kernel takes off each segment for them."""
CHANGES = {"ttl": "33", "mss": "1000", "keepalive.idle": "60"}

SENDER = """
import socket, sys, time
to = (sys.argv[1], int(sys.argv[2]))
while True:
    with socket.socket(type=socket.SOCK_DGRAM) as datagram:
        datagram.sendto(b"x", to)
    with socket.socket() as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream.connect(to)
        stream.sendall(b"%d\\n" % stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))
    time.sleep(0.05)
"""
"""New sockets without end, so that each shows what holds for new ones by now."""

SERVER = """
import socket
with socket.create_server(("127.0.0.1", 7000)) as server:
    print("listens", flush=True)
    while True:
        with server.accept()[0] as one:
            one.sendall(b"same instance")
"""

CLIENT = """
import socket
with socket.create_connection(("127.0.0.1", 7000), 5) as one:
    print(one.recv(100))
"""


class Peer:
    """The kernel's end of SENDER's sockets."""

    def __init__(self, address: str) -> None:
        self.stream = socket.create_server((address, 0))
        self.port: int = self.stream.getsockname()[1]
        self.datagram = socket.socket(type=socket.SOCK_DGRAM)
        self.datagram.bind((address, self.port))
        self.datagram.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        for one in (self.stream, self.datagram):
            one.settimeout(20)

    def close(self) -> None:
        self.stream.close()
        self.datagram.close()

    def ttl(self) -> int:
        """Of the next datagram."""
        _, control, _, _ = self.datagram.recvmsg(10, 100)
        return int(struct.unpack("i", control[0][2])[0])

    def segment_and_idle(self) -> tuple[int, int]:
        """Of the next connection: the segment size it announced, its keepalive time."""
        one, _ = self.stream.accept()
        with one, one.makefile() as lines:
            largest = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            return largest, int(lines.readline())


@pytest.fixture
def peer(lab: Lab) -> Iterator[Peer]:
    made = Peer(lab.gateway)
    yield made
    made.close()


def test_settings_change_while_it_runs(lab: Lab, peer: Peer) -> None:
    host = lab.host()
    host.start(sys.executable, "-c", SENDER, lab.gateway, str(peer.port))
    assert peer.ttl() == 64
    assert peer.segment_and_idle()[1] == 7200
    assert retry(lambda: lab.broker.details(host.name)["live"])
    assert lab.broker.push(host.name, "network", CHANGES) == 1
    assert retry(lambda: peer.ttl() == 33)
    assert retry(lambda: peer.segment_and_idle() == (1000 - TIMESTAMPS, 60))
    lab.broker.push(
        host.name, "network", {"ttl": "9999", "mss": "1"}
    )  # bounds are kept, whoever speaks
    assert retry(lambda: peer.ttl() == 255)
    assert retry(lambda: peer.segment_and_idle() == (536 - TIMESTAMPS, 60))


def serve_anew(host: Host, broker: Broker) -> None:
    def make_no_device(_again: bool) -> int:
        raise AssertionError("a second instance was asked for")

    broker.serve(host.name, host.run, make_no_device, host.lab.find)


def test_an_instance_comes_back_to_a_new_broker(lab: Lab, peer: Peer) -> None:
    host = lab.host()
    host.start(sys.executable, "-c", SERVER)
    host.start(sys.executable, "-c", SENDER, lab.gateway, str(peer.port))
    assert retry(lambda: host.check(sys.executable, "-c", CLIENT) == "b'same instance'\n")
    assert peer.ttl() == 64
    lab.broker.forget(host.name)
    assert [peer.ttl() for _ in range(20)] == [64] * 20  # it goes on meanwhile
    assert peer.segment_and_idle()[1] == 7200
    broker = Broker()
    try:
        serve_anew(host, broker)
        assert retry(lambda: broker.details(host.name).get("live"))
        assert host.check(sys.executable, "-c", CLIENT) == "b'same instance'\n"
        assert broker.push(host.name, "network", {"ttl": "33"}) >= 1
        assert retry(lambda: peer.ttl() == 33)
        assert retry(lambda: broker.details(host.name)["counters"].get("rx_packets"))
    finally:
        broker.close()
