"""The network laboratory, one per session; its hosts live as long as the test that made them."""

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


@pytest.fixture(autouse=True)
def hosts_end_with_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """A server that stays would take memory, a tap and processor time from all tests after it."""
    if "lab" not in request.fixturenames:
        yield
        return
    made: Lab = request.getfixturevalue("lab")
    before = set(made.hosts)
    yield
    made.close_hosts(keep=before)
