"""Applications of several processes: one instance, whoever of them is forked, killed or leaves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.native.net.lab import Lab

SOURCE = Path(__file__).parent / "net/processes.c"

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    built = tmp_path_factory.mktemp("processes") / "processes"
    words = ["gcc", "-O1", "-w", "-pthread", "-rdynamic", str(SOURCE), "-o", str(built)]
    subprocess.run(words, check=True)
    return str(built)


def test_a_fork_waits_for_the_helper_thread_to_begin(lab: Lab, program: str) -> None:
    assert lab.host().check(program, "fork") == "status 0\n"
