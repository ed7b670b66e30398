"""The REST interface over the fake agent: life of an application, bad input, restarts, races."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.agent.fake import FakeAgent
from app.domain.application import ApplicationSpec
from app.domain.errors import AgentUnavailable, HostLacks, RuntimeFailure
from app.domain.launch import Launch
from tests.integration.planes import Plane, until

NET: dict[str, Any] = {"elements": {"net-a": {}}}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path, FakeAgent())
    yield made
    made.stop()


def test_life_of_an_application(plane: Plane) -> None:
    made = plane.create("web", "nginx", **NET, ports=["8081:80"])
    assert made["status"]["state"] == "running"
    assert made["status"]["address"] == "10.210.0.2"
    assert made["status"]["ports"][0]["host_port"] == 8081
    assert made["status"]["coverage"]["verdict"] == "private"
    assert plane.agent.networks["default"].subnet.prefixlen == 16

    stopped = plane.http.post("/v1/applications/web/stop").json()["status"]
    assert (stopped["state"], stopped["exit_code"]) == ("stopped", 143)
    assert plane.http.post("/v1/applications/web/start").json()["status"]["state"] == "running"
    before = plane.status("web")["pid"]
    assert plane.http.post("/v1/applications/web/start").json()["status"]["pid"] == before
    assert plane.http.post("/v1/applications/web/restart").json()["status"]["pid"] != before

    assert plane.http.delete("/v1/applications/web").status_code == 204
    assert plane.http.get("/v1/applications/web").status_code == 404
    assert plane.agent.observe() == []


def test_the_end_of_a_program_is_seen(plane: Plane) -> None:
    plane.create("job", "sh", "-c", "echo hello; echo bad >&2; exit 3")
    ended = plane.until_state("job", "exited")
    assert ended["exit_code"] == 3
    text = plane.http.get("/v1/applications/job/logs").text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["stream"], line["text"]) for line in lines] == [
        ("stdout", "hello"),
        ("stderr", "bad"),
    ]
    sse = plane.http.get("/v1/applications/job/logs", headers={"Accept": "text/event-stream"})
    assert sse.headers["content-type"].startswith("text/event-stream")
    assert sse.text.startswith("data: {")
    until(lambda: plane.events() == ["created", "started", "exited"])
    assert plane.http.post("/v1/applications/job/start").status_code == 200
    until(lambda: plane.http.get("/v1/applications/job/logs").text.count("hello") == 2)


def test_exec_instances_and_evidence(plane: Plane) -> None:
    plane.create("web", **NET)
    path = "/v1/applications/web"
    result = plane.http.post(f"{path}/exec", json={"command": ["sh", "-c", "echo x; exit 7"]})
    assert result.json() == {"exit_code": 7, "stdout": "x\n", "stderr": ""}
    instance = plane.http.get(f"{path}/instances").json()["items"][0]
    assert (instance["element"], instance["kind"]) == ("net-a", "network")
    assert plane.http.get("/v1/instances").json()["items"] == [instance]
    assert plane.http.get(f"{path}/evidence").json()["items"][0]["claim"] == "library-mapped"


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"comand": ["x"]}, "/comand", "command"),
    ({"command": []}, "/command", ""),
    ({"name": "No_Good"}, "/name", "Lower-case"),
    ({"runtime": "dokcer"}, "/runtime", "docker"),
    ({"limits": {"memory": "12 parsecs"}}, "/limits/memory", "256M"),
    ({"limits": {"memory": "1k"}}, "/limits/memory", "at least"),
    ({"environment": {"LD_PRELOAD": "x"}}, "/environment", "elements"),
    ({"environment": {"1A": "x"}}, "/environment/1A", ""),
    ({"ports": ["80"], **NET}, "/ports/0", "8081:80"),
    ({"ports": ["8080:80"]}, "/ports", "network"),
    ({"elements": {"net-x": {}}}, "/elements/net-x", "net-"),
    ({"elements": {"net-a": {}, "net-b": {}}}, "/elements/net-b", "one element of a kind"),
    ({"elements": {"net-a": {"settings": {"ms": 1}}}}, "/elements/net-a/settings/ms", "mss"),
    ({"elements": {"net-a": {"settings": {"mss": 1}}}}, "/elements/net-a/settings/mss", "500"),
    ({"elements": {"net-a": {"setings": {}}}}, "/elements/net-a/setings", "settings"),
    (
        {"elements": {"net-a": {"settings": {"congestion": "cubik"}}}},
        "/elements/net-a/settings/congestion",
        "cubic",
    ),
    (
        {"elements": {"files": {"settings": {"mounts": [{"path": "/a", "from": "/no/such"}]}}}},
        "/elements/files/settings/mounts/0/from",
        "there is no 'no' in /",
    ),
    (
        {"elements": {"files": {"settings": {"mounts": [{"path": "/a", "from": "b.zip"}]}}}},
        "/elements/files/settings/mounts/0/from",
        "absolute",
    ),
    (
        {"elements": {"files": {"settings": {"mounts": [{"path": "/a"}]}}}},
        "/elements/files/settings/mounts/0/from",
        "add it",
    ),
    ({"mounts": [{"path": "/a", "from": "/no/such"}]}, "/mounts/0/from", "there is no 'no'"),
    ({"mounts": [{"path": "/a", "volume": "none"}]}, "/mounts/0/volume", "volume"),
    ({"mounts": [{"path": "/a"}]}, "/mounts/0", ""),
    ({"network": {"name": "nowhere"}, **NET}, "/network/name", "default"),
    ({"network": {"address": "192.0.2.1"}, **NET}, "/network/address", "10.210.0.0/16"),
    ({"network": {"address": "10.210.0.1"}, **NET}, "/network/address", "another"),
    ({"depends_on": ["nobody"]}, "/depends_on/0", "application"),
    ({"command": ["/bin/static"], **NET}, "/command/0", "dynamically linked"),
    ({"command": ["no-such-program"]}, "/command/0", "correct the path"),
    ({"restart": "sometimes"}, "/restart/policy", "on-failure"),
    ({"stop": {"signal": "SIGBOGUS"}}, "/stop/signal", "SIG"),
]


@pytest.mark.parametrize(("change", "pointer", "hint"), BAD, ids=lambda value: str(value)[:60])
def test_bad_input_names_field_and_remedy_and_leaves_nothing(
    plane: Plane, change: dict[str, Any], pointer: str, hint: str
) -> None:
    answer = plane.http.post("/v1/applications", json={"name": "a", "command": ["nginx"], **change})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"].startswith("urn:cse:problem:")
    fields = {error["pointer"]: error for error in problem["errors"]}
    assert pointer in fields, problem
    said = fields[pointer]["detail"] + " " + fields[pointer].get("remedy", "")
    assert hint in said
    assert fields[pointer].get("remedy") or hint in fields[pointer]["detail"]
    assert plane.names() == [] and plane.agent.observe() == []
    assert "create" not in [method for method, _ in plane.agent.calls]
    # Nothing is held either: a good one gets the first address and the port.
    made = plane.create("good", **NET, ports=["8080:80"])
    assert made["status"]["address"] == "10.210.0.2"


def test_every_fault_is_told_at_once(plane: Plane) -> None:
    body = {"name": "a", "command": ["nginx"], "elements": {"x": {}}, "depends_on": ["y"]}
    problem = plane.http.post("/v1/applications", json=body).json()
    assert [error["pointer"] for error in problem["errors"]] == ["/elements/x", "/depends_on/0"]


def test_not_json_and_unknown_paths_are_problems_too(plane: Plane) -> None:
    for answer in (
        plane.http.post(
            "/v1/applications", content=b"{", headers={"Content-Type": "application/json"}
        ),
        plane.http.post(
            "/v1/applications", content=b"[" * 100_000, headers={"Content-Type": "application/json"}
        ),
        plane.http.get("/v1/nothing"),
        plane.http.delete("/v1/applications"),
        plane.http.get("/v1/applications?limit=x"),
        plane.http.put("/v1/applications/a", json={"name": "b", "command": ["nginx"]}),
        plane.http.get("/v1/applications/a/logs?follow=true"),
        plane.http.post("/v1/applications/a/exec", json={"command": ["true"]}),
    ):
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail"} <= set(answer.json())


def test_pages_of_the_web_cannot_use_the_api(plane: Plane) -> None:
    assert plane.http.get("/v1/health", headers={"Origin": "http://evil.test"}).status_code == 403
    assert plane.http.get("/v1/health", headers={"Host": "evil.test:8420"}).status_code == 403
    assert plane.http.get("/v1/health", headers={"Origin": "http://127.0.0.1"}).status_code == 200
    huge = plane.http.post("/v1/applications", content=b" " * (5 * 2**20))
    assert huge.status_code == 413


def test_the_api_page_comes_from_here_alone(plane: Plane) -> None:
    start = plane.http.get("/v1/docs")
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)""", start.text)
    assert addresses and all(address.startswith("/v1/") for address in addresses)
    for address in addresses:
        assert plane.http.get(address).status_code == 200


