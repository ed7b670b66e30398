"""Sockets that change hands: by exec, over a socket to a worker, to a pipeline."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.native.net.lab import Host, Lab, need, retry
from tests.native.test_net_programs import fetch, port_open

pytestmark = [pytest.mark.native, pytest.mark.root]

INETD = """
import os, socket, sys
with socket.create_server(("0.0.0.0", 7000)) as server:
    while True:
        one, _ = server.accept()
        if os.fork() == 0:
            for number in (0, 1):
                os.dup2(one.fileno(), number)
            os.execvp(sys.argv[1], sys.argv[1:])
        one.close()
"""
"""inetd's way: each connection is standard input and output of a program of its own."""

POOL = """
import multiprocessing, os, socket
def work(jobs):
    while True:
        with jobs.recv() as one:
            one.sendall(one.recv(100) + b" from %d" % os.getpid())
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    workers = []
    for _ in range(2):
        here, there = multiprocessing.Pipe()
        multiprocessing.Process(target=work, args=(there,), daemon=True).start()
        workers.append(here)
    with socket.create_server(("0.0.0.0", 7000)) as server:
        while True:
            for worker in workers:
                one, _ = server.accept()
                worker.send(one)
                one.close()
"""
"""The parent accepts, workers (programs of their own, started by exec) get the connections."""


ACTIVATED = """
import socket
with socket.socket(fileno=3) as server:
    while True:
        one, _ = server.accept()
        with one:
            one.sendall(one.recv(100).upper())
"""
HANDS_ON = """
import fcntl, os, signal, socket, sys
one = socket.create_server(("0.0.0.0", 7000))
if sys.argv[1] == "connection":
    one, _ = one.accept()
os.dup2(fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 10), 3)
if os.fork() == 0:
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    os.execvp(sys.argv[3], sys.argv[3:])
print("handed on", flush=True)
if sys.argv[2] == "killed":
    signal.pause()
"""
"""Hands its socket on as descriptor 3, as systemd does, and ends or waits to be killed."""

PASSES = """
import os, socket, sys
here, there = socket.socketpair(socket.AF_UNIX)
os.set_inheritable(there.fileno(), True)
words = [sys.executable, "-c", sys.argv[1], str(there.fileno())]
if os.spawnv(os.P_NOWAIT, sys.executable, words) > 0:
    with socket.create_server(("0.0.0.0", 7000)) as server:
        socket.send_fds(here, [b"x"], [server.fileno()])
"""
PASSED = f"""
import os, socket, sys
with socket.socket(fileno=int(sys.argv[1])) as by:
    _, fds, _, _ = socket.recv_fds(by, 1, 1)
    while by.recv(1):
        pass
os.dup2(fds[0], 3)
{ACTIVATED}
"""
"""Gets a listener over a socket, and uses it when whoever passed it is gone."""


def ask(address: str, text: bytes) -> bytes:
    with socket.create_connection((address, 7000), timeout=10) as client:
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while part := client.recv(1 << 16):
            answer += part
        return answer


def test_inetd_gives_the_connection_to_a_program(lab: Lab) -> None:
    host = lab.host()
    host.start(sys.executable, "-c", INETD, need("tr"), "a-z", "A-Z")
    port_open(host, 7000)
    text = b"some text\n" * 20_000
    for _ in range(10):
        assert ask(host.address, b"hello") == b"HELLO"
    assert ask(host.address, text) == text.upper()


def test_inetd_gives_the_connection_to_a_shell_pipeline(lab: Lab) -> None:
    host = lab.host()
    host.start(sys.executable, "-c", INETD, need("sh"), "-c", "sort | uniq -c | sed 's/^ *//'")
    port_open(host, 7000)
    for _ in range(5):
        assert ask(host.address, b"b\na\nb\n") == b"1 a\n2 b\n"


def test_a_pool_of_workers_gets_connections_passed(lab: Lab) -> None:
    host = lab.host()
    script = host.run / "pool.py"
    script.write_text(POOL)
    host.start(sys.executable, str(script))
    port_open(host, 7000)
    answers = [ask(host.address, b"%d" % n) for n in range(10)]
    assert [answer.split(b" from ")[0] for answer in answers] == [b"%d" % n for n in range(10)]
    assert len({answer.split(b" from ")[1] for answer in answers}) == 2


def test_a_shell_starts_client_after_client(lab: Lab) -> None:
    """Each of them joins the instance or makes it anew, and leaves it when it ends."""
    host = lab.host()
    with socket.create_server((lab.gateway, 0)) as server:
        port = server.getsockname()[1]
        line = f"for n in 1 2 3 4 5; do echo $n | socat - TCP:{lab.gateway}:{port}; done | cat"
        need("socat")
        shell = subprocess.Popen(host.command("sh", "-c", line), stdout=subprocess.PIPE)
        for number in range(1, 6):
            one, _ = server.accept()
            with one:
                assert one.recv(10) == b"%d\n" % number
                one.sendall(b"got %d\n" % number)
        assert shell.communicate(timeout=30)[0] == b"".join(b"got %d\n" % n for n in range(1, 6))


