"""The file-system overlay, call by call: one C program, bare and in a mount, equal output."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.native.fs_harness import (
    FORMATS,
    MOUNT,
    NO_HARD_LINKS,
    Overlay,
    bare,
    build,
    make_tree,
    pack,
)

SOURCE = Path(__file__).parent / "fs/calls.c"
pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(SOURCE, tmp_path_factory.mktemp("program") / "calls")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree") / "mount")


def _overlay(tmp_path: Path, libdir: LibDir, *mounts: dict[str, Any]) -> Overlay:
    return Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", mounts)


def _equal(bare_output: str, overlay_output: str) -> None:
    difference = "\n".join(
        difflib.unified_diff(
            bare_output.splitlines(),
            overlay_output.splitlines(),
            "bare",
            "overlay",
            lineterm="",
            n=1,
        )
    )
    assert not difference, difference


def _without_hard_links(output: str) -> str:
    """Formats without hard links; zip does not store the root either."""
    roots = tuple(
        f"{call} {name}:" for call in ("stat", "lstat", "open path") for name in ("", ".")
    )
    lines = [line for line in output.splitlines() if not line.startswith(roots)]
    return "\n".join(line for line in lines if " hard" not in line)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_archive_answers_as_its_unpacked_tree(
    kind: str, program: Path, tree: Path, tmp_path: Path, libdir: LibDir
) -> None:
    archive = pack(tree, tmp_path / f"t.{kind}")
    overlay = _overlay(tmp_path, libdir, {"path": MOUNT, "source": "archive", "from": archive})
    expected, found = (
        bare([str(program), str(tree), "read"]),
        overlay.run([str(program), MOUNT, "read"]),
    )
    assert found.returncode == 0, found.stderr[-3000:]
    if kind in NO_HARD_LINKS:
        _equal(_without_hard_links(expected.stdout), _without_hard_links(found.stdout))
    else:
        _equal(expected.stdout, found.stdout)
    assert overlay.errors == ""


@pytest.mark.parametrize("cache_bytes", [0, 1000])
@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz"])
def test_contents_that_were_not_kept_are_read_again(
    kind: str, cache_bytes: int, program: Path, tree: Path, tmp_path: Path, libdir: LibDir
) -> None:
    archive = pack(tree, tmp_path / f"t.{kind}")
    overlay = _overlay(
        tmp_path,
        libdir,
        {"path": MOUNT, "source": "archive", "from": archive, "cache_bytes": cache_bytes},
    )
    expected, found = (
        bare([str(program), str(tree), "read"]),
        overlay.run([str(program), MOUNT, "read"]),
    )
    assert found.returncode == 0, found.stderr[-3000:]
    _equal(expected.stdout, found.stdout)


def _split(tree: Path, to: Path) -> tuple[Path, Path]:
    """The tree as two layers that make it up; the lower one has older versions of some files."""
    upper, lower = to / "upper", to / "lower"
    shutil.copytree(tree, upper, symlinks=True)
    shutil.copytree(tree, lower, symlinks=True)
    for name in ("hard1", "hard2"):
        (upper / name).unlink()
    os.link(lower / "hard1", lower / "hard2x")
    (lower / "hard2x").replace(lower / "hard2")
    shutil.rmtree(upper / "many")
    (upper / "name with space").unlink()
    (upper / "sub/deep/n.bin").unlink()
    (lower / "a.txt").write_text("hidden\n")
    (lower / "sub/b.txt").write_text("hidden\n")
    (lower / "run.sh").unlink()
    for path, like in (
        (path, tree / path.relative_to(to).relative_to(path.relative_to(to).parts[0]))
        for path in [*upper.rglob("*"), *lower.rglob("*"), upper, lower]
    ):
        shutil.copystat(like, path, follow_symlinks=False)
    return upper, lower


def test_redirect_shows_the_directory(
    program: Path, tree: Path, tmp_path: Path, libdir: LibDir
) -> None:
    overlay = _overlay(tmp_path, libdir, {"path": MOUNT, "source": "redirect", "from": tree})
    expected, found = (
        bare([str(program), str(tree), "read"]),
        overlay.run([str(program), MOUNT, "read"]),
    )
    assert found.returncode == 0, found.stderr[-3000:]
    _equal(expected.stdout, found.stdout)


def test_union_shows_its_layers_as_one(
    program: Path, tree: Path, tmp_path: Path, libdir: LibDir
) -> None:
    upper, lower = _split(tree, tmp_path)
    overlay = _overlay(
        tmp_path,
        libdir,
        {"path": MOUNT, "source": "union", "layers": [{"from": upper}, {"from": lower}]},
    )
    expected, found = (
        bare([str(program), str(tree), "read"]),
        overlay.run([str(program), MOUNT, "read"]),
    )
    assert found.returncode == 0, found.stderr[-3000:]
    _equal(expected.stdout, found.stdout)


@pytest.mark.parametrize("lower", ["directory", "tar.gz", "zip", "union"])
def test_cow_reads_and_changes_as_a_directory_does(
    lower: str, program: Path, tree: Path, tmp_path: Path, libdir: LibDir
) -> None:
    plain = tmp_path / "plain/mount"
    shutil.copytree(tree, plain, symlinks=True)
    (plain / "hard2").unlink()
    os.link(plain / "hard1", plain / "hard2")
    shutil.copystat(tree, plain)
    source: dict[str, Any]
    if lower == "directory":
        source = {"from": tree}
    elif lower == "union":
        upper, below = _split(tree, tmp_path)
        source = {"lower": {"source": "union", "layers": [{"from": upper}, {"from": below}]}}
    else:
        source = {"lower": {"source": "archive", "from": pack(tree, tmp_path / f"t.{lower}")}}
    overlay = _overlay(tmp_path, libdir, {"path": MOUNT, "source": "cow", **source})
    before = bare(["find", str(tree), "-printf", "%p %m %s %T@ %l\n"]).stdout

    for step in ("read", "write", "read"):
        expected, found = (
            bare([str(program), str(plain), step]),
            overlay.run([str(program), MOUNT, step]),
        )
        assert found.returncode == 0, found.stderr[-3000:]
        _equal(_comparable(expected.stdout), _comparable(found.stdout))
    assert bare(["find", str(tree), "-printf", "%p %m %s %T@ %l\n"]).stdout == before
    assert overlay.errors == ""


def _comparable(output: str) -> str:
    """Hard links come apart when one name is copied up (as with overlayfs); times of directories
    are those of this moment once they have been changed."""
    lines = []
    for line in output.splitlines():
        if "hard" in line or line.startswith(("stat ", "lstat ", "open path ", "fstatat")):
            line = line.split(" links ")[0]
        lines.append(line)
    return "\n".join(lines)
