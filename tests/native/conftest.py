"""The network laboratory, one per session."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.native.net.lab import Lab


@pytest.fixture(scope="session")
def lab(libdir: Callable[[str], Path], variant: str) -> Iterator[Lab]:
    environment = {}
    if variant == "asan":
        runtime = subprocess.run(
            ["clang", "-print-file-name=libclang_rt.asan-x86_64.so"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        environment = {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"}
    made = Lab(libdir("network-lwip"), environment)
    yield made
    made.close()
