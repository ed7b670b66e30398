"""redis-benchmark against redis-server."""

from __future__ import annotations

import csv

from tests.bench.harness import CannotMeasure, Figure
from tests.bench.places import Place
from tests.bench.race import race
from tests.bench.worlds import need_programs

SERVER = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]
# Clients: requests of a round, target.
CASES = {1: (40_000, 4.0), 50: (100_000, 1.5)}


def requests_per_second(text: str) -> float:
    """The GET row of `redis-benchmark --csv`."""
    for row in csv.reader(text.splitlines()):
        if row and row[0].startswith("GET"):
            return float(row[1])
    raise CannotMeasure(f"redis-benchmark said: {text[:200]}")


def measure() -> list[Figure]:
    need_programs("redis-server", "redis-benchmark")
    figures: list[Figure] = []
    with race() as places:
        # Not redis-benchmark itself: it waits for ever for a server that does not answer.
        places.serve(SERVER, lambda place: ["redis-cli", "-h", place.address, "ping"])
        for clients, (requests, at_least) in CASES.items():

            def once(place: Place, clients: int = clients, requests: int = requests) -> float:
                count = int(requests * place.pace)
                options = f"-t get -d 64 --csv -c {clients} -n {count}".split()
                text = place.call("redis-benchmark", "-h", place.address, *options)
                return requests_per_second(text)

            figure = f"redis GET, {clients} client{'s' if clients > 1 else ''}"
            figures += places.run(figure, "requests/s", once, at_least=at_least)
    return figures
