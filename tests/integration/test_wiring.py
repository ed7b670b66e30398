"""Wiring on the real kernel: bridges, taps, filters, NAT, published ports, marks."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest

from app.domain.application import PublishedPort
from app.domain.errors import Conflict, RuntimeFailure
from app.domain.network import NetworkBinding, NetworkSpec, Policy, link_local, mac_for
from app.wiring import naming, netns
from app.wiring.netlink import Link, LinkRequest, Netlink
from app.wiring.wiring import Wiring
from tests import subnets

pytestmark = pytest.mark.root

MARK = f"wt{os.getpid()}"
NETWORK = NetworkSpec.model_validate({"name": "wiretest", "subnet": subnets.free()})


def binding(host: int) -> NetworkBinding:
    address = NETWORK.subnet[host]
    return NetworkBinding(network=NETWORK, address=address, mac=mac_for(address))


def arp_request(sender_mac: str, sender: str, target: str) -> bytes:
    mac = bytes.fromhex(sender_mac.replace(":", ""))
    head = b"\xff" * 6 + mac + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1)
    return head + mac + socket.inet_aton(sender) + bytes(6) + socket.inet_aton(target)


def answered(tap: int, request: bytes, within_s: float = 1.0) -> bool:
    """An ARP reply arrives after `request` was sent."""
    os.write(tap, request)
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if select.select([tap], [], [], 0.05)[0]:
            frame = os.read(tap, 65536)
            if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02":
                return True
    return False


def icmp6(mac: str, source: IPv6Address, target: IPv6Address, message: bytes) -> bytes:
    """A frame to everybody with an ICMPv6 message, its checksum made."""
    pseudo = source.packed + target.packed + struct.pack("!IxxxB", len(message), 58)
    words = struct.unpack(f"!{(len(pseudo) + len(message)) // 2}H", pseudo + message)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    summed = message[:2] + struct.pack("!H", total ^ 0xFFFF) + message[4:]
    head = b"\x33\x33\0\0\0\1" + bytes.fromhex(mac.replace(":", "")) + b"\x86\xdd"
    head += struct.pack("!IHBB", 6 << 28, len(message), 58, 255)
    return head + source.packed + target.packed + summed


def advertisement(own: NetworkBinding, source: IPv6Address, target: IPv6Address) -> bytes:
    """A neighbour advertisement: `target` is at this application's MAC."""
    option = b"\2\1" + bytes.fromhex(own.mac.replace(":", ""))
    message = b"\x88\0\0\0\x20\0\0\0" + target.packed + option
    return icmp6(own.mac, source, IPv6Address("ff02::1"), message)


@pytest.fixture
def wiring() -> Iterator[Wiring]:
    made = Wiring(MARK)
    yield made
    made.remove_all()
    made.close()
    left = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True).stdout
    assert MARK not in left
    assert MARK not in subprocess.run(["ip", "link"], capture_output=True, text=True).stdout
    assert not Path(f"/run/cse-{MARK}.lock").exists()


def link_of(name: str) -> Link | None:
    with closing(Netlink()) as netlink:
        return netlink.link(name)


