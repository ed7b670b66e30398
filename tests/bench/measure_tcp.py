"""TCP between two private stacks (relay, tap, bridge) against the kernel's over a veth pair."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.harness import Figure, alternate, program
from tests.bench.worlds import SERVER, Veth, call_in, ours, ready

PORT = 7000
ROUNDS = 5
PEER = "kernel, two namespaces over veth"


def measure() -> list[Figure]:
    tcp = program("tcp")
    with Veth() as veth, ours() as world:
        veth.serve(tcp, "server", str(PORT))
        world.run("bench-server", [tcp, "server", str(PORT)], elements={"network-lwip": {}})
        world.run("bench-client", ["sleep", "infinity"], elements={"network-lwip": {}})
        address = world.address("bench-server")

        def mine(mode: str, *rest: str) -> Callable[[], float]:
            words = [tcp, mode, address, str(PORT), *rest]
            return lambda: float(call_in(world, "bench-client", *words))

        def theirs(mode: str, *rest: str) -> Callable[[], float]:
            return lambda: float(veth.call(tcp, mode, SERVER, str(PORT), *rest))

        ready(mine("rtt", "64", "10"))
        ready(theirs("rtt", "64", "10"))
        rtt = alternate(ROUNDS, mine("rtt", "64", "5000"), theirs("rtt", "64", "5000"))
        bits = alternate(ROUNDS, mine("stream", "1000"), theirs("stream", "1000"))
    micro = [[value / 1e3 for value in side] for side in rtt]
    giga = [[value / 1e9 for value in side] for side in bits]
    return [
        Figure.compare("TCP round trip, 64 B, relay", "µs", micro[0], micro[1], PEER),
        Figure.compare("TCP stream, relay", "Gbit/s", giga[0], giga[1], PEER),
    ]
