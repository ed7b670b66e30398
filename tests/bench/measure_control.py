"""The control plane at 1,000 applications: starting, serving, listing, reading, memory, removing.

One stack of socat echo servers in the namespace runtime, each on its own private stack; figures of
issue-size targets, all from one run. `CSE_BENCH_APPLICATIONS` asks for another number.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.world import NETWORK, World
from tests.bench.harness import CannotMeasure, Figure
from tests.bench.worlds import need_programs, ours

COUNT = int(os.environ.get("CSE_BENCH_APPLICATIONS", "1000"))
COMMAND = ["socat", "TCP-LISTEN:7,fork,reuseaddr", "EXEC:cat"]
STACK = "bench-control"
_PATIENCE_S = 600
_READ_S = 5.0
_CLIENTS = 4


def measure() -> list[Figure]:
    need_programs("socat", "bwrap")
    with ours() as world, _stack(world) as started_s:
        figures = [_absolute(f"{COUNT} applications start", "s", started_s, 20)]
        figures += _flatness(world)
        figures.append(_absolute("and all of them answer", "s", _serve(world), 20))
        pid = _server_pid(world)
        figures.append(_listing(world))
        figures.append(_reading(world))
        figures.append(_absolute("memory of the control plane", "MiB", _rss_mib(pid), 150))
        began = time.monotonic()
        _over(world, world.api.delete(f"/v1/stacks/{STACK}"))
        figures.append(_absolute("all of them removed", "s", time.monotonic() - began, 5))
    return figures


def _absolute(figure: str, unit: str, value: float, most: float) -> Figure:
    return Figure.compare(figure, unit, [value], [most], "target", ours_at_most=most)


@contextlib.contextmanager
def _stack(world: World) -> Iterator[float]:
    """Seconds from the request until the last one runs."""
    body: dict[str, Any] = {
        "name": STACK,
        "applications": {
            "b": {
                "command": COMMAND,
                "elements": {"network-lwip": {}},
                "network": {"name": NETWORK},
                "stop": {"signal": "SIGKILL"},
                "replicas": COUNT,
            }
        },
    }
    began = time.monotonic()
    try:
        _over(world, world.api.put(f"/v1/stacks/{STACK}", json=body, timeout=_PATIENCE_S))
        yield time.monotonic() - began
    finally:
        if world.api.get("/v1/applications?limit=1").json()["items"]:
            _over(world, world.api.delete(f"/v1/stacks/{STACK}"))


def _over(world: World, answer: httpx.Response) -> None:
    if answer.status_code not in (200, 202):
        raise CannotMeasure(f"{answer.status_code}: {answer.text[:300]}")
    operation = answer.json().get("operation")
    if operation is None:
        return
    path, deadline = f"/v1/operations/{operation}", time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        found = world.api.get(path, params={"wait": 60}, timeout=90).json()
        if found["state"] != "running":
            break
    if found["state"] != "succeeded":
        failed = [one for one in found["targets"] if one["state"] != "done"]
        raise CannotMeasure(f"{found['kind']}: {found['state']}, {failed[:2]}")


def _flatness(world: World) -> list[Figure]:
    """Whether the last tenth was started as fast as the first."""
    items = world.api.get("/v1/applications?limit=10000").json()["items"]
    times = sorted(item["status"]["started_at"] for item in items)
    if len(times) < 100:
        return []
    from datetime import datetime

    moments = [datetime.fromisoformat(text).timestamp() for text in times]
    tenth = len(moments) // 10
    first, last = moments[tenth] - moments[0], moments[-1] - moments[-1 - tenth]
    figure = "a tenth of them started: the last against the first"
    return [Figure.compare(figure, "s", [last], [first], "the first", at_most=1.5)]


def _serve(world: World) -> float:
    """Seconds until every one has answered on its own address."""
    items = world.api.get("/v1/applications?limit=10000").json()["items"]
    addresses = [item["status"]["address"] for item in items]
    began = time.monotonic()

    def ask(address: str) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection((address, 7), timeout=20) as connection:
                    connection.sendall(address.encode())
                    connection.shutdown(socket.SHUT_WR)
                    if connection.recv(100) == address.encode():
                        return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise CannotMeasure(f"{address} does not answer")
            time.sleep(0.05)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, addresses))
    return time.monotonic() - began


def _listing(world: World) -> Figure:
    """Over an open connection, by the standard library: httpx takes as long as the server does."""
    taken = []
    with closing(HTTPConnection(world.api.base_url.host, world.api.base_url.port)) as server:
        for _ in range(200):
            began = time.monotonic()
            server.request("GET", "/v1/applications?limit=1000")
            text = server.getresponse().read()
            taken.append(time.monotonic() - began)
            if len(json.loads(text)["items"]) != min(COUNT, 1000):
                raise CannotMeasure("the list is not whole")
    p99 = statistics.quantiles(taken, n=100)[98]
    return _absolute(f"list of {min(COUNT, 1000)} applications, p99", "s", p99, 0.020)


def _reading(world: World) -> Figure:
    """Single applications, by keep-alive connections, from processes of their own."""
    import subprocess
    import sys

    url = str(world.api.base_url)
    words = [sys.executable, "-c", _READER, url, str(_READ_S)]
    readers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(_CLIENTS)]
    total = sum(float(reader.communicate()[0]) for reader in readers)
    return Figure.compare(
        "reads of one application", "1/s", [total], [2000], "target", at_least=1.0
    )


_READER = """
import socket, sys, time
from urllib.parse import urlsplit
place = urlsplit(sys.argv[1])
connection = socket.create_connection((place.hostname, place.port))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
request = b"GET /v1/applications/b-1 HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n"
count, began = 0, time.monotonic()
while time.monotonic() - began < float(sys.argv[2]):
    connection.sendall(request)
    data = b""
    while b"\\r\\n\\r\\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\\r\\n\\r\\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\\r\\n")
                  if line.startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    count += 1
print(count / (time.monotonic() - began))
"""


def _server_pid(world: World) -> int:
    port = world.api.base_url.port
    wanted = f":{port:04X}"
    inode = next(
        row.split()[9]
        for row in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if row.split()[1].endswith(wanted) and row.split()[3] == "0A"
    )
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                for fd in (entry / "fd").iterdir():
                    if str(fd.readlink()) == f"socket:[{inode}]":
                        return int(entry.name)
    raise CannotMeasure("the server's process is not found")


def _rss_mib(pid: int) -> float:
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("Pss:")) / 1024
