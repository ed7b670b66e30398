"""Faults and reports of the applications on this host. Called by `local`.

What holds is kept beside the launch, so that an agent that is started anew, alone, can tell it to
instances that come back; the end of each is a moment, so nothing is prolonged.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from app.broker.instruments import Instruments
from app.domain.errors import TimedOut
from app.domain.fault import Counters, FaultOrder
from app.domain.ports import Line, ReportKind
from app.domain.usage import Usage

_FILE = "faults.json"
_COUNTERS_S = 1.0
_PAGE, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
_ORDERS = TypeAdapter(list[FaultOrder])


def write_faults(directory: Path, orders: list[FaultOrder]) -> None:
    """What holds from now on."""
    kept = [order for order in orders if not order.spec.only_resets]
    new = directory / f"{_FILE}.new"
    new.write_bytes(_ORDERS.dump_json(kept))
    new.rename(directory / _FILE)


def read_faults(directory: Path, *, files: bool | None = None) -> list[FaultOrder]:
    """What still holds: of files, of packets (False), or all."""
    try:
        orders = _ORDERS.validate_json((directory / _FILE).read_bytes())
    except (OSError, ValueError):
        return []
    now = datetime.now(UTC)
    held = [order for order in orders if order.ends is None or order.ends > now]
    return [order for order in held if files is None or files == (order.spec.file is not None)]


def set_faults(instruments: Instruments, orders: list[FaultOrder]) -> dict[str, Counters]:
    """Returns when they hold, with what each has done so far."""
    instruments.set_faults(orders)
    try:
        lines = report(instruments, "faults")
    except TimedOut:
        return {}  # a stopped program: it hears them before it goes on
    return by_id(lines)


def by_id(lines: list[Line]) -> dict[str, Counters]:
    """Of a report of faults: the numbers of each."""
    return {
        str(line["id"]): {key: value for key, value in line.items() if isinstance(value, int)}
        for line in lines
    }


def report(instruments: Instruments, what: ReportKind) -> list[Line]:
    """Numbers as numbers. Raises `TimedOut`."""
    return [
        {key: _number(value) for key, value in line.items()} for line in instruments.report(what)
    ]


def _number(text: str) -> int | float | str:
    if text.isdecimal():
        return int(text)
    return float(text) if re.fullmatch(r"\d+\.\d+", text, re.ASCII) else text


def usage(
    asked: dict[str, Callable[[float], list[dict[str, str]]]],
    pids: Callable[[str], list[int]],
    wires: Callable[[str], list[str]],
    files: Callable[[str], dict[str, int]],
) -> list[Usage]:
    """All were asked at once; one that does not answer in time is shown without counters."""
    until = time.monotonic() + _COUNTERS_S
    found = []
    for name, answer in asked.items():
        try:
            lines = answer(max(0.0, until - time.monotonic()))
        except TimedOut:
            lines = []
        counters = {key: int(value) for line in lines for key, value in line.items()}
        memory, cpu = 0, 0.0
        for pid in pids(name):
            used = _process(pid)
            memory, cpu = memory + used[0], cpu + used[1]
        found.append(
            Usage(
                application=name,
                counters=counters,
                files=files(name),
                wires=wires(name),
                memory=memory,
                cpu=cpu,
            )
        )
    return found


def _process(pid: int) -> tuple[int, float]:
    """Resident bytes and processor seconds; zeros where it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0, 0.0
    fields = text.rpartition(")")[2].split()
    return int(fields[21]) * _PAGE, (int(fields[11]) + int(fields[12])) / _TICKS