def served(place: Path, port: int) -> subprocess.Popen[bytes]:
    """An HTTP server in a network namespace."""
    words = ["nsenter", f"--net={place}", "python3", "-m", "http.server", str(port)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def reachable(host: str, port: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=1) as connection:
                connection.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
                return connection.recv(100).startswith(b"HTTP/1.0 200")
        except OSError:
            time.sleep(0.05)
    return False


def test_network_is_made_marked_and_made_again_without_harm(wiring: Wiring) -> None:
    name = wiring.ensure_network(NETWORK)
    assert wiring.ensure_network(NETWORK) == name and len(name) <= 15
    link = link_of(name)
    assert link is not None and link.up and link.mtu == 65520
    assert link.alias == naming.network_alias(MARK, "wiretest")
    Wiring(MARK).ensure_network(NETWORK)  # a restarted agent finds it by its mark
    wiring.remove_network("wiretest")
    wiring.remove_network("wiretest")
    assert link_of(name) is None


def test_tap_speaks_as_itself_only(wiring: Wiring) -> None:
    wiring.ensure_network(NETWORK)
    own = binding(2)
    wiring.plug("a", own, [])
    tap = wiring.open_tap("a", own, vnet_hdr=False).fd
    gateway = str(NETWORK.gateway.ip)
    try:
        assert answered(tap, arp_request(own.mac, str(own.address), gateway))
        before = wiring.refused_packets()
        assert before is not None
        other = NETWORK.subnet[9]
        other_mac = mac_for(other)
        assert not answered(tap, arp_request(other_mac, str(own.address), gateway), 0.2)
        assert not answered(tap, arp_request(own.mac, str(other), gateway), 0.2)
        assert wiring.refused_packets() == before + 2
        link = link_of(naming.port_name(MARK, "a"))
        assert link is not None and link.mtu == 65520 and link.alias.endswith("application a")
    finally:
        os.close(tap)
    again = wiring.open_tap("a", own, vnet_hdr=True).fd  # the first is gone with its descriptor
    os.close(again)
    wiring.unplug("a", own, [])


def test_kernel_stack_published_ports_and_localhost(wiring: Wiring, tmp_path: Path) -> None:
    wiring.ensure_network(NETWORK)
    own, place = binding(3), tmp_path / "netns"
    ports = [
        PublishedPort.model_validate("28631:80"),
        PublishedPort.model_validate("127.0.0.1:28632:80"),
    ]
    wiring.plug("b", own, ports)
    wiring.make_kernel_stack("b", own, place)
    wiring.make_kernel_stack("b", own, place)  # again: nothing left to do
    server = served(place, 80)
    try:
        assert reachable(str(own.address), 80)
        assert reachable("127.0.0.1", 28631) and reachable(str(NETWORK.gateway.ip), 28631)
        assert reachable("127.0.0.1", 28632)
        assert not reachable(str(NETWORK.gateway.ip), 28632, 0.3)
    finally:
        server.kill()
        server.wait()
        wiring.unplug("b", own, ports)
        from app.wiring import netns

        netns.remove(place)
    assert not place.exists() and not reachable("127.0.0.1", 28631, 0.2)
    assert link_of(naming.port_name(MARK, "b")) is None


def test_taken_port_is_refused_naming_who_has_it(wiring: Wiring) -> None:
    port = PublishedPort.model_validate("28633:80")
    with socket.create_server(("127.0.0.1", 28633)), pytest.raises(Conflict) as caught:
        wiring.plug("a", binding(2), [port])
    assert f"process {os.getpid()}" in caught.value.detail
    assert caught.value.pointer == "/ports/0"
    wiring.plug("a", binding(2), [port])
    with pytest.raises(Conflict, match="application 'a'"):
        wiring.plug("b", binding(3), [port])
    with pytest.raises(OSError), socket.create_server(("127.0.0.1", 28633)):
        pass
    wiring.unplug("a", binding(2), [port])
    wiring.plug("b", binding(3), [port])


def test_overlapping_subnet_is_refused(wiring: Wiring) -> None:
    wiring.ensure_network(NETWORK)
    twin = NETWORK.model_copy(update={"name": "twin"})
    with pytest.raises(Conflict, match="overlaps with"):
        wiring.ensure_network(twin)


def test_nothing_without_our_mark_is_deleted(wiring: Wiring) -> None:
    foreign = f"wtx{os.getpid()}"
    with closing(Netlink()) as netlink:
        netlink.create("bridge", LinkRequest(name=foreign, alias="cse other network wiretest"))
        try:
            wiring.ensure_network(NETWORK)
            wiring.remove_all()
            assert netlink.link(foreign) is not None
        finally:
            link = netlink.link(foreign)
            assert link is not None
            netlink.delete(link.index)


def test_requests_of_many_threads_share_one_socket_and_leave_none() -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    netlink = Netlink()
    netlink.link("lo")
    one = descriptors()
    for _ in range(20):
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(netlink.link, ("lo", "wt-missing")))
        assert found[0] is not None and found[0].up and found[1] is None
    assert descriptors() == one
    netlink.close()
    assert descriptors() == before
    with pytest.raises(RuntimeFailure, match="closing"):
        netlink.link("lo")


