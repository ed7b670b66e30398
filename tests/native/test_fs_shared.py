"""An archive that applications share: filled once, the same files for all, removed when idle."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.runtimes import sharing
from tests.native.fs_harness import MOUNT, Overlay, make_tree, pack

pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
Make = Callable[..., Overlay]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "state/shared/default-0"
    place.mkdir(parents=True)
    return place


@pytest.fixture
def mount(tmp_path: Path, libdir: LibDir, place: Path) -> Make:
    """`mount(archive, **settings)` is one more application that shares."""

    def make(archive: Path, **settings: Any) -> Overlay:
        source = {"path": MOUNT, "source": "archive", "from": archive, "shared": place, **settings}
        run = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        return Overlay(run, libdir("filesystem") / "libcse-fs.so", [source])

    return make


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return pack(make_tree(tmp_path / "tree"), tmp_path / "t.tar.gz")


def _inode(overlay: Overlay, name: str) -> str:
    done = overlay.run(["stat", "-c", "%d %i", f"{MOUNT}/{name}"])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_have_the_same_files(mount: Make, archive: Path, tmp_path: Path, place: Path) -> None:
    one, other = mount(archive), mount(archive)
    for overlay in (one, other):
        done = overlay.run(["diff", "-r", "--no-dereference", str(tmp_path / "tree"), MOUNT])
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert _inode(one, "sub/deep/n.bin") == _inode(other, "sub/deep/n.bin")
    assert len([*place.iterdir()]) == 1
    assert not [*other.run_directory.glob("private/fs/a0/*"), *other.run_directory.glob("data/fs*")]
    shown = other.run(
        ["sh", "-c", f"cd {MOUNT}/sub && pwd -P; exec 3< b.txt; readlink /proc/self/fd/3"]
    )
    assert shown.stdout == f"{MOUNT}/sub\n{MOUNT}/sub/b.txt\n"


def test_the_second_needs_nothing_of_the_archive(mount: Make, archive: Path) -> None:
    mount(archive).run(["cat", f"{MOUNT}/a.txt"])
    other = mount(archive)
    traced = other.run(["strace", "-f", "-e", "trace=openat", "cat", f"{MOUNT}/a.txt"])
    if "strace: " in traced.stderr and traced.returncode != 0:
        pytest.skip("strace cannot trace here")
    assert traced.stdout == "alpha\n"
    assert "libcse-archive.so" not in traced.stderr


def test_other_settings_and_another_archive_are_not_shared(
    mount: Make, archive: Path, place: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copy.tar.gz"
    shutil.copy2(archive, copied)
    for overlay in (mount(archive), mount(archive, subpath="sub"), mount(copied)):
        overlay.run(["ls", "-R", MOUNT])
    assert len([*place.iterdir()]) == 3


def test_what_is_used_stays_and_what_is_not_goes(
    mount: Make, archive: Path, place: Path, tmp_path: Path
) -> None:
    overlay, state = mount(archive), tmp_path / "state"
    overlay.run(["cat", f"{MOUNT}/a.txt"])
    reader = ["python3", "-c", f"print(open('{MOUNT}/a.txt').read()); input(); "
              f"print(open('{MOUNT}/many/f07').read())"]  # fmt: skip
    with subprocess.Popen(
        reader, env=overlay.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "alpha\n"
        sharing.evict(state, 0)
        assert len([*place.iterdir()]) == 1
        assert process.communicate("\n")[0].strip() == "content 7"
    sharing.evict(state, 0)
    assert [*place.iterdir()] == []
    assert overlay.run(["cat", f"{MOUNT}/a.txt"]).stdout == "alpha\n"  # filled anew
    assert len([*place.iterdir()]) == 1


def test_each_application_is_told_what_is_wrong(mount: Make, tmp_path: Path) -> None:
    (tmp_path / "t.tar.gz").write_bytes(b"\x1f\x8b\x08\0 no archive")
    for overlay in (mount(tmp_path / "t.tar.gz"), mount(tmp_path / "t.tar.gz")):
        assert "Input/output error" in overlay.run(["ls", MOUNT]).stderr
        assert "is damaged" in overlay.errors


def test_where_the_place_is_missing_nothing_is_shared(mount: Make, archive: Path) -> None:
    overlay = mount(archive, shared="/nowhere/at/all")
    assert overlay.run(["cat", f"{MOUNT}/a.txt"]).stdout == "alpha\n"
    assert "is not shared" in overlay.errors


def test_many_processes_of_many_applications(mount: Make, archive: Path) -> None:
    applications = [mount(archive) for _ in range(4)]
    sum_all = f"cd {MOUNT} && find . -type f | sort | xargs -d '\\n' md5sum | md5sum"
    running = [
        subprocess.Popen(
            ["sh", "-c", sum_all], env=one.environment, stdout=subprocess.PIPE, text=True
        )
        for one in applications * 2
    ]
    assert len({process.communicate()[0] for process in running}) == 1
