"""Evidence on real instances, and what it says when a claim is not true or cannot be read."""

from __future__ import annotations

import json
import os
import platform
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.agent.local import LocalAgent
from app.domain.application import ApplicationSpec
from app.domain.element import Element, ElementManifest
from app.domain.launch import BoundElement, Launch
from app.domain.network import NetworkBinding, NetworkSpec, mac_for
from app.domain.observed import Claim
from app.evidence import claims, escapes
from app.evidence.subject import Linked, Subject
from tests import subnets
from tests.integration.test_wiring import reachable

BUILT = Path(__file__).resolve().parents[2] / "build/elements/network-lwip"
NETWORK = NetworkSpec.model_validate({"name": "evidence", "subnet": subnets.free()})
LIBC = Path(f"/lib/{platform.machine()}-linux-gnu/libc.so.6")


def element() -> BoundElement:
    if not (BUILT / "element.json").exists():
        pytest.skip("network-lwip is not built; run `make native`")
    manifest = ElementManifest.model_validate(json.loads((BUILT / "element.json").read_text()))
    return BoundElement(element=Element(manifest=manifest, directory=str(BUILT)), settings={})


def launch(name: str, host: int, *command: str, **spec: Any) -> Launch:
    address = NETWORK.subnet[host]
    return Launch(
        id=f"id-{name}",
        spec=ApplicationSpec.model_validate({"name": name, "command": list(command), **spec}),
        elements=[element()],
        network=NetworkBinding(network=NETWORK, address=address, mac=mac_for(address)),
        mounts=[],
    )


def verdicts(found: list[Claim]) -> dict[str, str]:
    return {claim.claim: claim.verdict for claim in found}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[LocalAgent]:
    made = LocalAgent(tmp_path / "state")
    yield made
    for observed in made.observe():
        made.remove(observed.name)
    made.remove_network("evidence")
    made.close()


@pytest.mark.root
@pytest.mark.native
def test_two_private_stacks_on_one_port(agent: LocalAgent) -> None:
    server = ("python3", "-m", "http.server", "80")
    for host, name in ((2, "web-a"), (3, "web-b")):
        agent.create(launch(name, host, *server, ports=[f"2866{host}:80"]))
        agent.start(name)
        assert reachable(str(NETWORK.subnet[host]), 80) and reachable("127.0.0.1", 28660 + host)
    found = agent.evidence("web-a")
    assert set(verdicts(found).values()) == {"holds"}, [c for c in found if c.verdict != "holds"]
    of_others = {"packet-ring", "own-kernel-stack"}
    assert set(verdicts(found)) == {*claims.GENERAL, *claims.SPECIFIC} - of_others
    assert "web-b" in next(c.observation for c in found if c.claim == "text-shared")
    instance = agent.instances("web-a")[0]
    assert instance.started and instance.pids == [agent.observe()[0].pid]
    assert instance.details["address"] == str(NETWORK.subnet[2])
    fetched = agent.exec("web-a", ["curl", "-sI", "-m5", "http://web-b/"])
    assert fetched.stdout.startswith("HTTP/1.0 200"), fetched
    shown = subprocess.run(["ss", "-Hlt", "sport", "=", "80"], capture_output=True, text=True)
    assert shown.stdout == ""


@pytest.mark.root
@pytest.mark.native
def test_an_instance_outlives_the_agent_and_serves_on(tmp_path: Path) -> None:
    first = LocalAgent(tmp_path)
    first.create(launch("web-c", 4, "python3", "-m", "http.server", "80"))
    first.start("web-c")
    assert reachable(str(NETWORK.subnet[4]), 80)
    first.close()
    assert reachable(str(NETWORK.subnet[4]), 80)
    second = LocalAgent(tmp_path)
    try:
        deadline = time.monotonic() + 5
        while not second.instances("web-c")[0].started and time.monotonic() < deadline:
            time.sleep(0.05)
        assert second.instances("web-c")[0].started  # the library found the new broker
        assert verdicts(second.evidence("web-c"))["own-arena"] == "holds"
        assert second.exec("web-c", ["curl", "-sI", "-m5", "http://127.0.0.1/"]).exit_code == 0
    finally:
        second.remove("web-c")
        second.remove_network("evidence")
        second.close()


