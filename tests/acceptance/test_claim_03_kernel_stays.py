"""Claim 3: the kernel's own services stay; an application without elements is unaffected."""

from __future__ import annotations

import socket
import subprocess

from tests.acceptance.world import World, curl, until


def test_kernel_socket_on_the_same_port_is_unaffected(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        world.run(
            "same-port",
            ["python3", "-m", "http.server", str(port), "--bind", "0.0.0.0"],
            elements={"network-lwip": {}},
        )
        assert "Directory listing" in until(
            lambda: curl(f"http://{world.address('same-port')}:{port}/")
        )
        filter_ = f"sport = :{port}"
        shown = subprocess.check_output(["ss", "-Hlnt", filter_], text=True).splitlines()
        assert len(shown) == 1 and f"127.0.0.1:{port}" in shown[0]

        # The kernel's listener still gets its own connections.
        with socket.create_connection(("127.0.0.1", port)) as client:
            server, _ = listener.accept()
            with server:
                client.sendall(b"kernel")
                assert server.recv(16) == b"kernel"


def test_an_application_without_elements_has_none(world: World) -> None:
    world.run("plain", ["sleep", "60"])
    assert world.get("plain", "instances") in ([], {"items": []}) or not world.pids("plain")
    result = world.exec(
        "plain", "sh", "-c", "echo ${LD_PRELOAD-none}; grep -c libcse /proc/self/maps"
    )
    assert result.stdout.split() == ["none", "0"]
