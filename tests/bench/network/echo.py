"""Round trip of 64 bytes between two applications: where waiting threads may spin, and where they
always sleep."""

from __future__ import annotations

from tests.bench.harness import Figure, program
from tests.bench.places import Place
from tests.bench.race import race

PORT = "7000"
COUNT = 10_000


def measure() -> list[Figure]:
    tcp = program("tcp")

    def once(place: Place, count: int = COUNT) -> float:
        words = [tcp, "rtt", place.address, PORT, "64", str(int(count * place.pace))]
        return float(place.call(*words)) / 1e3

    figures: list[Figure] = []
    cases: list[tuple[str, dict[str, int], float]] = [
        ("spinning", {}, 1 / 6),
        ("sleeping", {"spin": 0}, 1 / 1.5),
    ]
    for title, settings, at_most in cases:
        # gVisor does not know the difference: once is enough.
        with race(gvisor=not settings, **settings) as places:
            places.serve(
                [tcp, "server", PORT], lambda place: [tcp, "rtt", place.address, PORT, "64", "10"]
            )
            figure = f"TCP round trip, 64 B, {title}"
            figures += places.run(figure, "µs", once, at_most=at_most)
    return figures
