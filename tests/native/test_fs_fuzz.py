"""Short runs of the file-system element's libFuzzer targets, from good input as seeds."""

from __future__ import annotations

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


def build(name: str, packages: list[str], includes: list[Path], fuzzer: Path) -> Path:
    """The target of images/filesystem/NAME, with the third-party objects of the release build."""
    objects = [str(path) for package in packages for path in (OBJECTS / package).glob("**/*.o")]
    if not objects:
        pytest.skip("the third-party libraries are not built; run `make native`")
    subprocess.run(
        [
            *("clang", "-O1", "-g", "-D_GNU_SOURCE", "-fsanitize=fuzzer,address,undefined"),
            *("-DSODIUM_STATIC", f"-I{ELEMENT}", *(f"-I{path}" for path in includes)),
            str(ROOT / f"tests/native/fs/fuzz_{name}.c"),
            *map(str, sorted((ELEMENT / name).glob("*.c"))),
            *objects,
            *("-o", str(fuzzer), "-lm"),
        ],
        check=True,
    )
    return fuzzer


def run(fuzzer: Path, seeds: Path, *options: str) -> None:
    """For a few seconds; an input that takes a minute counts as one that never ends."""
    limits = ("-rss_limit_mb=1024", "-timeout=60", *options)
    found = subprocess.run(
        [str(fuzzer), f"-max_total_time={SECONDS}", *limits, str(seeds)],
        cwd=seeds.parent,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
    )
    assert found.returncode == 0, found.stderr[-5000:]


def test_no_archive_breaks_the_reader(tmp_path: Path) -> None:
    packages = ["libarchive", "zlib", "bzip2", "libzstd", "lz4", "xz-utils"]
    folders = ("libarchive/libarchive", "zlib", "libzstd/lib", "lz4/lib")
    includes = [*(SOURCES / name for name in folders), SOURCES / "xz-utils/src/liblzma/api"]
    fuzzer = build("archive", packages, includes, tmp_path / "fuzz")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    tree = make_tree(tmp_path / "tree")
    (tree / "sub/deep/n.bin").write_bytes(b"small")
    for kind in FORMATS:
        pack(tree, seeds / f"seed.{kind}")
    run(fuzzer, seeds, "-max_len=65536")


def test_nothing_that_is_not_sealed_is_opened(tmp_path: Path) -> None:
    includes = [ELEMENT / "third-party/sodium", SOURCES / "libsodium/src/libsodium/include"]
    fuzzer = build("crypt", ["libsodium"], includes, tmp_path / "fuzz")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for size in (1, 100, 65536, 65537, 150_000):
        (seeds / f"{size}").write_bytes(bytes(size))
    (seeds / "file").write_bytes(b"CSEFIL1\0" + bytes(200))
    (seeds / "store").write_bytes(b"CSESTO1\0" + bytes(72))
    run(fuzzer, seeds, "-max_len=200000")
