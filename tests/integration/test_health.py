"""Health checks, what waits for them, replicas and priorities; real probes through a real agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.agent.fake import FakeAgent
from app.agent.local import LocalAgent
from app.domain.application import ApplicationSpec
from app.domain.health import Probe
from app.domain.launch import Launch
from tests.integration.planes import Plane, until

QUICK = {"command": ["true"], "interval": "100ms", "retries": 2}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path, FakeAgent())
    yield made
    made.stop()


def until_health(plane: Plane, name: str, state: str) -> Any:
    def found() -> Any:
        health = plane.status(name).get("health")
        return health if health and health["state"] == state else None

    return until(found, 20)


def test_health_is_shown_and_told(plane: Plane) -> None:
    plane.create("web", health=QUICK)
    until_health(plane, "web", "healthy")
    plane.agent.sick.add("web")
    sick = until_health(plane, "web", "unhealthy")
    assert sick["detail"] == "sick" and sick["failures"] >= 2
    plane.agent.sick.clear()
    until_health(plane, "web", "healthy")
    kinds = [kind for kind in plane.events() if kind.endswith("healthy")]
    assert kinds == ["healthy", "unhealthy", "healthy"]
    plane.http.post("/v1/applications/web/stop")
    assert "health" not in plane.status("web")


def test_a_start_period_excuses_failures(plane: Plane) -> None:
    plane.agent.sick.add("web")
    plane.create("web", health={**QUICK, "start_period": "1h"})
    until(lambda: plane.status("web")["health"]["detail"] == "sick", 20)
    assert plane.status("web")["health"]["failures"] == 0


def test_an_unhealthy_program_is_restarted_where_that_is_asked_for(plane: Plane) -> None:
    made = plane.create("web", health={**QUICK, "on_failure": "restart"})
    until_health(plane, "web", "healthy")
    plane.agent.sick.add("web")
    until(lambda: ("stop", "web") in plane.agent.calls, 20)
    plane.agent.sick.clear()
    until(lambda: plane.status("web").get("pid") not in (None, made["status"]["pid"]), 20)
    until_health(plane, "web", "healthy")
    assert plane.http.get("/v1/applications/web").json()["id"] == made["id"]


def test_an_agent_that_is_away_makes_nobody_unhealthy(plane: Plane) -> None:
    from app.domain.errors import AgentUnavailable

    plane.create("web", health=QUICK)
    until_health(plane, "web", "healthy")
    plane.agent.failures["probe"] = [AgentUnavailable("away")] * 5
    until(lambda: not plane.agent.failures["probe"], 20)
    assert plane.status("web")["health"]["state"] == "healthy"


def test_a_check_can_change_without_a_restart(plane: Plane) -> None:
    made = plane.create("web", health={**QUICK, "command": ["false"]})
    until_health(plane, "web", "unhealthy")
    body = {"name": "web", "command": ["nginx"], "health": QUICK}
    plane.http.put("/v1/applications/web", json=body, headers={"If-Match": "*"})
    until_health(plane, "web", "healthy")
    assert plane.status("web")["pid"] == made["status"]["pid"]


def test_dependencies_wait_for_their_condition(plane: Plane) -> None:
    plane.agent.sick.add("db")
    stack = {
        "name": "s",
        "applications": {
            "db": {"command": ["redis-server"], "health": QUICK},
            "init": {"command": ["sh", "-c", "sleep 0.3; exit 0"]},
            "web": {
                "command": ["nginx"],
                "depends_on": {
                    "db": {"condition": "service_healthy"},
                    "init": {"condition": "service_completed_successfully"},
                },
            },
        },
    }
    assert plane.http.put("/v1/stacks/s", json=stack).status_code == 202
    until_health(plane, "db", "unhealthy")
    plane.until_state("init", "exited")
    status = plane.status("web")
    assert status["state"] == "waiting" and "'db' to be healthy" in status["reason"]
    plane.agent.sick.clear()
    plane.until_state("web", "running")
    spec = plane.http.get("/v1/applications/web").json()["spec"]
    assert spec["depends_on"] == ["db:healthy", "init:completed"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"depends_on": ["db:healthy"]}, "/applications/web/depends_on/0"),
        ({"depends_on": ["db:ready"]}, "/applications/web/depends_on/0"),
        ({"health": {"interval": "1s"}}, "/applications/web/health"),
        ({"health": {"tcp": {"port": 0}}}, "/applications/web/health/tcp/port"),
        ({"health": {"command": ["x"], "http": {}}}, "/applications/web/health"),
        ({"priority": 101}, "/applications/web/priority"),
        ({"replicas": -1}, ""),
        ({"replicas": 2, "ports": ["80:80"]}, ""),
    ],
    ids=str,
)
def test_bad_input_names_the_field(plane: Plane, change: dict[str, Any], pointer: str) -> None:
    applications = {"db": {"command": ["cat"]}, "web": {"command": ["nginx"], **change}}
    answer = plane.http.put("/v1/stacks/s", json={"name": "s", "applications": applications})
    assert answer.status_code == 422
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]


def test_replicas_are_applications_of_their_own(plane: Plane) -> None:
    def stack(count: int) -> dict[str, Any]:
        return {
            "name": "s",
            "applications": {
                "web": {"command": ["nginx"], "replicas": count},
                "front": {"command": ["nginx"], "depends_on": ["web"]},
            },
        }

    plane.http.put("/v1/stacks/s", json=stack(3))
    assert plane.names() == ["front", "web-1", "web-2", "web-3"]
    spec = plane.http.get("/v1/applications/front").json()["spec"]
    assert spec["depends_on"] == ["web-1", "web-2", "web-3"]
    plane.until_state("front", "running")
    fewer = plane.http.put("/v1/stacks/s?prune=true", json=stack(1)).json()["changes"]
    said = {change["name"]: change["change"] for change in fewer}
    assert said == {
        "web-1": "unchanged",
        "web-2": "removed",
        "web-3": "removed",
        "front": "changed",
    }


def test_higher_priorities_start_first(tmp_path: Path) -> None:
    plane = Plane(tmp_path, FakeAgent(), workers=1)
    applications = {f"a{number}": {"command": ["nginx"], "priority": number} for number in range(6)}
    plane.http.put("/v1/stacks/s", json={"name": "s", "applications": applications})
    until(lambda: len([call for call in plane.agent.calls if call[0] == "start"]) == 6)
    starts = [name for verb, name in plane.agent.calls if verb == "start"]
    assert starts == [f"a{number}" for number in reversed(range(6))]
    plane.stop()


SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port={port})"


def test_real_probes(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    agent = LocalAgent(tmp_path / "state")
    command = ["python3", "-c", SERVE.format(port=port)]
    spec = ApplicationSpec.model_validate({"name": "probed", "command": command})
    launch = Launch(id="id-probed", spec=spec, elements=[], network=None, mounts=[])
    agent.create(launch)
    agent.start("probed")

    def ask(**probe: Any) -> bool:
        return agent.probe("probed", Probe.model_validate(probe)).ok

    try:
        until(lambda: ask(tcp={"port": port}), 30)
        assert ask(http={"port": port})
        assert not ask(http={"port": port, "path": "/no/such"})
        assert not ask(tcp={"port": closed})
        assert ask(command=["true"])
        failed = agent.probe("probed", Probe(command=["sh", "-c", "echo why >&2; exit 3"]))
        assert (failed.ok, failed.detail) == (False, "why")
        slow = agent.probe("probed", Probe(command=["sleep", "9"], timeout=0.2))
        assert not slow.ok and "0.2 s" in slow.detail
    finally:
        agent.remove("probed")
        agent.close()
