"""How every figure is measured and shown; used by the measure_*.py files and __main__.py.

Us and the peer are measured in turn, several rounds in one run on one machine, and the medians are
compared: a machine that is slow or busy today is so for both.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build/bench"
PROGRAMS = RESULTS / "bin"
_PROGRAM_SOURCES = Path(__file__).with_name("programs")


class CannotMeasure(Exception):
    """What this machine lacks for a figure."""


@dataclass(frozen=True)
class Figure:
    """One line of a result file, in the form that every `make bench*` writes."""

    figure: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    """ours / peer; whether more is better follows from the unit."""
    target: float | None = None
    """Upper bound of `ratio`, or of `ours` where `unit` is MiB."""
    met: bool | None = None

    @classmethod
    def compare(
        cls,
        figure: str,
        unit: str,
        ours: list[float],
        peer: list[float],
        peer_name: str,
        *,
        at_most: float | None = None,
        ours_at_most: float | None = None,
    ) -> Figure:
        """Medians of the rounds; `at_most` bounds the ratio, `ours_at_most` our own value."""
        mine, theirs = statistics.median(ours), statistics.median(peer)
        ratio = mine / theirs if theirs else float("inf")
        met = None
        if at_most is not None:
            met = ratio <= at_most
        elif ours_at_most is not None:
            met = mine <= ours_at_most
        return cls(
            figure,
            unit,
            round(mine, 3),
            round(theirs, 3),
            peer_name,
            round(ratio, 3),
            at_most if at_most is not None else ours_at_most,
            met,
        )


def alternate(
    rounds: int, ours: Callable[[], float], peer: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Both in turn, after one round of each that does not count (caches, lazy imports)."""
    peer()
    ours()
    mine: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        theirs.append(peer())
        mine.append(ours())
    return mine, theirs


def program(name: str) -> str:
    """A measuring program of tests/bench/programs, compiled as any user's program would be."""
    source = _PROGRAM_SOURCES / f"{name}.c"
    binary = PROGRAMS / name
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        PROGRAMS.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-O2", "-Wall", "-o", str(binary), str(source)], check=True)
    return str(binary)


def output(command: list[str], *, timeout_s: float = 120) -> str:
    """Standard output of a command; what it said on standard error where it failed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise CannotMeasure(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def write(name: str, figures: list[Figure]) -> None:
    """build/bench/NAME.json."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps([asdict(figure) for figure in figures], indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def show(figures: list[Figure]) -> None:
    """The table that people read."""
    table = Table("figure", "unit", "peer")
    for heading in ("ours", "peer's", "ratio", "target", "met"):
        table.add_column(heading, justify="right")
    for figure in figures:
        target = "" if figure.target is None else f"≤ {figure.target:g}"
        met = {None: "", True: "yes", False: "[red]no[/red]"}[figure.met]
        values = (f"{figure.ours:,.5g}", f"{figure.peer:,.5g}", f"{figure.ratio:.3g}")
        table.add_row(figure.figure, figure.unit, figure.peer_name, *values, target, met)
    Console(width=None if Console().is_terminal else 140).print(table)
