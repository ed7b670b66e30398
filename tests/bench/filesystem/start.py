"""What a known index of a large archive adds to the start of a program that uses it."""

from __future__ import annotations

import io
import statistics
import tarfile
from pathlib import Path

from tests.bench.filesystem import places
from tests.bench.harness import Figure, alternate

ENTRIES, SIZE = 100_000, 10_000
ROUNDS = 15


def _large(top: Path) -> Path:
    archive = top / "large.tar"
    block = bytes(SIZE)
    with tarfile.open(archive, "w") as tar:
        for number in range(ENTRIES):
            info = tarfile.TarInfo(f"d{number % 300}/f{number}")
            info.size = SIZE
            tar.addfile(info, io.BytesIO(block))
    return archive


def measure() -> list[Figure]:
    with places.folder() as top:
        archive = _large(top)
        mount = {"path": places.MOUNT, "source": "archive", "from": archive}
        with places.application(top, mount) as made:
            command = ["cat", f"{places.MOUNT}/d7/f7"]
            made.run(command)

            def ours() -> float:
                places.restart(made)
                return places.seconds(lambda: made.run(command)) * 1e3

            plain = top / "plain"
            plain.write_bytes(bytes(SIZE))
            environment = {"LD_PRELOAD": ""}
            mine, theirs = alternate(
                ROUNDS,
                ours,
                lambda: (
                    places.seconds(lambda: made.run(["cat", str(plain)], environment=environment))
                    * 1e3
                ),
            )
    added = statistics.median(mine) - statistics.median(theirs)
    size = f"{ENTRIES * SIZE / 1e9:.0f} GB, {ENTRIES:,} entries"
    title = f"added to the start of cat on a file of an archive ({size}, index known)"
    return [Figure.compare(title, "ms", [added], theirs, "cat alone", ours_at_most=10)]
