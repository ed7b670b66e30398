"""Claim 15: packets pass between instance and driver through mapped memory, in both directions."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.world import World, curl, kernel_tcp_sockets, maps, until

PACKET = {"network-lwip": {"settings": {"transport": "packet"}}}
REQUESTS = 40


def _ring(pid: int) -> list[str]:
    """Sockets that the process has mapped shared and writable."""
    return [row[3] for row in maps(pid) if row[3].startswith("socket:[") and row[0] == "rw-s"]


def test_packets_pass_through_a_mapped_ring(world: World) -> None:
    command = ["python3", "-m", "http.server", "80", "--bind", "0.0.0.0"]
    world.run("ringed", command, elements=PACKET)
    url = f"http://{world.address('ringed')}/"
    assert "Directory listing" in until(lambda: curl(url))
    pid = world.pids("ringed")[0]
    assert len(_ring(pid)) == 1
    assert kernel_tcp_sockets(pid) == []

    # The device is that socket, and no tap is open in the application.
    opened = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    assert _ring(pid)[0] in opened
    assert not [path for path in opened if "tun" in path]

    before = until(lambda: _counters(world))
    for _ in range(REQUESTS):
        curl(url)
    after = until(
        lambda: (
            (now := _counters(world))["ring_packets"] >= before["ring_packets"] + REQUESTS and now
        )
    )
    # What the driver put into the ring is what the instance took, and none of it was lost.
    assert after["ring_dropped"] == 0
    assert after["rx_packets"] - before["rx_packets"] <= after["ring_packets"]
    assert after["tx_packets"] >= before["tx_packets"] + REQUESTS


def test_the_device_goes_with_the_application(world: World) -> None:
    def ports() -> set[str]:
        return {path.name for path in Path("/sys/class/net").glob("cst*")}

    before = ports()
    world.run("gone", ["sleep", "300"], elements=PACKET)
    for _ in range(3):  # each makes the instance anew: the first program does not use it
        done = world.exec("gone", "python3", "-c", "import socket; socket.socket(); print('made')")
        assert done.stdout == "made\n", done.stderr
    world.remove("gone")
    until(lambda: ports() <= before)


def _counters(world: World) -> dict[str, int]:
    counters: dict[str, int] = world.get("ringed", "instances")["items"][0]["details"]["counters"]
    return counters if "ring_packets" in counters else {}
