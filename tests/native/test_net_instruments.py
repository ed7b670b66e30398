"""Captures and reports of running instances, read by a strict parser and by tcpdump."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from app.agent import capturing
from app.domain.capture import CaptureRequest
from app.domain.errors import Conflict, InvalidSpecification
from tests.native.net.lab import Host, Lab, retry

pytestmark = [pytest.mark.native, pytest.mark.root]

SERVER = """
import socket
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("", 7000))
s = socket.create_server(("", 9000), backlog=5)
print("ready", flush=True)
kept = []
while True:
    c, _ = s.accept()
    kept.append(c)
    c.sendall(b"y" * len(c.recv(65536)))
"""

READER = """
import socket
s = socket.create_server(("", 9000))
print("ready", flush=True)
c, _ = s.accept()
c.sendall(b"%d" % sum(iter(lambda: len(c.recv(1 << 20)), 0)))
s.accept()
"""


@pytest.fixture
def server(lab: Lab) -> Host:
    host = lab.host()
    host.start(sys.executable, "-c", SERVER)
    assert retry(lambda: "ready" in host.log())
    return host


@dataclass
class File:
    """A pcapng file, every length of which was checked."""

    interfaces: list[str] = field(default_factory=list)
    packets: list[tuple[str, int, int, bytes, int]] = field(default_factory=list)
    """Interface, direction flag, time in ns, bytes kept, original length."""
    dropped: dict[str, int] = field(default_factory=dict)


def options(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        code, length = struct.unpack_from("<HH", data)
        if code == 0:
            assert len(data) == 4
            return
        yield code, data[4 : 4 + length]
        data = data[4 + (length + 3) // 4 * 4 :]


def parse(data: bytes) -> File:
    file, at = File(), 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert size % 4 == 0 and struct.unpack_from("<I", data, at + size - 4)[0] == size
        body = data[at + 8 : at + size - 4]
        if at == 0:
            assert kind == 0x0A0D0D0A and body[:4] == bytes.fromhex("4d3c2b1a")
        elif kind == 1:
            found = dict(options(body[8:]))
            assert struct.unpack_from("<H", body)[0] == 113 and found[9] == b"\x09"
            file.interfaces.append(found[2].decode())
        elif kind == 6:
            link, high, low, kept, original = struct.unpack_from("<IIIII", body)
            flags = dict(options(body[20 + (kept + 3) // 4 * 4 :]))
            way = struct.unpack("<I", flags[2])[0]
            cooked, packet = body[20:36], body[36 : 20 + kept]
            assert cooked[:2] == (b"\0\0", b"\0\4")[way - 1] and (
                cooked[14:] == {4: b"\x08\x00", 6: b"\x86\xdd"}[packet[0] >> 4]
            )
            original -= len(cooked)
            file.packets.append((file.interfaces[link], way, high << 32 | low, packet, original))
        else:
            assert kind == 5
            (link,) = struct.unpack_from("<I", body)
            counts = dict(options(body[12:]))
            file.dropped[file.interfaces[link]] = struct.unpack("<Q", counts[5])[0]
        at += size
    return file


class Capture:
    """One under way, read by a thread as a client would."""

    def __init__(self, host: Host, **request: object) -> None:
        wanted = CaptureRequest.model_validate(request)
        parts = capturing.start(host.lab.broker.instruments(host.name), wanted)
        self.data = bytearray(next(parts).data)
        self._thread = threading.Thread(target=self._read, args=(parts,))
        self._thread.start()
        host.lab.broker.instruments(host.name).report("counters")  # answered when it has begun

    def _read(self, parts: Iterator[object]) -> None:
        for part in parts:
            self.data += part.data  # type: ignore[attr-defined]

    def file(self) -> File:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return parse(bytes(self.data))


def exchange(host: Host, size: int = 10, port: int = 9000) -> None:
    with socket.create_connection((host.address, port), timeout=5) as connection:
        connection.sendall(b"x" * size)
        left = size
        while left:
            left -= len(connection.recv(left))


def test_a_connection_is_captured_from_both_ends_in_order(server: Host) -> None:
    capture = Capture(server, duration=1.0)
    exchange(server)
    file = capture.file()
    assert file.interfaces == ["tap", "wire", "loopback"] == list(file.dropped)
    tcp = [packet for packet in file.packets if packet[3][0] >> 4 == 4 and packet[3][9] == 6]
    assert {link for link, *_ in tcp} == {"tap"}
    flags = [(way, packet[33]) for _, way, _, packet, _ in tcp]
    assert flags[0] == (1, 2) or flags[0][1] & 2  # SYN comes in
    assert flags[1][0] == 2 and flags[1][1] & 0x12 == 0x12  # SYN and ACK go out
    times = [moment for _, _, moment, _, _ in file.packets]
    assert times == sorted(times) and times[-1] - times[0] < 10**10
    assert any(packet.endswith(b"x" * 10) for *_, packet, _ in tcp)
    assert any(packet.endswith(b"y" * 10) for *_, packet, _ in tcp)
    assert set(file.dropped.values()) == {0}


def test_filter_count_and_snap_length(server: Host) -> None:
    capture = Capture(
        server, filter="inbound and tcp port 9000 and tcp[tcpflags] & tcp-syn != 0", count=2
    )
    short = Capture(server, snaplen=64, duration=1.0)
    for _ in range(3):
        exchange(server, 1000)
    found = capture.file()
    assert len(found.packets) == 2
    assert all(way == 1 and packet[33] & 2 for _, way, _, packet, _ in found.packets)
    kept = short.file().packets
    assert max(len(packet) for *_, packet, _ in kept) == 64
    assert max(original for *_, original in kept) >= 1040
    with pytest.raises(InvalidSpecification, match="syntax error"):
        Capture(server, filter="tcp port and")


def test_loopback_is_captured_once(lab: Lab, server: Host) -> None:
    capture = Capture(server, duration=1.0, filter="host 127.0.0.1")
    script = "import socket; socket.create_connection(('127.0.0.1', 9000)).close()"
    server.check(sys.executable, "-c", script)
    packets = capture.file().packets
    assert {link for link, *_ in packets} == {"loopback"}
    assert [packet[33] for *_, packet, _ in packets].count(2) == 1


def test_what_finds_no_room_is_dropped_and_counted(lab: Lab) -> None:
    """A client that does not read holds nobody up."""
    reader = lab.host()
    reader.start(sys.executable, "-c", READER)
    assert retry(lambda: "ready" in reader.log())
    instruments = lab.broker.instruments(reader.name)
    parts = capturing.start(instruments, CaptureRequest(duration=1))
    data = bytearray(next(parts).data)
    with socket.create_connection((reader.address, 9000)) as sender:
        sender.sendall(bytes(16 << 20))  # more than ring and socket hold
        sender.shutdown(socket.SHUT_WR)
        assert int(sender.recv(100)) == 16 << 20
    for part in parts:
        data += part.data
    file = parse(bytes(data))
    assert file.packets and file.dropped["tap"] > 0


def test_tcpdump_reads_it(server: Host) -> None:
    if shutil.which("tcpdump") is None:
        pytest.skip("no tcpdump here")
    capture = Capture(server, duration=0.5)
    exchange(server)
    packets = capture.file().packets
    done = subprocess.run(
        ["tcpdump", "-n", "-r", "-"], input=capture.data, capture_output=True, check=True
    )
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(packets)
    assert any(f"> {server.address}.9000: Flags [S" in line for line in lines)


def test_a_capture_needs_an_instance(lab: Lab) -> None:
    with pytest.raises(Conflict, match="no network instance"):
        Capture(lab.host())


def test_sockets_are_listed_as_ss_would(lab: Lab, server: Host) -> None:
    with socket.create_connection((server.address, 9000), timeout=5) as connection:
        connection.sendall(b"x" * 10)
        assert connection.recv(100) == b"y" * 10
        connection.sendall(b"unread")
        own = connection.getsockname()
        report = lab.broker.instruments(server.name).report
        found = report("sockets")
        assert retry(lambda: report("counters")[0]["established"] == "1")
        (listener,) = (one for one in found if one["state"] == "LISTEN")
        assert listener["local"].endswith(":9000") and listener["sendq"] == "5"
        (established,) = (one for one in found if one["state"] == "ESTAB")
        assert established["peer"] == f"{own[0]}:{own[1]}"
        assert established["local"] == f"{server.address}:9000"
        assert established["program"].startswith("python") and int(established["pid"]) > 0
        assert int(established["mss"]) > 500 and int(established["cwnd"]) > 0
        assert retry(lambda: any(one["recvq"] == "6" for one in report("sockets")))
        (datagrams,) = (one for one in found if one["kind"] == "udp")
        assert datagrams["state"] == "UNCONN" and datagrams["local"].endswith(":7000")
    counters = report("counters")[0]
    assert int(counters["tcp_accepted"]) == 1 and int(counters["tcp_segments_in"]) > 3
