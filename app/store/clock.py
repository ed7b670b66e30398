"""The store's times: UTC, ISO 8601, microseconds."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """The present moment as the tables hold it."""
    return stamp(datetime.now(UTC))


def stamp(moment: datetime) -> str:
    """A moment as the tables hold it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
