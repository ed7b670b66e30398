"""`network-kernel`: the kernel's own stack as an element, for programs that take no library.

The same specification with either network element gives the same address and is reached alike.
"""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.world import NETWORK, World, curl, free_port, until

WEB = ["python3", "-m", "http.server", "80", "--bind", "0.0.0.0"]
STATIC = r"""
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(80)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 16)) return 1;
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        char request[4096];
        const char *answer = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nstatic";
        if (fd < 0 || read(fd, request, sizeof request) < 0) return 1;
        if (write(fd, answer, strlen(answer)) < 0) return 1;
        close(fd);
    }
}
"""


@pytest.fixture
def static_server(tmp_path: Path) -> dict[str, Any]:
    """The part of a specification that brings a statically linked HTTP server along."""
    tmp_path.chmod(0o755)
    source = tmp_path / "server.c"
    source.write_text(STATIC)
    subprocess.run(["gcc", "-static", "-O1", source, "-o", tmp_path / "server"], check=True)
    return {
        "command": ["/opt/programs/server"],
        "mounts": [{"from": str(tmp_path), "path": "/opt/programs"}],
    }


def _web(world: World, element: str, port: int) -> tuple[str, str]:
    """A server and a peer that both use `element`; their addresses. Both are gone afterwards."""
    world.run(
        "web",
        WEB,
        elements={element: {}},
        ports=[{"host_address": "127.0.0.1", "host_port": port, "container_port": 80}],
        network={"name": NETWORK, "aliases": ["site"]},
    )
    world.run("peer", ["sleep", "300"], elements={element: {}})
    addresses = (world.address("web"), world.address("peer"))
    for url in (f"http://{addresses[0]}/", f"http://127.0.0.1:{port}/"):
        assert "Directory listing" in until(partial(curl, url))
    fetch = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).status)"
    for name in ("web", "site"):
        asked = world.exec("peer", "python3", "-c", fetch, f"http://{name}/")
        assert asked.stdout == "200\n", asked.stderr
    world.remove_all()
    return addresses


def test_same_specification_same_place(world: World) -> None:
    port = free_port()
    assert _web(world, "network-lwip", port) == _web(world, "network-kernel", port)


def test_a_static_program(world: World, static_server: dict[str, Any]) -> None:
    command = static_server.pop("command")
    world.run("fixed", command, elements={"network-kernel": {}}, **static_server)
    url = f"http://{world.address('fixed')}/"
    assert until(lambda: curl(url)) == "static"
    verdicts = world.verdicts("fixed")
    assert {verdict for verdict, _ in verdicts["own-kernel-stack"]} == {"holds"}
    assert {verdict for verdict, _ in verdicts["own-namespaces"]} == {"holds"}
    assert world.address("fixed") in verdicts["own-kernel-stack"][0][1]


def test_names_come_and_go(world: World) -> None:
    world.run("asker", ["sleep", "300"], elements={"network-kernel": {}})
    assert world.exec("asker", "getent", "ahostsv4", "late").returncode != 0
    world.run("late", ["sleep", "300"], elements={"network-lwip": {}})
    found = world.exec("asker", "getent", "ahostsv4", "late")
    assert found.stdout.split()[0] == world.address("late"), found.stderr
    world.remove("late")
    assert world.exec("asker", "getent", "ahostsv4", "late").returncode != 0


def test_private_and_kernel_stacks_are_peers(world: World, static_server: dict[str, Any]) -> None:
    command = static_server.pop("command")
    world.run("fixed", command, elements={"network-kernel": {}}, **static_server)
    world.run("caller", ["sleep", "300"], elements={"network-lwip": {}})
    fetch = (
        "import urllib.request as u; print(u.urlopen('http://fixed/', timeout=5).read().decode())"
    )
    asked = world.exec("caller", "python3", "-c", fetch)
    assert asked.stdout == "static\n", asked.stderr