def test_a_taken_port_or_address_names_its_holder(plane: Plane) -> None:
    plane.create("one", **NET, ports=["8080:80"], network={"address": "10.210.0.9"})
    for change in ({"ports": ["127.0.0.1:8080:80"]}, {"network": {"address": "10.210.0.9"}}):
        body = {"name": "two", "command": ["nginx"], **NET, **change}
        answer = plane.http.post("/v1/applications", json=body)
        assert answer.status_code == 409
        assert "'one'" in answer.json()["errors"][0]["detail"]
    assert plane.names() == ["one"]
    plane.create("three", **NET, ports=["8080:80/udp"])


def test_what_the_host_lacks_is_answered_and_leaves_nothing(plane: Plane) -> None:
    lack = HostLacks("there is no /dev/net/tun", remedy="load the module: modprobe tun")
    for method in ("ensure_network", "create", "start"):
        plane.agent.failures[method] = [lack]
        answer = plane.http.post(
            "/v1/applications", json={"name": "a", "command": ["nginx"], **NET}
        )
        assert (answer.status_code, answer.json()["remedy"]) == (503, lack.remedy), method
        assert plane.names() == [] and plane.agent.observe() == []
    assert plane.create("a", **NET)["status"]["address"] == "10.210.0.2"


def test_a_passing_failure_is_retried(plane: Plane) -> None:
    plane.create("a")
    plane.agent.failures["start"] = [RuntimeFailure("out of luck"), AgentUnavailable("gone")]
    plane.http.post("/v1/applications/a/restart")
    status = plane.until_state("a", "running")
    assert status["restarts"] == 0
    assert [call for call in plane.agent.calls if call == ("start", "a")] == [("start", "a")] * 4
    assert plane.events().count("failed") == 1


