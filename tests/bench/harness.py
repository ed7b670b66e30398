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


_LESS_IS_BETTER = ("ns", "µs", "ms", "s", "MiB", "KiB")
_LIMITS = ("s", "MiB", "KiB")


@dataclass(frozen=True)
class Figure:
    """One line of a result file, in the form that every `make bench*` writes."""

    figure: str
    unit: str
    ours: float | None
    peer: float | None
    peer_name: str
    ratio: float | None
    """ours / peer; whether more is better follows from the unit."""
    target: float | None = None
    """Bound of `ratio`, or of `ours` where `unit` is MiB or KiB."""
    met: bool | None = None
    why: str = ""
    """What stood in the way where a value is missing."""

    @property
    def less_is_better(self) -> bool:
        return self.unit in _LESS_IS_BETTER

    @property
    def limited(self) -> bool:
        """The target bounds our own value."""
        return self.target is not None and self.unit in _LIMITS

    @property
    def bound(self) -> str:
        """The target as people write it."""
        if self.target is None:
            return ""
        unit = f" {self.unit}" if self.limited else ""
        return f"{'≤' if self.less_is_better else '≥'} {self.target:.3g}{unit}"

    @property
    def times_better(self) -> float | None:
        """How many times better than the peer; against the limit where one is set on `ours`."""
        if self.ours is None or self.peer is None or self.ratio is None:
            return None
        if self.limited and self.target is not None:
            return self.target / self.ours if self.ours > 0 else None
        if not self.less_is_better:
            return self.ratio
        return 1 / self.ratio if self.ratio > 0 else None

    @property
    def times_wanted(self) -> float | None:
        """The target on the scale of `times_better`."""
        if self.target is None:
            return None
        if self.limited:
            return 1.0
        return 1 / self.target if self.less_is_better else self.target

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
        at_least: float | None = None,
        ours_at_most: float | None = None,
    ) -> Figure:
        """Medians of the rounds; `at_most` and `at_least` bound the ratio, `ours_at_most` our own
        value."""
        mine, theirs = statistics.median(ours), statistics.median(peer)
        ratio = mine / theirs if theirs else float("inf")
        met, target = None, None
        if at_most is not None:
            met, target = ratio <= at_most, at_most
        elif at_least is not None:
            met, target = ratio >= at_least, at_least
        elif ours_at_most is not None:
            met, target = mine <= ours_at_most, ours_at_most
        values = (round(mine, 3), round(theirs, 3), peer_name, round(ratio, 3))
        return cls(figure, unit, *values, target, met)

    @classmethod
    def absent(
        cls, figure: str, unit: str, peer_name: str, why: str, ours: float | None = None
    ) -> Figure:
        """A value that could not be had; `met` is false where it was ours."""
        mine = None if ours is None else round(ours, 3)
        met = False if ours is None else None
        return cls(figure, unit, mine, None, peer_name, None, met=met, why=why)


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
    """The table that people read, and below it what is missing."""
    table = Table("figure", "unit", "peer")
    for heading in ("ours", "peer's", "ratio", "target", "met"):
        table.add_column(heading, justify="right")
    for figure in figures:
        met = {None: "", True: "yes", False: "[red]no[/red]"}[figure.met]
        values = (_number(figure.ours, ",.5g"), _number(figure.peer, ",.5g"))
        ratio = _number(figure.ratio, ".3g")
        table.add_row(
            figure.figure, figure.unit, figure.peer_name, *values, ratio, figure.bound, met
        )
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table)
    for figure in figures:
        if figure.why:
            why = f"not measured: {figure.figure}, {figure.peer_name}: {figure.why}"
            console.print(why, markup=False, soft_wrap=True)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
