"""Operations and repeated requests, over the fake agent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.agent.fake import FakeAgent
from app.domain.errors import AgentUnavailable, RuntimeFailure
from app.domain.observed import Observed
from tests.integration.planes import Plane, until

ASYNC = {"Prefer": "respond-async"}


class SlowAgent(FakeAgent):
    """Starts, stops and removes nothing until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.last = ""
        """The application that is started only when `let_last` is set, too."""
        self.let_last = threading.Event()

    def start(self, name: str) -> Observed:
        assert self.let.wait(30) and (name != self.last or self.let_last.wait(30))
        return super().start(name)

    def stop(self, name: str) -> Observed:
        assert self.let.wait(30)
        return super().stop(name)

    def remove(self, name: str) -> None:
        assert self.let.wait(30)
        super().remove(name)


@pytest.fixture
def agent() -> SlowAgent:
    return SlowAgent()


@pytest.fixture
def plane(tmp_path: Path, agent: SlowAgent) -> Iterator[Plane]:
    made = Plane(tmp_path, agent)
    yield made
    agent.let.set()
    agent.let_last.set()
    made.stop()


def post(plane: Plane, path: str, body: Any = None, **headers: str) -> Any:
    return plane.http.post(path, json=body, headers={**ASYNC, **headers})


def operation(plane: Plane, answer: Any, wait: float = 0.0) -> dict[str, Any]:
    place = answer.headers["operation-location"]
    found = plane.http.get(place, params={"wait": wait})
    assert found.status_code == 200
    return found.json()  # type: ignore[no-any-return]


def test_what_takes_longer_is_an_operation(plane: Plane, agent: SlowAgent) -> None:
    made = post(plane, "/v1/applications", {"name": "a", "command": ["nginx"]})
    assert made.status_code == 202 and made.json()["status"]["state"] == "starting"
    found = operation(plane, made)
    assert (found["kind"], found["state"], found["done"]) == ("create", "running", 0)
    agent.let.set()
    found = operation(plane, made, wait=10)
    assert (found["state"], found["done"], found["total"]) == ("succeeded", 1, 1)
    assert found["targets"][0]["state"] == "done" and found["finished"]
    until(lambda: "operation-succeeded" in plane.events())

    agent.let.clear()
    for verb in ("restart", "stop"):
        asked = post(plane, f"/v1/applications/a/{verb}")
        assert asked.status_code == 202
        assert operation(plane, asked)["state"] == "running"
        agent.let.set()
        assert operation(plane, asked, wait=10)["state"] == "succeeded"
        agent.let.clear()
    gone = plane.http.delete("/v1/applications/a", headers=ASYNC)
    agent.let.set()
    if gone.status_code == 202:
        assert operation(plane, gone, wait=10)["state"] == "succeeded"
    listed = plane.http.get("/v1/operations?limit=2").json()
    rest = plane.http.get(f"/v1/operations?after={listed['next']}").json()["items"]
    kinds = [one["kind"] for one in [*listed["items"], *rest]]
    assert kinds[-3:] == ["stop", "restart", "create"]


def test_a_wait_that_ends_too_early_leaves_an_operation(plane: Plane, agent: SlowAgent) -> None:
    made = plane.http.post("/v1/applications?wait=0.1", json={"name": "a", "command": ["nginx"]})
    assert made.status_code == 202
    agent.let.set()
    assert operation(plane, made, wait=10)["state"] == "succeeded"


def test_progress_of_a_stack(plane: Plane, agent: SlowAgent) -> None:
    applications = {f"a{n}": {"command": ["nginx"]} for n in range(3)}
    applied = plane.http.put("/v1/stacks/s", json={"name": "s", "applications": applications})
    assert applied.status_code == 202
    found = plane.http.get(f"/v1/operations/{applied.json()['operation']}").json()
    assert (found["kind"], found["total"], found["done"]) == ("apply stack s", 3, 0)
    agent.let.set()
    assert operation(plane, applied, wait=10)["done"] == 3
    again = plane.http.put("/v1/stacks/s", json={"name": "s", "applications": applications})
    assert again.status_code == 200 and not again.json().get("operation")


