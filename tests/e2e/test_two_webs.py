"""The main job end to end: `cse up` on the example in each runtime, and nothing left afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import docker_lacks
from tests.acceptance.world import ROOT, curl, free_port, kernel_tcp_sockets, until

CSE = str(Path(sys.executable).with_name("cse"))
EXAMPLE = ROOT / "examples/two-webs.yaml"


# Of its own, so that another server of this machine does not matter.
SUBNET = f"10.{170 + os.getpid() % 30}.0.0/20"


def _example(folder: Path) -> tuple[Path, dict[str, int]]:
    """The example with host ports that are free, and application → its port."""
    text = EXAMPLE.read_text().replace(" two-webs/", f" {EXAMPLE.parent}/two-webs/")
    ports = {"web-a": free_port(), "web-b": free_port()}
    for name, usual in (("web-a", "8081:80"), ("web-b", "8082:80")):
        assert usual in text
        text = text.replace(usual, f"{ports[name]}:80")
    place = folder / EXAMPLE.name
    place.write_text(text)
    return place, ports


def _left(state: Path) -> list[str]:
    """Interfaces and nft tables that bear the mark of this state directory."""
    mark = (state / "network-mark").read_text().strip()
    links = subprocess.check_output(["ip", "-o", "link"], text=True).splitlines()
    tables = subprocess.check_output(["nft", "list", "tables"], text=True).splitlines()
    return [line for line in [*links, *tables] if mark in line]


@dataclass(frozen=True)
class Up:
    """A running `cse up`."""

    api: httpx.Client
    ports: dict[str, int]


@pytest.fixture(params=["namespace", pytest.param("docker", marks=pytest.mark.docker)])
def up(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Up]:
    """`cse up` on the example, ended by the Ctrl-C of its user."""
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("private network stacks need root and /dev/net/tun")
    if request.param == "docker" and (reason := docker_lacks()):
        pytest.skip(reason)
    listen = f"127.0.0.1:{free_port()}"
    state, log = tmp_path / "state", tmp_path / "up.log"
    state.mkdir()
    example, ports = _example(tmp_path)
    own = {"CSE_STATE_DIR": str(state), "CSE_LISTEN": listen, "CSE_SUBNET": SUBNET}
    with log.open("wb") as output:
        user = subprocess.Popen(
            [CSE, "up", "-f", str(example), "--runtime", request.param],
            env={**os.environ, **own},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    api = httpx.Client(base_url=f"http://{listen}", timeout=30)
    try:
        until(lambda: _all_running(api), 60, 0.2)
        assert _left(state)  # the marks that are to be gone are those that are looked for
        yield Up(api, ports)
        until(lambda: "Ctrl-C" in log.read_text(), 30, 0.2)
        user.send_signal(signal.SIGINT)
        assert user.wait(60) == 0, log.read_text()
        assert "holds" in log.read_text()
        assert _left(state) == []
        assert not list((state / "apps").glob("*"))
    finally:
        api.close()
        if user.poll() is None:
            user.send_signal(signal.SIGINT)
            user.wait(60)


def _all_running(api: httpx.Client) -> bool:
    items = api.get("/v1/applications").json()["items"]
    return len(items) == 4 and all(item["status"]["state"] == "running" for item in items)


def test_two_webs(up: Up) -> None:
    api = up.api
    items = api.get("/v1/applications").json()["items"]
    address = {item["spec"]["name"]: item["status"]["address"] for item in items}

    # Each web server by its own address and by its published port, at the same time.
    for name, port in up.ports.items():
        for url in (f"http://{address[name]}/", f"http://127.0.0.1:{port}/"):
            page = until(partial(curl, url), 10)
            assert f"This is {name}" in page
            assert "font:" in curl(f"{url}style.css")

    # One clock is 30 days back, the other is right.
    now = time.time()
    for name, days in (("web-a", 0), ("web-b", 30)):
        head = curl(f"http://{address[name]}/", "-I")
        date = re.search(r"^Date: (.*?)\r?$", head, re.M | re.I)
        assert date is not None
        behind = (now - parsedate_to_datetime(date[1]).timestamp()) / 86400
        assert abs(behind - days) < 0.01, (name, behind)

    # The client finds the store by name and counts.
    def visits() -> int:
        lines = api.get("/v1/applications/client/logs").text
        numbers = re.findall(r'(?:\(integer\) |text": ?")(\d+)', lines)
        return int(numbers[-1]) if numbers else 0

    first = until(visits, 15)
    assert until(lambda: visits() > first, 10)

    # The kernel has no socket for any of them, on the host or in their namespaces.
    listening = subprocess.check_output(["ss", "-Hlntu"], text=True)
    assert not re.search(r":(80|6379)\s", listening)
    for item in items:
        name = item["spec"]["name"]
        instances = api.get(f"/v1/applications/{name}/instances").json()["items"]
        pids = {pid for instance in instances for pid in instance["pids"]}
        assert pids, name
        assert [kernel_tcp_sockets(pid) for pid in pids] == [[]] * len(pids)
        claims = api.get(f"/v1/applications/{name}/evidence").json()["items"]
        assert claims and not [claim for claim in claims if claim["verdict"] == "fails"]
