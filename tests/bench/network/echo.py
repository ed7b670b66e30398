"""Round trip of 64 bytes between two applications: where waiting threads may spin, where they
always sleep, and the latter with both ends on one core and on two.

Where the scheduler may choose, it puts a sleeping pair on one core or on two, and a kernel's round
trip differs by a factor of five between these; the pinned rows say which is which.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from tests.bench.harness import Figure, program
from tests.bench.places import Place
from tests.bench.race import race

PORT = "7000"
COUNT = 10_000


@dataclass(frozen=True)
class Case:
    title: str
    settings: dict[str, int] = field(default_factory=dict)
    target: dict[str, float] = field(default_factory=dict)
    cores: tuple[int, int] | None = None
    """The server's and the client's."""

    def on_core(self, end: int) -> list[str]:
        return [] if self.cores is None else ["taskset", "-c", str(self.cores[end])]


def cases() -> list[Case]:
    mine = sorted(os.sched_getaffinity(0))
    sleeping = {"spin": 0}
    return [
        Case("spinning", target={"at_most": 1 / 6}),
        Case("sleeping", sleeping, {"at_most": 1 / 1.5}),
        Case("sleeping, both ends on one core", sleeping, cores=(mine[0], mine[0])),
        Case("sleeping, each end on its own core", sleeping, cores=(mine[0], mine[-1])),
    ]


def measure() -> list[Figure]:
    figures: list[Figure] = []
    for case in cases():
        figures += race_of(case)
    return figures


def race_of(case: Case) -> list[Figure]:
    tcp = program("tcp")
    server, client = case.on_core(0), case.on_core(1)

    def once(place: Place, count: int = COUNT) -> float:
        words = [*client, tcp, "rtt", place.address, PORT, "64", str(int(count * place.pace))]
        return float(place.call(*words)) / 1e3

    # gVisor does not know the difference: once is enough.
    with race(gvisor=not case.settings, **case.settings) as places:
        places.serve(
            [*server, tcp, "server", PORT],
            lambda place: [tcp, "rtt", place.address, PORT, "64", "10"],
        )
        return places.run(f"TCP round trip, 64 B, {case.title}", "µs", once, **case.target)
