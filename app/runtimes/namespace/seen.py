"""What was seen of each application, for as long as nothing has been heard of it since.

A look at all applications is asked for after every change of one: with a thousand of them, reading
the status of each anew took a tenth of a second, at each start and each end. Used by `runtime`.

Theory of operation. Whatever is heard of an application gives it a new number. What was seen is
kept with the number that held before it was looked at: a change in between has made that number
old, whichever thread comes first.
"""

from __future__ import annotations

import itertools

from app.domain.observed import Observed


class Seen:
    """Safe from several threads; each step is one operation on a dictionary."""

    def __init__(self) -> None:
        self._next = itertools.count()
        self._numbers: dict[str, int] = {}
        self._kept: dict[str, tuple[int, Observed]] = {}

    def heard(self, name: str) -> None:
        """It may be different from now on."""
        self._numbers[name] = next(self._next)

    def number(self, name: str) -> int:
        """To be asked for before looking, and given to `keep`."""
        return self._numbers.get(name, -1)

    def keep(self, observed: Observed, number: int) -> None:
        """This is how it is, unless something has been heard meanwhile."""
        self._kept[observed.name] = (number, observed)

    def current(self, name: str) -> Observed | None:
        """What was seen last, if nothing has been heard since."""
        kept = self._kept.get(name)
        return kept[1] if kept is not None and kept[0] == self.number(name) else None

    def kept(self, observed: Observed) -> Observed:
        """The object that was seen before, where it is equal: who compares by identity is done."""
        kept = self._kept.get(observed.name)
        return kept[1] if kept is not None and kept[1] == observed else observed

    def forget(self, name: str) -> None:
        """It is no more."""
        self._numbers.pop(name, None)
        self._kept.pop(name, None)
