"""One file in the middle of a 1 GB compressed tar whose index is known: the first opening of it."""

from __future__ import annotations

import io
import itertools
import random
import subprocess
import tarfile
from pathlib import Path

from tests.bench.filesystem import places
from tests.bench.harness import CannotMeasure, Figure, alternate, program

FILES, SIZE = 20_000, 50_000
COUNT = 40
ROUNDS = 3


def _tree(top: Path) -> tuple[Path, Path]:
    """1 GB of text in 300 directories, as a tree and as a .tar.gz."""
    chance = random.Random(2)
    words = [f"{chance.getrandbits(40):x}" for _ in range(5000)]
    blocks = [" ".join(chance.choices(words, k=SIZE // 10))[:SIZE].encode() for _ in range(300)]
    tree, archive = top / "tree", top / "t.tar.gz"
    for number in range(300):
        (tree / f"d{number}").mkdir(parents=True)
    packer = subprocess.Popen(["gzip", "-1"], stdin=subprocess.PIPE, stdout=archive.open("wb"))
    assert packer.stdin is not None
    with tarfile.open(fileobj=packer.stdin, mode="w|") as tar:
        for number in range(FILES):
            name = f"d{number % 300}/f{number:07}"
            content = chance.choice(blocks)
            (tree / name).write_bytes(content)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    packer.stdin.close()
    packer.wait()
    return tree, archive


def measure() -> list[Figure]:
    figure = f"random file of a tar.gz ({FILES * SIZE / 1e9:.0f} GB, index known), first opening"
    reader = program("randomfiles")
    numbers = itertools.count()

    def arguments() -> list[str]:
        return [str(FILES), str(COUNT), str(next(numbers))]

    figures = []
    with places.folder() as top:
        tree, archive = _tree(top)
        mount = {"path": places.MOUNT, "source": "archive", "from": archive}
        with places.application(top, mount) as made:
            made.run(["stat", places.MOUNT], timeout_s=600)

            def ours() -> float:
                places.restart(made)
                return places.told(made, reader, places.MOUNT, *arguments())[0]

            def unpacked() -> float:
                return places.bare(reader, str(tree), *arguments())[0]

            figures.append(
                Figure.compare(figure, "ms", *alternate(ROUNDS, ours, unpacked), "unpacked tree")
            )
            try:
                peer = _Ratarmount(top, archive, reader)
            except CannotMeasure as error:
                absent = Figure.absent(figure, "ms", "ratarmount", str(error), ours())
                return [*figures, absent]
            mine, theirs = alternate(ROUNDS, ours, lambda: peer.read(arguments()))
            figures.append(Figure.compare(figure, "ms", mine, theirs, "ratarmount", at_most=0.5))
            for index in made.run_directory.glob("data/fs-index/*/index"):
                mebibytes = index.stat().st_size / (1 << 20)
                sizes = [archive.stat().st_size / (1 << 20)]
                title = "index of that tar.gz with its seek points"
                figures.append(
                    Figure.compare(title, "MiB", [mebibytes], sizes, "archive", ours_at_most=24)
                )
    return figures


class _Ratarmount:
    """Its index made once beside the archive; mounted anew for each reading."""

    def __init__(self, top: Path, archive: Path, reader: str) -> None:
        self._command = (places.ratarmount(), archive, top / "peer")
        self._point, self._reader = top / "peer", reader
        with places.fuse(self._point, *self._command):
            pass

    def read(self, arguments: list[str]) -> float:
        with places.fuse(self._point, *self._command) as point:
            return places.bare(self._reader, str(point), *arguments)[0]
