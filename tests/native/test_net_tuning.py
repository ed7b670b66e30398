"""Settings that change while a program runs, and what open connections make of them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.native.net.lab import Host, Lab, retry
from tests.native.test_net_faults import ECHO, echo, order, round_trip_s, set_faults
from tests.native.test_net_instruments import Capture

__all__ = ["echo"]
pytestmark = [pytest.mark.native, pytest.mark.root]


def tune(host: Host, **values: object) -> None:
    given = {key: str(value) for key, value in values.items()}
    assert host.lab.broker.push(host.name, "network", given)
    host.lab.broker.instruments(host.name).report("counters")  # answered after it


def connection_of(host: Host, client: socket.socket) -> dict[str, Any]:
    own = f":{client.getsockname()[1]}"
    lines = host.lab.broker.instruments(host.name).report("sockets")
    found = [line for line in lines if line["peer"].endswith(own)]
    assert len(found) == 1, "a handshake's last packet may still be on its way"
    return found[0]


def test_open_connections_follow_ttl_mss_windows_and_timers(lab: Lab, echo: Host) -> None:
    with socket.create_connection((echo.address, 9000), timeout=10) as client:
        round_trip_s(client)
        before = connection_of(echo, client)
        tune(echo, ttl=9, mss=1000, receive_buffer=200_000, rto_min=900)
        capture = Capture(echo, duration=1.0, filter="outbound and tcp port 9000")
        client.sendall(b"z" * 5000 + b"\n")
        left = 5001
        while left:
            left -= len(client.recv(left))
        round_trip_s(client)
        after = connection_of(echo, client)
        packets = [packet for *_, packet, _ in capture.file().packets]
        assert packets and {packet[8] for packet in packets} == {9}
        assert int(before["mss"]) > 1000 == int(after["mss"])
        assert int(before["receive_window"]) > 500_000 > 200_000 == int(after["receive_window"])
        assert int(after["rto_ms"]) >= 900 > int(before["rto_ms"])


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_mtu_bounds_packets_at_once(lab: Lab, echo: Host, family: socket.AddressFamily) -> None:
    address = echo.address if family is socket.AF_INET else echo.address6
    header = 40 if family is socket.AF_INET else 60
    with socket.create_connection((address, 9000), timeout=10) as client:
        round_trip_s(client)
        assert int(connection_of(echo, client)["mss"]) > 1400
        tune(echo, mtu=1300)
        assert int(connection_of(echo, client)["mss"]) == 1300 - header
        client.sendall(b"z" * 50_000 + b"\n")
        left = 50_001
        while left:
            left -= len(client.recv(left))
        tune(echo, mtu=65_520)
    with socket.create_connection((address, 9000), timeout=10) as client:
        round_trip_s(client)
        assert int(connection_of(echo, client)["mss"]) > 1400


def test_a_thread_that_may_not_spin_sleeps(lab: Lab) -> None:
    """The setting `spin` at 0: the server's waits for its next line are sleeps."""
    server, client = lab.host(), lab.host()
    server.start(sys.executable, "-c", ECHO)
    assert retry(lambda: "ready" in server.log())
    tune(server, spin=0)
    script = "import socket, sys; s = socket.create_connection((sys.argv[1], 9000)); [" + (
        "(s.sendall(b'a\\n'), s.recv(9)) for _ in range(300)]"
    )

    def sleeps() -> int:
        before = switches(server)
        # A client that spins would answer before the server has lain down.
        client.check("env", "CSE_NETWORK_SPIN=0", sys.executable, "-c", script, server.address)
        return switches(server) - before

    # On a busy machine the next line may be there before the server has lain down, as well.
    assert retry(lambda: sleeps() >= 200, 60)


def switches(host: Host) -> int:
    """How often the program's thread has given its processor up."""
    status = Path(f"/proc/{host.processes[-1].pid}/status").read_text()
    return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])


