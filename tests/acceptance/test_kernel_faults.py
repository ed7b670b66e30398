"""Faults of an application on the kernel's own stack: the same calls, as far as the kernel can."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from tests.acceptance.test_faults import ECHO, add, events, faults, round_trip_s
from tests.acceptance.world import World, until

COUNT = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 9001))
while True: s.sendto(*s.recvfrom(100))
"""
MEGABYTE = 1 << 20


def kernel_echo(world: World, name: str, program: str = ECHO) -> str:
    """The address of an application that answers, on the kernel's stack."""
    world.run(name, ["python3", "-c", program], elements={"network-kernel": {}})
    return world.address(name)


def echo(world: World, name: str) -> str:
    address = kernel_echo(world, name)
    until(lambda: round_trip_s(address))
    return address


def test_refused_connections_are_counted_and_it_ends_by_itself(world: World) -> None:
    name = f"plain-{world.runtime}"  # events of a removed application stay
    address = echo(world, name)
    add(world, name, refuse=9000, **{"for": "4s"})
    with pytest.raises(ConnectionRefusedError):
        round_trip_s(address)
    (shown,) = faults(world, name)
    assert shown["counters"]["refused"] >= 1 and 0 < shown["remaining"] <= 4
    assert until(lambda: round_trip_s(address), 30) > 0
    until(lambda: not faults(world, name))
    until(lambda: "fault-ended" in events(world, name))


def test_open_connections_are_reset_and_new_ones_made(world: World) -> None:
    address = echo(world, "cut-off")
    with socket.create_connection((address, 9000), timeout=10) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        add(world, "cut-off", reset=9000)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert round_trip_s(address) > 0
    assert faults(world, "cut-off") == []


def test_a_cut_parts_two_and_no_others(world: World) -> None:
    address = echo(world, "one")
    world.run("other", ["sleep", "300"], elements={"network-kernel": {}})
    connect = "import socket, sys; socket.create_connection((sys.argv[1], 9000), timeout=1)"
    assert world.exec("other", "python3", "-c", connect, address).returncode == 0
    made = add(world, "one", cut="other")
    asked = world.exec("other", "python3", "-c", connect, address)
    assert asked.returncode != 0 and "timed out" in asked.stderr
    assert round_trip_s(address) > 0
    assert faults(world, "one")[0]["counters"]["cut"] > 0
    assert world.api.delete(f"/v1/applications/one/faults/{made['id']}").status_code == 204
    assert world.exec("other", "python3", "-c", connect, address).returncode == 0


def test_a_share_of_the_packets_is_lost(world: World) -> None:
    address = kernel_echo(world, "lossy", COUNT)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((address, 9001))
        client.settimeout(0.2)

        def answered(count: int) -> int:
            got = 0
            for _ in range(count):
                with contextlib.suppress(OSError):  # refused until the server has its socket
                    client.send(b"x")
                    got += len(client.recv(100))
            return got

        until(lambda: answered(1))
        add(world, "lossy", loss="30%", direction="in")
        got = answered(100)
        (shown,) = faults(world, "lossy")
        assert 0 < shown["counters"]["lost"] < shown["counters"]["seen"]
        assert 30 < got < 95


def test_a_rate_bounds_what_passes(world: World) -> None:
    address = echo(world, "narrow")
    add(world, "narrow", rate="8mbit", direction="in")
    began = time.monotonic()
    sent = got = 0
    with socket.create_connection((address, 9000), timeout=60) as connection:
        while got < 3 * MEGABYTE:
            if sent < 3 * MEGABYTE:
                connection.sendall(bytes(65536))
                sent += 65536
            got += len(connection.recv(65536))
    assert time.monotonic() - began > 1.5  # 3 MiB less what passes at once: a second's worth
    assert faults(world, "narrow")[0]["counters"]["overflowed"] > 0


def test_it_holds_again_after_a_restart(world: World) -> None:
    address = echo(world, "again")
    add(world, "again", refuse=9000)
    assert world.api.post("/v1/applications/again/restart").status_code == 200
    with pytest.raises(ConnectionRefusedError):
        until(lambda: "refused" in refusal(address))
        round_trip_s(address)


def refusal(address: str) -> str:
    """What a connect says; the container's interface may come a moment after its start."""
    try:
        return str(round_trip_s(address, timeout=1))
    except OSError as error:
        return str(error)


def test_what_the_kernel_cannot_do_is_refused_by_field(world: World) -> None:
    echo(world, "able")
    asked = {"delay": "20ms", "jitter": "5ms", "reorder": "1%", "seed": 7, "loss": "5%"}
    answer = world.api.post("/v1/applications/able/faults", json=asked)
    assert answer.status_code == 422, answer.text
    told = {one["pointer"]: one for one in answer.json()["errors"]}
    assert set(told) == {"/delay", "/jitter", "/reorder", "/seed"}
    assert "emulator" in told["/delay"]["detail"] and "network-lwip" in told["/delay"]["remedy"]
    assert faults(world, "able") == []
