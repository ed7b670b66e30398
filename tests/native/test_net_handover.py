"""Sockets that change hands: by exec, over a socket to a worker, to a pipeline."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.native.net.lab import Lab, need, retry
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
