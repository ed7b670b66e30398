"""The store's times: UTC, ISO 8601, microseconds."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """The present moment as the tables hold it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
