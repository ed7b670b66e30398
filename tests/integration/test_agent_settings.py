"""Live settings and reports on a real instance, through the agent itself and over its socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.agent.local import LocalAgent
from app.domain.application import ApplicationSpec
from app.domain.errors import NotFound
from app.domain.launch import Launch
from app.domain.ports import Agent
from tests.integration.test_agent import agent
from tests.integration.test_evidence import launch

__all__ = ["agent"]
pytestmark = [pytest.mark.root, pytest.mark.native]

IP_RECVTTL = 12  # linux/in.h; the socket module has no name for it
ECHO = """
import socket
broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
broker.connect("/run/cse/broker.sock")
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 7))
while True:
    data, peer = server.recvfrom(100)
    try:
        broker.send(b"event echoed " + data)
    except OSError:
        pass  # the agent has ended
    answer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    answer.sendto(data, peer)
"""


def until(what: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.05)
    return result


def ttl(address: str, word: bytes) -> int | None:
    """Of the answer, as the kernel received it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        client.settimeout(0.5)
        client.sendto(word, (address, 7))
        try:
            data, ancillary, _, _ = client.recvmsg(100, 100)
        except TimeoutError:
            return None
        assert data == word
        return int.from_bytes(ancillary[0][2], "little")


def with_ttl(one: Launch, value: int) -> tuple[ApplicationSpec, dict[str, dict[str, Any]]]:
    changed = {"ttl": value}
    spec = one.spec.model_dump()
    spec["elements"] = {"network-lwip": {"settings": changed}}
    # Others may differ by now, too: what the specification does not change stays.
    return ApplicationSpec.model_validate(spec), {"network-lwip": {**changed, "send_buffer": 5000}}


@pytest.fixture
def echo(agent: Agent) -> Iterator[Launch]:
    one = launch("echo", 40, "python3", "-c", ECHO, elements={"network-lwip": {}})
    assert one.network is not None
    agent.ensure_network(one.network.network)
    agent.create(one)
    agent.start("echo")
    yield one
    agent.remove("echo")
    agent.remove_network(one.network.network.name)


def test_a_change_is_taken_by_the_running_and_by_the_next(agent: Agent, echo: Launch) -> None:
    address = str(echo.network.address) if echo.network else ""
    assert until(lambda: ttl(address, b"x")) == 64
    agent.configure("echo", *with_ttl(echo, 33))
    assert until(lambda: ttl(address, b"x") == 33)
    shown = agent.instances("echo")[0]
    assert shown.id == "echo.network-lwip" and shown.settings == {"ttl": 33}
    conf = agent.exec("echo", ["cat", "/run/cse/network.conf"]).stdout.splitlines()
    assert "ttl=33" in conf and f"address={address}" in conf
    assert not any("send_buffer" in line for line in conf)
    agent.stop("echo")
    agent.start("echo")
    assert until(lambda: ttl(address, b"x")) == 33
    with pytest.raises(NotFound):
        agent.configure("nobody", *with_ttl(echo, 33))


def test_what_an_instance_tells_is_kept_and_wakes(agent: Agent, echo: Launch) -> None:
    address = str(echo.network.address) if echo.network else ""
    assert until(lambda: ttl(address, b"one"))
    first = until(lambda: agent.reports(0))
    assert first[0].text == "echoed one"
    assert (first[0].application, first[0].application_id) == ("echo", echo.id)
    assert first[0].pid == agent.observe()[0].pid
    seen, last = agent.wait_change(-1, 0), first[-1].number
    assert agent.reports(last) == []
    ttl(address, b"two")
    assert agent.wait_change(seen, 5) != seen
    assert [report.text for report in until(lambda: agent.reports(last))] == ["echoed two"]


def test_the_next_agent_knows_the_change_and_the_reports(tmp_path: Path) -> None:
    one = launch("echo", 41, "python3", "-c", ECHO, elements={"network-lwip": {}})
    assert one.network is not None
    address = str(one.network.address)
    agents = [LocalAgent(tmp_path)]
    try:
        first = agents[0]
        first.create(one)
        first.start("echo")
        assert until(lambda: ttl(address, b"x"))
        first.configure("echo", *with_ttl(one, 21))
        reports = first.reports(0)
        first.close()
        second = LocalAgent(tmp_path)
        agents.append(second)
        assert reports and second.reports(0)[: len(reports)] == reports
        assert until(lambda: ttl(address, b"x") == 21)
        assert until(lambda: second.instances("echo")[0].started)
        assert ttl(address, b"x") == 21  # told again, taken again
        assert second.instances("echo")[0].settings == {"ttl": 21}
        second.configure("echo", *with_ttl(one, 22))
        assert until(lambda: ttl(address, b"x") == 22)
    finally:
        agents[-1].remove("echo")
        agents[-1].remove_network(one.network.network.name)
        agents[-1].close()