@pytest.mark.root
@pytest.mark.native
def test_an_unused_element_is_linked_but_not_started(agent: LocalAgent) -> None:
    agent.create(launch("idle", 5, "sleep", "100"))
    agent.start("idle")
    found = verdicts(agent.evidence("idle"))
    assert found["library-mapped"] == "holds" and found["own-arena"] == "unknown"
    assert not agent.instances("idle")[0].started


def subject(pids: list[int], library: Path, data: Path, **more: Any) -> Subject:
    """This test's own processes, with `library` taken for the element's."""
    values: dict[str, Any] = {
        "name": "x",
        "pids": pids,
        "main": pids[0] if pids else None,
        "since": datetime.now(UTC),
        "linked": [Linked(element(), [library])],
        "data": data,
        "expected_sha256": "0" * 64,
        "outside_sha256": lambda path: None,
    }
    return Subject(**{**values, **more})


def test_what_is_not_true_fails(tmp_path: Path) -> None:
    library = tmp_path / "never-mapped.so"
    library.touch()
    with socket.create_server(("127.0.0.1", 0)):
        found = verdicts(claims.check(subject([os.getpid()], library, tmp_path), []))
    for claim in ("library-mapped", "own-namespaces", "program-unchanged", "no-kernel-socket"):
        assert found[claim] == "fails", claim
    assert "holds" not in found.values()


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for pids in ([], [gone.pid]):
        found = verdicts(claims.check(subject(pids, LIBC, tmp_path), []))
        assert "holds" not in found.values()
        assert found["no-kernel-socket"] == found["program-unchanged"] == "unknown"


def test_a_shared_arena_and_another_copy_of_the_text_are_found(tmp_path: Path) -> None:
    me = subject([os.getpid()], LIBC, tmp_path)
    twin = subject([os.getpid()], LIBC, tmp_path, name="twin")
    arena = os.memfd_create("cse-net-arena")
    os.ftruncate(arena, 4096)
    import mmap

    with mmap.mmap(arena, 4096):
        found = {claim.claim: claim for claim in claims.check(me, [twin])}
    os.close(arena)
    assert found["own-arena"].verdict == "fails" and "twin" in found["own-arena"].observation
    assert found["text-shared"].verdict == "holds"


def test_another_application_whose_processes_come_and_go_has_no_other_copy(
    tmp_path: Path,
) -> None:
    """One that was there when the processes were counted, and has ended when it is read."""
    over = subprocess.Popen(["true"])
    over.wait()

    class Fleeting(Subject):
        def users_of(self, linked: Linked) -> list[int]:
            return [over.pid]

    me = subject([os.getpid()], LIBC, tmp_path)
    other = Fleeting(**{**me.__dict__, "name": "visitor", "pids": [over.pid]})
    found = {claim.claim: claim for claim in claims.check(me, [other])}
    assert found["text-shared"].verdict == "holds", found["text-shared"].observation


def test_escape_tables_are_read_and_never_trusted(tmp_path: Path) -> None:
    row = struct.Struct("=QQ40sQ")
    rows = [
        row.pack(3, 2, b"socket AF_NETLINK", 0),
        row.pack(9, 1, b"half-made", 0),
        row.pack(1, 2, b"\xff\xfe", 0),
        b"cut",
    ]
    (tmp_path / "escapes.network").write_bytes(b"".join(rows))
    table = escapes.read(tmp_path, "network")
    assert table is not None and table["socket AF_NETLINK"] == 3 and len(table) == 2
    found = verdicts(claims.check(subject([os.getpid()], LIBC, tmp_path), []))
    assert found["no-escapes"] == "fails"
    (tmp_path / "escapes.clock").symlink_to("/etc/passwd")
    assert escapes.read(tmp_path, "clock") is None
