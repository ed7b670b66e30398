"""Which processes are in which process namespace, from one pass over /proc.

The kernel lists a namespace's members nowhere, so that each question is a pass over all processes
of the host; whoever asks about every application (`usage`, metrics, lists) would make a thousand
of them. Called by `runtime`.
"""

from __future__ import annotations

import os
import threading
import time

_FRESH_S = 0.03
"""So old a pass may be: less than somebody needs who changes something and then asks again. Where
there is so much to look at that a pass takes longer, at most a quarter of the time goes into it."""


class Processes:
    """Safe from several threads; who comes while another looks gets what that one finds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._good_until = float("-inf")
        self._found: dict[str, list[int]] = {}

    def beside(self, pid: int) -> list[int]:
        """All in the process namespace of `pid`, itself included; none where it is gone."""
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/pid")
        except OSError:
            return []
        with self._lock:
            began = time.monotonic()
            if began > self._good_until:
                self._found = _look()
                now = time.monotonic()
                self._good_until = max(began + _FRESH_S, now + 3 * (now - began))
            return self._found.get(namespace, [])


def _look() -> dict[str, list[int]]:
    """Plain strings, not Path objects: there may be thousands of processes to look at."""
    readlink = os.readlink
    found: dict[str, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found.setdefault(readlink(f"/proc/{entry}/ns/pid"), []).append(int(entry))
            except OSError:
                continue
    return found
