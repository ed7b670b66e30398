"""Unmodified programs over IPv6, and the tools of ICMP, on private stacks and to the kernel's.

As test_net_programs.py is for IPv4: each test starts its own applications.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.net.lab import Host, Lab, need, retry

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site6")
    directory.chmod(0o755)
    (directory / "index.html").write_text("hello\n")
    (directory / "big").write_bytes(bytes(range(256)) * 40_000)
    return directory


def port_open(host: Host, port: int, address: str = "") -> None:
    def attempt() -> bool:
        with socket.create_connection((address or host.address6, port), timeout=2):
            return True

    assert retry(attempt), host.log()


def fetch(url: str) -> bytes:
    done = subprocess.run(
        ["curl", "-gsS", "--fail", "-m", "20", url], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nginx_on_both_families(lab: Lab, site: Path, variant: str) -> None:
    host = lab.host()
    configuration = host.run / "nginx.conf"
    configuration.write_text(
        f"daemon off; user root; worker_processes 2; pid {host.run}/nginx.pid;\n"
        f"error_log {host.run}/error.log info; events {{ worker_connections 256; }}\n"
        "http { access_log off; server { listen 80; listen [::]:80; "
        f"location / {{ root {site}; }} "
        "location /who { return 200 $remote_addr; } } }\n"
    )
    host.start(need("nginx"), "-c", str(configuration), "-e", f"{host.run}/error.log")
    port_open(host, 80)
    for address in (host.address, f"[{host.address6}]"):
        assert fetch(f"http://{address}/big") == (site / "big").read_bytes()
    assert fetch(f"http://[{host.address6}]/who").decode() == lab.gateway6
    assert fetch(f"http://{host.address}/who").decode() == lab.gateway
    if variant == "asan":  # curl hangs in setlocale under any preloaded sanitizer
        return
    client = lab.host()
    by_name = client.check("curl", "-6", "-sS", "--fail", f"http://{host.name}/who")
    assert by_name == client.address6


def test_redis_on_both_families(lab: Lab) -> None:
    need("redis-server")
    server, client = lab.host("store6"), lab.host()
    options = ("--bind", "*", "-::*", "--protected-mode", "no", "--save", "")
    server.start("redis-server", *options, "--dir", str(server.run))
    port_open(server, 6379)
    assert client.check("redis-cli", "-h", server.address6, "set", "a", "b").strip() == "OK"
    assert client.check("redis-cli", "-h", server.address, "get", "a").strip() == "b"
    assert client.check("redis-cli", "-h", server.name, "get", "a").strip() == "b"


ASYNCIO = """
import asyncio
async def serve(reader, writer):
    name = writer.get_extra_info("peername")[0]
    writer.write(name.encode() + b"\\n")
    await writer.drain()
    writer.close()
async def main():
    async with await asyncio.start_server(serve, None, 7000) as server:
        await server.serve_forever()
