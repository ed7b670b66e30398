"""The escape tables that the libraries keep: `STATE/apps/NAME/data/escapes.<kind>`.

Rows of 64 bytes (images/_core/escape.c): count, state (2: named), name of 40 bytes, reserved.
Written by the application, so nothing in it is trusted.
"""

from __future__ import annotations

import struct
from pathlib import Path

_ROW = struct.Struct("=QQ40sQ")
_MAX_ROWS = 64
_NAMED = 2


def read(data: Path, kind: str) -> dict[str, int] | None:
    """What could not be served → how often; None where no table was made."""
    path = data / f"escapes.{kind}"
    try:
        if path.is_symlink() or not path.is_file():
            return None
        with path.open("rb") as file:
            content = file.read(_ROW.size * _MAX_ROWS)
    except OSError:
        return None
    found: dict[str, int] = {}
    for at in range(0, len(content) - _ROW.size + 1, _ROW.size):
        count, state, name, _ = _ROW.unpack_from(content, at)
        if state == _NAMED and count:
            text = name.split(b"\0")[0].decode("ascii", errors="replace")
            found[text] = found.get(text, 0) + count
    return found
