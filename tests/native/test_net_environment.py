"""What a program executes with an environment of its own making is still the application's."""

from __future__ import annotations

import sys

import pytest

from tests.native.net.lab import Lab

pytestmark = [pytest.mark.native, pytest.mark.root]

ADDRESSES = "import fcntl, socket, struct; s = socket.socket(); print(socket.inet_ntoa(" + (
    "fcntl.ioctl(s, 0x8915, struct.pack('40s', b'eth0'))[20:24]))"
)


@pytest.fixture(autouse=True)
def not_sanitized(variant: str) -> None:
    if variant == "asan":
        pytest.skip("the sanitizer has its options in the environment that is cleared here")


@pytest.mark.parametrize(
    "call",
    [
        "os.execve(sys.executable, words, {})",
        "os.execve(sys.executable, words, {'PATH': '/usr/bin'})",
        "os.environ.clear(); os.execv(sys.executable, words)",
        "os.execvpe(sys.executable, words, {'A': '1'})",
        "pid = os.fork(); os.waitpid(pid, 0) if pid else os.execve(sys.executable, words, {})",
    ],
)
def test_a_cleared_environment_does_not_lead_out(lab: Lab, call: str) -> None:
    host = lab.host()
    before = f"import os, sys; words = [sys.executable, '-c', {ADDRESSES!r}]; {call}"
    assert host.check(sys.executable, "-c", before) == f"{host.address}\n"


def test_what_is_given_is_left_as_it_is(lab: Lab) -> None:
    host = lab.host()
    shown = "import os; print(os.environ.get('LD_PRELOAD'), os.environ['A'], len(os.environ))"
    script = f"import os, sys; os.execve(sys.executable, [sys.executable, '-c', {shown!r}], env)"
    given = {"A": "b", "LD_PRELOAD": "/nowhere", "CSE_RUN_DIR": "/x", "CSE_TRACE": "/dev/null"}
    assert host.check(sys.executable, "-c", f"env = {given!r}; {script}").split()[:2] == [
        "/nowhere",
        "b",
    ]


LIMITED = """
import resource, socket
limit = (300 << 20, 400 << 20)
resource.setrlimit(resource.RLIMIT_AS, limit)
print(resource.getrlimit(resource.RLIMIT_AS) == limit, socket.socket().fileno() >= 0)
try:
    bytearray(3 << 30)
except MemoryError:
    print("bounded")
"""


def test_a_limit_of_memory_is_for_the_programs_own(lab: Lab) -> None:
    """vsftpd sets one that the library's addresses alone would exceed."""
    assert lab.host().check(sys.executable, "-c", LIMITED) == "True True\nbounded\n"
