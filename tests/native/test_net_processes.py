"""Applications of several processes: one instance, whoever of them is forked, killed or leaves."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.native.net.lab import Host, Lab, need, retry

SOURCE = Path(__file__).parent / "net/processes.c"
ARENA_BASE = 0x2C5E00000000
"""As in arena.h."""
LOCK_AT = 24
"""Where `struct instance` has the word of its lock that names the owner, a thread."""
OWNER_BITS = 0x3FFFFFFF
PORT = 7000

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    built = tmp_path_factory.mktemp("processes") / "processes"
    words = ["gcc", "-O1", "-w", "-pthread", "-rdynamic", str(SOURCE), "-o", str(built)]
    subprocess.run(words, check=True)
    return str(built)


def test_a_fork_waits_for_the_helper_thread_to_begin(lab: Lab, program: str) -> None:
    assert lab.host().check(program, "fork") == "status 0\n"


# ---- killed inside the stack -------------------------------------------------------------------


def holds_the_lock(pid: int) -> bool:
    """Of a stopped process: one of its threads is the owner of the arena's lock."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(ARENA_BASE)
        header = memory.read(LOCK_AT + 4)
    assert header[:8] == b"10tenesc", "not an arena"
    owner = struct.unpack_from("<I", header, LOCK_AT)[0] & OWNER_BITS
    return Path(f"/proc/{pid}/task/{owner}").exists()


def stopped(pid: int) -> bool:
    states = [task.joinpath("stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(state.rpartition(")")[2].split()[0] == "T" for state in states)


def kill_inside(pid: int) -> None:
    """SIGKILL, at a moment when the process holds the arena's lock."""
    for _ in range(1000):
        os.kill(pid, signal.SIGSTOP)
        assert retry(lambda: stopped(pid))
        if holds_the_lock(pid):
            os.kill(pid, signal.SIGKILL)
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(random.uniform(0, 0.002))
    raise AssertionError("never found with the lock")


def said(host: Host, pattern: str) -> re.Match[str]:
    def look() -> re.Match[str] | None:
        return re.search(pattern, host.log())

    found = retry(look, 20)
    assert isinstance(found, re.Match), f"no {pattern!r} in:\n{host.log()}"
    return found


def echo(kind: socket.SocketKind, host: Host, text: bytes = b"hello") -> bool:
    with socket.socket(socket.AF_INET, kind) as client:
        client.settimeout(2)
        client.connect((host.address, PORT))
        client.sendall(text)
        return client.recv(100) == text


@pytest.mark.parametrize("victim", ["child", "parent"])
def test_killed_inside_the_stack(lab: Lab, program: str, victim: str) -> None:
    host = lab.host()
    host.start(program, "crowd", victim, lab.address(4094), str(PORT))
    pid = int(said(host, r"calls: (\d+)")[1])
    with socket.create_connection((host.address, PORT), timeout=10) as old:
        old.sendall(b"before")
        assert old.recv(100) == b"before"
        assert echo(socket.SOCK_DGRAM, host)
        kill_inside(pid)
        said(host, "read: ECONNRESET")
        said(host, "connect: ECONNRESET")
        with pytest.raises(ConnectionError):
            for _ in range(100):
                old.sendall(b"after")
                time.sleep(0.05)
    for _ in range(5):
        assert echo(socket.SOCK_STREAM, host)
        assert echo(socket.SOCK_DGRAM, host)


# ---- killed under load -------------------------------------------------------------------------


class Load:
    """Clients that fetch without end; a connection may break with its worker, none may hang."""

    def __init__(self, address: str, clients: int) -> None:
        self.address = address
        self.served = self.broken = 0
        self.hung: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with socket.create_connection((self.address, 80), timeout=10) as client:
                    client.sendall(b"GET /big HTTP/1.0\r\n\r\n")
                    while client.recv(1 << 16):
                        pass
                    self.served += 1
            except TimeoutError as error:
                self.hung.append(str(error))
            except OSError:
                self.broken += 1

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_workers_killed_under_load(lab: Lab, tmp_path: Path) -> None:
    tmp_path.joinpath("big").write_bytes(b"x" * 200_000)
    host = lab.host()
    configuration = host.run / "nginx.conf"
    configuration.write_text(
        f"daemon off; user root; worker_processes 3; pid {host.run}/nginx.pid;\n"
        f"events {{}} http {{ access_log off; server {{ listen 80; root {tmp_path}; }} }}\n"
    )
    log = str(host.run / "log")
    master = host.start(need("nginx"), "-c", str(configuration), "-e", log)
    assert retry(lambda: len(children(master.pid)) == 3)
    load = Load(host.address, 4)
    try:
        for _ in range(30):
            time.sleep(random.uniform(0, 0.1))
            os.kill(random.choice(children(master.pid)), signal.SIGKILL)
            before = load.served
            assert retry(lambda: load.served > before + 10, 20), (load.served, load.broken)  # noqa: B023
    finally:
        load.stop()
    assert not load.hung
    assert master.poll() is None
