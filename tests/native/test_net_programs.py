"""Unmodified programs on private stacks: against the kernel's stack, and against each other.

Each test starts its own applications, so that one that
fails says nothing about the others.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.native.net.lab import Host, Lab, need, retry

pytestmark = [pytest.mark.native, pytest.mark.root]
BIG = 30_000_000


def port_open(host: Host, port: int) -> None:
    def attempt() -> bool:
        with socket.create_connection((host.address, port), timeout=2):
            return True

    assert retry(attempt), host.log()


def fetch(address: str, path: str = "/", timeout: int = 20) -> bytes:
    done = subprocess.run(
        ["curl", "-sS", "--fail", "-m", str(timeout), f"http://{address}{path}"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    directory.chmod(0o755)
    (directory / "index.html").write_text("hello\n")
    (directory / "big").write_bytes(bytes(range(256)) * (BIG // 256))
    return directory


def nginx(host: Host, site: Path, daemon: str) -> subprocess.Popen[str]:
    configuration = host.run / "nginx.conf"
    configuration.write_text(
        f"daemon {daemon}; user root; worker_processes 2; pid {host.run}/nginx.pid;\n"
        f"error_log {host.run}/error.log info; events {{ worker_connections 256; }}\n"
        f"http {{ access_log off; server {{ listen 80; root {site}; }} }}\n"
    )
    return host.start(need("nginx"), "-c", str(configuration), "-e", f"{host.run}/error.log")


def workers(master: int) -> set[int]:
    """Its children; none where it has ended."""
    try:
        text = Path(f"/proc/{master}/task/{master}/children").read_text()
    except OSError:
        return set()
    return {int(word) for word in text.split()}


@pytest.mark.parametrize("daemon", ["off", "on"])
def test_nginx_two_workers(lab: Lab, site: Path, daemon: str) -> None:
    host = lab.host()
    process = nginx(host, site, daemon)
    port_open(host, 80)
    try:
        for _ in range(20):
            assert fetch(host.address) == b"hello\n"
        assert fetch(host.address, "/big") == (site / "big").read_bytes()
        if daemon == "on":
            assert process.wait(5) == 0
    finally:
        pid = int((host.run / "nginx.pid").read_text())
        subprocess.run(["kill", str(pid)], check=False)
    assert retry(lambda: not (host.run / "nginx.pid").exists())


def test_nginx_reload_keeps_serving(lab: Lab, site: Path) -> None:
    host = lab.host()
    process = nginx(host, site, "off")
    port_open(host, 80)
    before = workers(process.pid)
    process.send_signal(signal.SIGHUP)  # new workers take the listening socket over
    assert retry(lambda: len(now := workers(process.pid)) == 2 and not now & before)
    for _ in range(10):
        assert fetch(host.address) == b"hello\n"


def test_nginx_starts_another_binary_that_takes_over(lab: Lab, site: Path) -> None:
    """USR2: the new master, with an environment of nginx's making, gets the listeners by exec."""
    host = lab.host()
    nginx(host, site, "on")
    port_open(host, 80)
    file, former = host.run / "nginx.pid", host.run / "nginx.pid.oldbin"
    old = int(str(retry(file.read_text)))
    os.kill(old, signal.SIGUSR2)
    assert retry(
        lambda: fetch(host.address) and former.exists() and file.exists() and file.read_text()
    )
    new = int(file.read_text())
    assert new != old and retry(lambda: len(workers(new)) == 2)
    os.kill(old, signal.SIGWINCH)  # its workers finish what they have; new ones serve alone
    assert retry(lambda: fetch(host.address) and workers(old) <= {new})
    os.kill(old, signal.SIGQUIT)
    assert retry(lambda: not Path(f"/proc/{old}").exists())
    for _ in range(20):
        assert fetch(host.address) == b"hello\n"
    assert fetch(host.address, "/big") == (site / "big").read_bytes()
    os.kill(new, signal.SIGQUIT)
    assert retry(lambda: not host.pids()), "nobody stays when the last descriptor is closed"


def test_redis_server_and_benchmark(lab: Lab) -> None:
    need("redis-server")
    server, client = lab.host("store"), lab.host()
    server.start("redis-server", "--protected-mode", "no", "--save", "", "--dir", str(server.run))
    port_open(server, 6379)
    assert client.check("redis-cli", "-h", "store", "set", "a", "b").strip() == "OK"
    assert client.check("redis-cli", "-h", "store", "get", "a").strip() == "b"
    out = client.check("redis-benchmark", "-h", "store", "-t", "get,set", "-n", "20000", "-q")
    assert "GET" in out
    subprocess.run(["redis-cli", "-h", server.address, "bgsave"], check=True, capture_output=True)
    assert server.check("redis-cli", "-h", server.address, "get", "a").strip() == "b"


def test_curl_and_python_http_server(lab: Lab, site: Path, variant: str) -> None:
    server, client = lab.host(), lab.host()
    server.start(sys.executable, "-m", "http.server", "-b", "0.0.0.0", "80", cwd=site)
    port_open(server, 80)
    assert fetch(server.address, "/big") == (site / "big").read_bytes()
    url = f"http://{server.name}/index.html"
    if variant != "asan":  # curl hangs in setlocale under any preloaded sanitizer
        assert client.check("curl", "-sS", "--fail", url) == "hello\n"
    code = f"import urllib.request as u; print(u.urlopen({url!r}).read())"
    assert client.check(sys.executable, "-c", code).strip() == "b'hello\\n'"


