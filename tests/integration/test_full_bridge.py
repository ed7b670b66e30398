"""The 1,024th port: a bridge has no more than 1,023, and applications go on by their wires."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.agent.local import LocalAgent
from app.domain.launch import Launch
from app.domain.network import NetworkBinding, NetworkSpec, mac_for
from tests.integration.test_evidence import launch
from tests.integration.test_wiring import reachable

NETWORK = NetworkSpec.model_validate(
    {"name": "full", "subnet": f"10.{130 + os.getpid() % 60}.9.0/24"}
)
GROUP = str(77_000_000 + os.getpid())


def server(name: str, host: int) -> Launch:
    address = NETWORK.subnet[host]
    binding = NetworkBinding(network=NETWORK, address=address, mac=mac_for(address))
    made = launch(name, host, "python3", "-m", "http.server", "80")
    return made.model_copy(update={"network": binding})


def batch(lines: list[str]) -> str:
    words = ["ip", "-force", "-batch", "-"]
    return subprocess.run(words, input="\n".join(lines), capture_output=True, text=True).stderr


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[LocalAgent]:
    made = LocalAgent(tmp_path / "state")
    yield made
    for observed in made.observe():
        made.remove(observed.name)
    made.remove_network("full")
    made.close()


@pytest.fixture
def full(agent: LocalAgent) -> Iterator[None]:
    """The network's bridge, once it has an application, with nothing but taken ports."""
    agent.create(server("early", 2))
    agent.start("early")
    assert reachable(str(NETWORK.subnet[2]), 80)
    port = next(
        link.split(": ")[1]
        for link in subprocess.run(
            ["ip", "-o", "link"], capture_output=True, text=True
        ).stdout.splitlines()
        if "application early" in link
    )
    bridge = Path(f"/sys/class/net/{port}/master").resolve().name
    pairs = [(f"cfa{number}", f"cfb{number}") for number in range(511)]
    try:
        batch(
            [f"link add {one} group {GROUP} type veth peer name {two} group {GROUP}"
             for one, two in pairs]
        )  # fmt: skip
        refused = batch([f"link set {one} master {bridge}" for pair in pairs for one in pair])
        assert "Exchange full" in refused
        yield
    finally:
        subprocess.run(["ip", "link", "del", "group", GROUP], check=True)


@pytest.mark.root
@pytest.mark.native
@pytest.mark.usefixtures("full")
def test_without_a_port_there_are_wires_and_a_word_of_it(agent: LocalAgent) -> None:
    agent.create(server("late", 3))
    agent.start("late")
    fetched = agent.exec("early", ["curl", "-sI", "-m5", "http://late/"])
    assert fetched.stdout.startswith("HTTP/1.0 200"), fetched
    told = [one.text for one in agent.reports(0) if one.application == "late"]
    assert len(told) == 1 and "'full' has no port left" in told[0]
    with pytest.raises(OSError):
        socket.create_connection((str(NETWORK.subnet[3]), 80), timeout=0.5)
