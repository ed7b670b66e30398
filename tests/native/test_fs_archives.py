"""Hostile, damaged and over-large archives: a limit, an errno and a line that names the entry."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.native.fs_harness import MOUNT, Overlay, make_tree, pack, tar_of, zip_of

pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
Make = Callable[..., Overlay]


@pytest.fixture
def mount(tmp_path: Path, libdir: LibDir) -> Make:
    """`mount(archive, **settings)` is an application with that archive at MOUNT."""

    def make(archive: Path, **settings: Any) -> Overlay:
        source = {"path": MOUNT, "source": "archive", "from": archive, **settings}
        library = libdir("filesystem") / "libcse-fs.so"
        return Overlay(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", library, [source])

    return make


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def listing(overlay: Overlay) -> list[str]:
    found = overlay.run(["find", MOUNT, "-mindepth", "1", "-printf", "%P\n"])
    assert found.returncode == 0, found.stderr
    return sorted(found.stdout.splitlines())


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (member("../outside", b"x"), "'../outside' has '..' in its name"),
        (member("a/../../outside", b"x"), "'a/../../outside' has '..' in its name"),
        (member("/etc/passwd", b"x"), "'/etc/passwd' has an absolute name"),
        (
            member("out", kind=tarfile.SYMTYPE, link="/etc/passwd"),
            "'out' is a symbolic link that leads",
        ),
        (member("out", kind=tarfile.SYMTYPE, link="../x"), "'out' is a symbolic link that leads"),
        (
            member("d/out", kind=tarfile.SYMTYPE, link="x/../../../y"),
            "'d/out' is a symbolic link that",
        ),
        (
            member("hard", kind=tarfile.LNKTYPE, link="/etc/passwd"),
            "'hard' is a hard link to a file that",
        ),
        (member("hard", kind=tarfile.LNKTYPE, link="../../etc/passwd"), "'hard' is a hard link"),
        (member("hard", kind=tarfile.LNKTYPE, link="hard"), "'hard' is a hard link"),
        (member("disk", kind=tarfile.BLKTYPE), "'disk' is neither file, directory nor link"),
        (member("tty", kind=tarfile.CHRTYPE), "'tty' is neither file, directory nor link"),
        (member("pipe", kind=tarfile.FIFOTYPE), "'pipe' is neither file, directory nor link"),
        (member("good/below", b"x"), "'good/below' lies below something that is not a directory"),
        (member("n" * 256, b"x"), "has too long a name"),
        (member("deep/" * 900 + "x", b"x"), "has too long a name"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].name[:20],
)
def test_a_bad_member_is_left_out_and_named(
    bad: tuple[tarfile.TarInfo, bytes], says: str, mount: Make, tmp_path: Path
) -> None:
    overlay = mount(tar_of([member("good", b"good\n"), bad], tmp_path / "t.tar.gz"))
    assert listing(overlay) == ["good"]
    assert overlay.run(["cat", f"{MOUNT}/good"]).stdout == "good\n"
    assert says in overlay.errors
    assert overlay.errors.startswith(f"{MOUNT}: ")


def test_links_may_lead_out_where_that_is_allowed(mount: Make, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("outside\n")
    link = member("out", kind=tarfile.SYMTYPE, link=str(tmp_path / "outside"))
    overlay = mount(tar_of([link], tmp_path / "t.tar.gz"), links="any")
    assert overlay.run(["cat", f"{MOUNT}/out"]).stdout == "outside\n"


def test_links_that_hide_where_they_lead_do_not_get_out(mount: Make, tmp_path: Path) -> None:
    """By text the links stay inside; followed one through the other they would climb out."""
    links = [
        member("d", kind=tarfile.SYMTYPE, link="."),
        member("x", kind=tarfile.SYMTYPE, link="d/d/d/../../../etc/passwd"),
        member("y", kind=tarfile.SYMTYPE, link="d/d/d/d/../../.."),
        member("z", kind=tarfile.SYMTYPE, link="y/../etc/passwd"),
    ]
    overlay = mount(tar_of(links, tmp_path / "t.tar.gz"))
    for name in ("x", "y/etc/passwd", "z"):
        assert overlay.run(["cat", f"{MOUNT}/{name}"]).returncode == 1


def test_a_member_through_a_link_does_not_escape(mount: Make, tmp_path: Path) -> None:
    members = [member("l", kind=tarfile.SYMTYPE, link="sub"), member("l/passwd", b"x")]
    overlay = mount(tar_of(members, tmp_path / "t.tar.gz"))
    assert listing(overlay) == ["l"]
    assert "'l/passwd' lies below something that is not a directory" in overlay.errors


def test_a_later_member_replaces_an_earlier_one(mount: Make, tmp_path: Path) -> None:
    members = [member("f", b"old content\n"), member("f", b"new\n")]
    overlay = mount(tar_of(members, tmp_path / "t.tar.gz"))
    assert overlay.run(["cat", f"{MOUNT}/f"]).stdout == "new\n"


@pytest.mark.parametrize("name", ["../outside", "/absolute", "a/../../b"])
def test_zip_names_are_checked_as_well(name: str, mount: Make, tmp_path: Path) -> None:
    overlay = mount(zip_of([("good", b"good"), (name, b"bad")], tmp_path / "t.zip"))
    assert listing(overlay) == ["good"]
    assert f"'{name}'" in overlay.errors


# ---- limits -------------------------------------------------------------------------------------


def _refused(overlay: Overlay, says: str) -> None:
    for path in (MOUNT, f"{MOUNT}/f0"):
        found = overlay.run(["stat", path])
        assert found.returncode == 1
        assert "File too large" in found.stderr
    assert says in overlay.errors


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"max_entries": 5}, "exceeds max_entries (5); the archive is refused"),
        ({"max_bytes": 4000}, "exceeds max_bytes (4000); the archive is refused"),
    ],
    ids=["entries", "bytes"],
)
def test_limits(setting: dict[str, int], says: str, kind: str, mount: Make, tmp_path: Path) -> None:
    content = [(f"f{i}", b"x" * 1000) for i in range(10)]
    archive = tmp_path / f"t.{kind}"
    if kind == "zip":
        zip_of(content, archive)
    else:
        tar_of([member(*one) for one in content], archive)
    _refused(mount(archive, **setting), says)


def test_a_bomb_is_refused_by_what_it_declares(mount: Make, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.tar.gz"
    command = "truncate -s 2G f0 && tar -czf bomb.tar.gz f0 && rm f0"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    overlay = mount(bomb, max_ratio=100)
    _refused(overlay, "exceeds max_ratio (100); the archive is refused")
    kept = [*overlay.run_directory.rglob("pack")]
    assert all(path.stat().st_size == 0 for path in kept)


# ---- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["tar", "tar.gz", "tar.xz", "tar.zst", "tar.lz4", "zip", "7z", "cpio.gz", "squashfs"]
)
@pytest.mark.parametrize("left", [0.0, 0.3, 0.9], ids=["empty", "third", "tail-missing"])
def test_a_truncated_archive_fails_with_eio(
    left: float, kind: str, mount: Make, tmp_path: Path
) -> None:
    archive = pack(make_tree(tmp_path / "tree"), tmp_path / f"t.{kind}")
    content = archive.read_bytes()
    if kind == "tar" and left == 0.9:
        left = 0.5  # the last tenth of a plain tar may be padding alone
    archive.write_bytes(content[: int(len(content) * left)])
    overlay = mount(archive)
    found = overlay.run(["ls", MOUNT])
    assert found.returncode != 0
    assert "Input/output error" in found.stderr
    assert f"{MOUNT}: is damaged" in overlay.errors


def test_something_else_is_no_archive(mount: Make, tmp_path: Path) -> None:
    archive = tmp_path / "t.tar.gz"
    archive.write_bytes(os.urandom(5000))
    overlay = mount(archive)
    assert "Input/output error" in overlay.run(["ls", MOUNT]).stderr
    assert "is damaged or no archive of a known kind" in overlay.errors


def test_a_missing_archive_fails_cleanly(mount: Make, tmp_path: Path) -> None:
    overlay = mount(tmp_path / "missing.tar.gz")
    found = overlay.run(["cat", f"{MOUNT}/x", "/etc/hostname"])
    assert "No such file or directory" in found.stderr
    assert found.stdout == Path("/etc/hostname").read_text()
    assert "its archive cannot be opened" in overlay.errors


def test_one_damaged_member_of_a_zip_fails_alone(mount: Make, tmp_path: Path) -> None:
    archive = zip_of([("bad", b"b" * 500), ("good", b"good")], tmp_path / "t.zip")
    content = bytearray(archive.read_bytes())
    at = content.index(b"bad") + 3
    content[at : at + 4] = b"\xff\xff\xff\xff"
    archive.write_bytes(content)
    overlay = mount(archive)
    found = overlay.run(["cat", f"{MOUNT}/bad", f"{MOUNT}/good"])
    assert found.stdout == "good"
    assert "bad: Input/output error" in found.stderr
    assert f"{MOUNT}: 'bad'" in overlay.errors


def test_a_wrong_checksum_is_noticed(mount: Make, tmp_path: Path) -> None:
    archive = zip_of([("f", b"content")], tmp_path / "t.zip")
    content = bytearray(archive.read_bytes())
    central = content.index(b"PK\1\2")
    content[central + 16 : central + 20] = struct.pack("<I", 1)
    archive.write_bytes(content)
    overlay = mount(archive)
    assert "Input/output error" in overlay.run(["cat", f"{MOUNT}/f"]).stderr
    assert "'f' has a wrong checksum" in overlay.errors


def test_a_zip_that_yields_more_than_it_declares(mount: Make, tmp_path: Path) -> None:
    archive = zip_of([("f", b"x" * 100_000)], tmp_path / "t.zip")
    content = bytearray(archive.read_bytes())
    central = content.index(b"PK\1\2")
    content[central + 24 : central + 28] = struct.pack("<I", 10)
    archive.write_bytes(content)
    overlay = mount(archive)
    assert "Input/output error" in overlay.run(["cat", f"{MOUNT}/f"]).stderr
    written = overlay.run_directory / "private/fs/a0/tree/f"
    assert written.stat().st_size <= 10


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_flipped_bytes_never_harm_the_program(kind: str, mount: Make, tmp_path: Path) -> None:
    """Whatever is in the archive: the program ends by itself, with content or with an error."""
    original = pack(make_tree(tmp_path / "tree"), tmp_path / f"t.{kind}").read_bytes()
    state = 12345
    for turn in range(12):
        content = bytearray(original)
        for _ in range(8):
            state = (state * 1103515245 + 12345) % 2**31
            content[state % len(content)] ^= 1 << (state >> 20) % 8
        archive = tmp_path / f"flipped{turn}.{kind}"
        archive.write_bytes(content)
        found = mount(archive).run(["sh", "-c", f"tar cf - {MOUNT} | wc -c"])
        assert found.returncode == 0, found.stderr
        assert "Sanitizer" not in found.stderr, found.stderr


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "tar.zst", "tar.bz2", "zip"])
def test_a_flipped_bit_never_gives_wrong_bytes(kind: str, mount: Make, tmp_path: Path) -> None:
    """Wherever the bit is: every file reads as it was packed, or the read fails and is told of."""
    tree = make_tree(tmp_path / "tree")
    original = pack(tree, tmp_path / f"t.{kind}").read_bytes()
    files = [path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()]
    names = ("a.txt", "b.txt", "n.bin", "hard1", "f00", "f59", "run.sh")
    out = tmp_path / "out"
    script = f"for f in {' '.join(str(p.relative_to(tree)) for p in files if p.name in names)}; do "
    script += (
        f"if ! cat {MOUNT}/$f > {out} 2>/dev/null; then [ -s {out} ] && echo WRONG || echo no;"
    )
    script += f" elif cmp -s {tree}/$f {out}; then echo same; else echo WRONG; fi; done"
    places = [
        *range(200, len(original), len(original) // 24),
        *range(len(original) - 12, len(original)),
    ]
    failures = 0
    for turn, place in enumerate(places):
        content = bytearray(original)
        content[place] ^= 1 << turn % 8
        archive = tmp_path / f"flipped{turn}.{kind}"
        archive.write_bytes(content)
        overlay = mount(archive)
        found = overlay.run(["sh", "-c", script])
        assert "WRONG" not in found.stdout, (place, found.stdout)
        if "no" in found.stdout:
            failures += 1
            assert overlay.errors, place
        archive.unlink()
    assert failures > len(places) // 3


def test_the_checksum_of_a_gzip_stream_is_compared(mount: Make, tmp_path: Path) -> None:
    """The content decompresses without complaint: its checksum alone says that it is not right."""
    archive = tar_of([member("f", os.urandom(300))], tmp_path / "t.tar.gz")
    for at in (-8, -1):
        content = bytearray(archive.read_bytes())
        content[at] ^= 4
        damaged = tmp_path / f"damaged{at}.tar.gz"
        damaged.write_bytes(content)
        overlay = mount(damaged)
        assert "Input/output error" in overlay.run(["cat", f"{MOUNT}/f"]).stderr
        assert "is damaged" in overlay.errors
        assert "wrong gzip checksum" in overlay.errors


def test_streams_in_a_row_are_checked_each(mount: Make, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    plain = pack(tree, tmp_path / "t.tar").read_bytes()
    parts = [gzip.compress(plain[i : i + 50_000]) for i in range(0, len(plain), 50_000)]
    archive = tmp_path / "t.tar.gz"
    archive.write_bytes(b"".join(parts))
    assert mount(archive).run(["cat", f"{MOUNT}/a.txt"]).stdout == "alpha\n"
    parts[1] = parts[1][:-5] + bytes([parts[1][-5] ^ 1]) + parts[1][-4:]
    archive.write_bytes(b"".join(parts))
    assert "Input/output error" in mount(archive).run(["cat", f"{MOUNT}/a.txt"]).stderr


def test_a_stream_that_changes_after_indexing_is_noticed(mount: Make, tmp_path: Path) -> None:
    """Nothing is kept while indexing, so the content is read once more, from another archive."""
    archive = tmp_path / "t.tar.xz"
    tar = tmp_path / "first.tar.gz"
    for name, text in (("first", b"one\n"), ("second", b"two\n")):
        tar_of([member("f", text), member("g", b"same\n")], tar)
        (tmp_path / name).write_bytes(lzma.compress(gzip.decompress(tar.read_bytes())))
    archive.write_bytes((tmp_path / "first").read_bytes())
    overlay = mount(archive, cache_bytes=0)
    assert overlay.run(["stat", "-c", "%s", f"{MOUNT}/f"]).stdout == "4\n"
    archive.write_bytes((tmp_path / "second").read_bytes())
    assert "Input/output error" in overlay.run(["cat", f"{MOUNT}/f"]).stderr
    assert overlay.run(["cat", f"{MOUNT}/g"]).stdout == "same\n"
    assert "'f' is not what it was when the archive was indexed" in overlay.errors


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize("layout", ["gnu", "posix"])
def test_sparse_files(layout: str, kind: str, mount: Make, tmp_path: Path) -> None:
    """With holes in the middle and at the end, as the last member and before another."""
    original = bytearray(3 << 20)
    original[1_000_000:1_000_004] = b"data"
    for name in ("first", "last"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(len(original))
            file.seek(1_000_000)
            file.write(b"data")
    archive = tmp_path / f"t.{kind}"
    names = ["first", "small", "last"]
    (tmp_path / "small").write_bytes(b"small\n")
    subprocess.run(
        ["tar", "-S", f"--format={layout}", "-caf", str(archive), *names], cwd=tmp_path, check=True
    )
    overlay = mount(archive)
    for name in names:
        copied = overlay.run(["cp", f"{MOUNT}/{name}", str(tmp_path / "copy")])
        assert copied.returncode == 0, copied.stderr
        assert (tmp_path / "copy").read_bytes() == (tmp_path / name).read_bytes(), name


# ---- settings -----------------------------------------------------------------------------------


def test_subpath_and_strip(mount: Make, tmp_path: Path) -> None:
    members = [member("site-1.0/public/index.html", b"index"), member("site-1.0/src/x", b"x")]
    archive = tar_of(members, tmp_path / "t.tar.gz")
    assert listing(mount(archive, strip=1)) == ["public", "public/index.html", "src", "src/x"]
    assert listing(mount(archive, subpath="site-1.0/public")) == ["index.html"]
    assert listing(mount(archive, strip=1, subpath="src")) == ["x"]


def test_an_archive_is_read_only(mount: Make, tmp_path: Path) -> None:
    overlay = mount(tar_of([member("f", b"x"), member("d/x", b"x")], tmp_path / "t.tar.gz"))
    for command in (
        f"echo x > {MOUNT}/f",
        f"echo x > {MOUNT}/new",
        f"mkdir {MOUNT}/new",
        f"rm {MOUNT}/f",
        f"rmdir {MOUNT}/d",
        f"mv {MOUNT}/f {MOUNT}/g",
        f"ln -s x {MOUNT}/l",
        f"chmod 600 {MOUNT}/f",
        f"touch {MOUNT}/f",
        f"truncate -s 0 {MOUNT}/f",
    ):
        found = overlay.run(["sh", "-c", command])
        assert found.returncode != 0, command
        assert "Read-only file system" in found.stderr, (command, found.stderr)


# ---- what is kept -------------------------------------------------------------------------------


def _indexes(overlay: Overlay) -> list[Path]:
    return sorted(overlay.run_directory.glob("data/fs-index/*/index"))


def test_the_index_is_kept_for_the_next_run_and_checked_against_the_archive(
    mount: Make, tmp_path: Path
) -> None:
    archive = tar_of([member("f", b"old\n"), member("g", b"same\n")], tmp_path / "t.tar.gz")
    overlay = mount(archive)
    assert overlay.run(["cat", f"{MOUNT}/f"]).stdout == "old\n"
    (index,) = _indexes(overlay)
    made = index.stat().st_mtime_ns
    shutil.rmtree(overlay.run_directory / "private/fs")  # as when the program is started anew
    assert overlay.run(["cat", f"{MOUNT}/g", f"{MOUNT}/f"]).stdout == "same\nold\n"
    assert [path.stat().st_mtime_ns for path in _indexes(overlay)] == [made]
    tar_of([member("f", b"new\n")], archive)
    shutil.rmtree(overlay.run_directory / "private/fs")
    assert overlay.run(["cat", f"{MOUNT}/f"]).stdout == "new\n"
    assert _indexes(overlay) != [index] and len(_indexes(overlay)) == 1


def test_where_nothing_can_be_kept_the_index_is_private(mount: Make, tmp_path: Path) -> None:
    overlay = mount(tar_of([member("f", b"text\n")], tmp_path / "t.tar.gz"))
    (overlay.run_directory / "data/fs-index").touch()
    assert overlay.run(["cat", f"{MOUNT}/f"]).stdout == "text\n"
    assert (overlay.run_directory / "private/fs/a0/index").is_file()


FORKS_WHILE_IT_FILLS = f"""
import os, subprocess, threading, time
path, children = "{MOUNT}/large", []
other = subprocess.Popen(["head", "-c", "1", path], stdout=subprocess.DEVNULL)
opened = threading.Thread(target=lambda: os.close(os.open(path, os.O_RDONLY)))
opened.start()
while opened.is_alive():
    child = os.fork()
    if child == 0:
        time.sleep(100)
        os._exit(0)
    children.append(child)
    time.sleep(0.01)
try:
    print(other.wait(30))
finally:
    for child in children:
        os.kill(child, 9)
"""


def test_a_child_forked_during_a_fill_keeps_no_lock(mount: Make, tmp_path: Path) -> None:
    """Who waits for the file goes on when it is filled, not when the child ends."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/large").write_bytes(os.urandom(1 << 20) * 200)
    overlay = mount(pack(tmp_path / "tree", tmp_path / "t.tar.gz"), cache_bytes=0)
    assert listing(overlay) == ["large"]
    found = overlay.run(["python3", "-c", FORKS_WHILE_IT_FILLS])
    assert found.stdout == "0\n", found.stderr[-2000:]
