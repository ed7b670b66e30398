"""The interposition core (images/_core), in a C program of its own and under sanitizers."""

from __future__ import annotations

import array
import os
import shutil
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "images/_core"

SETTINGS = """\
# a comment
plain=value
escaped=a%25b%0Ac=d
empty=
number=65520
huge=99999999999999999999
list.0.path=/a
list.1.path=/b
given.by-hand=file"""


def _answer(listener: socket.socket) -> None:
    """A broker that takes one message with two descriptors and answers with one."""
    connection, _ = listener.accept()
    with connection:
        text, control, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(16))
        assert text == b"hello version=1"
        for fd in array.array("i", control[0][2]):
            os.close(fd)
        with open("/dev/null", "rb") as device:
            socket.send_fds(connection, [b"create name=a%20b other=1"], [device.fileno()])


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "sample.conf").write_text(SETTINGS)
    return tmp_path


@pytest.mark.native
@pytest.mark.parametrize(
    "compiler",
    [
        ["gcc", "-O2"],
        ["clang", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    ],
    ids=["plain", "sanitized"],
)
def test_core(compiler: list[str], run_directory: Path) -> None:
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no {compiler[0]} on this machine; `make setup` installs it")
    program = run_directory / "core_test"
    sources = [str(ROOT / "tests/native/core/core_test.c"), *map(str, CORE.glob("*.c"))]
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-g", f"-I{CORE}", "-o", str(program)]
    subprocess.run([*compiler, *flags, *sources, "-ldl"], check=True)

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(run_directory / "broker.sock"))
        listener.listen()
        broker = threading.Thread(target=_answer, args=[listener], daemon=True)
        broker.start()
        environment = {
            **os.environ,
            "CSE_RUN_DIR": str(run_directory),
            "CSE_SAMPLE_GIVEN_BY_HAND": "hand",
            "CSE_TRACE": str(run_directory / "trace"),
        }
        done = subprocess.run(
            [str(program)], env=environment, capture_output=True, text=True, timeout=60
        )
        broker.join(5)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "ok a broker that left is noticed"
    assert "socket AF_NETLINK" in (run_directory / "trace").read_text()

    rows = (run_directory / "data/escapes.sample").read_bytes()
    counted = {}
    for at in range(0, len(rows), 64):
        count, state, name = struct.unpack_from("<QQ40s", rows, at)
        if state == 2:
            counted[name.rstrip(b"\0").decode()] = count
    assert counted == {
        "socket AF_NETLINK": 4,
        "a name that is far longer than the forty bytes that count"[:39]: 1,
    }
