"""Reading an application's output: `log.1` and `log` as images/_shim/logfile.c writes them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

from app.domain.observed import LogLine
from app.runtimes.namespace.inotify import Inotify

_WAKE_S = 1.0
"""The end of a program is looked for at least so often while nothing is written."""


def parse(line: bytes) -> tuple[LogLine, bool] | None:
    """`TIME STREAM F|P TEXT` → (line, whether it ends there); None for a damaged one."""
    words = line.split(b" ", 3)
    if len(words) != 4 or words[1] not in (b"stdout", b"stderr"):
        return None
    stream: Literal["stdout", "stderr"] = "stdout" if words[1] == b"stdout" else "stderr"
    try:
        time = datetime.fromisoformat(words[0].decode()[:26] + "+00:00")
    except ValueError:
        return None
    text = words[3].decode(errors="replace")
    return LogLine(time=time, stream=stream, text=text), words[2] == b"F"


def _joined(lines: Iterator[bytes]) -> Iterator[LogLine]:
    """Parts of long lines put together again."""
    parts: dict[str, list[LogLine]] = {"stdout": [], "stderr": []}
    for raw in lines:
        found = parse(raw)
        if found is None:
            continue
        line, ends = found
        parts[line.stream].append(line)
        if ends:
            pieces = parts[line.stream]
            text = "".join(piece.text for piece in pieces)
            yield pieces[0].model_copy(update={"text": text}) if len(pieces) > 1 else line
            parts[line.stream] = []


def read(
    directory: Path, *, follow: bool, tail: int | None, ended: Callable[[], bool]
) -> Iterator[LogLine]:
    """Oldest first; with `follow`, until `ended` says so and all was read."""
    reader = _Reader(directory)
    if tail is not None:
        yield from deque(_joined(reader.present()), maxlen=tail)
    else:
        yield from _joined(reader.present())
    if follow:
        yield from _joined(reader.later(ended))


class _Reader:
    """Goes through `log.1`, `log` and, after a rotation, the new `log`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = None if not (directory / "log").exists() else (directory / "log").open("rb")
        self._rest = b""

    def present(self) -> Iterator[bytes]:
        """What has been written so far."""
        try:
            with (self._directory / "log.1").open("rb") as old:
                for line in old:
                    yield line.rstrip(b"\n")
        except FileNotFoundError:
            pass
        yield from self._more()

    def later(self, ended: Callable[[], bool]) -> Iterator[bytes]:
        """What is written from now on."""
        with Inotify() as inotify:
            inotify.watch(self._directory, written=True)
            while True:
                over = ended()  # asked before reading: nothing is written after the end
                yield from self._more()
                if self._rotated():
                    self._file = (self._directory / "log").open("rb")
                    continue
                if over:
                    return
                inotify.wait(_WAKE_S)

    def _more(self) -> Iterator[bytes]:
        if self._file is None:
            try:
                self._file = (self._directory / "log").open("rb")
            except FileNotFoundError:
                return
        while block := self._file.read(1 << 16):
            *lines, self._rest = (self._rest + block).split(b"\n")
            yield from lines

    def _rotated(self) -> bool:
        if self._file is None:
            return False
        try:
            now = (self._directory / "log").stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(self._file.fileno())
        if (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino):
            return False
        self._file.close()
        return True
