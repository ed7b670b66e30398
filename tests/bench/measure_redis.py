"""redis-benchmark against redis-server, both on private stacks, against both on the kernel's."""

from __future__ import annotations

import csv
from collections.abc import Callable

from tests.bench.harness import CannotMeasure, Figure, alternate
from tests.bench.worlds import SERVER, Veth, call_in, need_programs, ours, ready

ROUNDS = 5
REQUESTS = {1: 20_000, 50: 50_000}
SERVER_COMMAND = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]
PEER = "kernel, two namespaces over veth"


def requests_per_second(text: str) -> float:
    """The GET row of `redis-benchmark --csv`."""
    rows = list(csv.reader(text.splitlines()))
    for row in rows:
        if row and row[0].startswith("GET"):
            return float(row[1])
    raise CannotMeasure(f"redis-benchmark said: {text[:200]}")


def benchmark(host: str, clients: int, requests: int) -> list[str]:
    words = f"redis-benchmark -h {host} -t get -d 64 --csv -c {clients} -n {requests}"
    return words.split()


def measure() -> list[Figure]:
    need_programs("redis-server", "redis-benchmark")
    figures = []
    with Veth() as veth, ours() as world:
        veth.serve(*SERVER_COMMAND)
        world.run("bench-redis", SERVER_COMMAND, elements={"network-lwip": {}}, tmpfs=["/tmp"])
        world.run("bench-client", ["sleep", "infinity"], elements={"network-lwip": {}})
        address = world.address("bench-redis")

        def mine(clients: int, requests: int) -> Callable[[], float]:
            words = benchmark(address, clients, requests)
            return lambda: requests_per_second(call_in(world, "bench-client", *words))

        def theirs(clients: int, requests: int) -> Callable[[], float]:
            words = benchmark(SERVER, clients, requests)
            return lambda: requests_per_second(veth.call(*words))

        # Not redis-benchmark itself: it waits for ever for a server that does not answer.
        ready(lambda: call_in(world, "bench-client", "redis-cli", "-h", address, "ping"))
        ready(lambda: veth.call("redis-cli", "-h", SERVER, "ping"))
        for clients, requests in REQUESTS.items():
            both = alternate(ROUNDS, mine(clients, requests), theirs(clients, requests))
            title = f"redis GET, {clients} client{'s' if clients > 1 else ''}, relay"
            figures.append(Figure.compare(title, "requests/s", *both, PEER))
    return figures
