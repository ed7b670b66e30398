"""Storms of threads, signals and forks lose no byte and no process: net/storm.c, run both ways."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.native.net.lab import Lab

SOURCE = Path(__file__).parent / "net/storm.c"
# Processes that are still leaving meet those of the next round.
ROUNDS = 3

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    built = tmp_path_factory.mktemp("storm") / "storm"
    subprocess.run(["gcc", "-O1", "-w", "-pthread", str(SOURCE), "-o", str(built)], check=True)
    return str(built)


@pytest.mark.parametrize("mode", ["direct", "relay"])
@pytest.mark.parametrize("kind", ["threads", "signals", "forks"])
def test_every_byte_arrives(lab: Lab, program: str, kind: str, mode: str, variant: str) -> None:
    if variant == "asan" and kind == "forks":
        pytest.skip("a child of a fork among threads may find the sanitizer's own allocator locked")
    bare = subprocess.run(
        ["unshare", "-n", "sh", "-c", f"ip link set lo up; exec {program} {kind}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert bare == f"{kind}: enough 1, broken 0\n"
    host = lab.host()
    for _ in range(ROUNDS):
        said = host.check("env", f"CSE_NETWORK_MODE={mode}", program, kind, timeout=180)
        assert said == bare
