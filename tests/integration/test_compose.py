"""compose.yaml: who may do what, and the whole of it brought up and down on a real daemon."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.world import ROOT, curl, free_port, until

pytestmark = pytest.mark.docker
SUBNET = "10.214.0.0/20"
WEBS = {"web-a": 8081, "web-b": 8082}


class Project:
    """One compose project of its own: name, state directory and port."""

    def __init__(self, state: Path) -> None:
        self.name = f"cse-test-{uuid.uuid4().hex[:8]}"
        self.state = state
        self.port = free_port()

    def compose(self, *words: str, check: bool = True) -> str:
        """Output of `docker compose WORDS`."""
        environment = {
            **os.environ,
            "COMPOSE_PROFILES": "example",
            "CSE_STATE": str(self.state),
            "CSE_PORT": str(self.port),
            "CSE_SUBNET": SUBNET,
        }
        command = ["docker", "compose", "--project-name", self.name, *words]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 or not check, f"{' '.join(words)}: {done.stderr[-3000:]}"
        return done.stdout

    def containers(self) -> set[str]:
        """Names of the applications' containers that the agent of this project has made."""
        mounts = [str(self.state)]
        listed = docker("ps", "-a", "--filter", "label=cse.installation", "--format", "{{.Names}}")
        found = set()
        for name in listed.split():
            shown = docker("inspect", "--format", "{{json .Mounts}}", name)
            if any(mount in shown for mount in mounts):
                found.add(name)
        return found


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("no docker compose v2; `images/docker.sh` installs it")
    shown = Project(tmp_path).compose("config", "--format", "json")
    services: dict[str, Any] = json.loads(shown)["services"]
    return services


def test_only_the_agent_has_privilege(config: dict[str, Any]) -> None:
    for name, service in config.items():
        mounts = {mount["source"] for mount in service.get("volumes", [])}
        assert ("/var/run/docker.sock" in mounts) == (name == "agent"), name
        assert not service.get("privileged"), name
        if name != "agent":
            assert not service.get("cap_add") and not service.get("devices"), name
            assert service.get("network_mode", "none") == "none" and "pid" not in service, name


def test_the_api_is_an_ordinary_user_and_on_loopback_only(config: dict[str, Any]) -> None:
    for name in ("api", "example"):
        service = config[name]
        assert service["cap_drop"] == ["ALL"] and service["read_only"], name
        assert service["security_opt"] == ["no-new-privileges"], name
        assert service["user"].split(":")[0] not in ("0", "root"), name
    assert [port["host_ip"] for port in config["api"]["ports"]] == ["127.0.0.1"]


def test_every_element_and_every_image_of_the_example_is_built(config: dict[str, Any]) -> None:
    built = {service["image"] for service in config.values() if "build" in service}
    paths = ROOT.glob("images/*/element.json")
    manifests = {path.parent.name: json.loads(path.read_text()) for path in paths}
    elements = {name for name, told in manifests.items() if told.get("provided_by") != "kernel"}
    assert {f"cse/{name}" for name in elements} <= built
    assert {"cse/api", "cse/agent", "cse/example"} <= built


def test_the_stage_that_builds_the_libraries_is_the_same_everywhere() -> None:
    """So the builder runs it once, and element and agent images cannot differ."""
    stages = set()
    for path in (ROOT / "images").glob("*/Dockerfile"):
        text = path.read_text()
        if "native.sh" in text:
            start = text.index("FROM debian:trixie-slim AS native")
            stages.add(text[start : text.index("\n\n", start)])
    assert len(stages) == 1


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("private network stacks need root and /dev/net/tun")
    for port in WEBS.values():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"port {port} of this host is in use, and the example publishes on it")
    made = Project(tmp_path / "state")
    yield made
    with contextlib.suppress(httpx.HTTPError, LookupError):
        api = httpx.Client(base_url=f"http://127.0.0.1:{made.port}", timeout=60)
        for name in running(api):
            api.delete(f"/v1/applications/{name}")
    made.compose("down", "--volumes", "--timeout", "60", check=False)
    for name in made.containers():
        docker("rm", "-f", name)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.native
def test_up_serves_the_example_and_down_leaves_nothing(project: Project) -> None:
    project.compose("up", "--build", "--detach", "--wait", "--wait-timeout", "300")
    api = httpx.Client(base_url=f"http://127.0.0.1:{project.port}", timeout=30)
    try:
        until(lambda: running(api) == {"web-a", "web-b", "store", "client"}, 60, 0.3)
    except AssertionError as error:
        error.add_note(project.compose("logs", "--no-color", "--tail", "60", check=False))
        raise
    pages(api)

    # Both parts of the control plane are killed: applications go on and are found again.
    before = pids(api)
    for service in ("agent", "api"):
        project.compose("kill", service)
    for name, port in WEBS.items():
        assert f"This is {name}" in curl(f"http://127.0.0.1:{port}/")
    project.compose("up", "--detach", "--wait", "--wait-timeout", "120", "agent", "api")
    until(lambda: len(running(api)) == 4, 30, 0.3)
    assert pids(api) == before
    pages(api)
    api.close()

    mark = (project.state / "network-mark").read_text().strip()
    assert interfaces(mark)
    project.compose("down", "--volumes", "--timeout", "90")
    assert project.containers() == set()
    settle(lambda: not interfaces(mark))


def pages(api: httpx.Client) -> None:
    """Each web by its own address and by its published port."""
    items = api.get("/v1/applications").json()["items"]
    address = {item["name"]: item["status"]["address"] for item in items}
    for name, port in WEBS.items():
        for url in (f"http://{address[name]}/", f"http://127.0.0.1:{port}/"):
            page = until(functools.partial(curl, url), 15)
            assert f"This is {name}" in page


def running(api: httpx.Client) -> set[str]:
    items = api.get("/v1/applications").json()["items"]
    return {item["name"] for item in items if item["status"]["state"] == "running"}


def pids(api: httpx.Client) -> dict[str, int]:
    items = api.get("/v1/applications").json()["items"]
    return {item["name"]: item["status"]["pid"] for item in items}


def interfaces(mark: str) -> set[str]:
    """Interfaces of this host that bear the mark of one agent's networks."""
    shown = json.loads(subprocess.check_output(["ip", "-j", "-d", "link"], text=True))
    ours = f"cse {mark} "
    return {link["ifname"] for link in shown if link.get("ifalias", "").startswith(ours)}


def settle(what: Callable[[], bool]) -> None:
    """Interfaces of ended programs go a moment after them."""
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)
