"""`fallback: kernel` in the docker runtime: static programs with a kernel stack of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from app.agent.local import LocalAgent
from app.domain.application import ApplicationSpec
from app.domain.element import Element, ElementManifest
from app.domain.errors import PreflightRefused
from app.domain.fault import FaultOrder, FaultSpec
from app.domain.launch import BoundElement, BoundMount, Launch
from app.domain.network import NetworkBinding, NetworkSpec, mac_for
from tests.acceptance.world import curl, until
from tests.conftest import ELEMENTS

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.native]
IMAGE = "debian:trixie-slim"
NETWORK = NetworkSpec(name="fallback", subnet=IPv4Network("10.222.0.0/24"))
BUSYBOX = "/bin/busybox"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[LocalAgent]:
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode:
        pytest.skip(f"no image {IMAGE}; `images/base.sh` makes it")
    made = LocalAgent(tmp_path / "state")
    made.ensure_network(NETWORK)
    yield made
    for observed in made.observe():
        made.remove(observed.name)
    made.remove_network(NETWORK.name)
    made.close()


def launch(address: str, *command: str, web: Path | None = None, **spec: Any) -> Launch:
    """A static program that asks for the network element it cannot be linked with."""
    manifest = ElementManifest.model_validate_json(
        (ELEMENTS / "network-lwip/element.json").read_text()
    )
    element = Element(manifest=manifest, directory=str(ELEMENTS / "network-lwip"))
    name = f"t{uuid.uuid4().hex[:8]}"
    body = {"name": name, "command": [BUSYBOX, *command], "runtime": "docker", "image": IMAGE}
    mounts = [BoundMount(source=BUSYBOX, target=BUSYBOX, read_only=True)]
    if web is not None:
        mounts.append(BoundMount(source=str(web), target="/srv", read_only=True))
    own = IPv4Address(address)
    return Launch(
        id=uuid.uuid4().hex,
        spec=ApplicationSpec.model_validate({**body, **spec}),
        elements=[BoundElement(element=element, settings={})],
        network=NetworkBinding(network=NETWORK, address=own, mac=mac_for(own)),
        mounts=mounts,
    )


def test_its_interface_is_there_at_its_start_and_after_each_restart(
    agent: LocalAgent, tmp_path: Path
) -> None:
    web = tmp_path / "web"
    web.mkdir()
    (web / "index.html").write_text("static")
    server = launch(
        "10.222.0.2",
        *("httpd", "-f", "-p", "8080", "-h", "/srv"),
        web=web,
        fallback="kernel",
        restart="always",
    )
    assert agent.create(server).verdict == "kernel"
    first = agent.start(server.name).pid
    url = "http://10.222.0.2:8080/"
    assert until(lambda: curl(url)) == "static"

    assert first is not None
    os.kill(first, 9)
    until(lambda: agent.observe()[0].pid not in (None, first))
    assert until(lambda: curl(url)) == "static"

    # A client that connects with its first instruction finds its network ready.
    client = launch("10.222.0.3", "wget", "-q", "-O", "-", url, fallback="kernel")
    agent.create(client)
    agent.start(client.name)
    assert agent.wait(client.name, 20).exit_code == 0
    assert [line.text for line in agent.logs(client.name)] == ["static"]


def test_faults_hold_from_the_first_packet_after_a_restart(
    agent: LocalAgent, tmp_path: Path
) -> None:
    """Nobody but the agent is there: Docker restarts the container."""
    words = ("httpd", "-f", "-p", "8080", "-h", "/")
    server = launch("10.222.0.5", *words, fallback="kernel", restart="always")
    agent.create(server)
    agent.start(server.name)
    assert until(lambda: answer("10.222.0.5", 8080) == "accepted")
    spec = FaultSpec.model_validate({"refuse": 8080})
    agent.set_faults(server.name, [FaultOrder(id="f1", spec=spec, seed=1)])
    assert answer("10.222.0.5", 8080) == "ConnectionRefusedError"

    pid = agent.observe()[0].pid
    assert pid is not None
    os.kill(pid, 9)
    until(lambda: agent.observe()[0].restarts == 1 and agent.observe()[0].pid)
    seen = {answer("10.222.0.5", port) for _ in range(50) for port in (8080, 8081)}
    until(lambda: answer("10.222.0.5", 8081) == "ConnectionRefusedError")  # it is up
    seen |= {answer("10.222.0.5", 8080) for _ in range(50)}
    assert seen <= {"ConnectionRefusedError", "OSError", "TimeoutError"}
    until(lambda: any(line["refused"] for line in agent.report(server.name, "faults")))


def answer(address: str, port: int) -> str:
    try:
        with socket.create_connection((address, port), timeout=0.2):
            return "accepted"
    except OSError as error:
        return type(error).__name__


def test_without_leave_it_is_refused_and_nothing_is_made(agent: LocalAgent, tmp_path: Path) -> None:
    refused = launch("10.222.0.4", "httpd")
    with pytest.raises(PreflightRefused, match="statically linked"):
        agent.create(refused)
    assert agent.observe() == []
    assert not (tmp_path / "state/apps" / refused.name).exists()
