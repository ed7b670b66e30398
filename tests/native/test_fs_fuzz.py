"""A short run of the archive reader's libFuzzer target, from good archives as seeds."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native.fs_harness import FORMATS, make_tree, pack

ROOT = Path(__file__).resolve().parents[2]
ELEMENT = ROOT / "images/filesystem"
SOURCES = ROOT / "build/sources"
SECONDS = 10
pytestmark = pytest.mark.native


@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang; `make setup` installs it")
def test_no_archive_breaks_the_reader(tmp_path: Path) -> None:
    objects = [
        str(path) for path in (ROOT / "build/native").glob("glibc-x86_64/third-party/**/*.o")
    ]
    if not objects:
        pytest.skip("the third-party libraries are not built; run `make native`")
    fuzzer = tmp_path / "fuzz"
    includes = [ELEMENT, SOURCES / "libarchive/libarchive", SOURCES / "zlib"]
    subprocess.run(
        [
            *("clang", "-O1", "-g", "-D_GNU_SOURCE", "-fsanitize=fuzzer,address,undefined"),
            *(f"-I{path}" for path in includes),
            str(ROOT / "tests/native/fs/fuzz_archive.c"),
            *map(str, sorted((ELEMENT / "archive").glob("*.c"))),
            *objects,
            *("-o", str(fuzzer), "-lm"),
        ],
        check=True,
    )
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    tree = make_tree(tmp_path / "tree")
    (tree / "sub/deep/n.bin").write_bytes(b"small")
    for kind in FORMATS:
        pack(tree, seeds / f"seed.{kind}")
    found = subprocess.run(
        [
            str(fuzzer),
            f"-max_total_time={SECONDS}",
            "-max_len=65536",
            "-rss_limit_mb=1024",
            str(seeds),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert found.returncode == 0, found.stderr[-5000:]
