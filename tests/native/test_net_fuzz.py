"""Short runs of the network element's libFuzzer targets, from packets of real conversations."""

from __future__ import annotations

import shutil
import struct
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 8
pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(shutil.which("clang") is None, reason="no clang; `make setup` installs it"),
]


@pytest.fixture(autouse=True)
def once(variant: str) -> None:
    if variant == "asan":
        pytest.skip(
            "the fuzzers are sanitized in any case: they run with the release build's tests"
        )


FIX_IP, VOUCH, FIX_TCP, TICK, TO_US = 1, 2, 4, 8, 16  # images/network-lwip/fuzz/frames.c
OWN_MAC, PEER_MAC, EVERYBODY = "02c50a000002", "02c50a000003", "ffffffffffff"
OWN, PEER = ip_address("10.0.0.2"), ip_address("10.0.0.3")
OWN6, PEER6 = ip_address("fd00::2"), ip_address("fd00::3")
SYN, ACK, PUSH, FIN, RESET = 2, 16, 8, 1, 4


def framed(packet: bytes, *, kind: int = 0x0800, to: str = OWN_MAC, what: int = 0) -> bytes:
    """One record of an input."""
    frame = bytes.fromhex(to + PEER_MAC) + struct.pack("!H", kind) + packet
    return struct.pack("!HB10x", len(frame), FIX_IP | VOUCH | TO_US | what) + frame


def ip4(protocol: int, payload: bytes, *, fragment: int = 0) -> bytes:
    length = 20 + len(payload)
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, 7, fragment, 64, protocol, 0)
    return head + PEER.packed + OWN.packed + payload


def ip6(following: int, payload: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), following, 255)
    return head + PEER6.packed + OWN6.packed + payload


