"""What the file-system element counts: `STATE/apps/NAME/data/filesystem.counters`.

The layout is that of images/filesystem/counters.h: a head of 16 numbers, then slots of as many, to
be summed. Written by the application, so nothing in it is trusted. Called by `instrumenting`.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

_NAMES = (
    "opens",
    "stats",
    "lists",
    "changes",
    "copies_up",
    "copied_bytes",
    "fills",
    "filled_bytes",
    "indexes",
    "faults",
)
_WIDTH, _SLOTS, _VERSION = 16, 32, 1
_FILE = struct.Struct(f"={_WIDTH * (1 + _SLOTS)}Q")
_MOST = 2**63 - 1


def read(data: Path) -> dict[str, int]:
    """Totals since the application was made; empty while nothing was counted. `index_done` and
    `index_total` (bytes of an archive) are there while an index is made."""
    try:
        fd = os.open(
            data / "filesystem.counters", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except OSError:
        return {}
    with os.fdopen(fd, "rb") as file:
        try:
            content = file.read(_FILE.size)
        except OSError:  # no file at all
            return {}
    if len(content) < _FILE.size:
        return {}
    numbers = _FILE.unpack(content)
    if numbers[0] != _VERSION:
        return {}
    found = {
        name: min(sum(numbers[_WIDTH + at :: _WIDTH]), _MOST) for at, name in enumerate(_NAMES)
    }
    done, total = numbers[1], min(numbers[2], _MOST)
    if total > 0:
        found |= {"index_done": min(done, total), "index_total": total}
    return found
