"""One TCP connection between two applications, as fast as it goes."""

from __future__ import annotations

from tests.bench.harness import Figure, program
from tests.bench.places import Place
from tests.bench.race import race

PORT = "7000"
MILLISECONDS = "1000"


def measure() -> list[Figure]:
    tcp = program("tcp")

    def once(place: Place) -> float:
        return float(place.call(tcp, "stream", place.address, PORT, MILLISECONDS)) / 1e9

    with race() as places:
        places.serve(
            [tcp, "server", PORT], lambda place: [tcp, "rtt", place.address, PORT, "64", "10"]
        )
        return places.run("TCP stream, one connection", "Gbit/s", once, at_least=1.2)
