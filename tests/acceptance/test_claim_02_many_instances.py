"""Claim 2: many instances of one element run at once."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.acceptance.world import World, maps, until


def _echo(address: str, text: bytes) -> bytes:
    with socket.create_connection((address, 7), timeout=20) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def _arenas(world: World, name: str) -> set[int]:
    """Inodes of the arenas that its processes map; one that ends meanwhile is an OSError."""
    mapped = [row for pid in world.pids(name) for row in maps(pid)]
    return {row[2] for row in mapped if row[3].startswith("/memfd:cse-net")}


@pytest.mark.parametrize("count", [2, 100, pytest.param(1000, marks=pytest.mark.slow)])
def test_all_serve_the_same_port_at_once(world: World, count: int) -> None:
    if count > 100 and world.runtime == "docker":
        pytest.skip("1,000 containers take Docker minutes to start; shown with 100")
    names = [f"m{number}" for number in range(count)]
    # An echo server in one small process each: socat answers every connection from a fork.
    command = ["socat", "TCP-LISTEN:7,fork,reuseaddr", "EXEC:cat"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: world.run(n, command, elements={"network-lwip": {}}), names))
    addresses = {name: world.address(name) for name in names}
    assert len(set(addresses.values())) == count

    for name, address in addresses.items():  # the last ones may not listen yet
        assert until(partial(_echo, address, name.encode()), 60) == name.encode()

    arenas: set[int] = set()
    for name in names:
        arenas |= until(partial(_arenas, world, name))
    assert len(arenas) == count
