"""`python -m tests.bench [NAME…]`: measures, prints a table, writes build/bench/NAME.json.

Each tests/bench/measure_NAME.py has `measure() -> list[Figure]`, and raises `CannotMeasure` with
the reason where this machine lacks something. Exit status 1: a target was missed, or a figure could
not be measured.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from tests.bench.harness import CannotMeasure, Figure, show, write


def main(names: list[str]) -> int:
    known = sorted(
        path.stem.removeprefix("measure_") for path in Path(__file__).parent.glob("measure_*.py")
    )
    if unknown := sorted(set(names) - set(known)):
        print(f"no figure {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    everything: list[Figure] = []
    failed = False
    for name in names or known:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        try:
            figures = importlib.import_module(f"tests.bench.measure_{name}").measure()
        except (CannotMeasure, AssertionError) as error:  # the latter from the acceptance world
            print(f"cannot measure {name}: {error}", file=sys.stderr)
            failed = True
            continue
        write(name, figures)
        everything += figures
    if everything:
        show(everything)
    return 1 if failed or any(figure.met is False for figure in everything) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
