"""The output of a container: Docker's multiplexed frames, as lines with time and stream.

Called by `runtime` for `logs` and `exec`. A frame is a header of 8 bytes (stream number, three
zero bytes, length big-endian) and the payload; with `timestamps` each log entry's payload begins
with its time.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from app.domain.errors import TimedOut
from app.domain.observed import LogLine
from app.runtimes.readable import readable

_LONGEST_LINE = 2**20

Read = Callable[[int], bytes]


def frames(read: Read) -> Iterator[tuple[Literal["stdout", "stderr"], bytes]]:
    """`read(n)` returns up to n bytes, none at the end."""
    while True:
        header = exactly(read, 8)
        if header is None:
            return
        stream, length = struct.unpack(">BxxxL", header)
        payload = exactly(read, length)
        if payload is None:
            return
        yield ("stderr" if stream == 2 else "stdout"), payload


def exactly(read: Read, size: int) -> bytes | None:
    """So many bytes; None where they end before."""
    parts = []
    while size > 0:
        part = read(size)
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def log_lines(read: Read) -> Iterator[tuple[str, LogLine]]:
    """(the time of the entry as Docker wrote it, the line).

    Docker cuts lines at 16 KiB into entries of their own; only the last ends in a newline.
    """
    open_lines: dict[Literal["stdout", "stderr"], tuple[str, bytes]] = {}
    for stream, payload in frames(read):
        stamp, _, text = payload.partition(b" ")
        written = stamp.decode("ascii", "replace")
        first, before = open_lines.pop(stream, (written, b""))
        text = before + text
        if not text.endswith(b"\n") and len(text) < _LONGEST_LINE:
            open_lines[stream] = (first, text)
            continue
        yield written, _line(stream, first, text)
    for stream, (first, text) in open_lines.items():
        yield first, _line(stream, first, text)


def _line(stream: Literal["stdout", "stderr"], stamp: str, text: bytes) -> LogLine:
    return LogLine(
        time=parse_time(stamp) or datetime.now(UTC),
        stream=stream,
        text=text.removesuffix(b"\n").decode(errors="replace"),
    )


def parse_time(text: str) -> datetime | None:
    """RFC 3339 with nanoseconds; None for Docker's zero time."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", text)
    if match is None or match[1].startswith("0001-"):
        return None
    fraction = (match[2] or "0")[:6].ljust(6, "0")
    zone = "+00:00" if match[3] == "Z" else match[3]
    return datetime.fromisoformat(f"{match[1]}.{fraction}{zone}")


def after(stamp: str) -> str:
    """One nanosecond later, as the `since` parameter wants it: `seconds.nanoseconds`."""
    whole, _, rest = stamp.partition(".")
    moment = parse_time(f"{whole.rstrip('Z')}Z")
    if moment is None:
        return "0"
    nanoseconds = int(rest.rstrip("Z")[:9].ljust(9, "0")) + 1 if rest else 1
    return f"{int(moment.timestamp()) + nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def read_both(connection: Any, timeout_s: float) -> tuple[bytes, bytes]:
    """All of stdout and stderr of an exec; TimedOut when it is not over in time."""
    deadline = time.monotonic() + timeout_s
    raw = getattr(connection, "_sock", connection)

    def read(size: int) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0 or not readable(raw.fileno(), left):
            raise TimedOut(f"the command did not end within {timeout_s:g} s")
        data: bytes = raw.recv(size)
        return data

    output: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    for stream, payload in frames(read):
        output[stream].append(payload)
    return b"".join(output["stdout"]), b"".join(output["stderr"])
