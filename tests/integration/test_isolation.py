"""Nothing of one application's traffic is delivered to another: what each bridge port is given.

Below the stacks, with taps in the test's own hands; what programs see is in tests/acceptance.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest

from app.domain.network import NetworkBinding, link_local, mac_for
from app.wiring import naming
from app.wiring.wiring import Wiring
from tests.integration.test_wiring import MARK, NETWORK, arp_request, binding, icmp6

pytestmark = pytest.mark.root

SECRET = b"for one pair of eyes"
HOST = bytes.fromhex(mac_for(NETWORK.gateway.ip).replace(":", ""))


class Port:
    """An application's tap."""

    def __init__(self, wiring: Wiring, name: str, host: int) -> None:
        self.wiring, self.name = wiring, name
        self.own: NetworkBinding = binding(host)
        wiring.plug(name, self.own, [])
        self.tap = wiring.open_tap(name, self.own, vnet_hdr=False).fd
        self.mac = bytes.fromhex(self.own.mac.replace(":", ""))

    def send(self, frame: bytes) -> None:
        os.write(self.tap, frame)

    def datagram(self, to: Port, *, mac: bytes | None = None) -> bytes:
        """A frame with an IPv4 datagram for the discard service of another."""
        payload = struct.pack("!HHHH", 9, 9, 8 + len(SECRET), 0) + SECRET
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, 17, 0)
        head += self.own.address.packed + to.own.address.packed
        total = sum(struct.unpack("!10H", head))
        head = head[:10] + struct.pack("!H", ~(total % 0xFFFF) & 0xFFFF) + head[12:]
        return (mac or to.mac) + self.mac + b"\x08\x00" + head + payload

    def received(self, quiet_s: float = 0.2) -> list[bytes]:
        """All that has come, until nothing more does; without what the host tells everybody."""
        frames = []
        while select.select([self.tap], [], [], quiet_s)[0]:
            frame = os.read(self.tap, 65536)
            if frame[6:12] != HOST or frame[:4] not in (b"\1\0\x5e\0", b"\x33\x33\0\0"):
                frames.append(frame)
        return frames

    def got(self, part: bytes) -> bool:
        """A frame with these bytes comes, sooner or later."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if any(part in frame for frame in self.received()):
                return True
        return False

    def close(self) -> None:
        os.close(self.tap)
        self.wiring.unplug(self.name, self.own, [])


@pytest.fixture
def ports() -> Iterator[list[Port]]:
    wiring = Wiring(MARK)
    made: list[Port] = []
    try:
        wiring.ensure_network(NETWORK)
        made += [Port(wiring, name, host) for name, host in (("a", 2), ("b", 3), ("c", 4))]
        yield made
    finally:
        for port in made:
            port.close()
        wiring.remove_all()
        wiring.close()


def test_a_frame_is_given_to_its_owner_also_while_the_bridge_has_not_learnt_it(
    ports: list[Port],
) -> None:
    a, b, c = ports
    a.send(a.datagram(c))  # c has never sent: a bridge floods that
    assert c.got(SECRET)
    assert not any(SECRET in frame for frame in b.received())
    gone = bytes.fromhex("02c50a0000fe")
    a.send(a.datagram(c, mac=gone))  # nobody's
    a.send(a.datagram(c))
    assert c.got(SECRET)
    assert not any(gone in frame for port in (b, c) for frame in port.received())


def test_frames_of_the_host_are_given_to_their_owner_alone(ports: list[Port]) -> None:
    _, b, c = ports
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.sendto(SECRET, (str(c.own.address), 9))
        question = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
        assert c.got(question)  # where is c?
        assert not any(question in frame for frame in b.received())
        reply = arp_request(c.own.mac, str(c.own.address), str(NETWORK.gateway.ip))
        c.send(reply)  # who asks is known by that
        host.sendto(SECRET, (str(c.own.address), 9))
        assert c.got(SECRET)
    assert not any(SECRET in frame for frame in b.received())


def test_where_somebody_is_only_he_is_asked(ports: list[Port]) -> None:
    a, b, c = ports
    request = arp_request(a.own.mac, str(a.own.address), str(c.own.address))
    a.send(request)
    assert c.got(request[14:]) and b.received() == []
    assert a.own.address6 is not None and c.own.address6 is not None
    message = b"\x87\0\0\0\0\0\0\0" + c.own.address6.packed + b"\1\1" + a.mac
    everybody = IPv6Address("ff02::1")
    a.send(icmp6(a.own.mac, a.own.address6, everybody, message))
    assert c.got(c.own.address6.packed + b"\1\1") and b.received() == []


def test_a_question_to_everybody_is_turned_to_its_owner(ports: list[Port]) -> None:
    a, b, c = ports
    a.send(arp_request(a.own.mac, str(a.own.address), str(c.own.address)))
    assert [frame[:6] for frame in c.received()] == [c.mac] and b.received() == []
    a.send(arp_request(a.own.mac, str(a.own.address), str(NETWORK.gateway.ip)))
    answers = [frame for frame in a.received() if frame[20:22] == b"\0\2"]
    assert [frame[22:28] for frame in answers] == [HOST]
    target = c.own.address6
    assert target is not None and a.own.address6 is not None
    question = b"\x87\0\0\0\0\0\0\0" + target.packed + b"\1\1" + a.mac
    group = IPv6Address(b"\xff\2" + bytes(9) + b"\1\xff" + target.packed[13:])
    a.send(icmp6(a.own.mac, a.own.address6, group, question))
    assert [frame[:6] for frame in c.received()] == [c.mac] and b.received() == []


def test_who_announces_himself_is_learnt_and_wakes_nobody(ports: list[Port]) -> None:
    a, b, c = ports
    a.send(arp_request(a.own.mac, str(a.own.address), str(a.own.address)))
    words = ["bridge", "fdb", "show", "brport", naming.port_name(MARK, "a")]
    assert a.own.mac in subprocess.run(words, capture_output=True, text=True).stdout
    assert b.received() == [] and c.received() == []


def test_who_listens_to_which_group_is_told_to_nobody(ports: list[Port]) -> None:
    a, b, c = ports
    source, group = link_local(a.own.mac), IPv6Address("ff02::1:ff00:9")
    a.send(icmp6(a.own.mac, source, group, b"\x83" + bytes(7) + group.packed))
    a.send(icmp6(a.own.mac, source, IPv6Address("ff02::16"), b"\x8f" + bytes(7)))
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28, 1, 0, 1, 2, 0) + a.own.address.packed
    a.send(b"\1\0\x5e\0\0\x16" + a.mac + b"\x08\0" + head + b"\xe0\0\0\x16" + b"\x16" + bytes(7))
    assert b.received() == [] and c.received() == []
    a.send(icmp6(a.own.mac, source, IPv6Address("ff02::1"), b"\x80" + bytes(7)))
    assert len(b.received()) == len(c.received()) == 1  # any other multicast is delivered


def test_what_is_for_everybody_reaches_everybody(ports: list[Port]) -> None:
    a, b, c = ports
    a.send(a.datagram(c, mac=b"\xff" * 6))
    assert b.got(SECRET) and c.got(SECRET)


def test_a_forged_source_reaches_nobody_and_moves_nobody(ports: list[Port]) -> None:
    a, b, c = ports
    before = a.wiring.refused_packets()
    assert before is not None
    forged = b.datagram(c)  # b's addresses, from a's port
    a.send(forged)
    a.send(forged[:6] + a.mac + forged[12:])  # his address from our own MAC
    a.send(a.datagram(c)[:6] + b.mac + a.datagram(c)[12:])  # his MAC with our own address
    assert a.wiring.refused_packets() == before + 3
    assert b.received() == [] and c.received() == []
    a.send(a.datagram(b))  # the bridge has not learnt that b is here
    assert b.got(SECRET)
    with contextlib.suppress(BlockingIOError):
        assert a.received() == []
