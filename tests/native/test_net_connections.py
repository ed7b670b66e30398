"""Options and ends of TCP connections are the kernel's: net/connections.c, run both ways."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.native.net.lab import Lab

SOURCE = Path(__file__).parent / "net/connections.c"
CASES = re.findall(r"CASE\((\w+)\)", SOURCE.read_text().split("#define CASE(name)")[1])

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("connections") / "connections"
    subprocess.run(["gcc", "-O1", "-w", "-pthread", str(SOURCE), "-o", str(built)], check=True)
    return built


@pytest.mark.parametrize("mode", ["direct", "relay"])
@pytest.mark.parametrize("case", CASES)
def test_same_as_the_kernel(lab: Lab, program: Path, case: str, mode: str) -> None:
    bare = subprocess.run(
        ["unshare", "-n", "sh", "-c", f"ip link set lo up; exec {program} {case}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert bare
    assert lab.host().check("env", f"CSE_NETWORK_MODE={mode}", str(program), case) == bare


@pytest.mark.parametrize("mode", ["direct", "relay"])
def test_a_sleeping_read_wants_no_more_than_its_buffer(lab: Lab, program: Path, mode: str) -> None:
    """socket(7): SO_RCVLOWAT or the requested amount, whichever is smaller."""
    words = ["env", f"CSE_NETWORK_MODE={mode}", str(program), "small_reads_asleep"]
    assert lab.host().check(*words).splitlines() == [
        "set(client, SOL_SOCKET, SO_RCVLOWAT, 10): 0",
        "read(client, bytes, 2): 2",
        "recv(client, bytes, 4, MSG_WAITALL): 4",
        "too few: 0",
    ]
