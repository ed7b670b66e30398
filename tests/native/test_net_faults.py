"""Faults on real packets: what a kernel peer, or another instance, sees of them."""

from __future__ import annotations

import itertools
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.fault import FaultOrder, FaultSpec
from tests.native.net.lab import Host, Lab, retry

pytestmark = [pytest.mark.native, pytest.mark.root]

COUNT = 300
SEND = """
import socket, sys, time
to, port, count, pause = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(5): # until the address is known: fewer than all may wait for it
    s.sendto(b"-1", (to, port))
    time.sleep(0.2)
for i in range(count):
    s.sendto(b"%d" % i, (to, port))
    if pause: time.sleep(pause)
time.sleep(0.2)
"""
# Answers each line with a line; says when it is there. The socket outlives the faults.
ECHO = """
import socket
s = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    f = c.makefile("rwb", buffering=0)
    try:
        for line in f: f.write(line)
    except ConnectionResetError:
        print("reset", flush=True)
    f.close()
    c.close()
"""
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""
_numbers = itertools.count(1)


def order(seconds: float | None = None, seed: int = 7, **spec: Any) -> FaultOrder:
    ends = datetime.now(UTC) + timedelta(seconds=seconds) if seconds is not None else None
    wanted = FaultSpec.model_validate(spec)
    return FaultOrder(id=f"f{next(_numbers)}", spec=wanted, seed=seed, ends=ends)


def set_faults(host: Host, *orders: FaultOrder) -> None:
    instruments = host.lab.broker.instruments(host.name)
    instruments.set_faults(list(orders))
    instruments.report("faults")  # answered when they hold


def counters(host: Host) -> dict[str, int]:
    """Of the host's only fault."""
    (found,) = host.lab.broker.instruments(host.name).report("faults")
    return {key: int(value) for key, value in found.items() if key != "id"}


def python(host: Host, script: str, *words: object) -> str:
    return host.check(sys.executable, "-c", script, *map(str, words))


@pytest.fixture
def receiver(lab: Lab) -> Iterator[socket.socket]:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    made.bind((lab.gateway, 0))
    made.settimeout(0.3)
    yield made
    made.close()


def received(receiver: socket.socket) -> list[int]:
    found = []
    while True:
        try:
            found.append(int(receiver.recv(100)))
        except TimeoutError:
            return [number for number in found if number >= 0]


def sent_under(
    lab: Lab, receiver: socket.socket, seed: int = 7, pause: float = 0, **spec: Any
) -> list[int]:
    """Numbers of the datagrams that arrive at the kernel from a fresh instance."""
    host = lab.host()
    set_faults(host, order(seed=seed, **spec))
    python(host, SEND, lab.gateway, receiver.getsockname()[1], COUNT, pause)
    return received(receiver)


def test_the_same_seed_meets_the_same_packets_with_the_same_fate(
    lab: Lab, receiver: socket.socket
) -> None:
    fates = [
        sent_under(lab, receiver, seed, loss=20, duplicate=10, reorder=10) for seed in (7, 7, 8)
    ]
    assert sorted(fates[0]) == sorted(fates[1]) != sorted(fates[2])
    kept = set(fates[0])
    assert 0.7 * COUNT < len(kept) < 0.9 * COUNT
    assert len(fates[0]) - len(kept) > 5
    assert fates[0] != sorted(fates[0])
    assert max(abs(place - number) for place, number in enumerate(sorted(kept))) > 0


def test_reordering_alone_loses_nothing(lab: Lab, receiver: socket.socket) -> None:
    found = sent_under(lab, receiver, pause=0.001, reorder=30)
    assert sorted(found) == list(range(COUNT)) and found != sorted(found)


def test_corrupted_packets_leave_and_the_receiver_drops_them(
    lab: Lab, receiver: socket.socket
) -> None:
    def errors() -> int:
        with open("/proc/net/snmp") as file:
            names, values = (line.split() for line in file if line.startswith("Udp:"))
        return int(dict(zip(names, values, strict=True))["InErrors"])

    before = errors()
    found = sent_under(lab, receiver, corrupt=50)
    assert found == sorted(set(found)) and 0.3 * COUNT < len(found) < 0.7 * COUNT
    assert 0 <= errors() - before - (COUNT - len(found)) <= 5  # the first ones may be hit too


def test_a_fault_ends_by_itself_while_nobody_is_there_to_end_it(
    lab: Lab, receiver: socket.socket
) -> None:
    host = lab.host()
    process = host.start(
        sys.executable, "-c", SEND, lab.gateway, str(receiver.getsockname()[1]), "60", "0.05"
    )
    assert retry(lambda: lab.broker.details(host.name).get("live"))
    set_faults(host, order(2.5, loss=100))
    lab.broker.forget(host.name)  # the broker's end of it is gone
    try:
        process.wait(20)
    finally:
        lab.broker.serve(host.name, host.run, host._make_tap, lab.find)
    found = received(receiver)
    lost = sorted(set(range(60)) - set(found))
    assert 59 in found and len(lost) >= 3
    assert lost == list(range(lost[0], lost[-1] + 1))


@pytest.fixture
def echo(lab: Lab) -> Host:
    host = lab.host()
    host.start(sys.executable, "-c", ECHO)
    assert retry(lambda: "ready" in host.log())
    return host