def test_put_creates_replaces_and_leaves_alone(plane: Plane) -> None:
    body = {"name": "a", "command": ["nginx"], **NET}
    first = plane.http.put("/v1/applications/a", json=body)
    assert first.status_code == 201
    same = plane.http.put("/v1/applications/a", json=body)
    assert (same.status_code, same.headers["etag"]) == (200, first.headers["etag"])
    assert same.json()["status"]["pid"] == first.json()["status"]["pid"]

    other = {**body, "environment": {"A": "1"}}
    blind = plane.http.put("/v1/applications/a", json=other)
    assert blind.status_code == 428 and "If-Match" in blind.json()["remedy"]
    seen = {"If-Match": first.headers["etag"]}
    changed = plane.http.put("/v1/applications/a", json=other, headers=seen)
    assert changed.status_code == 200
    assert changed.json()["id"] != first.json()["id"]
    assert changed.json()["status"]["address"] == first.json()["status"]["address"]
    assert changed.json()["status"]["state"] == "running"
    assert len(plane.agent.observe()) == 1

    stale = plane.http.put(
        "/v1/applications/a", json=body, headers={"If-Match": first.headers["etag"]}
    )
    assert stale.status_code == 412
    stale = plane.http.delete("/v1/applications/a", headers={"If-Match": first.headers["etag"]})
    assert stale.status_code == 412
    right = plane.http.delete("/v1/applications/a", headers={"If-Match": changed.headers["etag"]})
    assert right.status_code == 204