def test_gunicorn_workers_reloaded_and_killed(lab: Lab) -> None:
    host = lab.host()
    (host.run / "hello.py").write_text(
        "import os\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [b'%d' % os.getpid()]\n"
    )
    words = (need("gunicorn"), "-w", "2", "-b", "0.0.0.0:80", "--worker-tmp-dir", "/dev/shm")
    master = host.start(*words, "hello:app", cwd=host.run)
    port_open(host, 80)
    before = {fetch(host.address) for _ in range(20)}
    master.send_signal(signal.SIGHUP)
    assert retry(lambda: fetch(host.address) not in before)
    os.kill(int(fetch(host.address)), signal.SIGKILL)
    assert retry(lambda: len({fetch(host.address) for _ in range(20)}) == 2)


def ended(host: Host, process: subprocess.Popen[str], how: str) -> None:
    assert retry(lambda: "handed on" in host.log())
    if how == "killed":
        assert retry(lambda: "cse-keeper" in names(host))
        time.sleep(0.3)  # inside the stack it would take all connections with it
        process.kill()
    process.wait(20)


def connected(host: Host) -> socket.socket:
    """To a server that takes one connection."""
    made = retry(lambda: socket.create_connection((host.address, 7000), timeout=10))
    assert isinstance(made, socket.socket)
    return made


def names(host: Host) -> list[str]:
    """What the application's processes call themselves."""
    return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in host.pids()]


@pytest.fixture(params=["direct", "relay"])
def host(lab: Lab, request: pytest.FixtureRequest) -> Host:
    made = lab.host()
    with (made.run / "network.conf").open("a") as settings:
        settings.write(f"mode={request.param}\n")
    return made


@pytest.mark.parametrize("how", ["ends", "killed"])
def test_a_listener_outlives_the_process_that_made_it(host: Host, how: str) -> None:
    words = ("-c", HANDS_ON, "listener", how, sys.executable, "-c", ACTIVATED)
    ended(host, host.start(sys.executable, *words), how)
    for _ in range(5):
        assert ask(host.address, b"hello") == b"HELLO"
    host.kill()


def test_a_connection_outlives_the_process_that_accepted_it(host: Host) -> None:
    """The program that has it knows nothing of sockets: it reads and writes."""
    words = ("connection", "killed", need("sh"), "-c", "cat <&3 >&3")
    first = host.start(sys.executable, "-c", HANDS_ON, *words)
    with connected(host) as client:
        client.sendall(b"one")
        assert client.recv(10) == b"one"
        ended(host, first, "killed")
        big = bytes(range(256)) * 4000
        sender = threading.Thread(target=client.sendall, args=(big,))
        sender.start()
        got = b""
        while len(got) < len(big):
            got += client.recv(1 << 16)
        sender.join()
        assert got == big
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
    assert retry(lambda: not host.pids()), "the keeper ends when nobody has a socket any more"


def test_a_listener_passed_over_a_socket_outlives_its_first_owner(host: Host) -> None:
    first = host.start(sys.executable, "-c", PASSES, PASSED)
    first.wait(20)
    for _ in range(5):
        assert retry(lambda: ask(host.address, b"hello")) == b"HELLO"
    host.kill()


def test_gunicorn_starts_another_master_that_takes_over(lab: Lab) -> None:
    """USR2, then QUIT of the old one: the new one found its listeners by GUNICORN_FD."""
    host = lab.host()
    (host.run / "hello.py").write_text(
        "def app(environ, start):\n    start('200 OK', [])\n    return [b'hello']\n"
    )
    pid = host.run / "pid"
    words = ("-w", "1", "-b", "0.0.0.0:80", "--worker-tmp-dir", "/dev/shm", "-p", str(pid))
    first = host.start(need("gunicorn"), *words, "hello:app", cwd=host.run)
    port_open(host, 80)
    first.send_signal(signal.SIGUSR2)
    assert retry(lambda: Path(f"{pid}.2").exists())
    new = int(Path(f"{pid}.2").read_text())
    assert retry(lambda: Path(f"/proc/{new}/task/{new}/children").read_text())
    first.send_signal(signal.SIGQUIT)
    first.wait(20)
    for _ in range(5):
        assert fetch(host.address) == b"hello"
    host.kill()


BY_NUMBER = """
import ctypes, os, signal, socket
libc = ctypes.CDLL(None, use_errno=True)
server = socket.create_server(("0.0.0.0", 7000))
NEW_IPC = 0x08000000
print(libc.syscall(56, NEW_IPC | signal.SIGCHLD, 0, 0, 0, 0), ctypes.get_errno(), flush=True)
if libc.syscall(56, signal.SIGCHLD, 0, 0, 0, 0) > 0:
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
for _ in range(3):
    one, _ = server.accept()
    one.sendall(one.recv(100).upper())
    one.close()
os._exit(0)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="clone has another number here")
def test_a_child_forked_by_number_is_a_forked_child(host: Host) -> None:
    """As vsftpd does; into other namespaces, it is refused as to those without privilege."""
    first = host.start(sys.executable, "-c", BY_NUMBER)
    assert retry(lambda: ask(host.address, b"hello")) == b"HELLO"
    assert ask(host.address, b"hello") == b"HELLO"
    assert ask(host.address, b"hello") == b"HELLO"
    assert first.wait(20) == 0
    assert host.log().split()[:2] == ["-1", "1"]
