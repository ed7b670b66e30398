"""Reading /proc of a process that goes on while it is read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from app.evidence import proc

RESTLESS = """
import os
kept = os.memfd_create("kept")
while True:
    for fd in [os.dup(0) for _ in range(200)]:
        os.close(fd)
"""


@pytest.fixture
def restless() -> Iterator[int]:
    """A process that opens and closes descriptors all the time."""
    with subprocess.Popen([sys.executable, "-c", RESTLESS], stdin=subprocess.PIPE) as made:
        try:
            while not any("kept" in target for _, target in proc.descriptors(made.pid)):
                pass
            yield made.pid
        finally:
            made.kill()


def test_descriptors_that_are_closed_meanwhile_are_left_out(restless: int) -> None:
    for _ in range(300):
        kinds = proc.socket_kinds(restless)
        assert kinds is not None and kinds["/memfd"] == 1
    assert proc.socket_kinds(os.getpid() + 2**22) is None
