"""Waiting for one descriptor. With poll(2): select(2) knows only the first 1,024 of them."""

from __future__ import annotations

import select


def readable(fd: int, timeout_s: float) -> bool:
    """Something can be read from it (for a pidfd: the process has ended), within the time."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0, round(timeout_s * 1000))))
