"""Wires as the broker hands them out: who gets one, of what, and when it ends."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from app.broker.broker import Broker
from app.broker.wires import CONTROL_BYTES, RING_BYTES
from app.domain.network import NetworkBinding, NetworkSpec, Policy, mac_for
from tests.integration.test_broker import CLOSERS, HELLO, Library, eventually, memory, open_files

NETWORK = NetworkSpec.model_validate({"name": "n", "subnet": "10.1.0.0/24"})
OTHER = NetworkSpec.model_validate({"name": "o", "subnet": "10.1.0.0/24"})


def bells() -> tuple[list[int], list[int]]:
    """Read ends and write ends, as a library makes them."""
    pairs = [os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) for _ in range(2)]
    for pair in pairs:
        CLOSERS.extend(partial(os.close, fd) for fd in pair)
    return [read for read, _ in pairs], [write for _, write in pairs]


class Instance:
    """An application with one program that leads its instance."""

    def __init__(
        self, broker: Broker, place: Path, name: str, host: int, network: NetworkSpec = NETWORK
    ) -> None:
        self.name, self.directory = name, place / name
        self.directory.mkdir(exist_ok=True)
        address = network.subnet[host]
        self.address = str(address)
        self.binding = NetworkBinding(network=network, address=address, mac=mac_for(address))
        self.bells, self.writes = bells()
        self.serve(broker)
        self.library = Library(self.directory)
        self.library.say(HELLO)
        assert self.library.hear()[0] == "create"
        self.register()

    def serve(self, broker: Broker) -> None:
        def make(_: bool) -> int:
            return os.memfd_create("tap")

        broker.serve(self.name, self.directory, make, lambda _: None, self.binding)

    def register(self, wires: str = "") -> list[str]:
        self.library.say(b"register", [memory(b"arena"), memory(b"tap"), *self.bells])
        return self.lead(wires)

    def lead(self, wires: str = "") -> list[str]:
        """What it hears before what every leader is told."""
        self.library.say(b"lead wires=" + wires.encode())
        return list(iter(lambda: self.library.hear()[0], "faults"))

    def reattach(self, broker: Broker, wires: str) -> list[str]:
        """A library that has found the next broker."""
        self.serve(broker)
        self.library = Library(self.directory)
        self.library.say(HELLO + b" reattach=1")
        return self.register(wires)

    def ask(self, address: str) -> None:
        self.library.say(b"wire address=" + address.encode())

    def hears_the_end_of(self, peer: Instance) -> bool:
        verb, fields, _ = self.library.hear()
        return verb == "unwire" and fields["address"] == peer.address

    def hear_wire(self) -> tuple[dict[str, str], list[int]]:
        verb, fields, fds = self.library.hear()
        assert verb == "wire"
        return fields, fds


@pytest.fixture
def broker() -> Iterator[Broker]:
    before = open_files()
    made = Broker()
    yield made
    made.close()
    while CLOSERS:
        CLOSERS.pop()()
    assert eventually(lambda: open_files() <= before)


def live(broker: Broker, *instances: Instance) -> None:
    for one in instances:
        assert eventually(partial(_is_live, broker, one.name))


def _is_live(broker: Broker, name: str) -> bool:
    return bool(broker.details(name).get("live"))


def refused(instance: Instance, address: str) -> bool:
    instance.ask(address)
    fields, fds = instance.hear_wire()
    return fields == {"address": address, "none": "1"} and not fds


def test_both_ends_get_one_memory_and_the_other_ones_bells(broker: Broker, tmp_path: Path) -> None:
    a, b = Instance(broker, tmp_path, "a", 2), Instance(broker, tmp_path, "b", 3)
    live(broker, a, b)
    a.ask(b.address)
    (told_a, fds_a), (told_b, fds_b) = a.hear_wire(), b.hear_wire()
    assert (told_a["address"], told_a["name"], told_a["side"]) == (b.address, "b", "0")
    assert (told_b["address"], told_b["name"], told_b["side"]) == (a.address, "a", "1")
    assert told_a["address6"] == str(b.binding.address6)
    rings = [mmap.mmap(fds[0], 0) for fds in (fds_a, fds_b)]
    rings[0][7:10] = b"abc"
    assert rings[1][7:10] == b"abc" and len(rings[0]) == CONTROL_BYTES + 2 * RING_BYTES
    os.write(fds_a[1], b"x")
    os.write(fds_a[2], b"yy")
    assert os.read(b.bells[0], 10) == b"x" and os.read(b.bells[1], 10) == b"yy"
    os.write(fds_b[1], b"z")
    assert os.read(a.bells[0], 10) == b"z"


def test_what_a_peer_gets_cannot_harm(broker: Broker, tmp_path: Path) -> None:
    a, b = Instance(broker, tmp_path, "a", 2), Instance(broker, tmp_path, "b", 3)
    live(broker, a, b)
    a.ask(b.address)
    _, fds = a.hear_wire()
    with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
        os.ftruncate(fds[0], 0)  # sealed: the other end would be killed by SIGBUS
    seals = fcntl.fcntl(fds[0], fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_SEAL and seals & fcntl.F_SEAL_SHRINK
    for bell, own in zip(fds[1:], b.bells, strict=True):
        assert fcntl.fcntl(bell, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        fcntl.fcntl(bell, fcntl.F_SETFL, 0)  # blocking now, for this peer alone
        assert fcntl.fcntl(own, fcntl.F_GETFL) & os.O_NONBLOCK
        assert os.fstat(bell).st_mode & 0o777 == 0  # not to be opened again for reading


def test_who_gets_none(broker: Broker, tmp_path: Path) -> None:
    a = Instance(broker, tmp_path, "a", 2)
    stranger = Instance(broker, tmp_path, "c", 3, OTHER)
    live(broker, a, stranger)
    assert refused(a, "10.1.0.99")  # nobody's
    assert refused(a, stranger.address)  # another network's
    assert refused(a, a.address)
    assert refused(a, "nonsense")
    idle = NetworkBinding(network=NETWORK, address=NETWORK.subnet[4], mac="02:c5:00:00:00:04")
    (tmp_path / "d").mkdir()
    broker.serve("d", tmp_path / "d", lambda _: -1, lambda _: None, idle)
    assert refused(a, "10.1.0.4")  # not started


def test_asked_by_both_at_once_there_is_one(broker: Broker, tmp_path: Path) -> None:
    a, b = Instance(broker, tmp_path, "a", 2), Instance(broker, tmp_path, "b", 3)
    live(broker, a, b)
    a.ask(b.address)
    b.ask(str(a.binding.address6))
    # Whose question came first is the scheduler's affair.
    assert {instance.hear_wire()[0]["side"] for instance in (a, b)} == {"0", "1"}
    assert a.library.silent() and b.library.silent()


def test_the_end_of_an_application_is_told_to_its_peers(broker: Broker, tmp_path: Path) -> None:
    a, b = Instance(broker, tmp_path, "a", 2), Instance(broker, tmp_path, "b", 3)
    live(broker, a, b)
    a.ask(b.address)
    a.hear_wire()
    told, fds = b.hear_wire()
    a.library.socket.close()
    gone = {"address": a.address, "id": told["id"]}
    assert b.library.hear()[:2] == ("unwire", gone)
    for read, write in zip(a.bells, a.writes, strict=True):
        os.close(os.dup(read))
        os.dup2(memory(b""), read)  # the last reader is gone, with the broker's own
        os.dup2(memory(b""), write)
    with pytest.raises(BrokenPipeError):
        os.write(fds[1], b"x")


def test_one_end_lets_go(broker: Broker, tmp_path: Path) -> None:
    a, b = Instance(broker, tmp_path, "a", 2), Instance(broker, tmp_path, "b", 3)
    live(broker, a, b)
    a.ask(b.address)
    a.hear_wire(), b.hear_wire()
    b.library.say(b"unwire address=" + a.address.encode())
    assert a.hears_the_end_of(b)
    a.ask(b.address)  # and may have another
    assert a.hear_wire()[1] and b.hear_wire()[1]


def test_what_is_heard_late_ends_no_later_wire(broker: Broker, tmp_path: Path) -> None:
    a, b = Instance(broker, tmp_path, "a", 2), Instance(broker, tmp_path, "b", 3)
    live(broker, a, b)
    a.ask(b.address)
    (told, _), _ = a.hear_wire(), b.hear_wire()
    a.library.say(b"unwire address=" + b.address.encode())
    assert b.hears_the_end_of(a)
    b.ask(a.address)
    (later, _), _ = a.hear_wire(), b.hear_wire()
    assert later["id"] != told["id"]
    a.library.say(f"unwire address={b.address} id={told['id']}".encode())  # the first one's
    assert a.library.silent() and b.library.silent() and broker.wires("b") == ["a"]
    a.library.say(f"unwire address={b.address} id={later['id']}".encode())
    assert b.hears_the_end_of(a)


def test_policy_is_followed_when_asked_and_when_it_changes(broker: Broker, tmp_path: Path) -> None:
    a, b, c = (Instance(broker, tmp_path, name, 2 + n) for n, name in enumerate("abc"))
    live(broker, a, b, c)
    for peer in (b, c):
        a.ask(peer.address)
        assert a.hear_wire()[1] and peer.hear_wire()[1]
    only = Policy.model_validate({"default": "deny", "allow": [["b", "a"]]})
    broker.change_network(NETWORK.model_copy(update={"policy": only}))
    assert a.hears_the_end_of(c) and c.hears_the_end_of(a)
    assert b.library.silent()
    assert refused(c, a.address) and refused(c, b.address)


def test_the_next_broker_learns_what_wires_there_are(tmp_path: Path) -> None:
    first, second = Broker(), Broker()
    a, b = Instance(first, tmp_path, "a", 2), Instance(first, tmp_path, "b", 3)
    live(first, a, b)
    a.ask(b.address)
    a.hear_wire(), b.hear_wire()
    first.close()
    assert a.library.socket.recv(10) == b"" == b.library.socket.recv(10)  # and no `unwire`
    a.reattach(second, b.address)
    b.reattach(second, a.address)
    live(second, a, b)
    b.library.socket.close()
    assert a.library.hear()[:2] == ("unwire", {"address": b.address})
    second.close()


def test_a_new_leader_says_what_is_left(broker: Broker, tmp_path: Path) -> None:
    a, b = Instance(broker, tmp_path, "a", 2), Instance(broker, tmp_path, "b", 3)
    live(broker, a, b)
    a.ask(b.address)
    a.hear_wire(), b.hear_wire()
    heir = Library(a.directory)
    heir.say(HELLO)
    assert heir.hear()[0] == "attach"
    heir.say(b"register", [memory(b""), memory(b""), *a.bells])
    heir.say(b"lead wires=")
    assert b.hears_the_end_of(a)


def test_who_leads_may_not_have_read_what_it_was_told(broker: Broker, tmp_path: Path) -> None:
    """A peer's question may overtake the `lead` of a program that has just registered."""
    a, b = Instance(broker, tmp_path, "a", 2), Instance(broker, tmp_path, "b", 3)
    live(broker, a, b)
    a.ask(b.address)
    assert a.hear_wire()[1] and b.hear_wire()[1]
    b.lead()
    assert a.library.silent() and b.library.silent() and broker.wires("a") == ["b"]


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_wire_that_only_one_end_claims_is_none(tmp_path: Path, first: str) -> None:
    """The word of its end was on its way when the broker was killed."""
    former, broker = Broker(), Broker()
    a, b = Instance(former, tmp_path, "a", 2), Instance(former, tmp_path, "b", 3)
    live(former, a, b)
    former.close()
    for one in (a, b) if first == "a" else (b, a):
        heard = one.reattach(broker, b.address if one is a else "")
    assert heard == ["unwire"] if first == "b" else a.hears_the_end_of(b)
    assert a.library.silent() and b.library.silent()
    assert eventually(lambda: not broker.wires("a"))
    a.ask(b.address)
    assert a.hear_wire()[1] and b.hear_wire()[1]
    broker.close()


