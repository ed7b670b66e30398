"""10,000 small files in an archive: opened and read the first time, again, and by grep."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.bench.filesystem import places
from tests.bench.harness import CannotMeasure, Figure, alternate, program

ROUNDS = 3
FIRST = f"open+read of {places.FILES:,} small files in a {{}}, first time, per file"


def _ours(top: Path, archive: Path, known: bool) -> Callable[[], list[float]]:
    def measure() -> list[float]:
        mount = {"path": places.MOUNT, "source": "archive", "from": archive}
        with places.application(top, mount) as made:
            if known:
                made.run(["stat", places.MOUNT])
                places.restart(made)
            reader = program("readfiles")
            return places.told(made, reader, places.MOUNT, str(places.FILES))

    return measure


def _peer(top: Path, *command: str | Path) -> Callable[[], list[float]]:
    def measure() -> list[float]:
        for index in top.glob("*.index.sqlite"):
            index.unlink()
        with places.fuse(top / "peer", *command, top / "peer") as point:
            return places.bare(program("readfiles"), str(point), str(places.FILES))

    return measure


def _first(
    kind: str,
    peer_name: str,
    ours: Callable[[], list[float]],
    peer: Callable[[], Callable[[], list[float]]],
) -> Figure:
    figure = FIRST.format(kind)
    try:
        measure = peer()
        mine, theirs = alternate(ROUNDS, lambda: ours()[0], lambda: measure()[0])
    except CannotMeasure as error:
        return Figure.absent(figure, "µs", peer_name, str(error), ours()[0])
    return Figure.compare(figure, "µs", mine, theirs, peer_name, at_most=0.2)


def measure() -> list[Figure]:
    with places.folder() as top:
        tree = places.small_files(top)
        squashed, packed = top / "t.squashfs", top / "t.tar.gz"
        maker = places.need("mksquashfs", "`make setup` installs it")
        options = ["-comp", "zstd", "-quiet", "-no-progress"]
        subprocess.run([maker, str(tree), str(squashed), *options], check=True, capture_output=True)
        subprocess.run(["tar", "-czf", str(packed), "-C", str(tree), "."], check=True)

        def squashfuse() -> Callable[[], list[float]]:
            return _peer(top, places.need("squashfuse", "Debian has it"), squashed)

        def ratarmount() -> Callable[[], list[float]]:
            return _peer(top, places.ratarmount(), packed)

        def fuse_archive() -> Callable[[], list[float]]:
            return _peer(top, places.need("fuse-archive", "this Debian release has none"), packed)

        cold, known = _ours(top, squashed, False), _ours(top, squashed, True)
        figures = [
            _first("squashfs", "squashfuse", cold, squashfuse),
            _first("squashfs (index known)", "squashfuse", known, squashfuse),
            _first("tar.gz", "ratarmount", _ours(top, packed, False), ratarmount),
            _first("tar.gz", "fuse-archive", _ours(top, packed, False), fuse_archive),
        ]
        reader = program("readfiles")
        mine, theirs = alternate(
            ROUNDS * 2,
            lambda: known()[1],
            lambda: places.bare(reader, str(tree), str(places.FILES))[1],
        )
        again = f"the same again, {places.FILES:,} files of a squashfs, per file"
        figures.append(Figure.compare(again, "µs", mine, theirs, "unpacked tree", at_most=1.1))
        figures.append(_grep(top, tree, packed))
    return figures


def _grep(top: Path, tree: Path, archive: Path) -> Figure:
    mount = {"path": places.MOUNT, "source": "archive", "from": archive}
    with places.application(top, mount) as made:
        mine, theirs = alternate(
            ROUNDS * 2,
            lambda: places.seconds(lambda: made.run(["grep", "-rc", "zzz", places.MOUNT])) * 1e3,
            lambda: (
                places.seconds(
                    lambda: subprocess.run(["grep", "-rc", "zzz", str(tree)], capture_output=True)
                )
                * 1e3
            ),
        )
    return Figure.compare("grep -r over the tree", "ms", mine, theirs, "unpacked tree", at_most=1.1)
