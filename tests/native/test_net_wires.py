"""Wires: packets between two applications of one host go over memory that both map."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from app.domain.network import Policy
from tests.native.net.lab import Host, Lab, retry

PEER = str(Path(__file__).parent / "net/peer.py")
pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture
def pair(lab: Lab) -> tuple[Host, Host]:
    """A server that echoes, and another application."""
    server, client = lab.host(), lab.host()
    server.start("python3", PEER, "echo")
    retry(lambda: lab.broker.details(server.name)["live"])
    return server, client


def until(host: Host, condition: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """The counters of an instance, once they satisfy the condition. It tells them each second."""
    retry(lambda: (found := host.counters()) and condition(found), 30)
    found = host.counters()
    assert condition(found), found
    return found


def held(host: Host, address: str) -> subprocess.Popen[str]:
    """A client whose connection stands."""
    process = subprocess.Popen(
        host.command("python3", PEER, "hold", address),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    host.processes.append(process)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def works(process: subprocess.Popen[str]) -> bool:
    """True if its connection still carries bytes."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("ping\n")
    process.stdin.flush()
    return process.stdout.readline() == "alive b'ping\\n'\n"


def last_words(process: subprocess.Popen[str]) -> str:
    process.wait(20)
    assert process.stdout is not None
    return process.stdout.read().strip()


def test_bytes_arrive_whole_and_none_by_the_tap(pair: tuple[Host, Host]) -> None:
    server, client = pair
    assert client.check("python3", PEER, "talk", server.address, "60") == "same\n"
    both = ("wire_rx_bytes", "wire_tx_bytes")
    counters = until(server, lambda found: all(found[way] > 4_000_000 for way in both))
    assert counters["tx_bytes"] < 20_000 and counters["wire_errors"] == 0


def test_both_families_take_the_one_wire(pair: tuple[Host, Host]) -> None:
    server, client = pair
    assert client.check("python3", PEER, "talk", server.address6, "30") == "same\n"
    assert client.check("python3", PEER, "talk", server.address, "30") == "same\n"
    process = held(client, server.address6)

    def all_by_one(found: dict[str, int]) -> bool:
        return works(process) and found["wires"] == 1 and found["wire_rx_bytes"] > 3_000_000

    counters = until(server, all_by_one)
    assert counters["tx_bytes"] < 20_000
    server.kill()
    assert last_words(process) == f"error {errno.ECONNRESET}"


def wire_kib(host: Host) -> int:
    """Memory of all wires of an application."""
    found: dict[int, int] = {}
    for pid in host.pids():
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if "cse-wire" in str(link.readlink()):
                status = link.stat()
                found[status.st_ino] = status.st_blocks // 2
    return sum(found.values())


def test_memory_of_a_wire_goes_back_when_nothing_is_on_its_way(pair: tuple[Host, Host]) -> None:
    server, client = pair
    process = held(client, server.address)
    assert client.check("python3", PEER, "talk", server.address, "60") == "same\n"
    assert retry(lambda: 0 < wire_kib(server) <= 64, 10), f"{wire_kib(server)} KiB"
    assert works(process)
    assert client.check("python3", PEER, "talk", server.address, "60") == "same\n"


@pytest.mark.parametrize("role", ["forked-first", "executed"])
def test_other_processes_of_the_application_use_the_wire(
    pair: tuple[Host, Host], role: str
) -> None:
    server, client = pair
    assert client.check("python3", PEER, role, server.address).split()[0] == "same"
    counters = until(server, lambda found: found["wire_rx_bytes"] > 500_000)
    assert counters["tx_bytes"] < 20_000


def test_a_killed_peer_resets_its_connections(pair: tuple[Host, Host]) -> None:
    server, client = pair
    process = held(client, server.address)
    server.kill()
    assert last_words(process) == f"error {errno.ECONNRESET}"


def test_connections_outlive_the_broker_and_the_end_of_a_peer_is_noticed(
    lab: Lab, pair: tuple[Host, Host]
) -> None:
    server, client = pair
    process = held(client, server.address)
    lab.broker.close()
    try:
        assert works(process)
        server.kill()
        assert last_words(process) == f"error {errno.ECONNRESET}"
    finally:
        lab.restart_broker()