def test_refusals_of_the_kernel_are_ours_and_harm_no_later_request(wiring: Wiring) -> None:
    name = wiring.ensure_network(NETWORK)
    with closing(Netlink()) as netlink:
        with pytest.raises(RuntimeFailure, match=f"making bridge {name}: File exists"):
            netlink.create("bridge", LinkRequest(name=name))
        with pytest.raises(RuntimeFailure, match="changing interface wt-missing: No such device"):
            netlink.change(LinkRequest(name="wt-missing"))
        bridges = netlink.links("bridge")
        assert name in [link.name for link in bridges]
        assert "lo" not in [link.name for link in bridges]
        assert "lo" in [link.name for link in netlink.links()]
        index = next(link.index for link in bridges if link.name == name)
        assert (index, NETWORK.gateway) in netlink.addresses()
        netlink.delete(index)
        netlink.delete(index)  # gone already


def test_ipv6_speaks_as_itself_only(wiring: Wiring) -> None:
    wiring.ensure_network(NETWORK)
    own, other = binding(4), binding(5)
    assert own.address6 is not None and other.address6 is not None
    wiring.plug("six", own, [])
    wiring.plug("other", other, [])
    tap = wiring.open_tap("six", own, vnet_hdr=False).fd
    everybody = IPv6Address("ff02::1")
    router = b"\x86\0\0\0\x40\0\x07\x08" + bytes(8)
    try:
        before = wiring.refused_packets()
        assert before is not None
        for source in (own.address6, link_local(own.mac)):
            os.write(tap, advertisement(own, source, own.address6))
        os.write(tap, icmp6(own.mac, own.address6, everybody, b"\x80\0\0\0\0\1\0\1"))
        assert wiring.refused_packets() == before
        os.write(tap, icmp6(own.mac, other.address6, everybody, b"\x80\0\0\0\0\1\0\1"))
        os.write(tap, advertisement(own, own.address6, other.address6))
        os.write(tap, advertisement(own, own.address6, IPv6Address("fd00:bad::1")))
        os.write(tap, icmp6(own.mac, link_local(own.mac), everybody, router))
        assert wiring.refused_packets() == before + 4
    finally:
        os.close(tap)
        wiring.unplug("six", own, [])
        wiring.unplug("other", other, [])


def test_kernel_stack_over_ipv6_and_its_published_port(wiring: Wiring, tmp_path: Path) -> None:
    bridge = wiring.ensure_network(NETWORK)
    own, place = binding(6), tmp_path / "netns6"
    gateway = NETWORK.gateway6
    assert own.address6 is not None and gateway is not None
    ports = [PublishedPort.model_validate("28670:80")]
    wiring.plug("kernel6", own, ports)
    wiring.make_kernel_stack("kernel6", own, place)
    words = ["nsenter", f"--net={place}", "python3", "-m", "http.server", "-b", "::", "80"]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert reachable(str(own.address6), 80)
        assert reachable(str(gateway.ip), 28670)  # an address of this host
        assert reachable("127.0.0.1", 28670)
    finally:
        server.kill()
        server.wait()
        wiring.unplug("kernel6", own, ports)
        subprocess.run(["umount", str(place)], check=True)
    silent = NETWORK.model_copy(update={"subnet6": None})
    assert wiring.ensure_network(silent) == bridge
    shown = subprocess.run(["ip", "-6", "addr", "show", "dev", bridge], capture_output=True)
    assert shown.stdout == b""


