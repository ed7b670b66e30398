"""What was learnt of a socket's patience is not believed longer than it holds: net/patience.c."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.native.net.lab import Lab

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("patience") / "patience"
    source = Path(__file__).parent / "net/patience.c"
    subprocess.run(["gcc", "-O1", "-w", "-pthread", str(source), "-o", str(built)], check=True)
    return built


@pytest.mark.parametrize("mode", ["direct", "relay"])
def test_a_call_waits_as_long_as_the_kernels(lab: Lab, program: Path, mode: str) -> None:
    bare = subprocess.run(
        ["unshare", "-n", "sh", "-c", f"ip link set lo up; exec {program}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "another program: EAGAIN" in bare
    assert lab.host().check("env", f"CSE_NETWORK_MODE={mode}", str(program)) == bare