def test_hostile_requests_are_refused_and_leave_nothing(broker: Broker, tmp_path: Path) -> None:
    a, b = Instance(broker, tmp_path, "a", 2), Instance(broker, tmp_path, "b", 3)
    live(broker, a, b)
    unregistered = Library(a.directory)
    unregistered.say(b"resolve id=1 name=x")
    assert unregistered.hear()[0] == "resolved"  # the broker has accepted it
    before = open_files()
    unregistered.say(b"wire address=10.1.0.3")
    unregistered.say(b"register", [memory(b""), memory(b""), memory(b""), memory(b"")])  # no bells
    unregistered.say(b"register", a.bells)
    assert eventually(lambda: broker.details("a")["refused_messages"] == 3)
    for _ in range(4):
        CLOSERS.pop()()
    assert eventually(lambda: open_files() == before)
    for _attempt in range(300):  # a flood: wires made and dropped, until the allowance is used up
        a.ask(b.address)
        fields, fds = a.hear_wire()
        for _ in fds:
            CLOSERS.pop()()
        if "none" in fields:
            break
        for _ in b.hear_wire()[1]:
            CLOSERS.pop()()
        a.library.say(b"unwire address=" + b.address.encode())
        b.library.hear()
    assert "none" in fields
    assert eventually(lambda: open_files() == before)
