"""Programs that confine themselves by seccomp keep their connections: net/confined.c, both ways."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.native.net.lab import Lab

SOURCE = Path(__file__).parent / "net/confined.c"

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(autouse=True)
def not_sanitized(variant: str) -> None:
    if variant == "asan":
        pytest.skip("the filter forbids calls that a sanitizer's runtime makes")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("confined") / "confined"
    subprocess.run(["gcc", "-O1", "-w", str(SOURCE), "-o", str(built)], check=True)
    return built


@pytest.mark.parametrize("mode", ["direct", "relay"])
@pytest.mark.parametrize("way", ["prctl", "syscall", "syscall-prctl", "all-threads"])
def test_same_as_the_kernel(lab: Lab, program: Path, way: str, mode: str) -> None:
    bare = subprocess.run(
        ["unshare", "-n", "sh", "-c", f"ip link set lo up; exec {program} {way}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert bare == "pong end\n"
    assert lab.host().check("env", f"CSE_NETWORK_MODE={mode}", str(program), way) == bare
