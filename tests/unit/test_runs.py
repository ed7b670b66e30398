"""Directories of `cse run`'s programs: locked while the command lives, found when it has gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from app import runs

HOLDS = """
import sys
from pathlib import Path
from app import runs
with runs.directory(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def _holder(state: Path, name: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLDS, str(state), name]
    made = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None and made.stdout.readline() == "held\n"
    return made


def test_only_what_a_killed_command_left_is_gone(tmp_path: Path) -> None:
    assert runs.names(tmp_path) == set() and list(runs.gone(tmp_path)) == []
    first, second = _holder(tmp_path, "run-1"), _holder(tmp_path, "run-2")
    for path in tmp_path.glob("runs/*"):
        os.utime(path, (0, 0))  # as old as it gets
    assert list(runs.gone(tmp_path)) == []
    first.kill()
    first.communicate()
    assert [home.name for home in runs.gone(tmp_path)] == ["run-1"]
    assert runs.names(tmp_path) == {"run-1", "run-2"}  # its program may run on
    second.communicate("")


def test_one_that_was_taken_for_gone_while_it_began_is_made_anew(tmp_path: Path) -> None:
    home = tmp_path / "runs/run-1"
    home.mkdir(parents=True)
    looking = runs.gone(tmp_path)
    assert next(looking) == home
    made: list[bool] = []

    def begin() -> None:
        with runs.directory(tmp_path, "run-1") as own:
            made.append((own / "lock").exists() and list(runs.gone(tmp_path)) == [])

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join(0.2)  # it waits for the lock
    assert thread.is_alive()
    shutil.rmtree(home)
    assert list(looking) == []
    thread.join(10)
    assert made == [True]