ASYNCIO = """
import asyncio
async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()
async def main():
    async with await asyncio.start_server(serve, "0.0.0.0", 7000) as server:
        await server.serve_forever()
asyncio.run(main())
"""


def test_asyncio_server(lab: Lab) -> None:
    host = lab.host()
    host.start(sys.executable, "-c", ASYNCIO)
    port_open(host, 7000)

    async def talk() -> list[bytes]:
        async def one(number: int) -> bytes:
            reader, writer = await asyncio.open_connection(host.address, 7000)
            writer.write(f"line {number}\n".encode())
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            return answer

        return await asyncio.gather(*(one(n) for n in range(100)))

    assert asyncio.run(talk()) == [f"LINE {n}\n".encode() for n in range(100)]


def iperf_server(host: Host) -> None:
    """Not probed: it takes any connection for a test, and closes its listener after each."""
    host.start("iperf3", "-s", "--forceflush")
    assert retry(lambda: "Server listening" in host.log()), host.log()


@pytest.mark.parametrize("direction", ["", "-R"])
@pytest.mark.parametrize("peer", ["kernel", "instance"])
def test_iperf3(lab: Lab, direction: str, peer: str) -> None:
    need("iperf3")
    server = lab.host()
    iperf_server(server)
    words = ["iperf3", "-J", "-c", server.address, "-t", "1", *([direction] if direction else [])]

    def measure() -> str:
        if peer == "instance":
            return lab.host().check(*words)
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout

    result = json.loads(str(retry(measure)))
    assert "error" not in result, (result["error"], server.log())
    assert result["end"]["sum_received"]["bits_per_second"] > 50e6


def test_iperf3_udp(lab: Lab) -> None:
    need("iperf3")
    server, client = lab.host(), lab.host()
    iperf_server(server)
    words = ("iperf3", "-J", "-u", "-b", "50M", "-l", "1400", "-t", "1", "-c", server.address)
    result = json.loads(client.check(*words))
    assert "error" not in result, (result["error"], server.log())
    assert result["end"]["sum"]["packets"] > 1000
    assert result["end"]["sum"]["lost_percent"] < 20


def test_socat_forks_and_execs(lab: Lab) -> None:
    need("socat")
    server, client = lab.host(), lab.host()
    server.start("socat", "TCP-LISTEN:7001,reuseaddr,fork", "EXEC:cat")
    port_open(server, 7001)
    for n in range(5):
        out = client.check("socat", "-", f"TCP:{server.address}:7001", given=f"hi {n}\n")
        assert out == f"hi {n}\n"


def test_socat_udp(lab: Lab) -> None:
    need("socat")
    server, client = lab.host(), lab.host()
    server.start("socat", "UDP-RECVFROM:7002,fork", "EXEC:cat")
    time.sleep(0.5)
    out = client.check("socat", "-T1", "-", f"UDP:{server.address}:7002", given="datagram\n")
    assert out == "datagram\n"


def test_node_http(lab: Lab) -> None:
    host = lab.host()
    reply = "(q, r) => r.end('node ' + q.socket.remoteAddress)"
    script = f"require('http').createServer({reply}).listen(80, '0.0.0.0')"
    host.start(need("node"), "-e", script)
    port_open(host, 80)
    assert fetch(host.address) == f"node {lab.gateway}".encode()


def test_memcached(lab: Lab) -> None:
    host, client = lab.host(), lab.host()
    host.start(need("memcached"), "-u", "root", "-l", "0.0.0.0")
    port_open(host, 11211)
    with socket.create_connection((host.address, 11211), timeout=5) as connection:
        connection.sendall(b"set k 0 0 3\r\nabc\r\nget k\r\nquit\r\n")
        answer = b""
        while part := connection.recv(4096):
            answer += part
    assert answer == b"STORED\r\nVALUE k 0 3\r\nabc\r\nEND\r\n"
    words = "get k\r\nquit\r\n"
    assert "abc" in client.check("socat", "-t3", "-", f"TCP:{host.address}:11211", given=words)


def test_same_port_twice_and_no_kernel_socket(lab: Lab, site: Path) -> None:
    first, second = lab.host(), lab.host()
    for host in (first, second):
        host.start(sys.executable, "-m", "http.server", "-b", "0.0.0.0", "80", cwd=site)
        port_open(host, 80)
    listening = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    for host in (first, second):
        assert fetch(host.address) == b"hello\n"
        pid = host.processes[-1].pid
        assert host.address not in listening
        inside = ["nsenter", "-t", str(pid), "-n", "ss", "-Hltn"]
        assert subprocess.run(inside, capture_output=True, text=True, check=True).stdout == ""


def test_idle_instance_is_small(lab: Lab, site: Path, variant: str) -> None:
    """At most 2 MiB of memory of its own, after work."""
    if variant == "asan":
        pytest.skip("the sanitizer's red zones and shadow are memory of the instance as well")
    host = lab.host()
    host.start(sys.executable, "-m", "http.server", "-b", "0.0.0.0", "80", cwd=site)
    port_open(host, 80)
    fetch(host.address, "/big")

    def small_again() -> bool:
        return 0 < private_kib(host.processes[-1].pid) <= 2048

    assert retry(small_again), f"{private_kib(host.processes[-1].pid)} KiB"


def private_kib(pid: int) -> int:
    """Memory of the element that this process alone has."""
    private = 0
    mine = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0] and ":" not in line.split(" ")[0]:
            mine = "cse-net" in line or "libcse-" in line
        elif mine and line.startswith(("Private_Clean", "Private_Dirty")):
            private += int(line.split()[1])
    return private
