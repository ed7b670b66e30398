"""Secrets reach the programs that name them, and nothing else: no answer, event, log or file."""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.agent.fake import FakeAgent
from app.agent.local import LocalAgent
from app.store import backup
from tests.integration.planes import Plane, until

VALUE = "hunter2-Zq7"
ENCODED = base64.b64encode(VALUE.encode()).decode()


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path, FakeAgent())
    yield made
    made.stop()


def put(plane: Plane, name: str = "db", value: str = VALUE, **rest: Any) -> Any:
    return plane.http.put(f"/v1/secrets/{name}", json={"name": name, "value": value, **rest})


def naming(**rest: Any) -> dict[str, Any]:
    return {"environment": {"PASSWORD": {"secret": "db"}}, "secrets": ["db"], **rest}


def user(name: str = "web", **rest: Any) -> dict[str, Any]:
    return {"name": name, "command": ["nginx"], **naming(**rest)}


def test_a_program_gets_what_nobody_can_read_from_the_api(
    plane: Plane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    http, seen = plane.http, []
    seen.append(put(plane))
    assert seen[0].status_code == 200, seen[0].text
    plane.create("web", "sh", "-c", "echo got $PASSWORD; sleep infinity", **naming())
    until(lambda: VALUE in http.get("/v1/applications/web/logs").text)  # the program says it itself
    changed = user(priority=3)
    seen.append(http.post("/v1/applications/web/plan", json=changed))
    stack = {"name": "s", "applications": {"api": user("api")}}
    seen.append(http.post("/v1/stacks/s/plan", json=stack))
    seen.append(http.put("/v1/applications/web", json=changed, headers={"If-Match": "*"}))
    paths = json.loads(http.get("/v1/openapi.json").text)["paths"]
    for path in paths:
        if "logs" not in path and "capture" not in path and "get" in paths[path]:
            seen.append(http.get(path.replace("{name}", "web")))
    texts = [answer.text for answer in seen] + [str(answer.headers) for answer in seen]
    texts.append(caplog.text)
    backup.save(plane.plane.settings.database_url, tmp_path / "copy")
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) > 3
    for text in (*(text.encode() for text in texts), *kept):
        assert VALUE.encode() not in text and ENCODED.encode() not in text
    assert seen[1].json()["changes"][0]["effect"] == "recreate"


@pytest.mark.parametrize(
    "body",
    [
        VALUE,
        [VALUE],
        {"name": "db", "value": [VALUE]},
        {"name": "db", "value": {"a": VALUE}},
        {"name": "db", "valu": VALUE},
        {"name": "db", "value": VALUE * 10_000},
        {"name": "db", "value": VALUE + "é", "encoding": "base64"},
        {"name": VALUE, "value": VALUE},
        {"name": "other", "value": VALUE},
        {"name": "db", "value": VALUE, "encoding": VALUE},
    ],
)
def test_a_refusal_does_not_show_what_was_given(plane: Plane, body: Any) -> None:
    answer = plane.http.put("/v1/secrets/db", json=body)
    assert answer.status_code == 422
    assert VALUE not in answer.text
    assert answer.json()["errors"]


def test_what_is_named_has_to_be_there_and_of_the_same_project(plane: Plane) -> None:
    answer = plane.http.post("/v1/applications", json=user())
    assert answer.status_code == 422
    pointers = [error["pointer"] for error in answer.json()["errors"]]
    assert pointers == ["/secrets/0"], "the file's pointer stands for both places"
    plane.http.put("/v1/projects/ci", json={"name": "ci"})
    assert put(plane, project="ci").status_code == 200
    refused = plane.http.post("/v1/applications", json=user())
    assert refused.status_code == 422 and "project 'default'" in refused.text
    plane.create("web", **naming(project="ci"))
    assert put(plane, project="default").status_code == 409, "it is another project's"


def test_a_secret_in_use_stays(plane: Plane) -> None:
    put(plane)
    plane.create("web", **naming())
    assert plane.http.get("/v1/secrets/db").json()["used_by"] == ["web"]
    assert plane.http.delete("/v1/secrets/db").status_code == 409
    plane.http.delete("/v1/applications/web")
    assert plane.http.delete("/v1/secrets/db").status_code == 204
    assert plane.http.get("/v1/secrets").json()["items"] == []


