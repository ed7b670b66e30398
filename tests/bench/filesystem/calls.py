"""What the library costs where it has nothing to do: open files, and paths outside every mount."""

from __future__ import annotations

import statistics
from pathlib import Path

from tests.bench.filesystem import places
from tests.bench.harness import Figure, alternate, program
from tests.native.fs_harness import Overlay

COUNT = 300_000
ROUNDS = 5


def _open_file(made: Overlay, calls: str, kind: str, file: Path) -> Figure:
    mine, theirs = alternate(
        ROUNDS,
        lambda: places.told(made, calls, kind, f"{places.MOUNT}/file", str(COUNT))[0],
        lambda: places.bare(calls, kind, str(file), str(COUNT))[0],
    )
    title = f"{kind} of 4 KiB of an already open file"
    return Figure.compare(title, "ns", mine, theirs, "native", at_most=1.05)


def measure() -> list[Figure]:
    calls = program("filecalls")
    figures = []
    with places.folder() as top:
        lower = top / "lower"
        lower.mkdir()
        (lower / "file").write_bytes(bytes(1 << 16))
        mount = {"path": places.MOUNT, "source": "redirect", "from": lower}
        with places.application(top, mount) as made:
            for kind in ("read", "write"):
                figures.append(_open_file(made, calls, kind, lower / "file"))
            mine, theirs = alternate(
                ROUNDS,
                lambda: places.told(made, calls, "stat", str(lower / "file"), str(COUNT))[0],
                lambda: places.bare(calls, "stat", str(lower / "file"), str(COUNT))[0],
            )
    added = statistics.median(mine) - statistics.median(theirs)
    title = "added to a stat of a path outside every mount"
    figures.append(Figure.compare(title, "ns", [added], theirs, "the stat alone", ours_at_most=100))
    return figures
