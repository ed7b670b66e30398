"""The formats of encrypted stores: the first is still served, the second is AEGIS as published."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native.fs_harness import MOUNT, Overlay

pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
ROOT = Path(__file__).resolve().parents[2]
SODIUM = ROOT / "build/sources/libsodium/src/libsodium/include"
OBJECTS = ROOT / "build/native/glibc-x86_64/third-party/libsodium"
FIRST = Path(__file__).parent / "fs/store-of-the-first-format.tar.gz.b64"
"""A store that version 0.1's library made: sub/note, link, a long name, empty."""
HUGE_PAGE = 2 << 20


def _application(folder: Path, library: Path, name: str) -> Overlay:
    (folder / "key").write_text("ab" * 32)
    (folder / "store").mkdir(exist_ok=True)
    paths = {"store": str(folder / "store"), "key_file": str(folder / "key")}
    return Overlay(folder / name, library, [{"path": MOUNT, "source": "encrypted", **paths}])


def test_a_store_of_the_first_format_is_read_and_written(tmp_path: Path, libdir: LibDir) -> None:
    library = libdir("filesystem") / "libcse-fs.so"
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(FIRST.read_text()))) as tar:
        tar.extractall(tmp_path, filter="tar")
    script = f"cd {MOUNT} && cat link n* && stat -c %s sub/note empty && seq 60000 > new"
    found = _application(tmp_path, library, "first").run(["sh", "-c", script])
    told = "written by the first format\nlong name\n28\n0\n"
    assert (found.stdout, found.stderr) == (told, "")
    assert (tmp_path / "store/.cse").read_bytes().startswith(b"CSESTO1\0")
    sealed = max((tmp_path / "store").iterdir(), key=lambda path: path.lstat().st_size)
    assert sealed.read_bytes().startswith(b"CSEFIL1\0")
    found = _application(tmp_path, library, "later").run(["cat", f"{MOUNT}/new"])
    assert found.stdout == "".join(f"{number}\n" for number in range(1, 60001))


def test_aegis_gives_the_known_answers_by_portable_and_by_fast_code(
    tmp_path: Path, libdir: LibDir
) -> None:
    objects = [str(path) for path in OBJECTS.glob("**/*.o")]
    if not objects:
        pytest.skip("the third-party libraries are not built; run `make native`")
    program = tmp_path / "aegis"
    source = Path(__file__).parent / "fs/aegis.c"
    include = [f"-I{SODIUM}", f"-I{ROOT / 'images/filesystem/third-party/sodium'}"]
    command = ["cc", "-O1", "-DSODIUM_STATIC", *include, str(source), *objects, "-o", str(program)]
    subprocess.run(command, check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    words = set(Path("/proc/cpuinfo").read_text().split())
    assert done.stdout.strip() == ("aes" if {"aes", "avx"} <= words else "portable")
    _application(tmp_path, libdir("filesystem") / "libcse-fs.so", "run").run(["ls", MOUNT])
    magic = b"CSESTO2\0" if done.stdout.strip() == "aes" else b"CSESTO1\0"
    assert (tmp_path / "store/.cse").read_bytes().startswith(magic)


@pytest.mark.parametrize(
    "size",
    [
        *(HUGE_PAGE - 1, HUGE_PAGE, 2 * HUGE_PAGE, 2 * HUGE_PAGE + 1),
        *(16 * HUGE_PAGE, 17 * HUGE_PAGE + 70_001),
    ],
)
def test_a_file_is_whole_where_its_pages_are_huge_ones(size: int, libdir: LibDir) -> None:
    """On a file system in memory, as the runtimes give it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cse-test-") as folder:
        top, library = Path(folder), libdir("filesystem") / "libcse-fs.so"
        plain = top / "plain"
        plain.write_bytes(os.urandom(size))
        assert (
            _application(top, library, "first").run(["cp", str(plain), f"{MOUNT}/f"]).returncode
            == 0
        )
        compare = ["cmp", str(plain), f"{MOUNT}/f"]
        assert _application(top, library, "second").run(compare).returncode == 0
        (sealed,) = (path for path in (top / "store").iterdir() if path.lstat().st_size > size)
        content = bytearray(sealed.read_bytes())
        content[-1] ^= 1
        sealed.write_bytes(content)
        third = _application(top, library, "third")
        assert "Input/output error" in third.run(compare).stderr
        count = f'tr -d "\\0" < {top}/third/private/fs/e0/tree/f | wc -c'
        assert subprocess.check_output(["sh", "-c", count]) == b"0\n", "half of it stayed in clear"
