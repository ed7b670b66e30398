"""Full disks: ENOSPC reaches the program, nothing half-made stays, and freed room is used again."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.native.fs_harness import MOUNT, Overlay, make_tree, pack

pytestmark = [pytest.mark.native, pytest.mark.root]
LibDir = Callable[[str], Path]
Make = Callable[..., Overlay]
BIG = 600_000
FULL = "No space left on device"


class Disk:
    """A tmpfs of 1 MiB in the place of one directory of the run directory."""

    def __init__(self, at: Path, options: str) -> None:
        self.at, self.ballast = at, at / ".ballast"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"{options},mode=777", "cse-test-full", str(at)],
            check=True,
        )

    def fill(self, leave: int = 0) -> None:
        fd = os.open(self.ballast, os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, bytes(4096))
        os.close(fd)
        os.truncate(self.ballast, self.ballast.stat().st_size - leave)

    def free(self) -> None:
        self.ballast.unlink()


@pytest.fixture
def disk() -> Iterator[Callable[[Path], Disk]]:
    disks: list[Disk] = []

    def make(at: Path, options: str = "size=1m") -> Disk:
        disks.append(Disk(at, options))
        return disks[-1]

    yield make
    for one in disks:
        subprocess.run(["umount", "-l", str(one.at)], check=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = make_tree(tmp_path / "tree")
    for name in ("big", "dir/one", "dir/two"):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_bytes(os.urandom(BIG))
    return top


@pytest.fixture
def mount(tmp_path: Path, libdir: LibDir) -> Make:
    def make(source: str, origin: Path, **settings: object) -> Overlay:
        one = {"path": MOUNT, "source": source, "from": origin, **settings}
        return Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", [one])

    return make


Disks = Callable[..., Disk]


def _same(overlay: Overlay, tree: Path, name: str) -> bool:
    return overlay.run(["cmp", f"{MOUNT}/{name}", str(tree / name)]).returncode == 0


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.zst", "zip"])
def test_content_that_finds_no_room(
    kind: str, mount: Make, disk: Disks, tree: Path, tmp_path: Path
) -> None:
    overlay = mount("archive", pack(tree, tmp_path / f"t.{kind}"), cache_bytes=0)
    private = disk(overlay.run_directory / "private")
    assert overlay.run(["stat", "-c", "%s", f"{MOUNT}/big"]).stdout == f"{BIG}\n"
    private.fill(leave=BIG // 2)
    for _ in range(2):
        found = overlay.run(["cat", f"{MOUNT}/big"])
        assert FULL in found.stderr
        assert found.stdout == ""
        half = overlay.run_directory / "private/fs/a0/tree/big"
        assert half.stat().st_blocks == 0
        assert half.stat().st_size == BIG
    assert overlay.run(["cat", f"{MOUNT}/a.txt"]).stdout == "alpha\n"
    private.free()
    assert _same(overlay, tree, "big")
    assert overlay.errors == "" or FULL not in overlay.errors


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_index_that_finds_no_room(
    kind: str, mount: Make, disk: Disks, tree: Path, tmp_path: Path
) -> None:
    overlay = mount("archive", pack(tree, tmp_path / f"t.{kind}"))
    private = disk(overlay.run_directory / "private")
    private.fill()
    for _ in range(2):
        assert FULL in overlay.run(["ls", MOUNT]).stderr
    private.free()
    assert overlay.run(["cat", f"{MOUNT}/a.txt"]).stdout == "alpha\n"
    assert _same(overlay, tree, "big")


def test_what_is_kept_gives_way_to_what_is_needed(
    mount: Make, disk: Disks, tree: Path, tmp_path: Path
) -> None:
    """Contents of 2 MB do not fit beside the index: they are read from the archive instead."""
    overlay = mount("archive", pack(tree, tmp_path / "t.tar.gz"))
    disk(overlay.run_directory / "private")
    assert _same(overlay, tree, "big")
    assert overlay.run(["cat", f"{MOUNT}/sub/b.txt"]).stdout == "beta\n"
    assert FULL in overlay.run(["cat", f"{MOUNT}/dir/one"]).stderr


@pytest.mark.parametrize("lower", ["directory", "archive"])
def test_a_copy_that_finds_no_room(
    lower: str, mount: Make, disk: Disks, tree: Path, tmp_path: Path
) -> None:
    if lower == "archive":
        archive = pack(tree, tmp_path / "t.tar.gz")
        overlay = mount("cow", tree, lower={"source": "archive", "from": archive})
    else:
        overlay = mount("cow", tree)
    data = disk(overlay.run_directory / "data")
    overlay.run(["ls", MOUNT])
    data.fill(leave=BIG // 2)
    changes = (
        f"echo more >> {MOUNT}/big",
        f"chmod 600 {MOUNT}/big",
        f"touch -d 2001-01-01 {MOUNT}/big",
        f"truncate -s 5 {MOUNT}/big",
        f"mv {MOUNT}/big {MOUNT}/other",
        f"ln {MOUNT}/big {MOUNT}/other",
        f"mv {MOUNT}/dir {MOUNT}/other",
    )
    for change in changes:
        found = overlay.run(["sh", "-c", change])
        assert FULL in found.stderr, (change, found.stderr)
        assert _same(overlay, tree, "big"), change
        assert _same(overlay, tree, "dir/one"), change
        assert not (overlay.run_directory / "data/fs-0/upper/big").exists()
        names = overlay.run(["ls", "-A", MOUNT]).stdout.splitlines()
        assert sorted(names) == sorted(path.name for path in tree.iterdir()), change
        work = overlay.run_directory / "data/fs-0/work"
        assert [path.name for path in work.iterdir() if path.name != ".made"] == []
    data.free()
    assert overlay.run(["sh", "-c", f"echo more >> {MOUNT}/big"]).returncode == 0
    assert overlay.run(["stat", "-c", "%s", f"{MOUNT}/big"]).stdout == f"{BIG + 5}\n"


def test_a_write_that_finds_no_room(mount: Make, disk: Disks, tree: Path) -> None:
    overlay = mount("cow", tree)
    data = disk(overlay.run_directory / "data")
    found = overlay.run(["sh", "-c", f"cat {tree}/big {tree}/big {tree}/big > {MOUNT}/new"])
    assert FULL in found.stderr
    assert overlay.run(["rm", f"{MOUNT}/new"]).returncode == 0
    assert overlay.run(["cp", f"{tree}/big", f"{MOUNT}/new"]).returncode == 0
    assert overlay.run(["cmp", f"{MOUNT}/new", f"{tree}/big"]).returncode == 0
    data.fill()
    assert overlay.run(["rm", f"{MOUNT}/new"]).returncode == 0


def test_no_room_for_names(mount: Make, disk: Disks, tree: Path) -> None:
    """The disk's inodes are used up: what needs one fails whole, markers of removal as well."""
    overlay = mount("cow", tree)
    data = disk(overlay.run_directory / "data", "size=8m,nr_inodes=40")
    overlay.run(["ls", "-R", MOUNT])
    made = []
    for number in range(60):
        path = overlay.run_directory / f"data/.{number}"
        try:
            path.touch()
        except OSError:
            break
        made.append(path)
    for change in (
        f"rm {MOUNT}/a.txt",
        f"mkdir {MOUNT}/new",
        f"ln -s x {MOUNT}/new",
        f"touch {MOUNT}/new",
        f"mkfifo {MOUNT}/new",
        f"mv {MOUNT}/a.txt {MOUNT}/new",
        f"mv {MOUNT}/sub {MOUNT}/new",
        f"rm -r {MOUNT}/many",
        f"echo x >> {MOUNT}/sub/deep/n.bin",
    ):
        found = overlay.run(["sh", "-c", change])
        assert FULL in found.stderr, (change, found.stderr)
        assert overlay.run(["cat", f"{MOUNT}/a.txt"]).stdout == "alpha\n", change
        assert overlay.run(["test", "-e", f"{MOUNT}/new"]).returncode == 1, change
        assert _same(overlay, tree, "sub/deep/n.bin"), change
    for path in made:
        path.unlink()
    assert overlay.run(["rm", f"{MOUNT}/a.txt"]).returncode == 0
    assert overlay.run(["test", "-e", f"{MOUNT}/a.txt"]).returncode == 1
    assert data.at.is_dir()


def test_a_full_disk_does_not_end_a_program_whose_escapes_are_counted(
    mount: Make, disk: Disks, tree: Path
) -> None:
    overlay = mount("cow", tree)
    data = disk(overlay.run_directory / "data")
    overlay.run(["ls", MOUNT])
    data.fill()
    script = (
        "import ctypes, os; fd = os.open('/', os.O_RDONLY);"
        "print(ctypes.CDLL(None).syscall(217, fd, ctypes.create_string_buffer(4096), 4096) > 0)"
    )
    found = overlay.run(["python3", "-c", script])
    assert (found.returncode, found.stdout) == (0, "True\n"), found.stderr