def test_after_a_restart_of_the_broker_wires_are_known_to_it(
    lab: Lab, pair: tuple[Host, Host]
) -> None:
    server, client = pair
    process = held(client, server.address)
    lab.broker.close()
    lab.restart_broker()
    retry(lambda: lab.broker.details(server.name)["live"])
    retry(lambda: lab.broker.details(client.name)["live"])
    assert client.check("python3", PEER, "talk", server.address, "10") == "same\n"
    assert works(process)
    server.kill()
    assert last_words(process) == f"error {errno.ECONNRESET}"


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_garbage_in_a_wire_breaks_that_wire_only(
    lab: Lab, pair: tuple[Host, Host], seed: str
) -> None:
    server, client = pair
    honest = lab.host(f"honest{seed}")
    other = held(honest, server.address)
    hostile = subprocess.Popen(
        client.command("python3", PEER, "scribble", server.address, seed),
        stdout=subprocess.PIPE,
        text=True,
    )
    client.processes.append(hostile)
    assert honest.check("python3", PEER, "talk", server.address, "40") == "same\n"
    hostile.communicate(timeout=60)
    assert honest.check("python3", PEER, "talk", server.address, "10") == "same\n"
    assert works(other)


@pytest.mark.parametrize(("what", "counter"), [("tail", "wire_errors"), ("packet", "wire_spoofed")])
def test_what_cannot_be_is_counted(pair: tuple[Host, Host], what: str, counter: str) -> None:
    server, client = pair
    client.check("python3", PEER, "forge", server.address, what)
    assert client.check("python3", PEER, "talk", server.address, "3") == "same\n"
    until(server, lambda found: found[counter] > 0)


def test_segments_are_as_large_as_the_wire_allows(lab: Lab, pair: tuple[Host, Host]) -> None:
    server, _ = pair
    small = lab.host()
    text = (small.run / "network.conf").read_text().replace("mtu=65520", "mtu=1500")
    (small.run / "network.conf").write_text(text)
    stamps = 12  # bytes of each segment that TCP_MAXSEG leaves out
    assert int(small.check("python3", PEER, "segment", server.address)) == 65460 - stamps
    assert int(small.check("python3", PEER, "segment", server.address6)) == 65440 - stamps
    (small.run / "network.conf").write_text(text + "mss=9000\n")
    assert int(small.check("python3", PEER, "segment", server.address)) == 9000 - stamps


def test_a_denied_pair_has_no_wire_and_loses_the_one_it_had(
    lab: Lab, pair: tuple[Host, Host]
) -> None:
    server, client = pair
    process = held(client, server.address)
    open_policy = lab.spec
    try:
        lab.broker.change_network(lab.spec.model_copy(update={"policy": Policy(default="deny")}))
        assert last_words(process) == f"error {errno.ECONNRESET}"
        client.check("python3", PEER, "talk", server.address, "3")  # no filter in the laboratory
        counters = until(server, lambda found: found["tx_bytes"] > 20_000)
        assert counters["wires"] == 0
    finally:
        lab.broker.change_network(open_policy)


def test_a_new_instance_keeps_its_wire_when_the_end_of_the_former_is_heard_late(
    pair: tuple[Host, Host],
) -> None:
    """Same address, and a peer that was busy elsewhere: it hears of both at once."""
    server, client = pair
    for _ in range(5):
        held(client, server.address)
        assert retry(lambda: server.name in client.lab.broker.wires(client.name))
        for pid in server.pids():
            os.kill(pid, signal.SIGSTOP)
        client.kill()
        assert retry(lambda: not client.lab.broker.wires(client.name))
        process = subprocess.Popen(
            client.command("python3", PEER, "talk", server.address, "60"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        client.processes.append(process)
        assert retry(lambda: server.name in client.lab.broker.wires(client.name))
        for pid in server.pids():
            os.kill(pid, signal.SIGCONT)
        assert last_words(process) == "same"
