"""Settings changed while the program runs, and what instances tell, over the fake agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.agent.fake import FakeAgent
from app.cli.root import commands
from app.domain.errors import AgentUnavailable
from tests.integration.planes import Plane, served, until

NET: dict[str, Any] = {"elements": {"net-a": {"settings": {"mss": 1000}}}}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path, FakeAgent())
    yield made
    made.stop()


def patch(plane: Plane, instance: str, **settings: Any) -> Any:
    return plane.http.patch(f"/v1/instances/{instance}", json={"settings": settings})


def on_the_host(plane: Plane, name: str = "web") -> dict[str, Any]:
    return plane.agent.instances(name)[0].settings


def test_a_change_reaches_the_host_and_stays(plane: Plane) -> None:
    made = plane.create("web", "nginx", **NET)
    answer = patch(plane, "web.net-a", ttl=32, keepalive={"idle": 60})
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == "web.net-a"
    assert answer.json()["settings"]["keepalive"]["idle"] == 60
    assert (on_the_host(plane)["ttl"], on_the_host(plane)["mss"]) == (32, 1000)
    patch(plane, "web.net-a", keepalive={"idle": None})
    assert on_the_host(plane) == {**on_the_host(plane), "ttl": 32, "keepalive": {"idle": 7200}}

    shown = plane.http.get("/v1/applications/web").json()
    assert shown["spec"]["elements"]["net-a"]["settings"]["ttl"] == 32
    assert shown["id"] == made["id"] and shown["status"]["pid"] == made["status"]["pid"]
    restarted = plane.http.post("/v1/applications/web/restart").json()
    assert restarted["status"]["pid"] != made["status"]["pid"] and on_the_host(plane)["ttl"] == 32
    assert plane.events().count("settings-changed") == 2
    calls = plane.agent.calls.count(("configure", "web"))
    patch(plane, "web.net-a", ttl=32)
    assert plane.agent.calls.count(("configure", "web")) == calls == 2


@pytest.mark.parametrize(
    "settings, pointer, words",
    [
        ({"tll": 3}, "/settings/tll", "did you mean 'ttl'"),
        ({"ttl": 0}, "/settings/ttl", "at least 1"),
        ({"mss": 1200}, "/settings/mss", "cannot change while the program runs"),
        ({"keepalive": {"probes": 2}}, "/settings/keepalive/probes", "cannot change while"),
        ({"keepalive": {"idle": "x"}}, "/settings/keepalive/idle", "integer"),
    ],
)
def test_what_cannot_be_changed_is_told_by_field(
    plane: Plane, settings: dict[str, Any], pointer: str, words: str
) -> None:
    plane.create("web", "nginx", **NET)
    before = on_the_host(plane)
    answer = patch(plane, "web.net-a", ttl=5, **settings) if "ttl" not in settings else None
    answer = answer or patch(plane, "web.net-a", **settings)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert words in answer.text
    assert on_the_host(plane) == before and "settings-changed" not in plane.events()


def test_a_setting_without_default_cannot_be_taken_back(plane: Plane) -> None:
    plane.create("web", "nginx", **NET)
    assert patch(plane, "web.net-a", rate=0.5).status_code == 200
    answer = patch(plane, "web.net-a", rate=None)
    assert answer.status_code == 422 and "no default" in answer.text


def test_unknown_instances_are_not_found(plane: Plane) -> None:
    plane.create("web", "nginx", **NET)
    assert patch(plane, "web.net-b").status_code == 404
    assert patch(plane, "nobody.net-a").status_code == 404
    assert patch(plane, "web").status_code == 404


def test_a_stopped_application_takes_a_change_with_its_next_start(plane: Plane) -> None:
    plane.create("web", "nginx", **NET)
    plane.http.post("/v1/applications/web/stop")
    assert patch(plane, "web.net-a", ttl=7).json()["settings"]["ttl"] == 7
    plane.http.post("/v1/applications/web/start")
    assert on_the_host(plane)["ttl"] == 7


def test_a_change_that_the_host_missed_is_brought_later(tmp_path: Path) -> None:
    agent = FakeAgent()
    first = Plane(tmp_path, agent)
    first.create("web", "nginx", **NET)
    agent.failures["configure"] = [AgentUnavailable("away")] * 2
    assert patch(first, "web.net-a", ttl=9).status_code == 503
    first.stop()
    second = Plane(tmp_path, agent)
    try:
        until(lambda: on_the_host(second)["ttl"] == 9)
        assert agent.calls.count(("create", "web")) == 1
    finally:
        second.stop()


def test_what_instances_tell_becomes_events_once(tmp_path: Path) -> None:
    agent = FakeAgent()
    first = Plane(tmp_path, agent)
    first.create("web", "nginx", **NET)

    def told(plane: Plane) -> list[str]:
        items = plane.http.get("/v1/events", params={"application": "web"}).json()["items"]
        return [item["message"] for item in items if item["kind"] == "reported"]

    agent.tell("web", "link up")
    until(lambda: told(first) == ["link up"])
    first.stop()
    agent.tell("web", "while nobody listened")
    second = Plane(tmp_path, agent)
    try:
        agent.tell("web", "again")
        until(lambda: len(told(second)) == 3)
        assert told(second) == ["link up", "while nobody listened", "again"]
    finally:
        second.stop()


def test_the_command(tmp_path: Path) -> None:
    agent = FakeAgent()
    with served(tmp_path, agent) as url:
        run = CliRunner()

        def cse(*words: str) -> Any:
            return run.invoke(commands, [*words, "--api", url])

        body = {"name": "web", "command": ["nginx"], **NET}
        import httpx

        assert httpx.post(f"{url}/v1/applications", json=body).status_code == 201
        done = cse("set", "web", "ttl=12", "keepalive.idle=30")
        assert done.exit_code == 0, done.output
        assert done.output.splitlines() == ["web/net-a  ttl=12", "web/net-a  keepalive.idle=30"]
        assert cse("set", "web/net-a", "ttl=").output == "web/net-a  ttl=64\n"
        assert agent.instances("web")[0].settings["keepalive"]["idle"] == 30
        assert cse("set", "web", "ttl").exception is not None
        assert "mss" in str(cse("set", "web", "mss=900").exception)
