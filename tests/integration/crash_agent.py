"""An agent of its own process that is killed after its N-th durable step, and the control plane
that lives on; run by `test_crash_points.py` as a program of its own.

The same steps as in `crash_points`, without those of the store. While the application lives its
life, the agent kills itself and the next one takes its place, as a supervisor would have it.

    python -m tests.integration.crash_agent STATE ELEMENTS STRIDE    one JSON line for each point
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from app.main import serve_agent
from app.settings import Settings, load
from tests import subnets
from tests.integration.crash_points import Counter, in_child, plane, scenario, settle

_PATIENCE_S = 20.0


class Patient:
    """A client that asks again while there is no agent."""

    def __init__(self, http: TestClient) -> None:
        self._http = http

    def __getattr__(self, verb: str) -> Any:
        def ask(*words: Any, **named: Any) -> Any:
            deadline = time.monotonic() + _PATIENCE_S
            while True:
                answer = getattr(self._http, verb)(*words, **named)
                if answer.status_code != 503 or time.monotonic() > deadline:
                    return answer
                time.sleep(0.05)

        return ask


def spawn_agent(settings: Settings, path: str, counter: Counter | None = None) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        if counter is not None:
            counter.install()
            counter.armed = True
        serve_agent(settings, path)
    finally:
        os._exit(0)


def live(settings: Settings) -> None:
    """The control plane, through the application's life and until all is as it should be."""
    made, http = plane(settings)
    scenario(Patient(http), Counter(0))  # type: ignore[arg-type]
    os.write(1, json.dumps(settle(made, http)).encode() + b"\n")


def main(state: str, elements: str, stride: str) -> None:
    named = {"state_dir": Path(state), "elements_dir": Path(elements), "subnet": subnets.free()}
    path = f"{state}/agent.sock"
    settings, remote = load({}, **named), load({}, **named, agent=f"unix:{path}")

    def prepare() -> None:
        made, http = plane(settings)
        body = {"name": "bystander", "command": ["sleep", "9999"]}
        pid = http.post("/v1/applications", json=body).json()["status"]["pid"]
        os.write(1, json.dumps({"bystander": pid}).encode() + b"\n")
        made.stop()

    assert in_child(prepare) == 0
    for fatal in range(1, 10_000, int(stride)):
        agent = spawn_agent(settings, path, Counter(fatal))
        control = os.fork()
        if control == 0:
            try:
                live(remote)
            finally:
                os._exit(0)
        killed, over = False, False
        while not over:
            pid, status = os.wait()
            if pid == control:
                over = True
            elif pid == agent:
                killed = killed or os.WIFSIGNALED(status)
                agent = spawn_agent(settings, path)
        os.kill(agent, signal.SIGTERM)
        os.waitpid(agent, 0)
        if not killed:
            os.write(1, json.dumps({"points": fatal - 1, "status": 0}).encode() + b"\n")
            break

    def clean() -> None:
        made, http = plane(settings)
        http.delete("/v1/applications/bystander?wait=30")
        http.post("/v1/gc")
        made.stop()

    in_child(clean)


if __name__ == "__main__":
    main(*sys.argv[1:])
