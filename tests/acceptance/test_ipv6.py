"""IPv6 through the whole path: REST, wiring, names, published ports, two unmodified programs."""

from __future__ import annotations

from functools import partial

from tests.acceptance.world import World, curl, free_port, until

SERVER = ["python3", "-m", "http.server", "80", "--bind", "::"]


def test_an_application_is_reached_over_both_families(world: World) -> None:
    port = free_port()
    world.run(
        "six",
        SERVER,
        working_directory="/",
        elements={"network-lwip": {}},
        ports=[f"{port}:80"],
    )
    status = world.get("six")["status"]
    for place in (f"[{status['address6']}]", status["address"], f"127.0.0.1:{port}"):
        assert "Directory listing" in str(until(partial(curl, f"http://{place}/")))

    # A peer finds it by its name, over either family, and is seen with its own address.
    world.run("asker", ["sleep", "60"], elements={"network-lwip": {}})
    code = (
        "import socket, urllib.request as u\n"
        "print(*[a[4][0] for a in socket.getaddrinfo('six', 80, 0, socket.SOCK_STREAM)])\n"
        "print(u.urlopen('http://six/').status)"
    )
    answer = world.exec("asker", "python3", "-c", code)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == [status["address6"], status["address"], "200"]
