"""A control plane and agent that are killed after their N-th durable step; run by
`test_crash_points.py` as a program of its own.

Theory of operation. A durable step is a call after which something lasts: a commit of the store, a
file or directory of an application, a bridge, a filter, a process started or ended. Each is wrapped
so that the process kills itself (SIGKILL) when the N-th has returned. This process imports
everything once and then only forks: one child lives through the scenario until it is killed, the
next one is the control plane that takes over and must bring about what the store says.

    python -m tests.integration.crash_points STATE ELEMENTS    one JSON line for each point
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from app.agent.local import LocalAgent
from app.broker.broker import Broker
from app.main import ControlPlane, make_agent
from app.runtimes import rundir
from app.runtimes.namespace.cgroups import ControlGroups
from app.runtimes.namespace.runtime import NamespaceRuntime
from app.settings import Settings, load
from app.store.database import Database
from app.wiring.filters import Filters
from app.wiring.netlink import Netlink
from app.wiring.wiring import Wiring
from tests import subnets

STEPS: list[tuple[Any, str]] = [
    (rundir, "build"),
    (rundir, "seal"),
    (rundir, "remove"),
    (rundir, "write_settings"),
    (ControlGroups, "make"),
    (ControlGroups, "remove"),
    (NamespaceRuntime, "create"),
    (NamespaceRuntime, "_hold"),
    (NamespaceRuntime, "_let_go"),
    (NamespaceRuntime, "_run_shim"),
    (NamespaceRuntime, "stop"),
    (NamespaceRuntime, "remove"),
    (Wiring, "ensure_network"),
    (Wiring, "plug"),
    (Wiring, "unplug"),
    (Wiring, "_make_bridge"),
    (Netlink, "change"),
    (Netlink, "add_address"),
    (Filters, "add_network"),
    (Filters, "add_application"),
    (Filters, "remove_application"),
    (Broker, "serve"),
    (Broker, "forget"),
    (LocalAgent, "start"),
]
_WAIT_S = 60.0


class Counter:
    """Kills this process when its `fatal`-th step has returned."""

    def __init__(self, fatal: int) -> None:
        self.fatal = fatal
        self.count = 0
        self.armed = False

    def passed(self, name: str) -> None:
        if not self.armed:
            return
        self.count += 1
        if self.count == self.fatal:
            os.write(1, json.dumps({"step": self.count, "after": name}).encode() + b"\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: Any, name: str) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        @wraps(plain)
        def stepping(*words: Any, **named: Any) -> Any:
            result = plain(*words, **named)
            self.passed(f"{getattr(owner, '__name__', owner)}.{name}")
            return result

        setattr(owner, name, stepping)

    def install(self) -> None:
        for owner, name in STEPS:
            self.wrap(owner, name)
        plain = Database.write

        def write(database: Database) -> Any:
            from contextlib import contextmanager

            @contextmanager
            def committing() -> Any:
                with plain(database) as connection:
                    yield connection
                self.passed("store commit")

            return committing()

        Database.write = write  # type: ignore[method-assign, assignment]


def scenario(http: TestClient, counter: Counter) -> None:
    """One application's life: made, changed in three ways, stopped, started, removed."""
    server = [
        "python3",
        "-c",
        "import socket, time; socket.create_server(('', 80)); time.sleep(99)",
    ]
    body: dict[str, Any] = {
        "name": "subject",
        "command": server,
        "elements": {"network-lwip": {}},
        "limits": {"pids": 50},
        "stop": {"signal": "SIGKILL"},
    }
    counter.armed = True
    anyhow = {"If-Match": "*"}
    path = "/v1/applications/subject"
    http.post("/v1/applications", json=body)
    body["labels"] = {"a": "1"}
    http.put(path, json=body, headers=anyhow)
    body["elements"] = {"network-lwip": {"settings": {"ttl": 9}}}
    http.put(path, json=body, headers=anyhow)
    body["environment"] = {"A": "1"}
    http.put(path, json=body, headers=anyhow)
    http.post(f"{path}/stop")
    http.post(f"{path}/start")
    http.delete(path)


def plane(settings: Settings) -> tuple[ControlPlane, TestClient]:
    made = ControlPlane(settings, make_agent(settings))
    made.start()
    return made, TestClient(made.api, base_url="http://127.0.0.1")


def take_over(settings: Settings) -> dict[str, Any]:
    """What the next control plane finds, when it has done what the store says."""
    made, http = plane(settings)
    return settle(made, http)


def settle(made: ControlPlane, http: TestClient) -> dict[str, Any]:
    """Wait until all is as the store says; what is so then, and what is left over."""
    deadline = time.monotonic() + _WAIT_S
    wrong: str | None = "not synced"
    while wrong and time.monotonic() < deadline:
        time.sleep(0.05)
        wrong = _difference(made)
    bystander = http.get("/v1/applications/bystander").json()["status"]
    present = [item["name"] for item in http.get("/v1/applications").json()["items"]]
    if "subject" in present:
        http.delete("/v1/applications/subject?wait=30")
    kept = {"volume", "lease"}
    left = http.post("/v1/gc?dry_run=true").json()["items"]
    made.stop()
    return {
        "wrong": wrong,
        "bystander": bystander["pid"],
        "left": [f"{one['kind']} {one['name']}" for one in left if one["kind"] not in kept],
    }


def _difference(made: ControlPlane) -> str | None:
    view = made.reconciler.view
    if not view.synced:
        return "not synced"
    with made.store.read() as transaction:
        records = {record.name: record for record in transaction.applications.all()}
    observed = {one.name: one for one in made.agent.observe()}
    if view.busy:
        return "busy"
    for name, record in records.items():
        there = observed.get(name)
        state = there.state if there is not None and there.id == record.id else None
        if record.desired == "removed" or (record.desired == "running") != (state == "running"):
            told = [line.text for line in made.agent.logs(name, tail=5)] if there else []
            return f"'{name}' is to be {record.desired}, it is {state}: {there} said {told}"
    strangers = sorted(set(observed) - set(records))
    return f"nobody asked for {strangers}" if strangers else None


def in_child(act: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def main(state: str, elements: str) -> None:
    settings = load({}, state_dir=Path(state), elements_dir=Path(elements), subnet=subnets.free())

    def prepare() -> None:
        made, http = plane(settings)
        body = {"name": "bystander", "command": ["sleep", "9999"]}
        pid = http.post("/v1/applications", json=body).json()["status"]["pid"]
        os.write(1, json.dumps({"bystander": pid}).encode() + b"\n")
        made.stop()

    assert in_child(prepare) == 0
    for fatal in range(1, 10_000):
        counter = Counter(fatal)

        def live(counter: Counter = counter) -> None:
            counter.install()
            _, http = plane(settings)
            scenario(http, counter)

        def heir() -> None:
            os.write(1, json.dumps(take_over(settings)).encode() + b"\n")

        status = in_child(live)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if in_child(heir) != 0:
            os.write(1, json.dumps({"wrong": "the heir failed"}).encode() + b"\n")
        if not killed:
            os.write(1, json.dumps({"points": fatal - 1, "status": status}).encode() + b"\n")
            break

    def clean() -> None:
        made, http = plane(settings)
        http.delete("/v1/applications/bystander?wait=30")
        http.post("/v1/gc")
        made.stop()

    in_child(clean)


if __name__ == "__main__":
    main(*sys.argv[1:])
