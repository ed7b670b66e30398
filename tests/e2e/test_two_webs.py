"""The main job end to end: `cse up` on the example in each runtime, and nothing left afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import docker_lacks
from tests.acceptance.world import ROOT, curl, free_port, kernel_tcp_sockets, until

CSE = str(Path(sys.executable).with_name("cse"))
EXAMPLE = ROOT / "examples/two-webs.yaml"


def _network_objects() -> set[str]:
    """Interfaces and nft tables of this host: what a run must not leave behind."""
    links = json.loads(subprocess.check_output(["ip", "-j", "link"], text=True))
    tables = subprocess.check_output(["nft", "list", "tables"], text=True).splitlines()
    # Docker makes a veth for a moment while it builds; only ours count.
    mine = {link["ifname"] for link in links if link["ifname"].startswith(("cse", "ct"))}
    return mine | {table for table in tables if "cse" in table}


@pytest.fixture(params=["namespace", pytest.param("docker", marks=pytest.mark.docker)])
def up(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[httpx.Client]:
    """`cse up -f examples/two-webs.yaml`, ended by the Ctrl-C of its user."""
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("private network stacks need root and /dev/net/tun")
    if request.param == "docker" and (reason := docker_lacks()):
        pytest.skip(reason)
    before = _network_objects()
    port = free_port()
    environment = {**os.environ, "CSE_STATE_DIR": str(tmp_path), "CSE_LISTEN": f"127.0.0.1:{port}"}
    log = tmp_path / "up.log"
    with log.open("wb") as output:
        user = subprocess.Popen(
            [CSE, "up", "-f", str(EXAMPLE), "--runtime", request.param],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    api = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
    try:
        until(lambda: _all_running(api), 60, 0.2)
        yield api
        until(lambda: "Ctrl-C" in log.read_text(), 30, 0.2)
        user.send_signal(signal.SIGINT)
        assert user.wait(60) == 0, log.read_text()
        assert "holds" in log.read_text()
        assert _network_objects() == before
        assert not list((tmp_path / "apps").glob("*"))
    finally:
        api.close()
        if user.poll() is None:
            user.send_signal(signal.SIGINT)
            user.wait(60)


def _all_running(api: httpx.Client) -> bool:
    items = api.get("/v1/applications").json()["items"]
    return len(items) == 4 and all(item["status"]["state"] == "running" for item in items)


def test_two_webs(up: httpx.Client) -> None:
    items = up.get("/v1/applications").json()["items"]
    address = {item["spec"]["name"]: item["status"]["address"] for item in items}

    # Each web server by its own address and by its published port, at the same time.
    for name, port in (("web-a", 8081), ("web-b", 8082)):
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
        lines = up.get("/v1/applications/client/logs").text
        numbers = re.findall(r'(?:\(integer\) |text": ?")(\d+)', lines)
        return int(numbers[-1]) if numbers else 0

    first = until(visits, 15)
    assert until(lambda: visits() > first, 10)

    # The kernel has no socket for any of them, on the host or in their namespaces.
    listening = subprocess.check_output(["ss", "-Hlntu"], text=True)
    assert not re.search(r":(80|6379)\s", listening)
    for item in items:
        name = item["spec"]["name"]
        instances = up.get(f"/v1/applications/{name}/instances").json()["items"]
        pids = {pid for instance in instances for pid in instance["pids"]}
        assert pids, name
        assert [kernel_tcp_sockets(pid) for pid in pids] == [[]] * len(pids)
        claims = up.get(f"/v1/applications/{name}/evidence").json()["items"]
        assert claims and not [claim for claim in claims if claim["verdict"] == "fails"]
