"""The broker against a library that says anything, in any order, with any descriptors."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.broker.broker import Broker
from app.broker.messages import MAX_FDS
from tests.integration.test_broker import CLOSERS, HELLO, Library, bells, eventually, open_files
from tests.integration.test_broker_wires import NETWORK, Instance, live

VERBS = (
    *("hello", "register", "resolve", "lead", "wire", "unwire", "event", "counters", "reported"),
    *("set", "create", "attach", "capture", "nonsense"),
)
KEYS = ("id", "name", "address", "address6", "wires", "kind", "program", "attach", "reattach")
WORDS = ("1", "0", "-1", "--1", "10.1.0.2", "10.1.0.3", "fd00::1", "network", "\u00b2", "9" * 40)

words = st.one_of(st.sampled_from(WORDS), st.text(max_size=40))
fields = st.lists(
    st.tuples(st.sampled_from((*KEYS, "bytes", "rx_packets", "vnet_hdr")), words), max_size=4
)
spoken = st.builds(
    lambda verb, given: " ".join([verb, *(f"{key}={value}" for key, value in given)]).encode(),
    st.sampled_from(VERBS),
    fields,
)
messages = st.one_of(spoken, st.binary(min_size=1, max_size=200))
FILES = ("memory", "bell", "named", "socket", "directory")
steps = st.lists(
    st.tuples(
        st.integers(0, 2),  # which of three programs; it connects again where it was dropped
        messages,
        st.lists(st.sampled_from(FILES), max_size=MAX_FDS),
    ),
    max_size=30,
)


class Files:
    """One of each kind, to be sent again and again."""

    def __init__(self, place: Path) -> None:
        self._ends = socket.socketpair()
        named = place / "named"
        os.mkfifo(named)
        self.fds = {
            "memory": os.memfd_create("hostile"),
            "bell": bells()[0],
            "named": os.open(named, os.O_RDONLY | os.O_NONBLOCK),
            "socket": self._ends[0].fileno(),
            "directory": os.open("/", os.O_RDONLY | os.O_DIRECTORY),
        }

    def close(self) -> None:
        for kind in ("memory", "named", "directory"):
            os.close(self.fds[kind])
        for end in self._ends:
            end.close()


@pytest.fixture
def broker(caplog: pytest.LogCaptureFixture) -> Iterator[Broker]:
    before = open_files()
    made = Broker()
    yield made
    made.close()
    while CLOSERS:
        CLOSERS.pop()()
    assert eventually(lambda: open_files() <= before), "descriptors have leaked"


def talk(directory: Path, said: list[tuple[int, bytes, list[str]]], files: Files) -> None:
    """All of it, by three programs; answers are thrown away with their descriptors."""
    programs: list[Library | None] = [None] * 3
    for who, data, kinds in said:
        library = programs[who] or Library(directory)
        programs[who] = library
        library.socket.setblocking(False)
        try:
            library.say(data, [files.fds[kind] for kind in kinds])
            with contextlib.suppress(BlockingIOError):
                while received := socket.recv_fds(library.socket, 4096, MAX_FDS):
                    for fd in received[1]:
                        os.close(fd)
                    if not received[0]:
                        raise ConnectionResetError
        except (ConnectionError, BlockingIOError):
            programs[who] = None
            library.socket.close()
    for program in programs:
        if program is not None:
            program.socket.close()


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(said=steps)
def check(
    broker: Broker,
    place: Path,
    files: Files,
    honest: Instance,
    caplog: pytest.LogCaptureFixture,
    said: list[tuple[int, bytes, list[str]]],
) -> None:
    talk(place / "hostile", said, files)
    json.dumps(broker.details("hostile"))
    honest.library.say(b"resolve id=7 name=nobody")
    while True:
        verb, given_fields, _ = honest.library.hear()
        if verb == "resolved":
            assert given_fields == {"id": "7"}
            break
        assert verb in ("wire", "unwire")  # by the hostile one's own address only
        assert given_fields["address"] == "10.1.0.66"
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR], caplog.text


def test_whatever_one_says_the_others_are_served(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "hostile").mkdir()
    files = Files(tmp_path)
    hostile = NETWORK.subnet[66]
    honest = Instance(broker, tmp_path, "honest", 2)
    live(broker, honest)
    binding = honest.binding.model_copy(update={"address": hostile})

    def make(_: bool) -> int:
        return os.memfd_create("tap")

    broker.serve("hostile", tmp_path / "hostile", make, lambda _: None, binding)
    try:
        check(broker, tmp_path, files, honest, caplog)
    finally:
        files.close()


def test_a_bell_with_a_name_is_refused_and_keeps_its_mode(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    broker.serve("a", tmp_path / "a", lambda _: os.memfd_create("tap"), lambda _: None)
    files = Files(tmp_path)
    mode = (tmp_path / "named").stat().st_mode
    library = Library(tmp_path / "a")
    library.say(HELLO)
    library.hear()
    named = files.fds["named"]
    library.say(b"register", [files.fds["memory"], files.fds["memory"], named, named])
    assert eventually(lambda: broker.details("a")["refused_messages"] == 1)
    assert (tmp_path / "named").stat().st_mode == mode and not broker.details("a")["live"]
    files.close()


def test_what_it_says_of_itself_is_made_fit_to_be_shown(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    broker.serve("a", tmp_path / "a", lambda _: os.memfd_create("tap"), lambda _: None)
    library = Library(tmp_path / "a")
    library.say(b"hello kind=network attach=1 program=%1b]0;x%07")
    library.say(b"counters rx_packets=12 tx_packets=--5 x=%c2%b2 y=1e9 z=-3")
    assert eventually(lambda: broker.details("a")["counters"])
    details = broker.details("a")
    assert details["counters"] == {"rx_packets": 12, "z": -3}
    assert details["programs"][0]["program"] == "?]0;x?"