asyncio.run(main())
"""


def test_asyncio_server_on_both_families(lab: Lab) -> None:
    host = lab.host()
    host.start(sys.executable, "-c", ASYNCIO)
    port_open(host, 7000)
    port_open(host, 7000, host.address)
    for address, own in ((host.address, lab.gateway), (host.address6, lab.gateway6)):
        with socket.create_connection((address, 7000), timeout=5) as connection:
            assert connection.makefile().readline().strip() == own


def test_node_listens_on_both_by_default(lab: Lab) -> None:
    host, client = lab.host(), lab.host()
    reply = "(q, r) => r.end(q.socket.remoteAddress)"
    host.start(need("node"), "-e", f"require('http').createServer({reply}).listen(80)")
    port_open(host, 80)
    assert fetch(f"http://[{host.address6}]").decode() == lab.gateway6
    assert fetch(f"http://{host.address}").decode() == f"::ffff:{lab.gateway}"
    script = f"fetch('http://{host.name}').then(r => r.text()).then(console.log)"
    assert client.check("node", "-e", script).strip() in {
        client.address6,
        f"::ffff:{client.address}",
    }


def test_socat_datagrams_over_link_local(lab: Lab) -> None:
    need("socat")
    server, client = lab.host(), lab.host()
    server.start("socat", "UDP6-RECVFROM:7002,fork", "EXEC:cat")
    number = int(server.mac.split(":")[-1], 16)
    place = f"UDP6:[fe80::c5:ff:fe00:{number:x}%eth0]:7002"
    assert retry(lambda: client.check("socat", "-T1", "-", place, given="hello\n") == "hello\n")


def test_large_datagrams_travel_in_fragments(lab: Lab) -> None:
    host = lab.host()
    code = (
        "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n"
        f"s.sendto(bytes(65000), ('{lab.gateway6}', 7003))\n"
        "print(len(s.recv(70000)))"
    )
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.bind((lab.gateway6, 7003))
        peer.settimeout(10)

        def answer() -> None:
            data, sender = peer.recvfrom(70000)
            peer.sendto(data, sender)

        thread = threading.Thread(target=answer)
        thread.start()
        assert host.check(sys.executable, "-c", code).strip() == "65000"
        thread.join()


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_ping_both_ways(lab: Lab, family: str) -> None:
    need("ping")
    host, client = lab.host(), lab.host()
    host.start(sys.executable, "-c", "import socket, time; socket.socket(); time.sleep(60)")
    assert retry(lambda: lab.broker.details(host.name).get("live"))
    address = host.address if family == "-4" else host.address6
    gateway = lab.gateway if family == "-4" else lab.gateway6
    outside = ("ping", family, "-c", "2", "-i", "0.2", "-W", "2", address)
    assert retry(lambda: subprocess.run(outside, check=True, capture_output=True))
    for target in (address, gateway, host.name, client.name):
        text = client.check("ping", family, "-c", "2", "-i", "0.2", "-W", "2", target)
        assert " 0% packet loss" in text
    assert "3008 bytes from" in client.check("ping", family, "-c1", "-s", "3000", gateway)


def test_ping_says_why_not(lab: Lab) -> None:
    need("ping")
    host = lab.host()
    words = host.command("ping", "-c", "1", "-W", "2", "-t", "1", "192.0.2.1")
    text = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    assert f"From {lab.gateway}" in text


@pytest.mark.parametrize("method", ["-U", "-I"])
@pytest.mark.parametrize("family", ["-4", "-6"])
def test_traceroute_both_ways(lab: Lab, family: str, method: str) -> None:
    need("traceroute")
    host, client = lab.host(), lab.host()
    host.start(sys.executable, "-c", "import socket, time; socket.socket(); time.sleep(60)")
    assert retry(lambda: lab.broker.details(host.name)["live"]), host.log()
    address = host.address if family == "-4" else host.address6
    gateway = lab.gateway if family == "-4" else lab.gateway6
    words = ("traceroute", family, method, "-n", "-w", "2", "-q", "1", "-m", "3")

    def reached(target: str, text: str) -> bool:
        lines = text.splitlines()[1:]
        return len(lines) == 1 and lines[0].split()[1] == target

    outside = subprocess.run([*words, address], capture_output=True, text=True, check=True).stdout
    assert reached(address, outside), outside
    for target in (address, gateway):
        inside = client.check(*words, target)
        assert reached(target, inside), inside


def test_raw_sockets_are_refused_and_counted(lab: Lab) -> None:
    host = lab.host()
    code = (
        "import socket\n"
        "for family, protocol in ((socket.AF_INET, 1), (socket.AF_INET6, 58)):\n"
        "    try: socket.socket(family, socket.SOCK_RAW, protocol)\n"
        "    except OSError as error: print(error.errno)\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "try: s.setsockopt(0, 39, bytes(12))\n"  # IP_ADD_SOURCE_MEMBERSHIP
        "except OSError as error: print(error.errno)\n"
    )
    assert host.check(sys.executable, "-c", code).split() == ["1", "1", "92"]
    told = b"".join(path.read_bytes() for path in (host.run / "data").iterdir())
    assert b"socket SOCK_RAW" in told
    assert b"multicast filter by source" in told


class NameServer:
    """Answers every A and AAAA question the same, over UDP."""

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((address, 53))
        self.asked: list[int] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                question, sender = self.socket.recvfrom(2000)
            except OSError:
                return
            if question == b"end":
                return
            end = question.index(b"\0", 12) + 5
            kind = int.from_bytes(question[end - 4 : end - 2], "big")
            self.asked.append(kind)
            data = {
                1: socket.inet_pton(socket.AF_INET, "192.0.2.5"),
                28: socket.inet_pton(socket.AF_INET6, "2001:db8::5"),
            }.get(kind, b"")
            head = question[:2] + b"\x85\x80\0\1" + (b"\0\1" if data else b"\0\0") + b"\0\0\0\0"
            record = b"\xc0\x0c" + question[end - 4 : end] + b"\0\0\0\x3c"
            record += len(data).to_bytes(2, "big") + data
            self.socket.sendto(head + question[12:end] + (record if data else b""), sender)

    def close(self) -> None:
        with socket.socket(self.socket.family, socket.SOCK_DGRAM) as stopper:
            stopper.sendto(b"end", self.socket.getsockname())
        self._thread.join()
        self.socket.close()


@pytest.fixture(params=["4", "6"])
def name_server(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    address = lab.gateway if request.param == "4" else lab.gateway6
    server = NameServer(address)
    yield address
    server.close()
    assert {1, 28} <= set(server.asked)


def test_names_of_both_families_over_dns(lab: Lab, name_server: str) -> None:
    host = lab.host()
    settings = host.run / "network.conf"
    settings.write_text(
        settings.read_text().replace(f"dns.0={lab.gateway}", f"dns.0={name_server}")
    )
    code = (
        "import socket\n"
        "for a in socket.getaddrinfo('peer.example', 80, 0, socket.SOCK_STREAM): print(a[4][0])"
    )
    # The instance's own address is a unique local one: a global IPv6 peer comes after IPv4.
    assert host.check(sys.executable, "-c", code).split() == ["192.0.2.5", "2001:db8::5"]
    need("dig")
    for kind, data in (("A", "192.0.2.5"), ("AAAA", "2001:db8::5")):
        words = ("dig", f"@{name_server}", "+short", "+tries=1", "peer.example", kind)
        assert host.check(*words).strip() == data
