"""Random calls by ten processes of two threads in one tree: bare and in a mount they are equal.

The model is the kernel: the same program with the same seed on an ordinary directory. For longer
runs by hand: `STEPS=5000 SEEDS=20 pytest tests/native/test_fs_storm.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from tests.native.fs_harness import MOUNT, Overlay, bare, build, pack

pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
SOURCE = Path(__file__).parent / "fs/storm.c"
CHANGES = Path(__file__).parent / "fs/changes.c"
PROCESSES = 10
STEPS = int(os.environ.get("STEPS", "250"))
SEEDS = int(os.environ.get("SEEDS", "1"))
ROUNDS = STEPS


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
        pytest.fail(_first_differences(expected.stderr, found.stderr))
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


@pytest.mark.parametrize("kind", ["redirect", "cow", "cow tar.gz"])
def test_who_changes_a_directory_sees_it_at_once_while_others_list_it(
    kind: str, libdir: LibDir, tmp_path: Path
) -> None:
    """A listing that began before a change puts nothing of it back, and takes nothing away."""
    program = str(build(CHANGES, tmp_path / "changes"))
    mount = {"path": MOUNT, **_mount(kind, _base(tmp_path / "base"), tmp_path)}
    overlay = Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", [mount])
    found = overlay.run([program, f"{MOUNT}/d0", str(ROUNDS), "2"])
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout == ""


def _directory(line: str) -> bool:
    """Sizes and links of directories are the file system's own affair."""
    return line.split()[1] == "d"


def _first_differences(expected: str, found: str) -> str:
    """The first step of each thread that differed."""
    bare_steps, steps = _by_thread(expected), _by_thread(found)
    differences = []
    for actor, lines in sorted(bare_steps.items()):
        pairs = zip_longest(lines, steps.get(actor, []))
        differences += [f"{a}\n    in the mount: {b}" for a, b in pairs if a != b][:1]
    return "\n".join(differences[:10])


def _by_thread(told: str) -> dict[str, list[str]]:
    lines: dict[str, list[str]] = {}
    for line in told.splitlines():
        lines.setdefault(line.split(maxsplit=1)[0], []).append(line)
    return lines
