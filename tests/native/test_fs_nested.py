"""Archives in archives as directories NAME.contents: on demand, to a depth, within bounds."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.native.fs_harness import MOUNT, Overlay, bare, make_tree, pack

pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
Make = Callable[..., Overlay]


@pytest.fixture
def mount(tmp_path: Path, libdir: LibDir) -> Make:
    """`mount(archive, **settings)`: at MOUNT; `cow=True` puts a cow over it."""

    def make(archive: Path, *, cow: bool = False, **settings: Any) -> Overlay:
        source: dict[str, Any] = {"source": "archive", "from": archive, **settings}
        whole = {"path": MOUNT, "source": "cow", "lower": source} if cow else source
        run = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        return Overlay(run, libdir("filesystem") / "libcse-fs.so", [{**whole, "path": MOUNT}])

    return make


@pytest.fixture
def doll(tmp_path: Path) -> Path:
    """outer.tar.gz with the tree as in.zip and as deep/in.tar.xz, which holds it as last.tar.gz."""
    tree = make_tree(tmp_path / "tree")
    outer, middle = tmp_path / "outer", tmp_path / "middle"
    (outer / "deep").mkdir(parents=True)
    middle.mkdir()
    (outer / "plain.txt").write_text("plain\n")
    pack(tree, outer / "in.zip")
    pack(tree, middle / "last.tar.gz")
    pack(middle, outer / "deep/in.tar.xz")
    (outer / "bad.zip").write_bytes(b"PK\5\6 no archive at all")
    return pack(outer, tmp_path / "outer.tar.gz")


def _all(command: Callable[..., subprocess.CompletedProcess[str]], top: str) -> str:
    """Every name with type, size, mode and target, and the sum of every file that can be read."""
    script = f"cd {top} && find . -printf '%P %y %s %m %l\\n' | grep -v '^ ' | sort"
    script += "; find . -type f | sort | xargs -d '\\n' md5sum"
    done = command(["sh", "-c", script])
    assert done.returncode == 0, done.stderr
    return "\n".join(
        line if " d " not in line else line.split(" d ")[0] for line in done.stdout.splitlines()
    )


def test_nothing_is_shown_unless_it_is_asked_for(mount: Make, doll: Path) -> None:
    found = mount(doll).run(["ls", MOUNT]).stdout.split()
    assert found == ["bad.zip", "deep", "in.zip", "plain.txt"]


def test_contents_are_those_of_the_archive(mount: Make, doll: Path, tmp_path: Path) -> None:
    overlay = mount(doll, nested=2)
    assert overlay.run(["ls", MOUNT]).stdout.split() == [
        *("bad.zip", "bad.zip.contents", "deep", "in.zip", "in.zip.contents", "plain.txt")
    ]
    wanted = _all(bare, str(tmp_path / "tree"))
    assert _all(overlay.run, f"{MOUNT}/in.zip.contents") == wanted
    below = f"{MOUNT}/deep/in.tar.xz.contents/last.tar.gz.contents"
    assert _all(overlay.run, below) == wanted
    assert overlay.run(["cat", f"{below}/sub/deep/up/link"]).stdout == "alpha\n"  # links within
    done = overlay.run(["sh", "-c", f"cd {below}/sub && cat b.txt && /bin/pwd && readlink deep/up"])
    assert done.stdout == f"beta\n{below}/sub\n../..\n"
    assert overlay.run(["sh", "-c", f"{below}/run.sh a"]).returncode == 7  # executed in there
    copied = overlay.run(["cmp", f"{MOUNT}/in.zip", str(tmp_path / "outer/in.zip")])
    assert copied.returncode == 0  # the archive itself stays a file


def test_nothing_is_read_until_somebody_looks(mount: Make, doll: Path) -> None:
    overlay = mount(doll, nested=2)
    overlay.run(["ls", "-lR", f"{MOUNT}/deep/in.tar.xz"])
    overlay.run(["stat", f"{MOUNT}/in.zip.contents"])
    assert not [*overlay.run_directory.glob("private/fs/a0/n*")]
    overlay.run(["cat", f"{MOUNT}/in.zip.contents/a.txt"])
    assert len([*overlay.run_directory.glob("private/fs/a0/n*/index")]) == 1


def test_depth_is_bounded(mount: Make, doll: Path) -> None:
    overlay = mount(doll, nested=1)
    found = overlay.run(["ls", f"{MOUNT}/deep/in.tar.xz.contents"])
    assert found.stdout.split() == ["last.tar.gz"]
    missing = overlay.run(["ls", f"{MOUNT}/deep/in.tar.xz.contents/last.tar.gz.contents"])
    assert "No such file or directory" in missing.stderr


def test_one_that_is_damaged_fails_alone_and_is_named(mount: Make, doll: Path) -> None:
    overlay = mount(doll, nested=1)
    assert "Input/output error" in overlay.run(["ls", f"{MOUNT}/bad.zip.contents"]).stderr
    assert overlay.run(["cat", f"{MOUNT}/in.zip.contents/a.txt"]).stdout == "alpha\n"
    assert f"{MOUNT}/bad.zip.contents: is damaged" in overlay.errors


def test_a_member_of_that_name_wins(mount: Make, doll: Path, tmp_path: Path) -> None:
    (tmp_path / "outer/in.zip.contents").write_text("a file\n")
    overlay = mount(pack(tmp_path / "outer", tmp_path / "second.tar"), nested=1)
    assert overlay.run(["cat", f"{MOUNT}/in.zip.contents"]).stdout == "a file\n"


def test_bounds_hold_for_all_of_them_together(mount: Make, doll: Path) -> None:
    """The tree has some 75 entries: twice that is too many."""
    overlay = mount(doll, nested=2, max_entries=120)
    assert overlay.run(["cat", f"{MOUNT}/in.zip.contents/a.txt"]).stdout == "alpha\n"
    below = f"{MOUNT}/deep/in.tar.xz.contents/last.tar.gz.contents"
    assert "File too large" in overlay.run(["ls", below]).stderr
    assert "exceeds, with the other archives nested in this mount" in overlay.errors
    assert overlay.run(["cat", f"{MOUNT}/in.zip.contents/sub/b.txt"]).stdout == "beta\n"


def test_below_a_cow_they_can_be_changed(mount: Make, doll: Path, tmp_path: Path) -> None:
    overlay = mount(doll, cow=True, nested=2)
    below = f"{MOUNT}/deep/in.tar.xz.contents/last.tar.gz.contents"
    script = f"cd {below} && echo more >> a.txt && rm sub/b.txt && echo new > sub/new"
    script += " && cat a.txt && ls sub"
    done = overlay.run(["sh", "-c", script])
    assert done.stdout == "alpha\nmore\ndeep\nnew\n", done.stderr
    assert _all(overlay.run, f"{MOUNT}/in.zip.contents") == _all(bare, str(tmp_path / "tree"))


def test_without_a_cow_they_cannot(mount: Make, doll: Path) -> None:
    overlay = mount(doll, nested=1)
    for command in (f"echo x > {MOUNT}/in.zip.contents/new", f"rm {MOUNT}/in.zip.contents/a.txt"):
        assert "Read-only file system" in overlay.run(["sh", "-c", command]).stderr


def test_many_programs_at_once(mount: Make, doll: Path, tmp_path: Path) -> None:
    overlay = mount(doll, nested=2)
    below = f"{MOUNT}/deep/in.tar.xz.contents/last.tar.gz.contents"
    reader = f"(cd {below} && find . -type f | sort | xargs -d '\\n' md5sum | md5sum)"
    done = overlay.run(["sh", "-c", f"for i in 1 2 3 4 5 6; do {reader} & done; wait"])
    assert len(set(done.stdout.splitlines())) == 1 and len(done.stdout.splitlines()) == 6


def test_archives_that_lie_in_each_other_are_refused_not_waited_for(
    tmp_path: Path, libdir: LibDir, doll: Path
) -> None:
    lower = {"source": "archive", "inside": "/cse-test/a/y.zip"}
    mounts: list[dict[str, Any]] = [
        {"path": "/cse-test/a", "source": "archive", "inside": "/cse-test/b/x.zip"},
        {"path": "/cse-test/b", "source": "cow", "lower": lower},
        {"path": MOUNT, "source": "archive", "from": doll},
    ]
    overlay = Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", mounts)
    script = "for i in 1 2 3; do ls /cse-test/a & ls /cse-test/b & done; wait"
    done = overlay.run(["sh", "-c", f"{script}; cat {MOUNT}/plain.txt"], timeout_s=30)
    assert done.stderr.count("Too many levels of symbolic links") == 6
    assert done.stdout == "plain\n"
    assert "/cse-test/a: has an archive that lies in a mount which in turn lies" in overlay.errors
    assert "/cse-test/b: has an archive that lies in a mount which in turn lies" in overlay.errors
