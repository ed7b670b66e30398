"""Faults as desired state, over the fake agent: restarts, an agent that is away, ends, names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.agent.fake import FakeAgent
from app.domain.errors import AgentUnavailable
from tests.integration.planes import Plane, until

NET: dict[str, Any] = {"elements": {"net-a": {}}}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path, FakeAgent())
    yield made
    made.stop()


def add(plane: Plane, name: str, **spec: Any) -> Any:
    answer = plane.http.post(f"/v1/applications/{name}/faults", json=spec)
    assert answer.status_code == 201, answer.text
    return answer.json()


def held(plane: Plane, name: str) -> list[str]:
    return [order.id for order in plane.agent.faults.get(name, [])]


def test_a_name_is_the_address_that_it_has_now(plane: Plane) -> None:
    plane.create("web", **NET)
    plane.create("store", **NET)
    add(plane, "web", cut="store")
    subnet6 = plane.http.get("/v1/networks/default").json()["subnet6"].partition("/")[0]
    assert plane.agent.faults["web"][0].peers == [
        "10.210.0.3/32",
        f"{subnet6}3/128",
        "fe80::c5:aff:fed2:3/128",
    ]
    other = {"name": "store", "command": ["nginx"], **NET, "network": {"address": "10.210.9.9"}}
    anyhow = {"If-Match": "*"}
    changed = plane.http.put("/v1/applications/store", json=other, headers=anyhow)
    assert changed.status_code == 200
    assert until(lambda: plane.agent.faults["web"][0].peers[0] == "10.210.9.9/32")
    assert len(plane.agent.faults["web"][0].peers) == 3
    assert plane.http.delete("/v1/applications/store").status_code == 204
    add(plane, "web", loss=1)
    assert plane.agent.faults["web"][0].peers == ["0.0.0.0/32"]  # nobody, not everybody


def test_an_agent_that_was_away_is_told(plane: Plane) -> None:
    plane.create("web", **NET)
    plane.agent.failures["set_faults"] = [AgentUnavailable("away")]
    made = add(plane, "web", delay="5ms")
    assert not plane.agent.failures["set_faults"]  # it was away when first asked
    assert until(lambda: held(plane, "web") == [made["id"]])


def test_the_next_control_plane_knows_and_ends_them(tmp_path: Path) -> None:
    agent = FakeAgent()
    first = Plane(tmp_path, agent)
    first.create("web", **NET)
    stays = add(first, "web", loss="3%", seed=9)
    goes = add(first, "web", delay="5ms", **{"for": "300ms"})
    assert stays["seed"] == 9 and stays["spec"]["loss"] == 3.0 and goes["remaining"] <= 0.3
    first.stop()
    agent.faults.clear()
    second = Plane(tmp_path, agent)
    try:
        assert until(lambda: stays["id"] in held(second, "web"))
        assert until(lambda: "fault-ended" in second.events())
        items = second.http.get("/v1/applications/web/faults").json()["items"]
        assert [item["id"] for item in items] == [stays["id"]]
        path = f"/v1/applications/web/faults/{goes['id']}"
        assert second.http.delete(path).status_code == 404
    finally:
        second.stop()


def test_a_removed_application_takes_its_faults_along(plane: Plane) -> None:
    plane.create("web", **NET)
    add(plane, "web", loss=1)
    plane.http.delete("/v1/applications/web")
    plane.create("web", **NET)
    assert plane.http.get("/v1/applications/web/faults").json()["items"] == []


def test_more_than_an_instance_can_hold_is_refused(plane: Plane) -> None:
    plane.create("web", **NET)
    for _ in range(16):
        add(plane, "web", loss=1)
    answer = plane.http.post("/v1/applications/web/faults", json={"loss": 1})
    assert answer.status_code == 409 and "16 faults" in answer.text


def test_events_say_a_fault_as_people_do(plane: Plane) -> None:
    plane.create("web", elements={"net-a": {}, "files": {"settings": {"mounts": []}}})
    add(plane, "web", loss="5%", delay="20ms", **{"for": "5m"})
    file = {"path": "/srv/**", "op": "write,fsync", "errno": "EIO", "rate": "10%"}
    add(plane, "web", file=file, seed=3)
    events = plane.http.get("/v1/events?application=web").json()["items"]
    told = [one["message"].partition(": ")[2] for one in events if one["kind"] == "fault-started"]
    assert told == [
        "loss 5 %, delay 20 ms, for 300 s",
        "path /srv/**, op write fsync, errno EIO, share 10 %, seed 3",
    ]
