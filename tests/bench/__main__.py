"""`python -m tests.bench [NAME…]`: measures, prints a table, writes build/bench/*.json.

A name is a file measure_NAME.py, one of the folders `network` and `filesystem`, or one figure of a
folder, as in `network.redis`. Each file has `measure() -> list[Figure]`, and raises `CannotMeasure`
with the reason where this machine lacks something; the others go on. A whole folder writes
FOLDER.json and FOLDER.svg, one of its figures alone FOLDER.NAME.json. Exit status 1: a target was
missed, or something could not be measured.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

from tests.bench import plot
from tests.bench.harness import RESULTS, CannotMeasure, Figure, show, write

_HERE = Path(__file__).parent
# In the order of the table of targets.
NETWORK = ("echo", "stream", "redis", "nginx", "connections", "tap", "many", "memory")
FILESYSTEM = ("small", "seek", "calls", "start", "encrypted", "union")
TITLES = {
    "network": "network-lwip, times better than the peer",
    "filesystem": "filesystem, times better than the peer",
}


def known() -> dict[str, list[str]]:
    """Name → the modules that measure it, in the order of the table."""
    files = sorted(path.stem for path in _HERE.glob("measure_*.py"))
    whole = {file.removeprefix("measure_"): [file] for file in files}
    whole["network"] = [f"network.{part}" for part in NETWORK]
    whole["filesystem"] = [f"filesystem.{part}" for part in FILESYSTEM]
    parts = [*whole["network"], *whole["filesystem"]]
    return whole | {module: [module] for module in parts}


def take(module: str) -> list[Figure]:
    """The figures of one module, or one line that says why there are none."""
    print(f"measuring {module.removeprefix('measure_')}", file=sys.stderr, flush=True)
    try:
        measured: list[Figure] = importlib.import_module(f"tests.bench.{module}").measure()
        return measured
    # The second comes from the acceptance world, the third from a client that hangs.
    except (CannotMeasure, AssertionError, subprocess.SubprocessError) as error:
        return [Figure.absent(module, "", "", str(error))]


def main(names: list[str]) -> int:
    modules = known()
    if unknown := sorted(set(names) - set(modules)):
        print(f"no figure {', '.join(unknown)}; there are {', '.join(modules)}", file=sys.stderr)
        return 2
    everything: list[Figure] = []
    for name in names or [name for name in modules if "." not in name]:
        figures = [figure for module in modules[name] for figure in take(module)]
        write(name, figures)
        if name in TITLES:
            (RESULTS / f"{name}.svg").write_text(plot.svg(TITLES[name], figures))
        everything += figures
    show(everything)
    return 1 if any(figure.met is False for figure in everything) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