def test_progress_of_a_large_stack(plane: Plane, agent: SlowAgent) -> None:
    """Whose applications are judged many at once, unless somebody asks."""
    agent.last = "a-17"
    agent.let.set()
    applications = {"a": {"command": ["nginx"], "replicas": 40}}
    applied = plane.http.put("/v1/stacks/s", json={"name": "s", "applications": applications})
    path = f"/v1/operations/{applied.json()['operation']}"
    until(lambda: plane.http.get(path).json()["done"] == 39)
    found = plane.http.get(path).json()
    pending = [one["application"] for one in found["targets"] if one["state"] == "pending"]
    assert found["state"] == "running" and pending == ["a-17"]
    agent.let_last.set()
    assert operation(plane, applied, wait=10)["state"] == "succeeded"
    gone = plane.http.delete("/v1/stacks/s")
    # Nobody asks meanwhile: the end is noticed without.
    assert operation(plane, gone, wait=10)["done"] == 40 and plane.names() == []


def test_what_a_stack_no_longer_lists_is_part_of_its_operation(
    plane: Plane, agent: SlowAgent
) -> None:
    agent.let.set()
    both = {"name": "s", "applications": {name: {"command": ["nginx"]} for name in ("a", "b")}}
    operation(plane, plane.http.put("/v1/stacks/s", json=both), wait=10)
    agent.let.clear()
    one = {"name": "s", "applications": {"a": {"command": ["nginx"]}}}
    applied = plane.http.put("/v1/stacks/s?prune=true", json=one)
    assert applied.status_code == 202
    found = operation(plane, applied)
    assert [(one["application"], one["goal"]) for one in found["targets"]] == [("b", "removed")]
    assert (found["state"], plane.names()) == ("running", ["a", "b"])
    refused = plane.http.post(f"{applied.headers['operation-location']}/cancel")
    assert refused.status_code == 409

    # The new one can be called off; the end that is under way goes on.
    three = {"name": "s", "applications": {"c": {"command": ["nginx"]}}}
    applied = plane.http.put("/v1/stacks/s?prune=true", json=three)
    cancelled = plane.http.post(f"{applied.headers['operation-location']}/cancel").json()
    states = {one["application"]: one["state"] for one in cancelled["targets"]}
    assert states == {"a": "pending", "c": "cancelled"}
    agent.let.set()
    until(lambda: plane.names() == [])


def test_cancelling_removes_what_is_new_and_stops_the_rest(plane: Plane, agent: SlowAgent) -> None:
    agent.let.set()
    plane.create("old", "true")
    plane.until_state("old", "exited")
    agent.let.clear()
    stack = {"name": "s", "applications": {"new": {"command": ["nginx"]}}}
    applied = plane.http.put("/v1/stacks/s", json=stack)
    started = post(plane, "/v1/applications/old/start")
    cancelled = plane.http.post(f"{applied.headers['operation-location']}/cancel")
    assert cancelled.json()["state"] == "cancelled"
    assert plane.http.post(f"{started.headers['operation-location']}/cancel").status_code == 200
    again = plane.http.post(f"{applied.headers['operation-location']}/cancel")
    assert again.status_code == 409
    agent.let.set()
    until(lambda: plane.names() == ["old"])
    assert plane.http.get("/v1/applications/old").json()["desired"] == "stopped"


def test_an_end_cannot_be_called_off(plane: Plane, agent: SlowAgent) -> None:
    agent.let.set()
    plane.create("a")
    agent.let.clear()
    stopped = post(plane, "/v1/applications/a/stop")
    answer = plane.http.post(f"{stopped.headers['operation-location']}/cancel")
    assert answer.status_code == 409 and "start" in answer.json()["remedy"]


def test_a_later_wish_supersedes(plane: Plane, agent: SlowAgent) -> None:
    made = post(plane, "/v1/applications", {"name": "a", "command": ["nginx"]})
    post(plane, "/v1/applications/a/stop")
    found = operation(plane, made)
    assert (found["state"], found["targets"][0]["state"]) == ("succeeded", "superseded")


def test_failures_that_last_and_failures_that_pass(plane: Plane, agent: SlowAgent) -> None:
    agent.let.set()
    agent.failures["create"] = [AgentUnavailable("away")]
    made = post(plane, "/v1/applications", {"name": "a", "command": ["nginx"]})
    assert operation(plane, made, wait=20)["state"] == "succeeded"
    agent.failures["start"] = [RuntimeFailure("once")]
    again = post(plane, "/v1/applications/a/restart")
    assert operation(plane, again, wait=20)["state"] == "succeeded"


