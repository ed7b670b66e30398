"""The routing socket speaks of the private interface as the kernel's does of its own.

net/netlink.c is run in a namespace of the kernel's with the same addresses, and under the overlay;
then programs that ask there: iproute2's and busybox's ip, dnsmasq, nmap.
"""

from __future__ import annotations

import json
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from app.evidence import escapes
from tests.native.net.lab import MTU, Host, Lab, need, retry

SOURCE = Path(__file__).parent / "net/netlink.c"
CASES = ("links", "addresses", "routes", "get", "strict", "refused", "names", "waiting")
NAMESPACE = """
set -e
ip link set lo up
ip link add name eth0 index 2 mtu $7 address $6 type veth peer name peer0 index 99 mtu $7
echo 1 >/proc/sys/net/ipv6/conf/peer0/disable_ipv6
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
ip addr add $1/$2 brd + dev eth0
ip link set peer0 up
ip link set eth0 up
ip addr add $4/64 dev eth0
ip route add default via $3
ip -6 route add default via $5
for try in $(seq 100); do
    ip -o addr show | grep -q tentative || break
    sleep 0.1
done
shift 7
exec setpriv --bounding-set -all --inh-caps -all --no-new-privs "$@"
"""
"""The kernel's own stack with an application's addresses, and without its privileges."""

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    built = tmp_path_factory.mktemp("netlink") / "netlink"
    subprocess.run(["gcc", "-O1", "-w", str(SOURCE), "-o", str(built)], check=True)
    return str(built)


def on_the_kernel(host: Host, *words: str) -> str:
    lab = host.lab
    given = (host.address, str(lab.prefix), lab.gateway, host.address6, lab.gateway6, host.mac)
    done = subprocess.run(
        ["unshare", "-n", "bash", "-c", NAMESPACE, "bash", *given, str(MTU), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def destinations(host: Host) -> list[str]:
    """Near and far, own, loopback, broadcast, groups; of both families."""
    net, net6 = host.lab.subnet, host.lab.network6
    near = [str(net[9]), host.address, "127.0.0.1", "127.3.2.1", str(net[-1]), "10.9.8.7"]
    others = ["255.255.255.255", "224.0.0.5", "::1", "fd99::1", f"{net6}77", host.address6]
    return [*near, *others, "fe80::1", "ff02::1", "ff05::1"]


@pytest.mark.parametrize("case", CASES)
def test_same_as_the_kernel(lab: Lab, program: str, case: str) -> None:
    host = lab.host()
    words = [program, case, *(destinations(host) if case == "get" else [])]
    bare = on_the_kernel(host, *words)
    assert bare
    assert host.check(*words) == bare


# ---- programs ----------------------------------------------------------------------------------


def told(text: str) -> list[dict[str, object]]:
    """iproute2's JSON, without what is each link's own affair."""
    found: list[dict[str, object]] = []
    for entry in json.loads(text):
        ours = dict(entry)
        if not ours or ours.get("ifname") == "peer0" or ours.get("dev") == "peer0":
            continue
        for key in ("qdisc", "group", "link", "mtu", "min_mtu", "max_mtu", "inet6_addr_gen_mode"):
            ours.pop(key, None)
        found.append(ours)
    return found


@pytest.mark.parametrize(
    "words",
    [
        ("addr",),
        ("-4", "addr", "show", "dev", "eth0"),
        ("-6", "addr"),
        ("link", "show", "dev", "eth0"),
        ("route",),
        ("-6", "route"),
        ("route", "show", "table", "all"),
        ("route", "get", "10.9.8.7"),
        ("-6", "route", "get", "fd99::1"),
    ],
    ids=" ".join,
)
def test_ip_of_iproute2_tells_the_same(lab: Lab, words: tuple[str, ...], variant: str) -> None:
    if variant == "asan" and "route" in words:
        pytest.skip("iproute2 copies a text onto itself, which the sanitizer forbids")
    host = lab.host()
    command = (need("ip"), "-j", *words)
    bare = told(on_the_kernel(host, *command))
    assert bare
    assert told(host.check(*command)) == bare


def test_ip_of_busybox_shows_the_private_interface(lab: Lab) -> None:
    host = lab.host()
    busybox = shutil.which("busybox")
    if busybox is None or subprocess.run(["ldd", busybox], capture_output=True).returncode != 0:
        pytest.skip("no busybox here that is linked dynamically")
    text = host.check(busybox, "ip", "addr")
    assert f"inet {host.address}/{lab.prefix}" in text
    assert f"inet6 {host.address6}/64" in text
    assert f"default via {lab.gateway} dev eth0" in host.check(busybox, "ip", "route")


def test_nothing_can_be_changed_and_that_is_counted(lab: Lab) -> None:
    host = lab.host()
    words = host.command(need("ip"), "addr", "add", "10.1.2.3/24", "dev", "eth0")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Operation not permitted" in done.stderr
    assert "10.1.2.3" not in host.check("ip", "addr")
    counted = escapes.read(host.run / "data", "network") or {}
    assert counted["rtnetlink change (refused)"] == 1
    assert "socket AF_NETLINK" not in counted


def dns_query(name: str) -> bytes:
    question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    return struct.pack(">6H", 0x77, 0x100, 1, 0, 0, 0) + question + struct.pack(">2H", 1, 1)


def test_dnsmasq_answers_queries_over_tcp(lab: Lab, variant: str) -> None:
    host = lab.host()
    words = ("--no-daemon", "--no-resolv", "--no-hosts", "--address=/here.test/10.7.7.7")
    if variant == "asan":
        pytest.skip("dnsmasq ends at its start under the sanitizer")
    server = host.start(need("dnsmasq"), *words, "--user=root", "--conf-file=/dev/null")
    query = dns_query("www.here.test")

    def asked() -> bytes:
        with socket.create_connection((host.address, 53), timeout=5) as client:
            client.sendall(struct.pack(">H", len(query)) + query)
            (length,) = struct.unpack(">H", client.recv(2, socket.MSG_WAITALL))
            return client.recv(length, socket.MSG_WAITALL)

    for _ in range(3):
        answer = retry(asked)
        assert isinstance(answer, bytes)
        assert answer.endswith(bytes([10, 7, 7, 7]))
    host.stop(server)


def test_nmap_connects_to_ports_without_being_told_that_it_may_not_more(lab: Lab) -> None:
    host, peer = lab.host(), lab.host()
    peer.start(sys.executable, "-m", "http.server", "80")
    assert retry(lambda: socket.create_connection((peer.address, 80), timeout=5))
    text = host.check(need("nmap"), "-n", "-Pn", "-sT", "-p", "79-81", peer.address)
    assert "80/tcp open" in text
    assert "79/tcp closed" in text