def connects(place: Path, address: IPv4Address, port: int) -> bool:
    """From that network namespace; a frame that is dropped is not waited for long."""
    program = (
        "import socket, sys\n"
        f"try: socket.create_connection(({str(address)!r}, {port}), timeout=0.7)\n"
        "except OSError: sys.exit(1)"
    )
    words = ["nsenter", f"--net={place}", "python3", "-c", program]
    return subprocess.run(words, check=False).returncode == 0


def test_policy_says_which_ports_exchange_frames(wiring: Wiring, tmp_path: Path) -> None:
    wiring.ensure_network(NETWORK)
    places = {name: tmp_path / name for name in ("a", "b", "c")}
    for number, (name, place) in enumerate(places.items(), start=10):
        wiring.plug(name, binding(number), [])
        wiring.make_kernel_stack(name, binding(number), place)
    target = binding(10).address
    server = served(places["a"], 8000)
    try:
        assert reachable(str(target), 8000)
        assert connects(places["b"], target, 8000) and connects(places["c"], target, 8000)
        only = {"default": "deny", "allow": [["b", "a"]]}
        wiring.ensure_network(NETWORK.model_copy(update={"policy": Policy.model_validate(only)}))
        assert connects(places["b"], target, 8000)
        assert not connects(places["c"], target, 8000)
        assert reachable(str(target), 8000)  # the host is not concerned
        # By way of the host, whose address everybody may talk to.
        route = ["ip", "route", "add", f"{target}/32", "via", str(NETWORK.gateway.ip)]
        for name in ("a", "c"):
            other = binding(12).address if name == "a" else target
            route[3] = f"{other}/32"
            subprocess.run(["nsenter", f"--net={places[name]}", *route], check=True)
        assert not connects(places["c"], target, 8000)
        wiring.ensure_network(NETWORK.model_copy(update={"policy": Policy(default="deny")}))
        assert not connects(places["b"], target, 8000)
        wiring.ensure_network(NETWORK)
        assert connects(places["b"], target, 8000)
    finally:
        server.kill()
        server.wait()
        for number, name in enumerate(places, start=10):
            wiring.unplug(name, binding(number), [])
            netns.remove(places[name])


def test_the_lock_is_there_as_long_as_networks_are(wiring: Wiring) -> None:
    lock = Path(f"/run/cse-{MARK}.lock")
    wiring.ensure_network(NETWORK)
    wiring.plug("a", binding(2), [])
    assert lock.exists()
    wiring.unplug("a", binding(2), [])
    wiring.remove_network(NETWORK.name)
    assert not lock.exists()
    wiring.remove_idle_networks()
    assert not lock.exists()
    with pytest.raises(Conflict):
        wiring.ensure_network(NETWORK.model_copy(update={"subnet": IPv4Network("127.0.0.0/24")}))
    assert not lock.exists()


def test_a_lock_that_is_removed_meanwhile_excludes_all_the_same(wiring: Wiring) -> None:
    """Whoever waited for the removed file does not take it for the one that is there now."""
    wiring.ensure_network(NETWORK)
    inside, most = 0, 0

    def come_and_go(number: int) -> None:
        nonlocal inside, most
        with closing(Wiring(MARK)) as agent:
            for _ in range(20):
                with agent._shared_lock() as path:
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0.001)
                    if number == 0:
                        path.unlink()
                    inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    assert most == 1


def test_a_network_is_made_while_another_agent_removes_what_is_idle(wiring: Wiring) -> None:
    """As two `cse run` do, one of which begins when the other ends."""

    def make(_: int) -> None:
        with closing(Wiring(MARK)) as agent:
            for _ in range(15):
                agent.ensure_network(NETWORK)

    def remove(_: int) -> None:
        with closing(Wiring(MARK)) as agent:
            for _ in range(15):
                agent.remove_idle_networks()

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(make, 0), pool.submit(make, 1), pool.submit(remove, 2)]
        for one in done:
            one.result()
