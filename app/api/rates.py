"""How many requests one client may make: a token bucket each. Called by `guard.py`."""

from __future__ import annotations

import time
from collections import OrderedDict

from app.domain.errors import TooManyRequests

_BURST_S = 2.0
"""Of the rate at once."""
_MOST_CLIENTS = 10_000


class Rates:
    """In the event loop only: no lock."""

    def __init__(self, per_second: float) -> None:
        self._rate = per_second
        self._full = max(1.0, per_second * _BURST_S)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """One request. Raises `TooManyRequests` (429)."""
        if self._rate <= 0:
            return
        moment = time.monotonic()
        left, then = self._buckets.pop(client, (self._full, moment))
        left = min(self._full, left + (moment - then) * self._rate)
        self._buckets[client] = (max(0.0, left - 1.0), moment)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if left < 1.0:
            raise TooManyRequests(
                f"more than {self._rate:g} requests a second from {client}",
                remedy="wait a second; CSE_RATE_LIMIT is the bound",
            )
