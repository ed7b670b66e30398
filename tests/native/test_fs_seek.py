"""Members in the middle of a large compressed archive: reached from a seek point, and always right.

Nothing is kept while indexing (`cache_bytes: 0`), so that each content comes out of the stream.
"""

from __future__ import annotations

import gzip
import lzma
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.native.fs_harness import MOUNT, Overlay

pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
Make = Callable[..., Overlay]
FILES = 160
PART = 1_500_000

READ = """
import sys
def read():
    return int(open('/proc/self/io').readline().split()[1])
before = read()
content = open(sys.argv[1], 'rb').read()
print(read() - before - len(content))
"""
"""Prints how many bytes the process read beside the content itself."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 MB of text that packs to a third, with a sparse file and a hard link at the end."""
    top = tmp_path_factory.mktemp("seek") / "tree"
    top.mkdir()
    chance = random.Random(7)
    words = [f"{chance.getrandbits(40):x}" for _ in range(3000)]
    for number in range(FILES):
        size = chance.randrange(20_000, 180_000)
        text = " ".join(chance.choices(words, k=size // 10))
        (top / f"f{number:03}").write_text(text[:size])
    with (top / "sparse").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(2_000_000)
        file.write(b"data")
    os.link(top / "f150", top / "zlink")
    return top


@pytest.fixture(scope="module")
def plain(tree: Path) -> Path:
    archive = tree.parent / "t.tar"
    names = sorted(path.name for path in tree.iterdir())
    subprocess.run(["tar", "-S", "-cf", archive, "-C", tree, *names], check=True)
    return archive


def _xz_blocks(plain: Path, archive: Path) -> None:
    command = ["xz", "-0", "--block-size=1500000", "-c", str(plain)]
    archive.write_bytes(subprocess.check_output(command))


def _parts(plain: Path, pack: Callable[[bytes], bytes]) -> bytes:
    content = plain.read_bytes()
    return b"".join(pack(content[at : at + PART]) for at in range(0, len(content), PART))


def _zstd(content: bytes) -> bytes:
    return subprocess.run(["zstd", "-c"], input=content, check=True, capture_output=True).stdout


PACKERS: dict[str, Callable[[Path, Path], object]] = {
    "one-gzip": lambda plain, out: out.write_bytes(gzip.compress(plain.read_bytes(), 6)),
    "gzip-members": lambda plain, out: out.write_bytes(_parts(plain, gzip.compress)),
    "stored-gzip": lambda plain, out: out.write_bytes(gzip.compress(plain.read_bytes(), 0)),
    "xz-blocks": _xz_blocks,
    "xz-streams": lambda plain, out: out.write_bytes(
        _parts(plain, lambda part: lzma.compress(part, preset=0) + bytes(4))
    ),
    "zstd-frames": lambda plain, out: out.write_bytes(_parts(plain, _zstd)),
}
WITHOUT_POINTS: dict[str, Callable[[Path, Path], object]] = {
    "one-xz": lambda plain, out: out.write_bytes(lzma.compress(plain.read_bytes(), preset=0)),
    "one-zstd": lambda plain, out: out.write_bytes(_zstd(plain.read_bytes())),
}


@pytest.fixture(scope="module")
def packed(plain: Path) -> Callable[[str], Path]:
    """`packed(kind)` is the tree in that kind, made once."""

    def make(kind: str) -> Path:
        if "zstd" in kind and shutil.which("zstd") is None:
            pytest.skip("zstd is not installed; `make setup` as root installs it")
        archive = plain.parent / f"{kind}.packed"
        if not archive.exists():
            (PACKERS | WITHOUT_POINTS)[kind](plain, archive)
        return archive

    return make


@pytest.fixture
def mount(tmp_path: Path, libdir: LibDir) -> Make:
    def make(archive: Path, **settings: Any) -> Overlay:
        source = {"path": MOUNT, "source": "archive", "from": archive, "cache_bytes": 0}
        run = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        return Overlay(run, libdir("filesystem") / "libcse-fs.so", [{**source, **settings}])

    return make


def _compare(overlay: Overlay, tree: Path, names: list[str]) -> str:
    """Which of these differ, in this order, in one process."""
    compare = "for f in $0 $@; do cmp -s $T/$f $M/$f || echo $f; done"
    found = overlay.run(
        ["sh", "-c", compare, *names], environment={"T": str(tree), "M": MOUNT}, timeout_s=300
    )
    return found.stdout + found.stderr


@pytest.mark.parametrize("kind", [*PACKERS, *WITHOUT_POINTS])
def test_members_in_any_order_are_what_was_packed(
    kind: str, packed: Callable[[str], Path], tree: Path, mount: Make
) -> None:
    overlay = mount(packed(kind))
    names = sorted(path.name for path in tree.iterdir())
    some = random.Random(3).sample(names, 3 if kind in WITHOUT_POINTS else 20)
    assert _compare(overlay, tree, [*some, "sparse", "zlink", "f000", "f159"]) == ""
    reader = "import os,sys,random; n=sorted(os.listdir(sys.argv[1])); random.seed(5)\n"
    reader += "for f in random.sample(n, 12):\n"
    reader += (
        " assert open(f'{sys.argv[1]}/{f}','rb').read()==open(f'{sys.argv[2]}/{f}','rb').read(), f"
    )
    shutil.rmtree(overlay.run_directory / "private/fs")
    done = overlay.run(["python3", "-c", reader, MOUNT, str(tree)])  # all in one process
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", PACKERS)
def test_one_file_costs_the_way_from_a_point_not_from_the_beginning(
    kind: str, packed: Callable[[str], Path], mount: Make
) -> None:
    archive = packed(kind)
    overlay = mount(archive)
    overlay.run(["stat", MOUNT])
    done = overlay.run(["python3", "-c", READ, f"{MOUNT}/f150"])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < archive.stat().st_size / 4 + 200_000
    (index,) = overlay.run_directory.glob("data/fs-index/*/index")
    assert index.stat().st_size < 400_000 + FILES * 200


def test_points_are_left_out_where_all_contents_are_kept(
    packed: Callable[[str], Path], mount: Make, tree: Path
) -> None:
    overlay = mount(packed("one-gzip"), cache_bytes=1 << 30)
    assert _compare(overlay, tree, ["f150", "f007"]) == ""
    (index,) = overlay.run_directory.glob("data/fs-index/*/index")
    assert index.stat().st_size < FILES * 400


def test_what_does_not_fit_is_read_from_points(
    packed: Callable[[str], Path], mount: Make, tree: Path
) -> None:
    overlay = mount(packed("one-gzip"), cache_bytes=4_000_000)
    assert _compare(overlay, tree, ["f150", "f007", "f080", "f000", "zlink"]) == ""
    (pack,) = overlay.run_directory.glob("data/fs-index/*/pack")
    assert 3_000_000 < pack.stat().st_size <= 4_000_000


@pytest.mark.parametrize("kind", ["one-gzip", "xz-blocks", "zstd-frames"])
def test_a_stream_damaged_after_indexing_gives_no_wrong_byte(
    kind: str, packed: Callable[[str], Path], mount: Make, tree: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "t"
    shutil.copy(packed(kind), archive)
    overlay = mount(archive)
    overlay.run(["stat", MOUNT])
    size = archive.stat().st_size
    with archive.open("r+b") as file:
        for place in range(size // 2, size // 2 + 40_000, 1000):
            file.seek(place)
            file.write(b"\x55\xaa\x55\xaa")
    script = f"for f in $(ls {tree} | grep [05]$); do "
    script += f"if cat {MOUNT}/$f > {tmp_path}/out 2>/dev/null; then "
    script += f"cmp -s {tree}/$f {tmp_path}/out && echo same || echo WRONG $f;"
    script += f"else [ -s {tmp_path}/out ] && echo WRONG $f || echo no; fi; done"
    found = overlay.run(["sh", "-c", script], timeout_s=300).stdout.split("\n")
    assert not [line for line in found if line.startswith("WRONG")]
    assert found.count("no") >= 1 and found.count("same") > FILES // 12
    assert "\n" in overlay.errors


def test_a_truncated_stream_after_indexing(
    packed: Callable[[str], Path], mount: Make, tree: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "t"
    shutil.copy(packed("one-gzip"), archive)
    overlay = mount(archive)
    overlay.run(["stat", MOUNT])
    os.truncate(archive, archive.stat().st_size // 2)
    assert "Input/output error" in overlay.run(["cat", f"{MOUNT}/f150"]).stderr
    assert "'f150' truncated gzip input" in overlay.errors
    assert _compare(overlay, tree, ["f000", "f010"]) == ""


def test_headers_of_gzip_with_all_fields(
    plain: Path, mount: Make, tree: Path, tmp_path: Path
) -> None:
    body = gzip.compress(plain.read_bytes(), 1)[10:]
    extra = b"AB" + struct.pack("<H", 65_000) + bytes(65_000)
    header = b"\x1f\x8b\x08" + bytes([2 | 4 | 8 | 16]) + bytes(6)
    header += struct.pack("<H", len(extra)) + extra + b"name\0" + b"a comment\0" + b"\0\0"
    (tmp_path / "t").write_bytes(header + body + bytes(700))  # and padding, as tapes have it
    assert _compare(mount(tmp_path / "t"), tree, ["f100"]) == ""
