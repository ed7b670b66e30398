"""Programs that are started without a fork: vfork, posix_spawn, system, popen, subprocess.

What they inherit of private sockets outlives the process that started them.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.native.net.lab import Host, Lab, retry

SOURCE = Path(__file__).parent / "net/spawned.c"
WAYS = ("vfork", "clone", "spawn", "spawnp", "early", "inherit", "system", "popen", "both")

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("spawned") / "spawned"
    subprocess.run(["gcc", "-O1", "-w", str(SOURCE), "-o", str(built)], check=True)
    return built


@pytest.fixture(params=["direct", "relay"])
def host(lab: Lab, request: pytest.FixtureRequest) -> Host:
    made = lab.host()
    with (made.run / "network.conf").open("a") as settings:
        settings.write(f"mode={request.param}\n")
    return made


@pytest.mark.parametrize("fate", ["ends", "killed"])
@pytest.mark.parametrize("way", WAYS)
def test_same_as_the_kernel(host: Host, program: Path, way: str, fate: str) -> None:
    bare = subprocess.run(
        ["unshare", "-n", "sh", "-c", f"ip link set lo up; exec {program} {way} {fate}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "1048576 bytes, the same" in bare
    assert host.check(str(program), way, fate) == bare
    assert retry(lambda: not host.pids()), "what was started, and the keeper, end with the client"


# ---- Python ------------------------------------------------------------------------------------

PYTHON_HANDS_ON = """
import signal, socket, subprocess, sys
with socket.create_server(("0.0.0.0", 7000)) as server:
    one, _ = server.accept()
    words = ["sh", "-c", "cat; exit 0"]
    subprocess.Popen(words, stdin=one, stdout=one, start_new_session=True)
print("handed on", flush=True)
if sys.argv[1] == "killed":
    signal.pause()
"""
"""The connection is `cat`'s, two programs on; subprocess takes vfork for it."""

PYTHON_SERVES = """
import socket
with socket.create_server(("0.0.0.0", 7000)) as server:
    while True:
        one, _ = server.accept()
        with one:
            while data := one.recv(100):
                one.sendall(data.upper())
"""
PYTHON_STARTS_IT = f"""
import signal, socket, subprocess, sys
mine = socket.create_server(("0.0.0.0", 7001))
subprocess.Popen([sys.executable, "-c", {PYTHON_SERVES!r}], start_new_session=True)
print("started", flush=True)
if sys.argv[1] == "killed":
    signal.pause()
"""
"""Both have sockets of one stack; its first process, the leader, is the one that ends."""


def connected(host: Host) -> socket.socket:
    made = retry(lambda: socket.create_connection((host.address, 7000), timeout=10))
    assert isinstance(made, socket.socket)
    return made


def ended(host: Host, process: subprocess.Popen[str], fate: str, word: str) -> None:
    assert retry(lambda: word in host.log())
    if fate == "killed":
        time.sleep(0.3)  # inside the stack it would take all connections with it
        process.kill()
    process.wait(20)


def echoes(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(len(text), socket.MSG_WAITALL)


@pytest.mark.parametrize("fate", ["ends", "killed"])
def test_subprocess_of_python_keeps_its_parents_connection(host: Host, fate: str) -> None:
    first = host.start(sys.executable, "-c", PYTHON_HANDS_ON, fate)
    with connected(host) as client:
        ended(host, first, fate, "handed on")
        for _ in range(3):
            assert echoes(client, b"hello") == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert retry(lambda: not host.pids())


@pytest.mark.parametrize("fate", ["ends", "killed"])
def test_subprocess_of_python_serves_on_without_its_parent(host: Host, fate: str) -> None:
    first = host.start(sys.executable, "-c", PYTHON_STARTS_IT, fate)
    with connected(host) as client:
        assert echoes(client, b"hello") == b"HELLO"
        ended(host, first, fate, "started")
        assert echoes(client, b"again") == b"AGAIN"
    with connected(host) as client:
        assert echoes(client, b"another") == b"ANOTHER"
    host.kill()


def test_a_server_in_a_shells_background_outlives_the_shell(host: Host) -> None:
    script = host.run / "serve.py"
    script.write_text(PYTHON_SERVES)
    host.start("sh", "-c", f"{sys.executable} {script} & exit 0").wait(20)
    with connected(host) as client:
        assert echoes(client, b"hello") == b"HELLO"
    host.kill()


EPOLL_SERVER = """
import select, socket, subprocess
epoll, clients = select.epoll(), {}
server = socket.create_server(("0.0.0.0", 7000))
server.setblocking(False)
epoll.register(server, select.EPOLLIN)
while True:
    for fd, _ in epoll.poll():
        if fd == server.fileno():
            one, _ = server.accept()
            clients[one.fileno()] = one
            epoll.register(one, select.EPOLLIN)
            continue
        data = clients[fd].recv(100)
        if data == b"run":
            data = subprocess.run(["echo", "ran"], capture_output=True).stdout
        if data:
            clients[fd].sendall(data)
        else:
            epoll.unregister(fd)
            clients.pop(fd).close()
"""


def test_a_server_goes_on_while_it_runs_programs(host: Host) -> None:
    """The child closes what it does not need, in its parent's memory: the parent has it still."""
    host.start(sys.executable, "-c", EPOLL_SERVER)
    with connected(host) as first, connected(host) as second:
        for client in (first, second):
            client.settimeout(10)
        for _ in range(3):
            assert echoes(first, b"hello") == b"hello"
            second.sendall(b"run")
            assert second.recv(100) == b"ran\n"
            assert echoes(first, b"again") == b"again"
            assert echoes(second, b"other") == b"other"
    with connected(host) as client:
        assert echoes(client, b"new") == b"new"
