"""Claim 13: an element can be changed for one application only."""

from __future__ import annotations

import socket
from functools import partial

from tests.acceptance.world import World, maps, until

IP_RECVTTL = 12  # <linux/in.h>; the socket module has no name for it


def _ttl_seen_by_host(world: World, name: str) -> int:
    """TTL of a datagram that the application sends to this host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        receiver.bind(("0.0.0.0", 0))
        receiver.settimeout(5)
        port = receiver.getsockname()[1]
        gateway = world.get(name)["status"]["address"].rsplit(".", 2)[0] + ".0.1"
        script = (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
            f"s.sendto(b'x', ('{gateway}', {port}))"
        )
        result = world.exec(name, "python3", "-c", script)
        assert result.returncode == 0, result.stderr
        _, control, _, _ = receiver.recvmsg(64, 64)
        return int.from_bytes(control[0][2], "little")


def test_an_option_of_one_instance(world: World) -> None:
    world.run("usual", ["sleep", "300"], elements={"network-lwip": {}})
    world.run("short", ["sleep", "300"], elements={"network-lwip": {"settings": {"ttl": 9}}})
    assert _ttl_seen_by_host(world, "short") == 9
    assert _ttl_seen_by_host(world, "usual") == 64


def test_another_build_for_one_application(world: World) -> None:
    files = {}
    for name, variant in (("release", "release"), ("patched", "debug")):
        world.run(
            name,
            ["python3", "-m", "http.server", "80"],
            elements={"network-lwip": {"variant": variant}},
        )
        pid = until(partial(world.pids, name))[0]
        files[name] = {(dev, inode) for _, dev, inode, path in maps(pid) if "/libcse-net" in path}
    assert files["release"] and files["patched"] and not files["release"] & files["patched"]