def test_a_token_of_a_project_has_the_secrets_of_its_project(tmp_path: Path) -> None:
    plane = Plane(tmp_path, FakeAgent(), require_token=True)
    try:
        with plane.plane.store.write() as transaction:
            from app.domain.access import ProjectSpec, Scope, TokenSpec

            transaction.projects.put(ProjectSpec(name="ci"))
            made = transaction.tokens.create(
                TokenSpec(name="t", scope=Scope.OPERATE, project="ci")
            ).token
            admin = transaction.tokens.create(TokenSpec(name="a", scope=Scope.ADMIN)).token
        plane.http.headers["Authorization"] = f"Bearer {admin}"
        assert put(plane).status_code == 200
        plane.http.headers["Authorization"] = f"Bearer {made}"
        assert put(plane, "mine").status_code == 422
        assert put(plane, "mine", project="ci").status_code == 200
        listed = plane.http.get("/v1/secrets").json()["items"]
        assert [item["name"] for item in listed] == ["mine"]
        assert plane.http.get("/v1/secrets/db").status_code == 404
        assert plane.http.delete("/v1/secrets/db").status_code == 404
        spec = user(project="ci")
        assert plane.http.post("/v1/applications", json=spec).status_code == 422
    finally:
        plane.stop()


def test_path_cannot_be_a_secret(plane: Plane) -> None:
    put(plane)
    spec = {"name": "web", "command": ["nginx"], "environment": {"PATH": {"secret": "db"}}}
    assert "PATH" in plane.http.post("/v1/applications", json=spec).json()["detail"]
    spec["environment"] = {"A": 5}
    error = plane.http.post("/v1/applications", json=spec).json()["errors"][0]
    assert error["pointer"] == "/environment/A" and "{secret: NAME}" in error["detail"]


@pytest.mark.native
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
@pytest.mark.parametrize(
    "place",
    [
        pytest.param({}, id="namespace"),
        pytest.param(
            {"runtime": "docker", "image": "debian:trixie-slim"},
            marks=pytest.mark.docker,
            id="docker",
        ),
    ],
)
def test_a_real_program_has_them_as_variable_and_file(
    tmp_path: Path, place: dict[str, str]
) -> None:
    tmp_path.chmod(0o755)
    agent = LocalAgent(tmp_path / "state")
    plane = Plane(tmp_path, agent)  # type: ignore[arg-type]
    try:
        assert put(plane, value=VALUE + "\n").status_code == 200
        script = "cat /run/secrets/db; stat -c %a /run/secrets/db; echo $PASSWORD; sleep 100"
        plane.create("web", "sh", "-c", script, **naming(), stop={"grace": 0.1}, **place)

        def logged() -> str:
            lines = plane.http.get("/v1/applications/web/logs").text.splitlines()
            return "|".join(json.loads(line)["text"] for line in lines)

        until(lambda: logged() == f"{VALUE}|400|{VALUE}")
        secret = tmp_path / "state/secrets/db.json"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
        for spec in (tmp_path / "state/apps/web").glob("shim.spec"):
            assert stat.S_IMODE(spec.stat().st_mode) == 0o600
        assert VALUE not in (tmp_path / "state/apps/web/launch.json").read_text()
        put(plane, value="changed\n")
        plane.http.post("/v1/applications/web/restart")
        until(lambda: logged().endswith(f"changed|400|{VALUE}"))
        if os.geteuid() == 0:
            plane.create("other", "sh", "-c", "id -un; cat /run/secrets/db; sleep 9",
                         **naming(user="nobody"), stop={"grace": 0.1}, **place)  # fmt: skip
            text = "/v1/applications/other/logs"
            until(lambda: "changed" in plane.http.get(text).text)
        plane.http.delete("/v1/applications/web")
        assert not (tmp_path / "state/apps/web").exists()
    finally:
        for name in plane.names():
            plane.http.delete(f"/v1/applications/{name}")
        plane.stop()
        agent.close()
