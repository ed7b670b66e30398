"""The agent's own policy: what the API asks for and the host's owner does not allow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.agent.local import LocalAgent
from app.domain.application import ApplicationSpec
from app.domain.element import Element, ElementManifest
from app.domain.errors import Forbidden, HostLacks
from app.domain.launch import BoundElement, BoundMount, Launch

POLICY = """
read_paths = ["{allowed}"]
write_paths = []
runtimes = ["namespace"]
lowest_port = 1024
"""
MANIFEST = {
    "name": "files",
    "kind": "filesystem",
    "version": "1.0.0",
    "summary": "for tests",
    "license": "Apache-2.0",
    "libraries": {"glibc-x86_64": {"preload": ["libx.so"]}},
    "settings": {
        "type": "object",
        "properties": {"from": {"type": "string", "format": "host-path"}},
    },
}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[LocalAgent]:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "allowed" / "way-out").symlink_to(tmp_path / "secret")
    text = POLICY.format(allowed=tmp_path / "allowed")
    (tmp_path / "state" / "policy.toml").write_text(text)
    made = LocalAgent(tmp_path / "state")
    yield made
    made.close()


def launch(mounts: list[BoundMount] | None = None, **spec: Any) -> Launch:
    body = {"name": "a", "command": ["true"], **spec}
    made = ApplicationSpec.model_validate(body)
    return Launch(id="id-a", spec=made, elements=[], network=None, mounts=mounts or [])


def mount(path: Path, *, read_only: bool = True) -> Launch:
    return launch([BoundMount(source=str(path), target="/m", read_only=read_only)])


def refused(agent: LocalAgent, one: Launch) -> str | None:
    with pytest.raises(Forbidden, match="policy") as caught:
        agent.preflight(one)
    assert "policy.toml" in str(caught.value.remedy)
    with pytest.raises(Forbidden):
        agent.create(one)
    assert agent.observe() == []
    return caught.value.pointer


def test_paths_are_judged_by_where_they_lead(agent: LocalAgent, tmp_path: Path) -> None:
    assert agent.preflight(mount(tmp_path / "allowed")).verdict == "private"
    for path in ("secret", "allowed/way-out", "allowed/../secret"):
        assert refused(agent, mount(tmp_path / path)) == "/mounts/0/from"
    assert refused(agent, mount(tmp_path / "allowed", read_only=False)) == "/mounts/0/from"
    volume = Path(agent.ensure_volume("v"))
    assert agent.preflight(mount(volume, read_only=False)).verdict == "private"


def test_paths_in_settings_count_as_well(agent: LocalAgent, tmp_path: Path) -> None:
    element = Element(manifest=ElementManifest.model_validate(MANIFEST), directory="/none")
    bound = BoundElement(element=element, settings={"from": str(tmp_path / "secret")})
    one = launch(elements={"files": {}}).model_copy(update={"elements": [bound]})
    assert refused(agent, one) == "/elements/files/settings/from"


CASES: list[tuple[str, dict[str, Any], str]] = [
    ('runtimes = ["namespace"]', {"runtime": "docker", "image": "debian"}, "/runtime"),
    ('images = ["debian:*"]', {"runtime": "docker", "image": "evil/x:1"}, "/image"),
    ("lowest_port = 1024", {"ports": ["80:80"]}, "/ports/0"),
    ("host_network = false", {}, "/elements"),
    ("kernel_stack = false", {"fallback": "kernel"}, "/fallback"),
]


@pytest.mark.parametrize(("line", "spec", "pointer"), CASES, ids=lambda value: str(value)[:30])
def test_each_bound(tmp_path: Path, line: str, spec: dict[str, Any], pointer: str) -> None:
    (tmp_path / "policy.toml").write_text(line)
    agent = LocalAgent(tmp_path)
    assert refused(agent, launch(**spec)) == pointer
    agent.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="programs of root need root")
def test_root(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("root = false")
    agent = LocalAgent(tmp_path)
    for user in (None, "root", "0:0"):
        assert refused(agent, launch(user=user)) == "/user"
    assert agent.preflight(launch(user="nobody")).verdict == "private"
    agent.close()


@pytest.mark.parametrize("text", ["raed_paths = []", "read_paths = 7", "read_paths = ["])
def test_a_broken_policy_allows_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "policy.toml").write_text(text)
    agent = LocalAgent(tmp_path)
    with pytest.raises(HostLacks, match="cannot be read"):
        agent.preflight(launch())
    (tmp_path / "policy.toml").unlink()
    assert agent.preflight(launch()).verdict == "private"
    agent.close()