def test_a_new_control_plane_finds_everything_and_touches_nothing(tmp_path: Path) -> None:
    agent = FakeAgent()
    first = Plane(tmp_path, agent)
    for index in range(5):
        first.create(f"a{index}", **NET)
    first.http.post("/v1/applications/a4/stop")
    before = {name: first.status(name) for name in first.names()}
    first.stop()
    calls = len(agent.calls)

    second = Plane(tmp_path, agent)
    until(lambda: second.plane.reconciler.view.synced)
    for name in second.names():
        assert second.http.get(f"/v1/applications/{name}?wait=5").json()["status"] == before[name]
    assert len(agent.calls) == calls
    second.stop()


def test_what_changed_while_it_was_away_is_put_right(tmp_path: Path) -> None:
    agent = FakeAgent()
    first = Plane(tmp_path, agent)
    ids = {name: first.create(name)["id"] for name in ("lost", "kept")}
    stranger = ids["kept"].split("-")[0] + "-0123456789ab"
    first.stop()
    agent.vanish("lost")
    for name, launch_id in (("orphan", stranger), ("foreign", "other-0123456789ab")):
        spec = ApplicationSpec(name=name, command=["nginx"])
        agent.runtime.create(Launch(id=launch_id, spec=spec, elements=[], network=None, mounts=[]))
        agent.runtime.start(name)

    second = Plane(tmp_path, agent)
    second.until_state("lost", "running")
    seen = until(
        lambda: (
            (now := {item.name for item in agent.observe()}) == {"lost", "kept", "foreign"} and now
        )
    )
    assert "orphan" not in seen
    assert ("remove", "foreign") not in agent.calls
    second.stop()


def test_lost_while_running_is_made_again(plane: Plane) -> None:
    plane.create("a")
    plane.agent.vanish("a")
    until(lambda: len(plane.agent.observe()) == 1)
    plane.until_state("a", "running")
    until(lambda: "lost" in plane.events())


