"""A full disk: a clear refusal, nothing half-made, what runs runs on; and all is well with room."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import ControlPlane, make_agent
from app.settings import load

pytestmark = pytest.mark.root


class Disk:
    """A small file system in memory."""

    def __init__(self, place: Path) -> None:
        self.place, self._filler = place, place / "filler"

    def fill(self) -> None:
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 512)

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    yield Disk(place)
    subprocess.run(["umount", "-l", place], check=True)


@contextlib.contextmanager
def plane(state: Path, **settings: Any) -> Iterator[TestClient]:
    chosen = load({}, state_dir=state, elements_dir=state / "none", **settings)
    made = ControlPlane(chosen, make_agent(chosen))
    made.start()
    http = TestClient(made.api, base_url="http://127.0.0.1")
    try:
        yield http
    finally:
        for item in http.get("/v1/applications").json()["items"]:
            http.delete(f"/v1/applications/{item['name']}?wait=10")
        made.stop()
        made.agent.close()  # type: ignore[attr-defined]


def start(http: TestClient, name: str) -> Any:
    return http.post("/v1/applications", json={"name": name, "command": ["sleep", "999"]})


def status(http: TestClient, name: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/v1/applications/{name}").json()["status"]
    return found


def test_a_full_store_refuses_and_recovers(disk: Disk) -> None:
    with plane(disk.place / "state") as http:
        pid = start(http, "one").json()["status"]["pid"]
        disk.fill()  # perhaps before the start was written down
        refused = start(http, "two")
        assert refused.status_code == 503 and "room" in refused.json()["remedy"], refused.text
        assert [one["name"] for one in http.get("/v1/applications").json()["items"]] == ["one"]
        assert status(http, "one")["pid"] == pid and Path(f"/proc/{pid}").exists()
        assert [one.name for one in (disk.place / "state/apps").iterdir()] == ["one"]
        disk.free()
        time.sleep(1.1)  # what could not be written down is tried again
        assert start(http, "two").status_code == 201
        told = [(one["kind"], one["application"]) for one in http.get("/v1/events").json()["items"]]
        assert ("started", "one") in told and ("started", "two") in told


def test_a_full_state_directory_of_the_agent_is_named_and_keeps_nothing(
    disk: Disk, tmp_path: Path
) -> None:
    with plane(disk.place / "state", database=f"sqlite:///{tmp_path}/store.sqlite") as http:
        assert start(http, "one").status_code == 201
        disk.fill()
        told = start(http, "two").json()
        assert "'two' cannot be made" in told["detail"] and "room" in told["remedy"], told
        assert [one.name for one in (disk.place / "state/apps").iterdir()] == ["one"]
        assert http.get("/v1/applications/two").status_code == 404
        disk.free()
        assert start(http, "two").status_code == 201
        assert http.post("/v1/gc?dry_run=true").json()["items"] == []
