"""Faults to order, through REST: what other programs see, and that nobody is needed to end them."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from tests.acceptance.world import World, until

ECHO = """
import socket, threading
def serve(c):
    try:
        while data := c.recv(65536): c.sendall(data)
    except OSError: pass
s = socket.create_server(("", 9000))
while True: threading.Thread(target=serve, args=s.accept()[:1], daemon=True).start()
"""


def echo(world: World, name: str) -> str:
    """The address of an application that answers on port 9000."""
    world.run(name, ["python3", "-c", ECHO], elements={"network-lwip": {}})
    address = world.address(name)
    until(lambda: round_trip_s(address))
    return address


def round_trip_s(address: str, timeout: float = 3) -> float:
    with socket.create_connection((address, 9000), timeout=timeout) as connection:
        began = time.monotonic()
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        return time.monotonic() - began


def add(world: World, name: str, **spec: Any) -> dict[str, Any]:
    answer = world.api.post(f"/v1/applications/{name}/faults", json=spec)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def faults(world: World, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.get(name, "faults")["items"]
    return found


def events(world: World, name: str) -> list[str]:
    items = world.api.get("/v1/events", params={"application": name}).json()["items"]
    return [item["kind"] for item in items]


def test_a_delay_is_counted_ends_by_itself_and_leaves_events(world: World) -> None:
    name = f"slow-{world.runtime}"  # events of a removed application stay
    address = echo(world, name)
    made = add(world, name, delay="60ms", **{"for": "3s"})
    assert 0 < made["remaining"] <= 3
    assert round_trip_s(address) >= 0.12
    (shown,) = faults(world, name)
    assert shown["id"] == made["id"] and shown["counters"]["delayed"] >= 4
    until(lambda: not faults(world, name))
    assert until(lambda: min(round_trip_s(address) for _ in range(3)) < 0.06)
    until(lambda: "fault-ended" in events(world, name))
    assert events(world, name).count("fault-started") == 1


def test_a_fault_outlives_the_instance_and_not_its_time(world: World) -> None:
    address = echo(world, "again")
    made = add(world, "again", delay="80ms", seed=3, **{"for": "20s"})
    assert world.api.post("/v1/applications/again/restart").status_code == 200
    until(lambda: round_trip_s(address) >= 0.16)
    (shown,) = faults(world, "again")
    assert shown["id"] == made["id"] and shown["ends"] == made["ends"] and shown["seed"] == 3
    assert world.api.delete(f"/v1/applications/again/faults/{made['id']}").status_code == 204
    assert min(round_trip_s(address) for _ in range(3)) < 0.08
    assert faults(world, "again") == []


def test_a_cut_parts_two_applications_by_name(world: World) -> None:
    address = echo(world, "left")
    world.run("right", ["sleep", "300"], elements={"network-lwip": {}})
    script = (
        f"import socket; socket.create_connection(('{address}', 9000), timeout=1.5); print('ok')"
    )
    assert world.exec("right", "python3", "-c", script).stdout == "ok\n"
    made = add(world, "right", cut="left")
    assert "TimeoutError" in world.exec("right", "python3", "-c", script).stderr
    round_trip_s(address)  # others reach it
    world.api.delete(f"/v1/applications/right/faults/{made['id']}")
    assert world.exec("right", "python3", "-c", script).stdout == "ok\n"


def test_reset_and_refuse(world: World) -> None:
    address = echo(world, "rst")
    with socket.create_connection((address, 9000), timeout=3) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        made = add(world, "rst", reset=9000)
        assert made["counters"]["reset"] == 1
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    round_trip_s(address)
    assert faults(world, "rst") == []
    add(world, "rst", refuse=9000)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 9000), timeout=3)


def test_fields_out_of_range_are_named(world: World) -> None:
    world.run("fields", ["sleep", "300"], elements={"network-lwip": {}})
    world.run("bare", ["sleep", "300"])
    path = "/v1/applications/fields/faults"
    for spec, pointer in (
        ({"loss": "101%"}, "/loss"),
        ({"loss": "some"}, "/loss"),
        ({"delay": "2h"}, "/delay"),
        ({"rate": "5bit"}, "/rate"),
        ({"refuse": 70000}, "/refuse"),
        ({"loss": 1, "to": "nobody"}, "/to"),
        ({"cut": "fields"}, "/cut"),
        ({"los": 1}, "/los"),
        ({}, ""),
    ):
        answer = world.api.post(path, json=spec)
        assert answer.status_code == 422, (spec, answer.text)
        assert answer.json()["errors"][0]["pointer"] == pointer, (spec, answer.text)
    assert world.api.post(path, json={"loss": 1, "to": "10.0.0.0/8"}).status_code == 201
    answer = world.api.post("/v1/applications/bare/faults", json={"loss": 1})
    assert answer.status_code == 409 and "no network stack of its own" in answer.text
