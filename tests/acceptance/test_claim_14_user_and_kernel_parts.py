"""Claim 14: what is specific to an application sits in user mode; drivers stay in the kernel."""

from __future__ import annotations

import json
import subprocess

from tests.acceptance.world import World, curl, kernel_tcp_sockets, maps, until


def _taps(bridge: str) -> list[str]:
    """The taps that are plugged into a bridge."""
    shown = subprocess.check_output(
        ["ip", "-j", "-d", "link", "show", "master", bridge, "type", "tun"], text=True
    )
    return [link["ifname"] for link in json.loads(shown or "[]") if link]


def _bridge_towards(address: str) -> str:
    route = subprocess.check_output(["ip", "-j", "route", "get", address], text=True)
    return str(json.loads(route)[0]["dev"])


def test_protocol_state_in_the_process_driver_in_the_kernel(world: World) -> None:
    world.run("web", ["python3", "-m", "http.server", "80"], elements={"network-lwip": {}})
    until(lambda: curl(f"http://{world.address('web')}/"))
    pid = world.pids("web")[0]

    # User mode: the stack's code and data are mapped in the application itself.
    rows = maps(pid)
    assert any("r-x" in row[0] and "/libcse-lwip.so" in row[3] for row in rows)
    assert any(row[0].startswith("rw-s") and row[3].startswith("/memfd:cse-net") for row in rows)
    # Kernel: a device and its driver, and no socket of this application.
    bridge = _bridge_towards(world.address("web"))
    assert len(_taps(bridge)) == 1
    assert kernel_tcp_sockets(pid) == []

    # With the application its whole protocol state is gone, and so is its device.
    world.remove("web")
    until(lambda: not _taps(bridge))
