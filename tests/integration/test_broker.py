"""The broker on real sockets: who creates, who attaches, names, hostile peers, reconnecting."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from app.broker.broker import Broker
from app.broker.messages import parse
from app.domain.errors import HostLacks
from app.domain.network import PeerAddresses

ROOT = Path(__file__).resolve().parents[2]
HELLO = b"hello version=1 kind=network pid=1 program=/bin/x"
NAMES = {"web-b": PeerAddresses(IPv4Address("10.1.0.3"), IPv6Address("fd00::3"))}


CLOSERS: list[Callable[[], None]] = []
"""Of the descriptors that a test itself holds; what is open after them is the broker's leak."""


class Library:
    """A library's end, as images/_core/broker.c talks."""

    def __init__(self, directory: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        CLOSERS.append(self.socket.close)
        here = Path.cwd()
        os.chdir(directory)  # the path may be longer than a socket's may
        try:
            self.socket.connect("broker.sock")
        finally:
            os.chdir(here)

    def say(self, data: bytes, fds: list[int] | None = None) -> None:
        socket.send_fds(self.socket, [data], fds or [])

    def hear(self) -> tuple[str, dict[str, str], list[int]]:
        data, fds, _, _ = socket.recv_fds(self.socket, 4096, 8)
        CLOSERS.extend(partial(os.close, fd) for fd in fds)
        message = parse(data)
        return message.verb, message.fields, fds

    def silent(self) -> bool:
        self.socket.settimeout(0.1)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b"nothing"
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(20)


def memory(text: bytes) -> int:
    fd = os.memfd_create("test")
    CLOSERS.append(partial(os.close, fd))
    os.write(fd, text)
    return fd


def bells() -> list[int]:
    """The ends that a library keeps; what it writes with stays open in it too."""
    made = [os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) for _ in range(2)]
    CLOSERS.extend(partial(os.close, fd) for pair in made for fd in pair)
    return [read for read, _ in made]


