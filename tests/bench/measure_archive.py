"""open + read of 1,000 small files in a mounted archive against the same files unpacked."""

from __future__ import annotations

import itertools
import random
import tarfile
import tempfile
from pathlib import Path

from tests.acceptance.world import World
from tests.bench.harness import CannotMeasure, Figure, output, program
from tests.bench.worlds import ours

FILES = 1000
ROUNDS = 7


def make_tree(folder: Path) -> tuple[Path, Path]:
    """A flat tree of files of 200 to 8,000 bytes of text, and its .tar.gz."""
    tree = folder / "tree"
    tree.mkdir()
    chance = random.Random(1)
    for number in range(FILES):
        words = (f"{chance.getrandbits(24):x}" for _ in itertools.count())
        text = " ".join(itertools.islice(words, chance.randint(30, 1100)))
        (tree / f"f{number:04}").write_text(text)
    archive = folder / "tree.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree, arcname=".")
    return tree, archive


def mounted(world: World, reader: str, archive: Path, number: int) -> list[float]:
    """Microseconds a file of the first and the second pass, in a fresh application."""
    name = f"bench-read-{number}"
    mounts = [{"path": "/srv/tree", "source": "archive", "from": str(archive)}]
    elements = {"filesystem": {"settings": {"mounts": mounts}}}
    world.run(name, ["sleep", "infinity"], elements=elements)
    done = world.exec(name, reader, "/srv/tree", str(FILES))
    world.remove(name)
    if done.returncode != 0:
        raise CannotMeasure(f"reading the archive: {done.stderr.strip()}")
    return [float(line) for line in done.stdout.split()]


def measure() -> list[Figure]:
    reader = program("readfiles")
    mine: list[list[float]] = []
    theirs: list[list[float]] = []
    with tempfile.TemporaryDirectory(prefix="cse-bench-") as folder, ours() as world:
        tree, archive = make_tree(Path(folder))
        for number in range(ROUNDS):
            theirs.append([float(t) for t in output([reader, str(tree), str(FILES)]).split()])
            mine.append(mounted(world, reader, archive, number))
    figures = []
    for index, title in enumerate(("first pass", "second pass")):
        ours_us = [row[index] for row in mine]
        peer_us = [row[index] for row in theirs]
        figure = f"open+read of {FILES:,} small files in a .tar.gz, {title}, per file"
        figures.append(Figure.compare(figure, "µs", ours_us, peer_us, "unpacked tree"))
    return figures
