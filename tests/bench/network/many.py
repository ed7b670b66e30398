"""10,000 open connections of one server: what one costs, and whether the others slow it down."""

from __future__ import annotations

from tests.bench.harness import Figure, program
from tests.bench.places import Kernel, Place, Private
from tests.bench.race import ROUNDS
from tests.bench.worlds import ours, ready

PORT = "7000"
FEW, MANY = 10, 10_000


def measure() -> list[Figure]:
    many = program("many")
    mine: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for _ in range(ROUNDS):  # with fresh servers: memory that was once used is kept
        with ours() as world, Kernel() as kernel:
            places: tuple[tuple[Place, list[dict[str, float]]], ...] = (
                (kernel, theirs),
                (Private(world), mine),
            )
            for place, results in places:
                place.serve(many, "server", PORT)
                ready(lambda place=place: place.call(many, "client", place.address, PORT, "1", "1"))  # type: ignore[misc]
                results.append(once(place, many))

    def compare(title: str, unit: str, key: str, **target: float) -> Figure:
        ours_values, peer_values = ([row[key] for row in rows] for rows in (mine, theirs))
        return Figure.compare(title, unit, ours_values, peer_values, Kernel.name, **target)

    few, same, full = ([row[key] for row in mine] for key in ("few_us", "same_us", "full_us"))
    open_now = f"with {MANY:,} open connections"
    return [
        Figure.compare(
            f"round trip {open_now}, on {FEW} of them",
            "µs",
            same,
            few,
            f"with {FEW} open",
            at_most=1.25,
        ),
        # No cache holds what a processor needs for one of so many; neither does it the kernel's.
        Figure.compare(f"round trip {open_now}, on any", "µs", full, few, f"with {FEW} open"),
        Figure.compare(
            f"the same of the {Kernel.name}",
            "µs",
            [row["full_us"] for row in theirs],
            [row["few_us"] for row in theirs],
            f"with {FEW} open",
        ),
        compare(f"round trip {open_now}, on any", "µs", "full_us"),
        compare("memory of an idle connection, the program's", "KiB", "own_kib", ours_at_most=4.0),
        compare("memory of an idle connection, the kernel's", "KiB", "kernel_kib"),
    ]


def once(place: Place, many: str) -> dict[str, float]:
    """The client's three lines: round trip in ns, the server's memory and the kernel's in KiB."""
    text = place.call(many, "client", place.address, PORT, str(FEW), str(MANY))
    few, same, full = ([float(word) for word in line.split()] for line in text.splitlines())
    added = MANY - FEW
    return {
        "few_us": few[0] / 1e3,
        "same_us": same[0] / 1e3,
        "full_us": full[0] / 1e3,
        "own_kib": (same[1] - few[1]) / added,
        "kernel_kib": (same[2] - few[2]) / added / 2,  # the client's half is in it
    }