def test_a_lowered_window_loses_nothing(lab: Lab, echo: Host) -> None:
    payload = b"".join(b"%d " % i for i in range(60_000)) + b"\n"
    with socket.create_connection((echo.address, 9000), timeout=20) as client:
        round_trip_s(client)
        client.settimeout(0.2)
        sent, found, sizes = 0, bytearray(), [50_000, 8192, 4_000_000, 20_000]
        while len(found) < len(payload):
            if sent < len(payload):
                sent += client.send(payload[sent : sent + 100_000])
                tune(echo, receive_buffer=sizes[sent % 4], send_buffer=sizes[sent % 3])
            try:
                found += client.recv(1 << 16)
            except TimeoutError:
                continue  # the window is small just now
    assert bytes(found) == payload


# Reads all that comes from each that connects, or (port 9201) nothing.
SINK = """
import selectors, socket
waiting, kept = selectors.DefaultSelector(), []
for port in 9200, 9201:
    waiting.register(socket.create_server(("", port)), selectors.EVENT_READ, port)
print("ready", flush=True)
while True:
    for key, _ in waiting.select():
        if key.data is None:
            if not key.fileobj.recv(1 << 20): waiting.unregister(key.fileobj)
        else:
            c, _ = key.fileobj.accept()
            kept.append(c)
            if key.data == 9200: waiting.register(c, selectors.EVENT_READ)
"""


@contextlib.contextmanager
def sending(host: Host, port: int) -> Iterator[socket.socket]:
    """A connection into which as much is written as it takes, in segments of 1,000 bytes."""
    with socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
        client.settimeout(20)
        client.connect((host.address, port))
        client.settimeout(0.1)
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    client.send(bytes(1 << 20))

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield client
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("mode", ["relay", "direct"])
def test_a_window_grows_where_the_program_reads_and_only_there(lab: Lab, mode: str) -> None:
    host = lab.host()
    host.start("env", f"CSE_NETWORK_MODE={mode}", sys.executable, "-c", SINK)
    assert retry(lambda: "ready" in host.log())
    set_faults(host, order(delay="10ms"))

    def window(client: socket.socket) -> int:
        found = connection_of(host, client)
        return int(found["receive_window"])

    with sending(host, 9200) as reader, sending(host, 9201) as stalled:
        assert retry(lambda: window(reader) > 600_000, 60)
        assert window(stalled) <= 131_072
        tune(host, receive_buffer=200_000)
        assert retry(lambda: window(reader) <= 200_000, 60)
        tune(host, receive_buffer=2_000_000)
        assert retry(lambda: window(reader) > 600_000, 60)
        assert window(reader) <= 2_000_000


# Writes more than any initial window to each that connects, at once.
BURST = """
import socket
s = socket.create_server(("", 9100))
print("ready", flush=True)
kept = []
while True:
    c, _ = s.accept()
    kept.append(c)
    c.sendall(b"x" * 100_000)
"""


def first_flight(host: Host) -> int:
    """Segments that a new connection to the kernel sends before it has heard of any."""
    capture = Capture(host, duration=3.0, filter="outbound and tcp port 9100")
    with socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
        client.settimeout(20)
        client.connect((host.address, 9100))
        left = 100_000
        while left:
            left -= len(client.recv(left))
    data = [
        (time, original) for _, _, time, _, original in capture.file().packets if original > 100
    ]
    begin = data[0][0]
    return sum(1 for time, _ in data if time < begin + 300_000_000)


def test_the_initial_window_is_what_was_set_also_live(lab: Lab) -> None:
    host = lab.host()
    host.start("env", "CSE_NETWORK_INITIAL_WINDOW=4", sys.executable, "-c", BURST)
    assert retry(lambda: "ready" in host.log())
    set_faults(host, order(delay="400ms"))
    assert first_flight(host) == 4
    tune(host, initial_window=17)
    assert first_flight(host) == 17
    tune(host, initial_window=1)
    assert first_flight(host) == 1


def test_what_the_program_set_itself_stays(lab: Lab) -> None:
    host = lab.host()
    script = """
import socket, sys
own, other = socket.socket(), socket.socket()
own.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
print("ready", flush=True)
sys.stdin.readline()
for s in own, other: print(s.getsockopt(socket.IPPROTO_IP, socket.IP_TTL))
"""
    process = subprocess.Popen(
        host.command(sys.executable, "-c", script),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert retry(lambda: lab.broker.details(host.name)["live"])
    tune(host, ttl=9)
    assert process.communicate("go\n", timeout=10)[0] == "33\n9\n"
