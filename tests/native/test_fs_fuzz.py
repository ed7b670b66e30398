"""Short runs of the file-system element's libFuzzer targets, from good input as seeds."""

from __future__ import annotations

import gzip
import lzma
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native.fs_harness import FORMATS, make_tree, pack

ROOT = Path(__file__).resolve().parents[2]
ELEMENT = ROOT / "images/filesystem"
SOURCES = ROOT / "build/sources"
OBJECTS = ROOT / "build/native/glibc-x86_64/third-party"
SECONDS = 10
pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(shutil.which("clang") is None, reason="no clang; `make setup` installs it"),
]


def build(target: str, name: str, packages: list[str], includes: list[Path], fuzzer: Path) -> Path:
    """A target of images/filesystem/NAME, with the third-party objects of the release build."""
    objects = [str(path) for package in packages for path in (OBJECTS / package).glob("**/*.o")]
    if not objects:
        pytest.skip("the third-party libraries are not built; run `make native`")
    subprocess.run(
        [
            *("clang", "-O1", "-g", "-D_GNU_SOURCE", "-fsanitize=fuzzer,address,undefined"),
            *("-DSODIUM_STATIC", f"-I{ELEMENT}", *(f"-I{path}" for path in includes)),
            str(ROOT / f"tests/native/fs/fuzz_{target}.c"),
            *map(str, sorted((ELEMENT / name).glob("*.c"))),
            *objects,
            *("-o", str(fuzzer), "-lm"),
        ],
        check=True,
    )
    return fuzzer


def run(fuzzer: Path, seeds: Path, *options: str, seconds: int = SECONDS, **more: str) -> None:
    """For a few seconds; an input that takes a minute counts as one that never ends."""
    limits = ("-rss_limit_mb=1024", "-timeout=60", *options)
    found = subprocess.run(
        [str(fuzzer), f"-max_total_time={seconds}", *limits, str(seeds)],
        cwd=seeds.parent,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
    )
    assert found.returncode == 0, found.stderr[-5000:]


PACKAGES = ["libarchive", "zlib", "bzip2", "libzstd", "lz4", "xz-utils"]
FOLDERS = ("libarchive/libarchive", "zlib", "libzstd/lib", "lz4/lib", "xz-utils/src/liblzma/api")
INCLUDES = [SOURCES / folder for folder in FOLDERS]


def test_no_archive_breaks_the_reader(tmp_path: Path) -> None:
    fuzzer = build("archive", "archive", PACKAGES, INCLUDES, tmp_path / "fuzz")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    tree = make_tree(tmp_path / "tree")
    (tree / "sub/deep/n.bin").write_bytes(b"small")
    for kind in FORMATS:
        pack(tree, seeds / f"seed.{kind}")
    run(fuzzer, seeds, "-max_len=65536")


def test_no_seek_point_leads_to_wrong_bytes(tmp_path: Path) -> None:
    fuzzer = build("points", "archive", PACKAGES, INCLUDES, tmp_path / "fuzz")
    seeds, top = tmp_path / "seeds", tmp_path / "tree"
    seeds.mkdir()
    top.mkdir()
    chance = random.Random(1)
    for number in range(8):
        (top / f"f{number}").write_text(f"{chance.getrandbits(2_000_000):x}")
    subprocess.run(["tar", "-cf", "t.tar", "-C", top, "."], cwd=tmp_path, check=True)
    plain = (tmp_path / "t.tar").read_bytes()
    (tmp_path / "t.gz").write_bytes(gzip.compress(plain, 1))
    parts = [plain[at : at + 1_200_000] for at in range(0, len(plain), 1_200_000)]
    (tmp_path / "t.xz").write_bytes(b"".join(lzma.compress(part, preset=0) for part in parts))
    for chosen in range(2):
        (seeds / f"{chosen}").write_bytes(bytes([chosen]) + bytes(150))
    archives = f"{tmp_path}/t.gz:{tmp_path}/t.xz"
    run(fuzzer, seeds, "-max_len=4096", seconds=6, CSE_FUZZ_ARCHIVES=archives)


def test_nothing_that_is_not_sealed_is_opened(tmp_path: Path) -> None:
    includes = [ELEMENT / "third-party/sodium", SOURCES / "libsodium/src/libsodium/include"]
    fuzzer = build("crypt", "crypt", ["libsodium"], includes, tmp_path / "fuzz")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for size in (1, 100, 65536, 65537, 150_000):
        (seeds / f"{size}").write_bytes(bytes(size))
    for version in (b"1", b"2"):
        (seeds / f"file{version!r}").write_bytes(b"CSEFIL" + version + bytes(201))
        (seeds / f"store{version!r}").write_bytes(b"CSESTO" + version + bytes(73))
    run(fuzzer, seeds, "-max_len=200000")
