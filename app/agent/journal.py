"""What instances told (`event TEXT`), kept on this host until the control plane has taken it.

Why a file: the control plane may be away for a while, and the agent may be killed at any moment.
Each report has a number that never comes twice, so that who remembers the last number it has
recorded records each report once. Written by the broker's thread, read by `local`.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from app.domain.observed import Report

_KEPT = 1000
"""Older ones are gone: a control plane that is away for long misses them."""


class Journal:
    """One file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._reports: deque[Report] = deque(_read(path), maxlen=_KEPT)
        self._lines = 0
        self._rewrite()

    def add(self, application: str, application_id: str, pid: int, text: str) -> None:
        """One report, written before this returns: a kill of the agent does not lose it."""
        with self._lock:
            last = self._reports[-1].number if self._reports else 0
            # By the clock, so that numbers rise even where the file was lost.
            number = max(last + 1, time.time_ns() // 1000)
            report = Report(
                number=number,
                time=datetime.now(UTC),
                application=application,
                application_id=application_id,
                pid=pid,
                text=text,
            )
            self._reports.append(report)
            os.write(self._file, _line(report))
            self._lines += 1
            if self._lines > 2 * _KEPT:
                os.close(self._file)
                self._rewrite()

    def after(self, number: int) -> list[Report]:
        """Oldest first."""
        with self._lock:
            return [report for report in self._reports if report.number > number]

    def close(self) -> None:
        """The file stays."""
        os.close(self._file)

    def _rewrite(self) -> None:
        """The file with what is kept, and no half line of a former life."""
        temporary = self._path.with_name(f".{self._path.name}.new")
        temporary.write_bytes(b"".join(map(_line, self._reports)))
        temporary.replace(self._path)
        self._lines = len(self._reports)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


def _line(report: Report) -> bytes:
    return report.model_dump_json().encode() + b"\n"


def _read(path: Path) -> list[Report]:
    found = []
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            found.append(Report.model_validate_json(line))
        except ValidationError:
            continue  # the last one, half written when the agent was killed
    return found
