"""Waiting for sockets under the overlay is as on the kernel: net/waiting.c, run both ways."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.native.net.lab import Lab

SOURCE = Path(__file__).parent / "net/waiting.c"
CASES = re.findall(r"CASE\((\w+)\)", SOURCE.read_text().split("#define CASE(name)")[1])

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("waiting") / "waiting"
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
def test_who_sleeps_before_the_first_private_socket_comes(
    lab: Lab, tmp_path: Path, mode: str
) -> None:
    built = tmp_path / "latecomer"
    source = SOURCE.with_name("latecomer.c")
    subprocess.run(["gcc", "-O1", "-w", "-pthread", str(source), "-o", str(built)], check=True)
    bare = subprocess.run(
        ["unshare", "-n", "sh", "-c", f"ip link set lo up; exec {built}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert bare == "connect: 0\n20 messages\n"
    assert lab.host().check("env", f"CSE_NETWORK_MODE={mode}", str(built)) == bare
