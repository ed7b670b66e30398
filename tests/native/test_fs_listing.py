"""Mount points are listed where they lie, by every way to list: bare and mounted must be equal."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.native.fs_harness import Overlay, bare, build, make_tree, pack

SOURCE = Path(__file__).parent / "fs/listing.c"
pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(SOURCE, tmp_path_factory.mktemp("program") / "listing")


def _overlay(tmp_path: Path, libdir: LibDir, *mounts: dict[str, Any]) -> Overlay:
    return Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", mounts)


def escapes(overlay: Overlay) -> dict[str, int]:
    """The escape table as the agent reads it."""
    path = overlay.run_directory / "data/escapes.filesystem"
    rows = {}
    for at in range(0, len(path.read_bytes()) if path.exists() else 0, 64):
        count, claimed, name = struct.unpack_from("<QQ40s", path.read_bytes(), at)
        if claimed == 2:
            rows[name.rstrip(b"\0").decode()] = count
    return rows


class Place:
    """A real tree, and the same tree made of a directory that lacks www and of mounts in it."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.inner = make_tree(folder / "tree"), make_tree(folder / "inner")
        self.real, self.lacking = folder / "real/srv", folder / "lacking/srv"
        for top in (self.real, self.lacking):
            (top / "beside").mkdir(parents=True)
            (top / "plain.txt").write_text("plain\n")
            (top / "beside/x").write_text("x\n")
        shutil.copytree(self.tree, self.real / "www", symlinks=True)
        for name in ("www/data", "way/to/it"):
            shutil.copytree(self.inner, self.real / name, symlinks=True)
        (self.real / "file").write_text("a file\n")
        shutil.copytree(self.inner, self.real / "www/none/of/it", symlinks=True)
        self.file = folder / "file"
        self.file.write_text("a file\n")
        self.folder = folder

    def mounts(self, source: str) -> list[dict[str, Any]]:
        top = str(self.lacking)
        outer: dict[str, Any] = {"path": f"{top}/www", "source": source, "from": self.tree}
        if source == "archive":
            outer["from"] = pack(self.tree, self.folder / "outer.tar.gz")
        archive = pack(self.inner, self.folder / "inner.tar.gz")
        inner = {"source": "archive", "from": archive}
        return [
            outer,
            {"path": f"{top}/www/data", **inner},
            {"path": f"{top}/way/to/it", "source": "redirect", "from": self.inner},
            {"path": f"{top}/file", "source": "redirect", "from": self.file},
            {"path": f"{top}/www/none/of/it", **inner},
        ]


WHERE = ["", "/www", "/www/data", "/www/none", "/www/none/of", "/way", "/way/to", "/beside"]


def _without_made(output: str) -> list[str]:
    """Permissions of directories that only lead to a mount point are ours to choose."""
    made = ("none", "of", "way", "to")
    lines = output.splitlines()
    return [line for line in lines if "mode 40" not in line or not _leads(line, made)]


def _leads(line: str, made: tuple[str, ...]) -> bool:
    return any(word.split("/")[-1] in made or word == "." for word in line.split())


@pytest.mark.parametrize("source", ["redirect", "archive", "cow"])
def test_every_way_to_list_shows_the_mount_points(
    source: str, program: Path, tmp_path: Path, libdir: LibDir
) -> None:
    place = Place(tmp_path)
    overlay = _overlay(tmp_path, libdir, *place.mounts(source))
    arguments = [*WHERE, "/www/data/a.txt"]
    expected = bare([str(program), str(place.real), *arguments])
    found = overlay.run([str(program), str(place.lacking), *arguments])
    assert expected.returncode == found.returncode == 0, found.stderr[-3000:]
    assert _without_made(found.stdout) == _without_made(expected.stdout)
    assert escapes(overlay) == {}
    assert overlay.errors == ""


@pytest.mark.parametrize(
    "command",
    [
        ["ls", "-1a", "{}"],
        ["ls", "-1aF", "{}/www"],
        ["find", "{}", "-printf", "%P %y %d\n"],
        ["find", "{}", "-type", "d", "-empty"],
        ["find", "{}", "-depth", "-name", "[a-n]*"],
        ["sh", "-c", "cd {} && echo * */* www/data/*"],
        ["bash", "-c", "shopt -s globstar; cd {} && echo **/*.txt"],
        [
            "python3",
            "-c",
            "import os; print(sorted(e.name + str(e.is_dir()) for e in os.scandir('{}')))",
        ],
        ["python3", "-c", "import os; [print(d, sorted(n + f)) for d, n, f in os.walk('{}')]"],
        ["sh", "-c", "du -al {} | cut -f2 | sort"],
        ["sh", "-c", "grep -r alpha {} | sort"],
        ["sh", "-c", "tar -C {} --sort=name -cf - . | tar -tf - | sort"],
    ],
    ids=lambda command: " ".join(command)[:40],
)
def test_programs_list_the_mount_points(command: list[str], tmp_path: Path, libdir: LibDir) -> None:
    place = Place(tmp_path)
    overlay = _overlay(tmp_path, libdir, *place.mounts("archive"))
    expected = bare([word.replace("{}", str(place.real)) for word in command])
    found = overlay.run([word.replace("{}", str(place.lacking)) for word in command])
    assert found.returncode == 0, found.stderr
    text = expected.stdout.replace(str(place.real), str(place.lacking))
    assert sorted(found.stdout.splitlines()) == sorted(text.splitlines())


