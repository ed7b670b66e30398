"""One server and its clients in several places, measured in turn; used by network/*.py."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from tests.bench.gvisor import Gvisor
from tests.bench.harness import CannotMeasure, Figure
from tests.bench.places import Kernel, Place, Private
from tests.bench.worlds import ours, ready

ROUNDS = 5


class Race:
    """Ours and its peers; a peer that cannot take part is a line that says why."""

    def __init__(self, private: Private, kernel: Kernel, others: list[Place]) -> None:
        self._private = private
        self._kernel = kernel
        self._others = others
        self._absent: dict[str, str] = {}

    def serve(self, server: list[str], probe: Callable[[Place], list[str]]) -> None:
        """Start the server everywhere, and wait until a client of each place succeeds once."""
        both: list[Place] = [self._kernel, self._private]
        for place in both:
            place.serve(*server)
            ready(lambda place=place: place.call(*probe(place)))  # type: ignore[misc]
        for place in list(self._others):
            try:
                place.serve(*server)
                ready(lambda place=place: place.call(*probe(place)))  # type: ignore[misc]
            except CannotMeasure as error:
                self._give_up(place, error)

    def _give_up(self, place: Place, error: CannotMeasure) -> None:
        self._absent[place.name] = str(error)
        self._others.remove(place)

    def run(
        self, figure: str, unit: str, once: Callable[[Place], float], **target: float
    ) -> list[Figure]:
        """Medians of ROUNDS alternating rounds, after one that does not count."""
        values: dict[str, list[float]] = {}
        for turn in range(ROUNDS + 1):
            for place in [self._kernel, *self._others, self._private]:
                try:
                    value = once(place)
                except CannotMeasure as error:
                    if place not in self._others:
                        raise
                    self._give_up(place, error)
                    continue
                if turn > 0:
                    values.setdefault(place.name, []).append(value)
        mine = values[self._private.name]
        kernel = values[self._kernel.name]
        figures = [Figure.compare(figure, unit, mine, kernel, self._kernel.name, **target)]
        for place in self._others:
            figures.append(Figure.compare(figure, unit, mine, values[place.name], place.name))
        for name, why in self._absent.items():
            figures.append(Figure.absent(figure, unit, name, why, ours=statistics.median(mine)))
        return figures


@contextlib.contextmanager
def race(*, gvisor: bool = True, **settings: Any) -> Iterator[Race]:
    """Applications with these settings of the network element, the kernel, and gVisor."""
    with ours() as world, Kernel() as kernel, contextlib.ExitStack() as stack:
        others: list[Place] = [stack.enter_context(Gvisor())] if gvisor else []
        yield Race(Private(world, **settings), kernel, others)