def test_without_an_agent_nothing_is_stored_and_then_it_goes_on(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.failures["wait_change"] = [AgentUnavailable("no agent")] * 3
    agent.failures["preflight"] = [AgentUnavailable("no agent", remedy="start it: cse agent")]
    plane = Plane(tmp_path, agent)
    answer = plane.http.post("/v1/applications", json={"name": "a", "command": ["nginx"]})
    assert (answer.status_code, answer.json()["remedy"]) == (503, "start it: cse agent")
    assert plane.names() == []
    until(lambda: plane.http.get("/v1/health").json()["status"] == "ok")
    assert plane.create("a")["status"]["state"] == "running"
    plane.stop()


def test_creations_at_the_same_time_share_nothing(plane: Plane) -> None:
    def create(index: int) -> int:
        body = {
            "name": f"a{index % 12}",
            "command": ["nginx"],
            **NET,
            "ports": [f"{9000 + index % 5}:80"],
        }
        return int(plane.http.post("/v1/applications", json=body).status_code)

    with ThreadPoolExecutor(12) as pool:
        codes = list(pool.map(create, range(36)))
    items = plane.http.get("/v1/applications").json()["items"]
    assert codes.count(201) == len(items) == 5
    assert set(codes) == {201, 409}
    assert len({item["status"]["address"] for item in items}) == 5
    assert len({item["status"]["ports"][0]["host_port"] for item in items}) == 5


def test_dependencies_start_first(plane: Plane) -> None:
    stack = {
        "name": "s",
        "applications": {
            "c": {"command": ["nginx"], "depends_on": ["b"]},
            "b": {"command": ["nginx"], "depends_on": ["a"]},
            "a": {"command": ["nginx"]},
        },
    }
    assert plane.http.put("/v1/stacks/s", json=stack).status_code == 202
    for name in "abc":
        answer = plane.http.get(f"/v1/applications/{name}?wait=5").json()
        assert answer["status"]["state"] == "running"
    starts = [name for method, name in plane.agent.calls if method == "start"]
    assert starts == ["a", "b", "c"]
    assert plane.agent.starting == {"a"}  # nothing is made ready for those that may have to wait


def test_a_circle_of_dependencies_is_refused(plane: Plane) -> None:
    stack = {
        "name": "s",
        "applications": {
            "a": {"command": ["nginx"], "depends_on": ["b"]},
            "b": {"command": ["nginx"], "depends_on": ["a"]},
        },
    }
    problem = plane.http.put("/v1/stacks/s", json=stack).json()
    assert problem["errors"][0]["pointer"] == "/applications/a/depends_on/0"
    assert "a → b → a" in problem["errors"][0]["detail"]
    assert plane.names() == []


def test_a_stack_is_applied_whole_or_not_at_all(plane: Plane) -> None:
    stack: dict[str, Any] = {
        "name": "s",
        "networks": {"inner": {"subnet": "10.99.0.0/24"}},
        "volumes": {"data": None},
        "applications": {
            "a": {"command": ["nginx"], **NET, "network": {"name": "inner"}, "ports": ["8080:80"]},
            "b": {"command": ["nginx"], "mounts": [{"path": "/d", "volume": "data"}]},
        },
    }
    plane.create("other", **NET, ports=["8080:80"])
    for change, pointer in (
        ({}, "/applications/a/ports/0"),
        (
            {"applications": {**stack["applications"], "c": {"command": ["static"], **NET}}},
            "/applications/c/command/0",
        ),
        ({"networks": {"inner": {"subnet": "10.210.4.0/24"}}}, "/networks/inner/subnet"),
    ):
        answer = plane.http.put("/v1/stacks/s", json={**stack, **change})
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer
        assert plane.names() == ["other"]
        assert [n["name"] for n in plane.http.get("/v1/networks").json()["items"]] == ["default"]
        assert plane.http.get("/v1/volumes").json()["items"] == []
    plane.http.delete("/v1/applications/other")

    result = plane.http.put("/v1/stacks/s", json=stack).json()
    assert {change["change"] for change in result["changes"]} == {"created"}
    assert plane.http.get("/v1/applications/a?wait=5").json()["status"]["address"] == "10.99.0.2"
    again = plane.http.put("/v1/stacks/s", json=stack).json()
    assert {change["change"] for change in again["changes"]} == {"unchanged"}

    stack["applications"]["a"]["environment"] = {"A": "1"}
    del stack["applications"]["b"]
    third = plane.http.put("/v1/stacks/s?prune=true", json=stack).json()["changes"]
    assert {(change["name"], change["change"]) for change in third} == {
        ("inner", "unchanged"),
        ("data", "unchanged"),
        ("a", "replaced"),
        ("b", "removed"),
    }
    until(lambda: plane.names() == ["a"])


def test_a_stack_does_not_take_what_is_not_its_own(plane: Plane) -> None:
    plane.create("a")
    answer = plane.http.put(
        "/v1/stacks/s", json={"name": "s", "applications": {"a": {"command": ["cat"]}}}
    )
    assert answer.status_code == 409
    assert plane.http.get("/v1/applications/a").json()["spec"]["command"] == ["nginx"]


def test_networks_and_volumes_in_use_stay(plane: Plane) -> None:
    assert (
        plane.http.post("/v1/networks", json={"name": "n", "subnet": "10.9.0.0/29"}).status_code
        == 201
    )
    assert plane.http.post("/v1/networks", json={"name": "n"}).status_code == 409
    assert (
        plane.http.post("/v1/networks", json={"name": "m", "subnet": "10.9.0.0/16"}).status_code
        == 409
    )
    assert plane.http.post("/v1/volumes", json={"name": "v"}).status_code == 201
    mounts = [{"path": "/v", "volume": "v"}]
    plane.create("a", **NET, network={"name": "n"}, mounts=mounts)
    assert plane.http.delete("/v1/networks/n").status_code == 409
    assert plane.http.delete("/v1/volumes/v").status_code == 409
    moved = {"name": "n", "subnet": "10.8.0.0/29"}
    anyhow = {"If-Match": "*"}
    assert plane.http.put("/v1/networks/n", json=moved, headers=anyhow).status_code == 409
    # 10.9.0.0/29 has 6 hosts; one is the gateway.
    for index in range(4):
        plane.create(f"b{index}", **NET, network={"name": "n"})
    full = plane.http.post(
        "/v1/applications",
        json={"name": "c", "command": ["nginx"], **NET, "network": {"name": "n"}},
    )
    assert full.status_code == 409 and "no free address" in full.json()["detail"]
    for name in plane.names():
        plane.http.delete(f"/v1/applications/{name}")
    assert plane.http.delete("/v1/networks/n").status_code == 204
    assert plane.http.delete("/v1/volumes/v").status_code == 204
    assert "n" not in plane.agent.networks and "v" not in plane.agent.volumes


def test_lists_by_label_and_in_parts(plane: Plane) -> None:
    for index in range(3):
        plane.create(f"a{index}", labels={"tier": "web" if index else "db"})
    labelled = plane.http.get("/v1/applications?label=tier=web").json()["items"]
    assert [item["name"] for item in labelled] == ["a1", "a2"]
    part = plane.http.get("/v1/applications?limit=2").json()
    assert [item["name"] for item in part["items"]] == ["a0", "a1"]
    rest = plane.http.get(f"/v1/applications?limit=2&after={part['next']}").json()
    assert [item["name"] for item in rest["items"]] == ["a2"]
    assert not rest.get("next")


def test_description_of_all_operations(plane: Plane) -> None:
    document = plane.http.get("/v1/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    assert all(operation.get("description") for operation in operations)
    doctor = plane.http.get("/v1/doctor").json()["findings"]
    assert all(finding["ok"] for finding in doctor)
    elements = plane.http.get("/v1/elements").json()["items"]
    assert [element["name"] for element in elements] == ["files", "net-a", "net-b"]


def test_what_nobody_needs_is_listed_and_removed(plane: Plane) -> None:
    plane.create("web", **NET)
    plane.http.post("/v1/volumes", json={"name": "kept"})
    plane.agent.ensure_volume("stray")
    listed = plane.http.post("/v1/gc?dry_run=true").json()["items"]
    assert [(one["kind"], one["name"]) for one in listed] == [("volume", "stray")]
    plane.http.delete("/v1/applications/web")
    done = plane.http.post("/v1/gc").json()["items"]
    assert [(one["name"], one["removed"]) for one in done] == [("default", True), ("stray", False)]
    assert plane.agent.networks == {} and plane.agent.volumes == {"kept", "stray"}
    plane.http.post("/v1/gc?volumes=true")
    assert plane.agent.volumes == {"kept"}
    assert plane.create("web", **NET)["status"]["state"] == "running"
    assert "default" in plane.agent.networks  # made again


def test_an_address_is_a_leftover_where_its_program_is_no_more(
    plane: Plane, tmp_path: Path
) -> None:
    store = plane.plane.store
    with store.write() as transaction:
        network = transaction.networks.get("default")
        for name in ("run-1", "run-2"):
            spec = ApplicationSpec(name=name, command=["true"])
            transaction.applications.lease(network, spec)
    (tmp_path / "state/runs/run-1").mkdir(parents=True)
    found = plane.http.post("/v1/gc").json()["items"]
    leases = [one["name"] for one in found if one["kind"] == "lease"]
    if store.is_shared:  # run-2 may be another host's
        assert leases == []
        return
    assert leases == ["run-2"]
    with store.read() as transaction:
        assert transaction.networks.holders("default") == ["run-1"]


def test_metrics_are_what_prometheus_reads(plane: Plane) -> None:
    plane.create("web", **NET)
    plane.create("job", "true")
    plane.until_state("job", "exited")
    answer = plane.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert 'cse_applications{state="running"} 1' in lines
    assert 'cse_applications{state="exited"} 1' in lines
    assert "cse_agent_up 1" in lines
    assert 'cse_application_memory_bytes{application="web"} 0' in lines
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    typed = {line.split(" ")[2] for line in lines if line.startswith("# TYPE")}
    assert names <= typed
    for line in lines:
        if not line.startswith("#"):
            float(line.rsplit(" ", 1)[1])