def test_a_name_that_is_there_already_has_the_type_of_what_is_mounted(
    tmp_path: Path, libdir: LibDir
) -> None:
    """A directory mounted over a file, and a file over a directory: each listed once."""
    top = tmp_path / "top"
    (top / "dir").mkdir(parents=True)
    (top / "file").write_text("hidden\n")
    tree = make_tree(tmp_path / "tree")
    overlay = _overlay(
        tmp_path,
        libdir,
        {"path": str(top / "file"), "source": "redirect", "from": tree},
        {"path": str(top / "dir"), "source": "redirect", "from": tree / "a.txt"},
    )
    script = "import os; print(sorted((e.name, e.is_dir(), e.is_file()) for e in os.scandir('.')))"
    found = overlay.run(["python3", "-c", script], cwd=str(top))
    assert found.stdout == "[('dir', False, True), ('file', True, False)]\n"
    assert overlay.run(["find", str(top), "-maxdepth", "1", "-type", "f"]).stdout == f"{top}/dir\n"


def test_a_directory_with_a_mount_point_is_neither_removed_nor_moved(
    tmp_path: Path, libdir: LibDir
) -> None:
    place = Place(tmp_path)
    top = tmp_path / "top"
    top.mkdir()
    overlay = _overlay(
        tmp_path, libdir, {"path": str(top / "m"), "source": "redirect", "from": place.tree}
    )
    assert "Directory not empty" in overlay.run(["rmdir", str(top)]).stderr
    assert "Device or resource busy" in overlay.run(["mv", str(top), f"{top}2"]).stderr
    assert top.is_dir()


def test_a_broken_mount_is_listed_and_says_so_when_used(tmp_path: Path, libdir: LibDir) -> None:
    top = tmp_path / "top"
    top.mkdir()
    overlay = _overlay(
        tmp_path, libdir, {"path": str(top / "m"), "source": "redirect", "from": tmp_path / "none"}
    )
    assert (
        overlay.run(["python3", "-c", f"import os; print(os.listdir('{top}'))"]).stdout == "['m']\n"
    )
    assert "Input/output error" in overlay.run(["cat", str(top / "m/x")]).stderr


def test_listing_a_parent_does_not_read_the_archive(tmp_path: Path, libdir: LibDir) -> None:
    place = Place(tmp_path)
    top = tmp_path / "top"
    top.mkdir()
    archive = pack(place.tree, tmp_path / "lazy.tar.gz")
    overlay = _overlay(
        tmp_path, libdir, {"path": str(top / "m"), "source": "archive", "from": archive}
    )
    assert (
        overlay.run(["python3", "-c", f"import os; print(os.listdir('{top}'))"]).stdout == "['m']\n"
    )
    assert not (overlay.run_directory / "private/fs/a0/index").exists()


def test_getdents_by_hand_is_counted(tmp_path: Path, libdir: LibDir) -> None:
    place = Place(tmp_path)
    overlay = _overlay(tmp_path, libdir, *place.mounts("archive"))
    script = (
        "import ctypes, os; libc = ctypes.CDLL(None); fd = os.open('%s', os.O_RDONLY);"
        "print(libc.syscall(217, fd, ctypes.create_string_buffer(4096), 4096) > 0)"
    )
    found = overlay.run(["python3", "-c", script % place.lacking])
    assert found.stdout == "True\n", found.stderr
    assert escapes(overlay) == {"getdents64 above a mount point": 1}


def test_programs_see_one_tree_in_the_root(tmp_path: Path, libdir: LibDir) -> None:
    """The mount point's parents do not exist at all: the root directory lists the first of them."""
    place = Place(tmp_path)
    overlay = _overlay(
        tmp_path, libdir, {"path": "/cse-way/to/m", "source": "redirect", "from": place.tree}
    )
    assert "cse-way" in overlay.run(["ls", "/"]).stdout.split()
    assert overlay.run(["sh", "-c", "echo /cse-*/*/m/a.t*"]).stdout == "/cse-way/to/m/a.txt\n"
    assert subprocess.run(["ls", "/"], capture_output=True, text=True).stdout.count("cse-way") == 0
