"""Sequential reading of an encrypted file against gocryptfs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.bench.filesystem import places
from tests.bench.harness import CannotMeasure, Figure, alternate

SIZE_MIB = 256
ROUNDS = 3


def _rate(seconds: float) -> float:
    return SIZE_MIB / seconds


def measure() -> list[Figure]:
    title = f"encrypted: sequential read of {SIZE_MIB} MiB, {{}}"
    with places.folder() as top:
        plain, key, store = top / "plain", top / "key", top / "store"
        with plain.open("wb") as file:
            for _ in range(SIZE_MIB):
                file.write(os.urandom(1 << 20))
        key.write_text("5a" * 32)
        store.mkdir()
        mount = {"path": places.MOUNT, "source": "encrypted", "store": store, "key_file": key}
        with places.application(top, mount) as made:
            made.run(["cp", str(plain), f"{places.MOUNT}/file"])

            def read() -> float:
                return _rate(places.seconds(lambda: made.run(["wc", "-c", f"{places.MOUNT}/file"])))

            def first() -> float:
                places.restart(made)
                return _rate(
                    places.seconds(
                        lambda: made.run(["dd", f"if={places.MOUNT}/file", "of=/dev/null", "bs=1M"])
                    )
                )

            def again() -> float:
                read()
                return _rate(
                    places.seconds(
                        lambda: made.run(["dd", f"if={places.MOUNT}/file", "of=/dev/null", "bs=1M"])
                    )
                )

            try:
                peer = _Gocryptfs(top, plain)
            except CannotMeasure as error:
                return [
                    Figure.absent(title.format(kind), "MiB/s", "gocryptfs", str(error), value())
                    for kind, value in (("first time", first), ("again", again))
                ]
            return [
                Figure.compare(
                    title.format(kind), "MiB/s", *alternate(ROUNDS, value, peer.read), "gocryptfs",
                    at_least=2,
                )
                for kind, value in (("first time", first), ("again", again))
            ]  # fmt: skip


class _Gocryptfs:
    """A volume with the same file in it, mounted anew for each reading."""

    def __init__(self, top: Path, plain: Path) -> None:
        self._program = places.need("gocryptfs", "Debian has it")
        self._volume, self._point, self._word = top / "volume", top / "point", top / "word"
        self._volume.mkdir()
        self._word.write_text("password\n")
        quiet = [self._program, "-q", "-passfile", str(self._word)]
        subprocess.run([*quiet, "-init", str(self._volume)], check=True, capture_output=True)
        self._mount = [*quiet, str(self._volume)]
        with places.fuse(self._point, *self._mount, self._point) as point:
            subprocess.run(["cp", str(plain), str(point / "file")], check=True)

    def read(self) -> float:
        with places.fuse(self._point, *self._mount, self._point) as point:
            command = ["dd", f"if={point}/file", "of=/dev/null", "bs=1M"]
            return _rate(
                places.seconds(lambda: subprocess.run(command, capture_output=True, check=True))
            )