def tcp(
    port: int, flags: int, data: bytes = b"", *, ack: int = 0, at: int = 0, options: bytes = b""
) -> bytes:
    """Numbers are relative to what the stack expects once it has sent something."""
    offset = (5 + len(options) // 4) << 4
    head = struct.pack("!HHIIBBHHH", 4000, port, at, ack, offset, flags, 65535, 0, 0)
    return head + options + data


def udp(port: int, data: bytes) -> bytes:
    return struct.pack("!HHHH", 4000, port, 8 + len(data), 0) + data


def conversation(wrap: object, kind: int, port: int) -> bytes:
    def one(segment: bytes, what: int = FIX_TCP) -> bytes:
        return framed(wrap(6, segment), kind=kind, what=what)  # type: ignore[operator]

    options = bytes.fromhex("020405b4 0402 0101 03030701")
    return b"".join(
        [
            one(tcp(port, SYN, at=1000, options=options), what=0),
            one(tcp(port, ACK)),
            one(tcp(port, ACK | PUSH, b"x" * 3000)),
            one(tcp(port, ACK, b"later", at=100), what=FIX_TCP | TICK),
            one(tcp(port, ACK, b"y" * 100)),
            one(tcp(port, ACK | FIN, at=5)),
            one(tcp(port, RESET)),
        ]
    )


def seeds() -> dict[str, bytes]:
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + bytes.fromhex(PEER_MAC) + PEER.packed
    arp += bytes(6) + OWN.packed
    inner = struct.pack("!BBHHHBBH", 0x45, 0, 28, 7, 0, 64, 17, 0) + OWN.packed + PEER.packed
    solicitation = struct.pack("!BBHI", 135, 0, 0, 0) + OWN6.packed
    solicitation += bytes([1, 1]) + bytes.fromhex(PEER_MAC)
    too_big = struct.pack("!BBHI", 2, 0, 0, 1280) + ip6(17, udp(54, b"was too big"))
    return {
        "arp": framed(arp, kind=0x0806, to=EVERYBODY),
        "ping": framed(ip4(1, struct.pack("!BBHHH", 8, 0, 0, 1, 1) + b"payload")),
        "unreachable": framed(ip4(1, struct.pack("!BBHI", 3, 3, 0, 0) + inner + bytes(8))),
        "datagram": framed(ip4(17, udp(53, b"question"))),
        "fragments": framed(ip4(17, udp(53, bytes(1000))[:512], fragment=0x2000))
        + framed(ip4(17, bytes(496), fragment=64), what=TICK),
        "connection": conversation(ip4, 0x0800, 80),
        "connection6": conversation(ip6, 0x86DD, 81),
        "datagram6": framed(ip6(17, udp(54, b"question")), kind=0x86DD),
        "solicitation": framed(ip6(58, solicitation), kind=0x86DD),
        "too-big": framed(ip6(58, too_big), kind=0x86DD),
        "fragment6": framed(
            ip6(44, struct.pack("!BBHI", 17, 0, 1, 9) + udp(54, bytes(64))), kind=0x86DD
        ),
    }


def ring_seeds() -> dict[str, bytes]:
    """Steps of images/network-lwip/fuzz/rings.c."""
    words, ring, read, write, honest = range(5)

    def step(what: int, where: int = 0, given: bytes = b"", length: int = 0) -> bytes:
        return (
            bytes([what])
            + struct.pack("<I", where)
            + struct.pack("!H", length or len(given))
            + given
        )

    packet = struct.pack("<I", 20) + bytes(20)
    tail = 384  # of the second direction, in struct ring_control
    return {
        "packet": step(ring, 0, packet) + step(words, tail, struct.pack("<I", 24)) + step(read),
        "write": step(write, 0, bytes(1500)) + step(write, 0, bytes(100)),
        "honest": step(honest, 0, b"", 1500) + step(honest, 0, b"", 65535),
        "far": step(words, tail, struct.pack("<I", 1 << 20)) + step(read) + step(read),
    }


def broker_seeds() -> dict[str, bytes]:
    """Steps of images/network-lwip/fuzz/broker.c: every message of ARCHITECTURE.md's table."""
    message, packet, time, name = range(4)
    wire = 31 << 3  # memory, two bells

    def step(what: int, which: int = 0, text: str = "", length: int = 0) -> bytes:
        return struct.pack("!BBH", what, which, length or len(text)) + text.encode()

    def say(text: str, which: int = 0) -> bytes:
        return step(message, which, text)

    fault = "fault id=a loss_ppm=500000 delay_us=1000 in=1 out=1 peers=10.0.0.3/128 seed=7"
    granted = "wire address=10.0.0.3 address6=fd00::3 name=peer side=1"
    return {
        "set": say("set ttl=33 mss=1000 receive_buffer=4096 congestion=reno keepalive.idle=1"),
        "wire": step(packet, 3)
        + say(granted, wire)
        + step(packet, 3)
        + say("unwire address=fd00::3"),
        "none": step(packet, 4) + say("wire address=10.0.0.4 none=1") + step(time, 0, "", 6000),
        "fault": say("faults ids=a serial=1")
        + say(f"{fault} until_ms=1009000 serial=2")
        + step(packet, 3)
        + step(time, 0, "", 9000),
        "reset": say("fault id=b reset=80 refuse=81 bits_per_second=9000 in=1 serial=1"),
        "capture": say("capture id=1 snaplen=96 serial=1", 3 << 3 | 1)
        + step(packet, 3)
        + say("uncapture id=1 serial=2"),
        "report": b"".join(
            say(f"report id={n} what={what} serial={n}", 1 << 3 | 1)
            for n, what in enumerate(("sockets", "faults", "counters"), 1)
        ),
        "name": step(name, 0, "id=1 address=10.0.0.9 address6=fd00::9") + step(name, 0, "id=1"),
    }


def settings_seeds() -> dict[str, bytes]:
    own = "name=a\naddress=10.0.0.2\nprefix=24\ngateway=10.0.0.1\nmac=02:c5:0a:00:00:02\nmtu=1500\n"
    six = "address6=fd00::2\nprefix6=64\ngateway6=fd00::1\n"
    tuned = (
        "mss=536\nreceive_buffer=4096\nsend_buffer=16777216\ninitial_window=1\ncongestion=reno\n"
    )
    return {
        "own": own.encode(),
        "all": f"# all\n{own}{six}{tuned}keepalive.idle=5\nmode=direct\ndns.0=10.0.0.1\n".encode(),
        "escapes": b"name=a%0Ab%25%00%\nprefix=%39\nmtu=99999999999999999999\n=\nttl",
    }


def run_fuzzer(name: str, inputs: dict[str, bytes], place: Path) -> None:
    built = subprocess.run(
        ["make", "-C", str(ROOT / "images"), "fuzz"], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    corpus = place / "corpus"
    corpus.mkdir()
    for seed, data in inputs.items():
        (corpus / seed).write_bytes(data)
    found = subprocess.run(
        [
            str(ROOT / "build/fuzz" / name),
            f"-max_total_time={SECONDS}",
            "-max_len=16384",
            "-print_funcs=0",  # each input closes what it finds open: a symbolizer as well
            "-rss_limit_mb=1024",
            str(corpus),
        ],
        cwd=place,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert found.returncode == 0, found.stderr[-6000:]


def test_no_frame_breaks_the_stack(tmp_path: Path) -> None:
    run_fuzzer("network-frames", seeds(), tmp_path)


def test_no_garbage_in_a_wire_is_more_than_garbage(tmp_path: Path) -> None:
    run_fuzzer("network-rings", ring_seeds(), tmp_path)


def test_nothing_that_a_broker_says_breaks_the_stack(tmp_path: Path) -> None:
    run_fuzzer("network-broker", broker_seeds(), tmp_path)


def test_no_settings_file_breaks_the_stack(tmp_path: Path) -> None:
    run_fuzzer("network-settings", settings_seeds(), tmp_path)
