"""The agent on this host: through the process itself and over its Unix socket."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.agent import wire
from app.agent.local import LocalAgent
from app.agent.remote import RemoteAgent
from app.agent.server import AgentServer
from app.domain.application import ApplicationSpec
from app.domain.errors import AgentUnavailable, Conflict, NotFound, PreflightRefused
from app.domain.launch import BoundMount, Launch
from app.domain.network import NetworkBinding, NetworkSpec, mac_for
from app.domain.observed import State
from app.domain.ports import Agent
from tests import subnets

NETWORK = NetworkSpec.model_validate({"name": "agentest", "subnet": subnets.free()})


def launch(name: str, *command: str, mounts: list[BoundMount] | None = None, **spec: Any) -> Launch:
    made = ApplicationSpec.model_validate({"name": name, "command": list(command), **spec})
    return Launch(id=f"id-{name}", spec=made, elements=[], network=None, mounts=mounts or [])


def on_network(one: Launch, host: int) -> Launch:
    address = NETWORK.subnet[host]
    binding = NetworkBinding(network=NETWORK, address=address, mac=mac_for(address))
    return one.model_copy(update={"network": binding})


@pytest.fixture(params=["local", "remote"])
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Agent]:
    local = LocalAgent(tmp_path / "state")
    if request.param == "local":
        yield local
    else:
        server = AgentServer(local, str(tmp_path / ("s" * 100) / "agent.sock"))
        threading.Thread(target=server.run, daemon=True).start()
        remote = RemoteAgent(str(tmp_path / ("s" * 100) / "agent.sock"))
        yield remote
        remote.close()
        server.close()
    for observed in local.observe():
        local.remove(observed.name)
    local.close()


def test_life_of_an_application(agent: Agent) -> None:
    one = launch("a", "sh", "-c", "echo up; echo err >&2; sleep 100", stop={"signal": "SIGKILL"})
    seen = agent.wait_change(-1, 0)
    assert agent.create(one).verdict == "private"
    assert agent.wait_change(seen, 5) != seen
    assert agent.start("a").state is State.RUNNING
    lines = agent.logs("a", follow=True)
    assert {next(lines).text, next(lines).text} == {"up", "err"}
    assert agent.exec("a", ["hostname"]).stdout == "a\n"
    assert agent.stop("a").exit_code == 137
    assert agent.wait("a").exit_code == 137
    assert list(lines) == []
    assert agent.instances("a") == [] and agent.evidence("a") == []
    agent.remove("a")
    agent.remove("a")
    assert agent.observe() == []


def test_errors_keep_their_class_and_place(agent: Agent) -> None:
    with pytest.raises(NotFound, match="nobody"):
        agent.start("nobody")
    with pytest.raises(NotFound):
        agent.logs("nobody")
    with pytest.raises(PreflightRefused) as caught:
        agent.create(launch("a", "/no/such"))
    assert caught.value.pointer == "/command/0" and caught.value.remedy
    assert agent.observe() == []


def test_volumes_are_kept_while_mounted(agent: Agent) -> None:
    place = agent.ensure_volume("v1")
    assert agent.ensure_volume("v1") == place and Path(place).is_dir()
    mount = BoundMount(source=place, target="/mnt", read_only=False)
    agent.create(launch("a", "sh", "-c", "echo kept > /mnt/f", mounts=[mount]))
    agent.start("a")
    agent.wait("a", 5)
    assert (Path(place) / "f").read_text() == "kept\n"
    with pytest.raises(Conflict, match="mounted by a"):
        agent.remove_volume("v1")
    agent.remove("a")
    agent.remove_volume("v1")
    agent.remove_volume("v1")
    assert not Path(place).exists()


def test_doctor_names_what_it_looked_at(agent: Agent) -> None:
    findings = {finding.check: finding for finding in agent.doctor()}
    assert findings["bubblewrap"].ok and "bwrap" in findings["bubblewrap"].observation
    assert all(finding.ok or finding.remedy for finding in findings.values())


@pytest.mark.root
def test_a_program_on_a_network_without_element_gets_the_kernels_stack(agent: Agent) -> None:
    """What `fallback: kernel` comes to once preflight has said so; and it outlives the agent."""
    one = on_network(launch("b", "python3", "-m", "http.server", "80", ports=["28641:80"]), 5)
    try:
        agent.create(one)
        agent.start("b")
        from tests.integration.test_wiring import reachable

        assert reachable(str(NETWORK.subnet[5]), 80) and reachable("127.0.0.1", 28641)
        assert str(NETWORK.subnet[5]) in agent.exec("b", ["ip", "address"]).stdout
        with pytest.raises(Conflict, match="used by b"):
            agent.remove_network("agentest")
    finally:
        agent.remove("b")
        agent.remove_network("agentest")


@pytest.mark.root
def test_programs_on_the_kernels_stack_read_one_file_of_names(tmp_path: Path) -> None:
    """It follows those that come and go, outlives the agent, and is gone with its network."""
    first, second = LocalAgent(tmp_path), LocalAgent(tmp_path)
    file = tmp_path / "networks/agentest.hosts"
    here = "127.0.0.1 localhost\n"
    lines = {}
    for number, name in enumerate("abc", 5):
        address = NETWORK.subnet[number]
        lines[name] = f"{address} {name}\n{NETWORK.address6(address)} {name}\n"

    def start(agent: LocalAgent, name: str) -> None:
        agent.create(on_network(launch(name, "sleep", "100"), 5 + "abc".index(name)))
        agent.start(name)

    def seen(agent: LocalAgent, name: str) -> str:
        return agent.exec(name, ["cat", "/etc/hosts"]).stdout

    try:
        start(first, "a")
        assert seen(first, "a") == here + lines["a"]
        start(first, "b")
        assert seen(first, "a") == seen(first, "b") == here + lines["a"] + lines["b"]
        first.close()
        assert seen(second, "a") == here + lines["a"] + lines["b"]
        start(second, "c")
        second.remove("b")
        assert seen(second, "a") == seen(second, "c") == here + lines["a"] + lines["c"]
        inode = second.exec("a", ["stat", "-c", "%i", "/etc/hosts"]).stdout
        assert int(inode) == file.stat().st_ino
        second.stop("a")
        second.start("a")
        assert seen(second, "a") == here + lines["a"] + lines["c"]
    finally:
        first.close()
        for name in lines:
            second.remove(name)
        second.remove_network("agentest")
        second.close()
    assert list(file.parent.iterdir()) == []


@pytest.mark.root
def test_a_failed_create_leaves_nothing(tmp_path: Path) -> None:
    agent = LocalAgent(tmp_path)
    ports = ["28642:80", "28642:81"]
    try:
        agent.create(on_network(launch("a", "sleep", "100", ports=ports[:1]), 5))
        with pytest.raises(Conflict, match="28642"):
            agent.create(on_network(launch("b", "sleep", "100", ports=ports[1:]), 6))
        assert [one.name for one in agent.observe()] == ["a"]
        assert not (tmp_path / "apps" / "b").exists()
    finally:
        agent.remove("a")
        agent.remove_network("agentest")
        agent.close()
    assert list((tmp_path / "apps").iterdir()) == []


def test_a_second_agent_is_refused_and_the_next_one_finds_everything(tmp_path: Path) -> None:
    first = LocalAgent(tmp_path)
    first.create(launch("a", "sleep", "100"))
    first.start("a")
    with pytest.raises(Conflict, match="another agent"):
        LocalAgent(tmp_path).observe()
    before = first.observe()
    first.close()
    second = LocalAgent(tmp_path)
    assert second.observe() == before
    second.remove("a")
    second.close()


def test_a_closed_agent_does_not_take_its_state_directory_again(tmp_path: Path) -> None:
    state = tmp_path / "state"
    agent = LocalAgent(state)
    assert agent.observe() == []
    agent.close()
    shutil.rmtree(state)
    with pytest.raises(AgentUnavailable, match="closed"):  # as a thread that asks late does
        agent.wait_change(-1, 0)
    assert not state.exists()


def test_a_lost_agent_is_unavailable_and_found_again(tmp_path: Path) -> None:
    local, path = LocalAgent(tmp_path / "state"), str(tmp_path / "agent.sock")
    remote = RemoteAgent(path)
    with pytest.raises(AgentUnavailable, match="cse agent"):
        remote.observe()
    server = AgentServer(local, path)
    threading.Thread(target=server.run, daemon=True).start()
    assert remote.observe() == []
    with pytest.raises(Conflict, match="another agent serves"):
        AgentServer(local, path)
    server.close()
    again = AgentServer(local, path)
    threading.Thread(target=again.run, daemon=True).start()
    assert remote.observe() == []
    again.close()
    local.close()


def test_every_method_of_the_interface_is_on_the_wire() -> None:
    assert set(wire.methods()) == {name for name in vars(Agent) if not name.startswith("_")}
    for name, method in wire.methods().items():
        assert callable(getattr(RemoteAgent, name)) and method.result


def test_frames_that_are_not_ours_close_the_connection(tmp_path: Path) -> None:
    import socket

    local, path = LocalAgent(tmp_path / "state"), str(tmp_path / "agent.sock")
    server = AgentServer(local, path)
    threading.Thread(target=server.run, daemon=True).start()
    for data in (b"\xff\xff\xff\xff", b"\0\0\0\x05hello", b"\0\0\0\x02[]"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            client.connect(path)
            client.sendall(data)
            assert client.recv(100) == b""
    assert RemoteAgent(path).observe() == []
    server.close()
    time.sleep(0)
    local.close()
