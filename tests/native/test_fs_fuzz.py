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
    libraries = ("libarchive/libarchive", "zlib", "libzstd/lib", "lz4/lib")
    includes = [ELEMENT, *(SOURCES / name for name in libraries)]
    includes.append(SOURCES / "xz-utils/src/liblzma/api")
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
            "-timeout=60",
            str(seeds),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
    )
    assert found.returncode == 0, found.stderr[-5000:]
