"""New connections: each is opened, used for one byte either way, and closed by the server."""

from __future__ import annotations

from tests.bench.harness import Figure, program
from tests.bench.places import Place
from tests.bench.race import race

PORT = "7000"


def measure() -> list[Figure]:
    connections = program("connections")
    figures: list[Figure] = []
    with race() as places:
        places.serve(
            [connections, "server", PORT],
            lambda place: [connections, "client", place.address, PORT, "1", "10"],
        )
        for at_a_time in (1, 16):

            def once(place: Place, at_a_time: int = at_a_time) -> float:
                words = [connections, "client", place.address, PORT, str(at_a_time), "1000"]
                return float(place.call(*words))

            figure = f"new TCP connections, {at_a_time} at a time"
            figures += places.run(figure, "connections/s", once, at_least=1.5)
    return figures
