"""Two directories as one: the second reading of small files against unionfs-fuse."""

from __future__ import annotations

from tests.bench.filesystem import places
from tests.bench.harness import CannotMeasure, Figure, alternate, program

ROUNDS = 5
COUNT = 2_000


def measure() -> list[Figure]:
    figure = f"open+read of {COUNT:,} small files of a union, again, per file"
    reader = program("readfiles")
    with places.folder() as top:
        tree = places.small_files(top, COUNT)
        (top / "upper").mkdir()
        layers = [{"from": top / "upper"}, {"from": tree}]
        mount = {"path": places.MOUNT, "source": "union", "layers": layers}
        with places.application(top, mount) as made:

            def ours() -> float:
                return places.told(made, reader, places.MOUNT, str(COUNT))[1]

            try:
                peer = places.need("unionfs", "Debian's unionfs-fuse has it")
            except CannotMeasure as error:
                return [Figure.absent(figure, "µs", "unionfs-fuse", str(error), ours())]
            command = (peer, f"{top}/upper=RO:{tree}=RO", top / "point")
            with places.fuse(top / "point", *command) as point:
                mine, theirs = alternate(
                    ROUNDS, ours, lambda: places.bare(reader, str(point), str(COUNT))[1]
                )
    return [Figure.compare(figure, "µs", mine, theirs, "unionfs-fuse", at_most=1)]
