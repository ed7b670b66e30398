"""Trees, archives and mounts that the figures are measured on; used by the other files here."""

from __future__ import annotations

import contextlib
import itertools
import platform
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.harness import ROOT, CannotMeasure, output
from tests.native.fs_harness import Overlay

MOUNT = "/cse-bench/mount"
LIBRARY = ROOT / f"build/elements/filesystem/lib/glibc-{platform.machine()}/libcse-fs.so"
RATARMOUNT = ROOT / "build/peers/bin/ratarmount"
FILES = 10_000


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A directory for one figure."""
    with tempfile.TemporaryDirectory(prefix="cse-bench-") as path:
        yield Path(path)


def small_files(top: Path, count: int = FILES) -> Path:
    """A flat tree of files of 200 to 8,000 bytes of text."""
    tree = top / "tree"
    tree.mkdir()
    chance = random.Random(1)
    for number in range(count):
        words = (f"{chance.getrandbits(24):x}" for _ in itertools.count())
        text = " ".join(itertools.islice(words, chance.randint(30, 1100)))
        (tree / f"f{number:04}").write_text(text)
    return tree


@contextlib.contextmanager
def application(top: Path, *mounts: dict[str, Any]) -> Iterator[Overlay]:
    """A run directory whose private part is a file system in memory, as the runtimes make it."""
    if not LIBRARY.exists():
        raise CannotMeasure("the element is not built; run `make native`")
    run = Path(tempfile.mkdtemp(prefix="run-", dir=top)) / "run"
    made = Overlay(run, LIBRARY, mounts)
    subprocess.run(["mount", "-t", "tmpfs", "cse-bench", str(run / "private")], check=True)
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", str(run / "private")], check=True)


def restart(made: Overlay) -> None:
    """As the program's next start: the private file system is empty, what is kept stays."""
    shutil.rmtree(made.run_directory / "private/fs", ignore_errors=True)


def told(made: Overlay, *command: str) -> list[float]:
    """The numbers that a measuring program prints in the application."""
    done = made.run(command)
    if done.returncode != 0:
        raise CannotMeasure(f"{command[0]}: {done.stderr.strip()}")
    return [float(word) for word in done.stdout.split()]


def bare(*command: str) -> list[float]:
    return [float(word) for word in output(list(command)).split()]


def seconds(run: Callable[[], object]) -> float:
    start = time.monotonic()
    run()
    return time.monotonic() - start


@contextlib.contextmanager
def fuse(point: Path, *command: str | Path) -> Iterator[Path]:
    """What a FUSE program mounts at `point`, while it is mounted."""
    if not Path("/dev/fuse").exists() or not shutil.which("fusermount"):
        raise CannotMeasure("needs /dev/fuse and fusermount")
    point.mkdir(exist_ok=True)
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise CannotMeasure(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["fusermount", "-u", "-z", str(point)], check=False)


def need(program: str | Path, hint: str) -> str:
    """The path of a peer; `CannotMeasure` with what brings it."""
    found = shutil.which(str(program))
    if found is None:
        raise CannotMeasure(f"no {Path(program).name} on this machine; {hint}")
    return found


def ratarmount() -> str:
    """In a virtual environment of its own under build/."""
    if not RATARMOUNT.exists():
        peers = ROOT / "build/peers"
        subprocess.run(["python3", "-m", "venv", str(peers)], capture_output=True, check=False)
        subprocess.run([f"{peers}/bin/pip", "install", "-q", "ratarmount"], capture_output=True)
    return need(RATARMOUNT, "`build/peers/bin/pip install ratarmount` brings it")