def content(fd: int) -> bytes:
    return os.pread(fd, 100, 0)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def eventually(condition: Callable[[], Any]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(condition())


@pytest.fixture
def broker() -> Iterator[Broker]:
    before = open_files()
    made = Broker()
    yield made
    made.close()
    while CLOSERS:
        CLOSERS.pop()()
    assert eventually(lambda: open_files() <= before)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    long = tmp_path / ("d" * 100)
    long.mkdir()
    return long


def serve(broker: Broker, directory: Path) -> list[bool]:
    """Serve application `a`; returns what was asked of the device maker."""
    asked: list[bool] = []

    def make(vnet_hdr: bool) -> int:
        asked.append(vnet_hdr)
        return os.dup(memory(b"tap%d" % len(asked)))  # the broker's to close

    broker.serve("a", directory, make, NAMES.get)
    return asked


def test_first_creates_later_ones_wait_and_attach(broker: Broker, directory: Path) -> None:
    asked = serve(broker, directory)
    first, second, third = (Library(directory) for _ in range(3))
    first.say(HELLO)
    verb, _, fds = first.hear()
    assert verb == "create" and content(fds[0]) == b"tap1" and asked == [False]
    second.say(HELLO)
    assert second.silent()
    arena = memory(b"arena")
    first.say(b"register", [arena, fds[0], *bells()])
    verb, _, shared = second.hear()
    assert verb == "attach" and [content(fd) for fd in shared[:2]] == [b"arena", b"tap1"]
    second.say(b"register", shared)
    assert eventually(lambda: broker.details("a")["live"])
    first.socket.close()
    third.say(HELLO)
    assert third.hear()[0] == "attach"  # the second still lives
    second.socket.close()
    third.socket.close()
    assert eventually(lambda: not broker.details("a")["live"])
    fourth = Library(directory)
    fourth.say(HELLO + b" vnet_hdr=1")
    assert fourth.hear()[:2] == ("create", {"vnet_hdr": "1"}) and asked == [False, True]


def test_if_the_creator_dies_the_next_creates(broker: Broker, directory: Path) -> None:
    serve(broker, directory)
    first, second = Library(directory), Library(directory)
    first.say(HELLO)
    assert first.hear()[0] == "create"
    second.say(HELLO)
    assert second.silent()
    first.socket.close()
    verb, _, fds = second.hear()
    assert verb == "create" and content(fds[0]) == b"tap2"


def test_who_was_given_the_instance_keeps_it_alive(broker: Broker, directory: Path) -> None:
    """A program that attaches while the last one ends; a third one must not make another."""
    serve(broker, directory)
    first, heir, third = Library(directory), Library(directory), Library(directory)
    first.say(HELLO)
    assert first.hear()[0] == "create"
    arena = memory(b"arena")
    first.say(b"register", [arena, memory(b"tap"), *bells()])
    heir.say(HELLO)
    verb, _, fds = heir.hear()
    assert verb == "attach"
    first.socket.close()
    assert eventually(lambda: len(broker.details("a")["programs"]) == 2)
    third.say(HELLO)
    verb, _, others = third.hear()
    assert verb == "attach" and content(others[0]) == b"arena"
    heir.say(b"register", fds)
    for one in (heir, third):
        one.socket.close()
    assert eventually(lambda: not broker.details("a")["live"])


def test_attach_only_makes_no_instance(broker: Broker, directory: Path) -> None:
    asked = serve(broker, directory)
    library = Library(directory)
    library.say(HELLO + b" attach=1")
    assert library.hear()[0] == "refused" and asked == []


def test_no_device_is_refused_with_the_reason(broker: Broker, directory: Path) -> None:
    def fail(_: bool) -> int:
        raise HostLacks("no /dev/net/tun here")

    broker.serve("a", directory, fail, NAMES.get)
    library = Library(directory)
    library.say(HELLO)
    verb, fields, _ = library.hear()
    assert verb == "refused" and fields["reason"] == "no /dev/net/tun here"


def test_names_events_counters_and_settings(broker: Broker, directory: Path) -> None:
    serve(broker, directory)
    library = Library(directory)
    library.say(b"resolve id=7 name=web-b")
    assert library.hear()[:2] == (
        "resolved",
        {"id": "7", "address": "10.1.0.3", "address6": "fd00::3"},
    )
    library.say(b"resolve id=8 name=nobody")
    assert library.hear()[:2] == ("resolved", {"id": "8"})
    library.say(b"event link up")
    library.say(b"counters tcp.sent=5 note=a%20b")
    assert eventually(lambda: broker.details("a")["counters"])
    details = broker.details("a")
    assert details["events"][0]["text"] == "link up"
    assert details["events"][0]["pid"] == os.getpid()  # by SO_PEERCRED, not by what it says
    assert details["counters"] == {"tcp.sent": 5}
    assert broker.push("a", "network", {"mss": "1400"}) == 0  # nobody registered yet
    library.say(HELLO + b" reattach=1")
    library.say(b"register", [memory(b""), memory(b""), *bells()])
    assert library.hear()[:2] == ("set", {"mss": "1400"})  # what it may have missed
    assert broker.push("a", "network", {"mss": "1300", "x": "a b"}) == 1
    assert library.hear()[:2] == ("set", {"mss": "1300", "x": "a b"})
    assert broker.push("a", "filesystem", {"sync": "never"}) == 0
    many = {f"rules.{number}": "x" * 100 for number in range(100)}  # more than one packet holds
    assert broker.push("a", "network", many) == 1
    heard: dict[str, str] = {}
    while heard != many:
        verb, fields, _ = library.hear()
        assert verb == "set" and fields
        heard |= fields


def test_events_are_reported_until_there_are_too_many(directory: Path) -> None:
    reported: list[tuple[str, int, str]] = []
    broker = Broker(reported=lambda *event: reported.append(event))
    try:
        serve(broker, directory)
        library = Library(directory)
        library.say(b"event link\x1b[31m up")
        for number in range(300):
            library.say(b"event %d" % number)
        assert eventually(lambda: broker.details("a")["dropped_events"] > 150)
        assert reported[0] == ("a", os.getpid(), "link?[31m up")
        assert 90 < len(reported) < 150 and reported[1][2] == "0"
    finally:
        broker.close()


def test_libraries_find_the_next_broker(directory: Path) -> None:
    first = Broker()
    serve(first, directory)
    library = Library(directory)
    library.say(HELLO)
    _, _, fds = library.hear()
    library.say(b"register", [memory(b"arena"), fds[0], *bells()])
    first.close()
    assert library.socket.recv(10) == b""
    second = Broker()
    asked = serve(second, directory)
    again = Library(directory)
    again.say(HELLO + b" reattach=1")
    again.say(b"register", [memory(b"arena"), fds[0], *bells()])
    newcomer = Library(directory)
    newcomer.say(HELLO)
    verb, _, shared = newcomer.hear()
    assert verb == "attach" and content(shared[0]) == b"arena" and asked == []
    second.close()


LIBRARY = ROOT / "build/elements/network-lwip/lib" / f"glibc-{platform.machine()}/libcse-net.so"


@pytest.mark.native
@pytest.mark.skipif(not LIBRARY.exists(), reason="network-lwip is not built; run `make native`")
def test_a_program_whose_broker_dies_over_its_question_asks_the_next() -> None:
    with tempfile.TemporaryDirectory(prefix="cse-") as folder:  # a socket's path must be short
        _asks_the_next(Path(folder))


def _asks_the_next(directory: Path) -> None:
    (directory / "network.conf").write_text("name=a\naddress=10.9.0.2\nprefix=24\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dying:
        place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        dying.bind(f"/proc/self/fd/{place}/broker.sock")
        os.close(place)
        dying.listen()
        dying.settimeout(20)
        words = ["python3", "-c", "import socket; socket.create_server(('', 80))"]
        environment = {**os.environ, "LD_PRELOAD": str(LIBRARY), "CSE_RUN_DIR": str(directory)}
        program = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
        connection, _ = dying.accept()
        assert connection.recv(4096).startswith(b"hello ")
        connection.close()
    (directory / "broker.sock").unlink()
    heir = Broker()
    asked = serve(heir, directory)
    try:
        assert eventually(lambda: asked == [True])
    finally:
        program.kill()
        program.wait()
        heir.close()


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 6000,
        b"\xff\xfe",
        b"nonsense a=b",
        b"register",
        b"resolve id=x name=y",
        b"resolve id=99999999999999999999 name=y",
        b" ",
        b"HELLO",
    ],
)
def test_hostile_messages_are_counted_and_harm_nobody(
    broker: Broker, directory: Path, data: bytes
) -> None:
    serve(broker, directory)
    hostile, honest = Library(directory), Library(directory)
    for library in (hostile, honest):
        library.say(b"resolve id=1 name=web-b")
        library.hear()
    before = open_files()
    for _ in range(3):
        hostile.say(data, [0, 1, 2])
    assert eventually(lambda: broker.details("a")["refused_messages"] == 3)
    assert eventually(lambda: open_files() == before)  # descriptors it sent were closed
    honest.say(b"resolve id=1 name=web-b")
    assert honest.hear()[1]["address"] == "10.1.0.3"


def test_a_flood_is_limited_and_a_deaf_peer_dropped(broker: Broker, directory: Path) -> None:
    serve(broker, directory)
    flood = Library(directory)
    try:
        for number in range(6000):
            flood.say(b"resolve id=%d name=web-b" % number)
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert eventually(lambda: not broker.details("a")["programs"])
    honest = Library(directory)
    honest.say(b"resolve id=1 name=web-b")
    assert honest.hear()[1]["address"] == "10.1.0.3"
