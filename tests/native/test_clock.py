"""The clock element: its library and the environment that its manifest asks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native.fs_harness import MOUNT, Overlay

ROOT = Path(__file__).resolve().parents[2]
DAY_S = 86400
pytestmark = pytest.mark.native


@pytest.fixture
def clock(libdir: Callable[[str], Path], variant: str) -> Callable[[str], dict[str, str]]:
    """`clock("-30d")` is the environment of a program with that clock."""
    if variant == "asan":
        pytest.skip("somebody else's library: there is no sanitized build of it")
    manifest = json.loads((ROOT / "images/clock-faketime/element.json").read_text())

    def environment(offset: str) -> dict[str, str]:
        asked = {k: v.format(offset=offset) for k, v in manifest["environment"].items()}
        library = libdir("clock-faketime") / "libfaketime.so.1"
        return {**os.environ, **asked, "LD_PRELOAD": str(library)}

    return environment


@pytest.mark.parametrize(
    ("offset", "seconds"),
    [("-30d", -30 * DAY_S), ("+2h", 7200), ("-90", -90), ("+1.5h", 5400), ("-1y", -365 * DAY_S)],
)
def test_the_clock_is_moved(
    offset: str, seconds: int, clock: Callable[[str], dict[str, str]]
) -> None:
    found = subprocess.check_output(["date", "+%s"], env=clock(offset), text=True)
    assert abs(int(found) - time.time() - seconds) < 5


def test_timeouts_are_not_affected(clock: Callable[[str], dict[str, str]]) -> None:
    program = """
import queue, select, threading, time
real = time.clock_gettime(time.CLOCK_MONOTONIC)
begin = time.monotonic(); time.sleep(0.2); print(0.2 <= time.monotonic() - begin < 1)
begin = time.monotonic(); threading.Event().wait(0.2); print(0.2 <= time.monotonic() - begin < 1)
begin = time.monotonic(); select.select([], [], [], 0.2); print(0.2 <= time.monotonic() - begin < 1)
begin = time.monotonic()
try: queue.Queue().get(timeout=0.2)
except queue.Empty: print(0.2 <= time.monotonic() - begin < 1)
print(real)
"""
    found = subprocess.check_output([sys.executable, "-c", program], env=clock("-30d"), text=True)
    lines = found.split()
    assert lines[:4] == ["True"] * 4
    assert abs(float(lines[4]) - time.monotonic()) < 30


def test_nothing_is_left_in_shared_memory(clock: Callable[[str], dict[str, str]]) -> None:
    before = {path.name for path in Path("/dev/shm").iterdir()}
    threads = [
        threading.Thread(
            target=subprocess.run, args=[["date"]], kwargs={"env": clock("-1d"), "stdout": -3}
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    subprocess.run(
        ["sh", "-c", "date; sh -c date"], env=clock("-1d"), stdout=subprocess.DEVNULL, check=True
    )
    after = {path.name for path in Path("/dev/shm").iterdir()}
    assert {name for name in after - before if "faketime" in name} == set()


def test_beside_the_file_system_element(
    tmp_path: Path, libdir: Callable[[str], Path], clock: Callable[[str], dict[str, str]]
) -> None:
    """Both elements wrap stat: each passes on to the other, in either order of linking."""
    lower = tmp_path / "lower"
    lower.mkdir()
    (lower / "f").write_text("file\n")
    os.utime(lower / "f", (1_600_000_000, 1_600_000_000))
    clocked = clock("-30d")
    for turn, order in enumerate(("{clock} {files}", "{files} {clock}")):
        application = Overlay(
            tmp_path / f"run{turn}",
            libdir("filesystem") / "libcse-fs.so",
            [{"path": MOUNT, "source": "redirect", "from": lower}],
        )
        preload = order.format(
            clock=clocked["LD_PRELOAD"], files=application.environment["LD_PRELOAD"]
        )
        found = application.run(
            ["sh", "-c", f"cat {MOUNT}/f; stat -c %Y {MOUNT}/f; date +%s"],
            environment={**clocked, **application.environment, "LD_PRELOAD": preload},
        )
        content, modified, now = found.stdout.split()
        assert content == "file"
        assert int(modified) - 1_600_000_000 in (0, -30 * DAY_S)
        assert abs(int(now) - time.time() + 30 * DAY_S) < 5
