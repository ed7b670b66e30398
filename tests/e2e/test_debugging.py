"""docs/debugging.md: every command in it is run, in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/debugging.md").read_text(), re.DOTALL)
KEPT = ("bin", "sources/lwip", "sources/c-ares", "elements/network-lwip")

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files, and of what was built the parts that are not to be built again."""
    place = tmp_path_factory.mktemp("project") / "cse"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    packed = subprocess.run(
        ["tar", "--null", "-T", "-", "-c"],
        input=files.stdout,
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(place, filter="fully_trusted")
    objects = [
        path.relative_to(ROOT / "build")
        for target in (ROOT / "build/native").iterdir()
        for path in (target / "network-lwip", target / "_core")
        if path.is_dir()
    ]
    for part in [*map(Path, KEPT), *objects]:
        if (ROOT / "build" / part).is_dir():
            shutil.copytree(ROOT / "build" / part, place / "build" / part, symlinks=True)
    (place / ".venv").symlink_to(ROOT / ".venv")
    return place


def run(copy: Path, text: str) -> str:
    environment = {
        **os.environ,
        "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(copy),
        "CSE_ELEMENTS_DIR": str(copy / "build/elements"),
        "CSE_STATE_DIR": str(copy / "state"),
    }
    done = subprocess.run(
        ["sh", "-ec", text],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def block(word: str) -> str:
    found: list[str] = [text for text in BLOCKS if word in text]
    assert len(found) == 1
    return found[0]


def test_no_block_is_left_out() -> None:
    assert len(BLOCKS) == 4


def test_gdb_stops_in_the_stack_and_shows_its_source(copy: Path) -> None:
    if shutil.which("gdb") is None:
        pytest.skip("no gdb here")
    said = run(copy, block("VARIANT=debug"))
    assert re.search(r"#0 +tcp_start_connect \(.*\) at .*/lwip/tcp\.c:\d+", said)
    assert re.search(r"#\d+ .* in connect \(fd=", said)  # down to the program's own call


def test_other_tools_take_the_program_as_their_arguments(copy: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace here")
    run(copy, block("strace"))


def test_two_builds_run_side_by_side(copy: Path) -> None:
    said = run(copy, block("build/before"))
    assert "(2, 'eth0')" in said and "(2, 'mine0')" in said


def test_the_trace_names_what_the_stack_does(copy: Path) -> None:
    run(copy, block("CSE_TRACE"))