def round_trip_s(connection: socket.socket) -> float:
    began = time.monotonic()
    connection.sendall(b"x\n")
    assert connection.recv(10) == b"x\n"
    return time.monotonic() - began


def test_delay_applies_both_ways_and_can_be_taken_back(echo: Host) -> None:
    with socket.create_connection((echo.address, 9000), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        set_faults(echo, order(delay="50ms"))
        assert round_trip_s(connection) >= 0.1
        found = counters(echo)
        assert found["delayed"] >= 2 and found["lost"] == 0
        set_faults(echo, order(delay="50ms", direction="in"))
        assert round_trip_s(connection) >= 0.05
        set_faults(echo)
        assert min(round_trip_s(connection) for _ in range(5)) < 0.05


def test_a_slow_line_takes_its_time(lab: Lab, receiver: socket.socket) -> None:
    host = lab.host()
    set_faults(host, order(rate="1mbit"))
    server = socket.create_server((lab.gateway, 0))
    began = time.monotonic()
    host.start(
        sys.executable,
        "-c",
        "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])));"
        " s.sendall(bytes(100_000)); s.close()",
        lab.gateway,
        str(server.getsockname()[1]),
    )
    connection, _ = server.accept()
    taken = 0
    while part := connection.recv(1 << 16):
        taken += len(part)
    assert taken == 100_000
    assert time.monotonic() - began >= 100_000 * 8 / 1_000_000 * 0.9
    server.close()
    connection.close()


def test_refused_ports_answer_with_a_reset_in_both_directions(lab: Lab, echo: Host) -> None:
    set_faults(echo, order(refuse=9000))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((echo.address, 9000), timeout=5)
    assert counters(echo)["refused"] == 1
    set_faults(echo)
    socket.create_connection((echo.address, 9000), timeout=5).close()
    client = lab.host()
    set_faults(client, order(refuse=9000, direction="out"))
    assert python(client, CONNECT, echo.address, 9000, 5) == "ConnectionRefusedError\n"
    assert python(client, CONNECT, "127.0.0.1", 9000, 5) == "ConnectionRefusedError\n"


def test_reset_ends_what_is_established_and_nothing_later(echo: Host) -> None:
    with socket.create_connection((echo.address, 9000), timeout=5) as connection:
        round_trip_s(connection)
        set_faults(echo, order(reset=9000))
        with pytest.raises(ConnectionResetError):
            connection.recv(10)
    assert retry(lambda: "reset" in echo.log())
    with socket.create_connection((echo.address, 9000), timeout=5) as connection:
        round_trip_s(connection)


def test_a_cut_parts_two_applications_and_no_others(lab: Lab, echo: Host) -> None:
    other, third = lab.host(), lab.host()
    both = [f"{other.address}/32", f"{other.address6}/128"]
    set_faults(echo, order(cut="other").model_copy(update={"peers": both}))
    for address in echo.address, echo.address6:
        assert python(other, CONNECT, address, 9000, 1) == "TimeoutError\n"
        assert python(third, CONNECT, address, 9000, 5) == "connected\n"
    set_faults(echo)
    for address in echo.address, echo.address6:
        assert python(other, CONNECT, address, 9000, 5) == "connected\n"


def test_loopback_meets_faults_too(lab: Lab) -> None:
    host = lab.host()
    script = """
import socket
a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a.bind(("127.0.0.1", 0))
a.settimeout(0.3)
b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(100): b.sendto(b"x", a.getsockname())
got = 0
try:
    while a.recv(10): got += 1
except TimeoutError: pass
print(got)
"""
    set_faults(host, order(loss=50))
    first = int(python(host, script))
    assert 30 < first < 70
    other = lab.host()
    set_faults(other, order(loss=50))
    assert int(python(other, script)) == first


def test_content_survives_loss_reorder_and_corruption(lab: Lab, echo: Host) -> None:
    set_faults(echo, order(loss=2, reorder=5, duplicate=2, corrupt=2, delay="1ms"))
    payload = bytes(i * 7 % 251 + (10 if i * 7 % 251 == 10 else 0) for i in range(200_000))
    payload = payload.replace(b"\n", b".") + b"\n"
    with socket.create_connection((echo.address, 9000), timeout=30) as connection:
        connection.sendall(payload)
        found = bytearray()
        while len(found) < len(payload):
            part = connection.recv(1 << 16)
            assert part
            found += part
    assert bytes(found) == payload
    assert counters(echo)["seen"] > 0


def test_content_survives_between_two_instances(lab: Lab, echo: Host) -> None:
    client = lab.host()
    script = """
import socket, sys
c = socket.create_connection((sys.argv[1], 9000), timeout=20)
given = b"".join(b"%d " % i for i in range(100_000)) + b"\\n"
import threading
threading.Thread(target=c.sendall, args=(given,)).start()
found = bytearray()
while len(found) < len(given):
    found += c.recv(1 << 16) or sys.exit("ended early")
print(bytes(found) == given)
"""
    set_faults(client, order(loss=2, reorder=5, duplicate=2, corrupt=2, delay="1ms"))
    assert python(client, script, echo.address) == "True\n"
