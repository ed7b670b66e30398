"""Plans: what a declaration would change, field by field, and that it is carried out as planned."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.agent.fake import FakeAgent
from tests.integration.planes import Plane, until


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path, FakeAgent())
    yield made
    made.stop()


def stack(**web: Any) -> dict[str, Any]:
    return {
        "name": "s",
        "networks": {"inner": {"subnet": "10.99.0.0/24"}},
        "applications": {
            "web": {
                "command": ["nginx"],
                "elements": {"net-a": {"settings": {"ttl": 10}}},
                "network": {"name": "inner"},
                **web,
            },
            "front": {"command": ["nginx"], "depends_on": ["web"]},
        },
    }


def running(plane: Plane, body: dict[str, Any]) -> None:
    assert plane.http.put("/v1/stacks/s", json=body).status_code in (200, 202)
    for name in body["applications"]:
        assert plane.http.get(f"/v1/applications/{name}?wait=5").status_code == 200
        plane.until_state(name, "running")


def planned(plane: Plane, body: dict[str, Any], query: str = "") -> dict[str, Any]:
    answer = plane.http.post(f"/v1/stacks/s/plan{query}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def of(plan: dict[str, Any], name: str) -> dict[str, Any]:
    return next(change for change in plan["changes"] if change["name"] == name)


def test_a_plan_changes_nothing(plane: Plane) -> None:
    plan = planned(plane, stack())
    assert [(one["name"], one["action"]) for one in plan["changes"]] == [
        ("inner", "create"),
        ("web", "create"),
        ("front", "create"),
    ]
    assert plane.names() == [] and plane.agent.calls == []
    running(plane, stack())
    calls = len(plane.agent.calls)
    plan = planned(plane, stack())
    assert {one["action"] for one in plan["changes"]} == {"unchanged"}
    assert len(plane.agent.calls) == calls


EFFECTS: list[tuple[dict[str, Any], str, str]] = [
    ({"labels": {"tier": "web"}}, "/labels/tier", "none"),
    ({"depends_on": []}, "", "none"),
    ({"elements": {"net-a": {"settings": {"ttl": 20}}}}, "/elements/net-a/settings/ttl", "live"),
    (
        {"elements": {"net-a": {"settings": {"ttl": 10, "keepalive": {"probes": 3}}}}},
        "/elements/net-a/settings/keepalive/probes",
        "restart",
    ),
    (
        {"elements": {"net-a": {"settings": {"ttl": 10, "congestion": "reno"}}}},
        "/elements/net-a/settings/congestion",
        "recreate",
    ),
    (
        {"elements": {"net-a": {"settings": {"ttl": 10, "congestion": "cubic"}}}},
        "/elements/net-a/settings/congestion",
        "none",  # it is the default
    ),
    ({"environment": {"A": "1"}}, "/environment/A", "recreate"),
    ({"command": ["cat"]}, "/command", "recreate"),
]


@pytest.mark.parametrize(("change", "pointer", "effect"), EFFECTS, ids=lambda v: str(v)[:40])
def test_each_field_says_what_it_does_and_does_just_that(
    plane: Plane, change: dict[str, Any], pointer: str, effect: str
) -> None:
    running(plane, stack())
    before = plane.http.get("/v1/applications/web").json()
    front = plane.status("front")
    plan = of(planned(plane, stack(**change)), "web")
    assert plan["effect"] == effect
    fields = {field["pointer"]: field["effect"] for field in plan["fields"]}
    assert fields == ({pointer: effect} if pointer else {})
    assert plan["disrupts"] == (["front"] if effect in ("restart", "recreate") else [])

    running(plane, stack(**change))
    until(lambda: not plane.plane.reconciler.view.busy)
    after = plane.http.get("/v1/applications/web").json()
    same_id = after["id"] == before["id"]
    same_pid = after["status"]["pid"] == before["status"]["pid"]
    assert same_id == (effect != "recreate")
    assert same_pid == (effect in ("none", "live"))
    assert after["status"]["address"] == before["status"]["address"]
    assert plane.status("front") == front  # changing one touches no other
    assert of(planned(plane, stack(**change)), "web")["action"] == "unchanged"


def test_a_stale_plan_is_refused(plane: Plane) -> None:
    running(plane, stack())
    changed = stack(labels={"a": "1"})
    version = planned(plane, changed)["version"]
    plane.http.post("/v1/applications/web/restart")
    stale = plane.http.put("/v1/stacks/s", json=changed, headers={"If-Match": f'"{version}"'})
    assert stale.status_code == 412 and "anew" in stale.json()["remedy"]
    version = planned(plane, changed)["version"]
    other = plane.http.put(
        "/v1/stacks/s", json=stack(labels={"a": "2"}), headers={"If-Match": version}
    )
    assert other.status_code == 412  # not what was planned
    right = plane.http.put("/v1/stacks/s", json=changed, headers={"If-Match": version})
    assert right.status_code == 202
    assert plane.http.get("/v1/applications/web").json()["spec"]["labels"]["a"] == "1"


def test_faults_belong_to_the_stack(plane: Plane) -> None:
    body = {**stack(), "faults": {"slow": {"application": "web", "delay": "20ms", "seed": 7}}}
    assert of(planned(plane, body), "slow")["action"] == "create"
    running(plane, body)
    assert [order.spec.delay for order in plane.agent.faults["web"]] == [0.02]
    assert of(planned(plane, body), "slow")["action"] == "unchanged"
    body["faults"]["slow"]["delay"] = "30ms"
    change = of(planned(plane, body), "slow")
    assert [field["pointer"] for field in change["fields"]] == ["/delay"]
    assert plane.http.put("/v1/stacks/s", json=body).status_code in (200, 202)
    assert [order.spec.delay for order in plane.agent.faults["web"]] == [0.03]
    without = {**body, "faults": {}}
    assert plane.http.put("/v1/stacks/s?prune=true", json=without).status_code in (200, 202)
    assert plane.agent.faults["web"] == []


BAD_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"application": "wep", "loss": 1}, "/faults/f/application"),
    ({"application": "front", "loss": 1}, "/faults/f/application"),
    ({"application": "web", "cut": "nobody"}, "/faults/f/cut"),
    ({"application": "web", "to": "nobody", "loss": 1}, "/faults/f/to"),
    ({"application": "web", "reset": 80}, "/faults/f/reset"),
]


@pytest.mark.parametrize(("fault", "pointer"), BAD_FAULTS, ids=lambda value: str(value)[:40])
def test_bad_faults_name_the_field(plane: Plane, fault: dict[str, Any], pointer: str) -> None:
    answer = plane.http.put("/v1/stacks/s", json={**stack(), "faults": {"f": fault}})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert plane.names() == []


def test_one_application_can_be_planned(plane: Plane) -> None:
    body = {"name": "a", "command": ["nginx"]}
    plan = plane.http.post("/v1/applications/a/plan", json=body).json()
    assert (plan["version"], plan["changes"][0]["action"]) == ("", "create")
    made = plane.http.put("/v1/applications/a", json=body, headers={"If-None-Match": "*"})
    assert made.status_code == 201
    again = plane.http.put("/v1/applications/a", json=body, headers={"If-None-Match": "*"})
    assert again.status_code == 412
    other = {**body, "command": ["cat"]}
    plan = plane.http.post("/v1/applications/a/plan", json=other).json()
    assert plan["changes"][0]["fields"] == [
        {"pointer": "/command", "before": ["nginx"], "after": ["cat"], "effect": "recreate"}
    ]
    done = plane.http.put("/v1/applications/a", json=other, headers={"If-Match": plan["version"]})
    assert done.status_code == 200
    plane.http.post("/v1/applications/a/stop")
    plan = plane.http.post("/v1/applications/a/plan", json=other).json()
    assert plan["changes"][0]["fields"][0]["pointer"] == "/desired"


def test_of_two_clients_with_the_same_version_one_wins(plane: Plane) -> None:
    made = plane.http.put("/v1/applications/a", json={"name": "a", "command": ["nginx"]})
    seen = {"If-Match": made.headers["etag"]}

    def put(number: int) -> int:
        body = {"name": "a", "command": ["nginx"], "labels": {"n": str(number)}}
        return int(plane.http.put("/v1/applications/a", json=body, headers=seen).status_code)

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(put, range(8)))
    assert sorted(codes) == [200] + [412] * 7


@pytest.mark.parametrize("kind", ["networks", "volumes"])
def test_networks_and_volumes_have_etags(plane: Plane, kind: str) -> None:
    body = {"name": "n"} | ({"subnet": "10.98.0.0/24"} if kind == "networks" else {})
    plane.http.post(f"/v1/{kind}", json=body)
    path = f"/v1/{kind}/n"
    tag = plane.http.get(path).headers["etag"]
    other = {**body, "labels": {"a": "1"}}
    assert plane.http.put(path, json=body).status_code == 200
    assert plane.http.put(path, json=other).status_code == 428
    assert plane.http.put(path, json=other, headers={"If-Match": '"x"'}).status_code == 412
    done = plane.http.put(path, json=other, headers={"If-Match": tag})
    assert done.status_code == 200 and done.headers["etag"] != tag
    assert plane.http.get(path).headers["etag"] == done.headers["etag"]


def test_a_plan_says_what_preflight_found_out(plane: Plane) -> None:
    changes = planned(plane, stack())["changes"]
    found = {one["name"]: one.get("coverage") for one in changes}
    assert found["inner"] is None
    assert found["web"]["verdict"] == "private"
    assert found["web"]["program"].endswith("nginx")
    body = {"name": "alone", "command": ["nginx"]}
    answer = plane.http.post("/v1/applications/alone/plan", json=body).json()
    assert answer["changes"][0]["coverage"]["verdict"] == "private"


def test_templates_are_listed_with_the_paths_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(
        "# A web.\nname: web\ncommand: [nginx]\nmounts: [{from: conf, path: /etc/web}]\n"
    )
    (tmp_path / "bad.yaml").write_text("[\n")
    plane = Plane(tmp_path / "p", FakeAgent(), examples_dir=tmp_path)
    try:
        items = plane.http.get("/v1/templates").json()["items"]
        assert [one["name"] for one in items] == ["web"]
        assert items[0]["content"]["mounts"][0]["from"] == str(tmp_path / "conf")
        findings = plane.http.get("/v1/doctor").json()["findings"]
        assert "template bad.yaml" in [one["check"] for one in findings]
    finally:
        plane.stop()
