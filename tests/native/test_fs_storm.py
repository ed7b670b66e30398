"""Random calls by ten processes of two threads in one tree: bare and in a mount they are equal.

The model is the kernel: the same program with the same seed on an ordinary directory. For longer
runs by hand: `STEPS=5000 SEEDS=20 pytest tests/native/test_fs_storm.py`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.native.fs_harness import MOUNT, Overlay, bare, build, pack

pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
SOURCE = Path(__file__).parent / "fs/storm.c"
PROCESSES = 10
STEPS = int(os.environ.get("STEPS", "250"))
SEEDS = int(os.environ.get("SEEDS", "1"))


def _base(top: Path) -> Path:
    """What is there before the storm."""
    for number in range(5):
        folder = top / f"d{number}"
        (folder / "base2").mkdir(parents=True)
        (folder / "base0").write_bytes(b"x" * (number * 5000 + 10))
        (folder / "base1").write_bytes(b"y" * (number * 3000 + 110))
        (folder / "base2/in").write_text("in\n")
        (folder / "base3").symlink_to("base0")
        for path in (folder / "base0", folder / "base1", folder / "base2/in"):
            path.chmod(0o644)
    return top


def _mount(kind: str, base: Path, tmp_path: Path) -> dict[str, Any]:
    if kind == "redirect":
        return {"source": "redirect", "from": base}
    if kind == "cow":
        return {"source": "cow", "from": base}
    archive = pack(base, tmp_path / f"t.{kind.partition(' ')[2]}")
    return {"source": "cow", "lower": {"source": "archive", "from": archive}}


@pytest.mark.parametrize("kind", ["redirect", "cow", "cow tar.gz"])
@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_everybody_sees_what_the_kernel_would_show(
    seed: int, kind: str, libdir: LibDir, tmp_path: Path
) -> None:
    program = str(build(SOURCE, tmp_path / "storm", "-lpthread"))
    arguments = [str(PROCESSES), str(STEPS), str(seed)]
    plain = _base(tmp_path / "plain")
    mount = {"path": MOUNT, **_mount(kind, _base(tmp_path / "base"), tmp_path)}
    overlay = Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", [mount])
    expected = bare([program, str(plain), *arguments])
    found = overlay.run([program, MOUNT, *arguments])
    assert expected.returncode == 0
    assert found.returncode == 0, found.stderr[-2000:]
    if sorted(found.stdout.splitlines()) != sorted(expected.stdout.splitlines()):
        pytest.fail(_first_difference(program, arguments, tmp_path, mount, overlay))
    tree = [
        "find",
        ".",
        "-printf",
        "%p %y %m %n %s %l\\n",
        "-type",
        "f",
        "-exec",
        "cksum",
        "{}",
        ";",
    ]
    left = [line for line in bare(tree, cwd=str(plain)).stdout.splitlines() if not _directory(line)]
    inside = overlay.run(["bash", "-c", f'cd {MOUNT} && "$@"', "find", *tree]).stdout
    assert sorted(line for line in inside.splitlines() if not _directory(line)) == sorted(left)


def _directory(line: str) -> bool:
    """Sizes and links of directories are the file system's own affair."""
    return line.split()[1] == "d"


def _first_difference(
    program: str, arguments: list[str], folder: Path, mount: dict[str, Any], first: Overlay
) -> str:
    """The first step of each thread that differed, of a second run with the steps told."""
    plain = _base(folder / "plain2")
    if "from" in mount:
        mount = {**mount, "from": _base(folder / "base2")}
    overlay = Overlay(folder / "run2", Path(first.environment["LD_PRELOAD"].split()[-1]), [mount])
    told = {**os.environ, "STORM_LOG": "1"}
    command = [program, str(plain), *arguments]
    expected = subprocess.run(command, env=told, capture_output=True, text=True).stderr
    found = overlay.run([program, MOUNT, *arguments], environment={"STORM_LOG": "1"}).stderr
    lines: dict[str, list[str]] = {}
    for text in (expected, found):
        for line in sorted(text.splitlines(), key=lambda line: line.split()[0]):
            lines.setdefault(line.split()[0] + str(text is found), []).append(line)
    differences = []
    for actor in sorted(name.removesuffix("False") for name in lines if name.endswith("False")):
        pairs = zip(lines[f"{actor}False"], lines.get(f"{actor}True", []), strict=False)
        differences += [f"{a}\n    in the mount: {b}" for a, b in pairs if a != b][:1]
    return "\n".join(differences[:10]) or "differed once, not in a second run"
