"""What TCP makes of a hostile or absent peer: a flood of SYNs, and a peer that vanishes."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from tests.native.net.lab import Host, Lab, retry
from tests.native.test_net_faults import echo, order, round_trip_s, set_faults

__all__ = ["echo"]
pytestmark = [pytest.mark.native, pytest.mark.root]

HALF_OPEN_MAX = 1024  # of one listener; images/network-lwip/lwip/listen.c


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(host: Host, port: int, source: IPv4Address, number: random.Random) -> bytes:
    """A frame as it would come from somebody who will not answer."""
    to = IPv4Address(host.address).packed
    tcp = struct.pack(
        "!HHIIBBHHHBBH", number.randrange(1024, 65536), port, number.getrandbits(32), 0, 6 << 4, 2,
        64240, 0, 0, 2, 4, 1460,
    )  # fmt: skip
    pseudo = source.packed + to + struct.pack("!BBH", 0, 6, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + source.packed + to
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    mac = bytes.fromhex(host.mac.replace(":", ""))
    return mac + bytes.fromhex("02c5ffffff01") + b"\x08\x00" + ip + tcp


@contextlib.contextmanager
def flood(host: Host, port: int) -> Iterator[list[int]]:
    """SYNs onto the bridge until the end, from addresses of the subnet that nobody has."""
    number, stop, sent = random.Random(1), threading.Event(), [0]
    base = IPv4Address(host.lab.gateway)
    frames = [syn(host, port, base + 180 + i % 60, number) for i in range(5000)]

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((host.lab.bridge, 0))
            while not stop.wait(0.002):
                for _ in range(20):
                    with contextlib.suppress(OSError):
                        raw.send(frames[sent[0] % len(frames)])
                    sent[0] += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


def half_open(host: Host) -> int:
    lines = host.lab.broker.instruments(host.name).report("sockets")
    return sum(1 for line in lines if line.get("state") == "SYN-RECV")


def test_a_flood_of_syns_keeps_no_legitimate_client_out(lab: Lab, echo: Host) -> None:
    with socket.create_connection((echo.address, 9000), timeout=30) as before:
        with flood(echo, 9000) as sent:
            assert retry(lambda: half_open(echo) > HALF_OPEN_MAX / 2, 30)
            assert retry(lambda: sent[0] > 4 * HALF_OPEN_MAX, 30)
            round_trip_s(before)
        before.close()
        with flood(echo, 9000):
            for _ in range(20):
                with socket.create_connection((echo.address, 9000), timeout=30) as during:
                    round_trip_s(during)
                assert half_open(echo) <= HALF_OPEN_MAX


# Connects, exchanges a line, says so, and does what is asked; then how it ended.
CLIENT = """
import socket, sys
address, port, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
T = socket.IPPROTO_TCP
s = socket.socket()
def ready():
    print("ready", flush=True)
    sys.stdin.readline()
if how == "connect":
    s.setsockopt(T, socket.TCP_SYNCNT, 1)
    ready()
else:
    s.connect((address, port))
    s.sendall(b"x\\n")
    s.recv(10)
    ready()
try:
    if how == "connect":
        s.connect((address, port))
    elif how == "keepalive":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT:
            s.setsockopt(T, option, 1)
    elif how == "user-timeout":
        s.setsockopt(T, socket.TCP_USER_TIMEOUT, 1500)
        s.sendall(b"y\\n")
    elif how == "retransmissions":
        s.sendall(b"y\\n")
    print(s.recv(10))
    print(s.recv(10))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("mode", ["relay", "direct"])
@pytest.mark.parametrize("how", ["connect", "keepalive", "user-timeout"])
def test_a_peer_that_vanishes_is_a_time_out(lab: Lab, echo: Host, how: str, mode: str) -> None:
    """ETIMEDOUT, in a program that only waits."""
    host = lab.host()
    words = [sys.executable, "-c", CLIENT, echo.address, "9000", how]
    process = subprocess.Popen(
        host.command("env", f"CSE_NETWORK_MODE={mode}", *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    host.processes.append(process)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    set_faults(echo, order(loss=100))
    assert process.communicate("go\n", timeout=60)[0] == "TimeoutError\n"