def test_operations_outlive_the_server(tmp_path: Path) -> None:
    agent = SlowAgent()
    first = Plane(tmp_path, agent)
    agent.failures["create"] = [AgentUnavailable("away")] * 3
    made = post(first, "/v1/applications", {"name": "a", "command": ["nginx"]})
    place = made.headers["operation-location"]
    agent.let.set()
    first.stop()
    agent.failures["create"] = []
    second = Plane(tmp_path, agent)
    found = second.http.get(place, params={"wait": 20}).json()
    assert found["state"] == "succeeded"
    second.stop()


def test_the_same_key_and_body_get_the_same_answer(plane: Plane, agent: SlowAgent) -> None:
    agent.let.set()
    body = {"name": "a", "command": ["nginx"]}
    key = {"Idempotency-Key": "k1"}
    first = plane.http.post("/v1/applications", json=body, headers=key)
    again = plane.http.post("/v1/applications", json=body, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content and again.headers["etag"] == first.headers["etag"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    other = plane.http.post("/v1/applications", json={**body, "labels": {"x": "1"}}, headers=key)
    assert other.status_code == 422 and "new key" in other.json()["remedy"]
    elsewhere = plane.http.post("/v1/applications/a/stop", headers=key)
    assert elsewhere.status_code == 422
    assert plane.http.post("/v1/applications", json=body).status_code == 409
    bad = plane.http.post("/v1/applications", json=body, headers={"Idempotency-Key": "x" * 300})
    assert bad.status_code == 422


def test_the_same_key_at_the_same_time(plane: Plane, agent: SlowAgent) -> None:
    body, key = {"name": "a", "command": ["nginx"]}, {"Idempotency-Key": "k"}

    def create(_: int) -> int:
        return int(plane.http.post("/v1/applications", json=body, headers=key).status_code)

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(create, 0)
        until(lambda: plane.names() == ["a"])
        others = list(pool.map(create, range(3)))
        agent.let.set()
        assert others == [409, 409, 409] and first.result() == 201
    assert create(0) == 201


def test_a_request_that_a_killed_server_had_begun(plane: Plane, agent: SlowAgent) -> None:
    """The key is known, its answer is not: what has been made is found, not refused."""
    agent.let.set()
    body, key = {"name": "a", "command": ["nginx"]}, {"Idempotency-Key": "k"}
    first = plane.http.post("/v1/applications", json=body, headers=key)
    with plane.plane.store.write() as transaction:
        from sqlalchemy import update

        from app.store import tables

        transaction.answers._connection.execute(update(tables.answers).values(status=None))
    again = plane.http.post("/v1/applications", json=body, headers=key)
    assert again.status_code == 201 and again.json()["id"] == first.json()["id"]
    assert "idempotency-replayed" not in again.headers


def test_failures_of_ours_may_be_tried_again(plane: Plane, agent: SlowAgent) -> None:
    agent.let.set()
    body, key = {"name": "a", "command": ["nginx"]}, {"Idempotency-Key": "k"}
    agent.failures["preflight"] = [AgentUnavailable("away")]
    assert plane.http.post("/v1/applications", json=body, headers=key).status_code == 503
    assert plane.http.post("/v1/applications", json=body, headers=key).status_code == 201


def test_lists_in_parts_and_by_selector(plane: Plane) -> None:
    for index in range(3):
        body = {"name": f"v{index}", "labels": {"tier": "db" if index else "web"}}
        plane.http.post("/v1/volumes", json=body)
    first = plane.http.get("/v1/volumes?limit=2").json()
    assert [item["name"] for item in first["items"]] == ["v0", "v1"]
    rest = plane.http.get(f"/v1/volumes?limit=2&after={first['next']}").json()
    assert [item["name"] for item in rest["items"]] == ["v2"] and not rest.get("next")
    labelled = plane.http.get("/v1/volumes", params={"label": "tier in (db, x)"}).json()["items"]
    assert [item["name"] for item in labelled] == ["v1", "v2"]
    bad = plane.http.get("/v1/applications", params={"label": "a=b=c"})
    assert bad.status_code == 422 and bad.json()["errors"][0]["pointer"] == "/label"
