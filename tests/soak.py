"""A control plane under steady work for MINUTES: does anything grow that should not?

    python -m tests.soak [MINUTES]    by hand, as root; 20 minutes where nothing is said

Twelve applications that stay, and round after round of others that come, are changed, asked,
broken and go, by two clients at once. Each minute one line: memory, descriptors and threads of the
process, rows of the store, files of the state directory, while nothing of the round is there. Exit
status 1 where the second half of the time grew by more than the bounds below. The retentions are
set so low that they are reached within minutes; what is over is deleted some 256 rows at a time.
That of operations is fixed: two of each round, up to 1,100.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sqlite3
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.world import NETWORK, World, control_plane
from tests.bench.measure_control import _server_pid as server_pid

RETENTION = {"CSE_EVENT_HISTORY": "2000", "CSE_AUDIT_HISTORY": "1000"}
SERVER = ["python3", "-c", "import socket, time; socket.create_server(('', 80)); time.sleep(99999)"]
STAYING, COMING = 12, 10
MAY_GROW = {"MiB": 3.0, "fds": 8, "threads": 2, "rows": 600, "files": 30}


def body(name: str, **more: Any) -> dict[str, Any]:
    """An application with a private network, ended at once."""
    return {
        "name": name,
        "command": SERVER,
        "elements": {"network-lwip": {}},
        "network": {"name": NETWORK},
        "stop": {"signal": "SIGKILL"},
        **more,
    }


def round_of_life(api: httpx.Client, prefix: str) -> None:
    """Applications come, are worked on in every way, and go."""
    names = [f"{prefix}-{number}" for number in range(COMING)]
    for name in names:
        check(api.post("/v1/applications", json=body(name)))
    for name in names:
        path = f"/v1/applications/{name}"
        check(api.post(f"{path}/exec", json={"command": ["true"]}))
        check(api.post(f"{path}/faults", json={"loss": "5%", "for": "1s"}))
        check(api.patch(f"/v1/instances/{name}.network-lwip", json={"settings": {"ttl": 9}}))
        for part in ("evidence", "instances", "logs", "faults"):
            check(api.get(f"{path}/{part}"))
        check(api.post(f"{path}/stop"))
        check(api.post(f"{path}/start"))
        changed = body(name, environment={"A": "1"})
        check(api.put(path, json=changed, headers={"If-Match": "*"}))
    for path in ("/metrics", "/v1/usage", "/v1/events", "/v1/applications", "/v1/doctor"):
        check(api.get(path), 200, 404)
    stack = {"name": prefix, "applications": {f"{prefix}-s": {"command": ["sleep", "99"]}}}
    check(api.put(f"/v1/stacks/{prefix}", json=stack))
    check(api.delete(f"/v1/stacks/{prefix}"))
    for name in names:
        check(api.delete(f"/v1/applications/{name}", params={"wait": 60}))


def check(answer: httpx.Response, *allowed: int) -> None:
    """Anything else than these, or a success, ends the run."""
    if not (answer.is_success or answer.status_code in allowed):
        raise AssertionError(f"{answer.request.method} {answer.url}: {answer.text[:500]}")


def measured(pid: int, state: Path) -> dict[str, float]:
    """What must not grow."""
    with contextlib.closing(sqlite3.connect(state / "store.sqlite")) as store:
        tables = [
            row[0] for row in store.execute("select name from sqlite_master where type='table'")
        ]
        rows = sum(store.execute(f'select count(*) from "{one}"').fetchone()[0] for one in tables)
    return {
        "MiB": round(own_kib(pid) / 1024, 1),
        "fds": len([*Path(f"/proc/{pid}/fd").iterdir()]),
        "threads": len([*Path(f"/proc/{pid}/task").iterdir()]),
        "rows": rows - sum_of_addresses(state),
        "files": sum(len(files) for _, _, files in os.walk(state)),
    }


def own_kib(pid: int) -> int:
    """Memory of no file; shares of files' pages change with the processes that map them as well."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("Anonymous:"))


def sum_of_addresses(state: Path) -> int:
    """A pool of the network's size, whose rows are made once."""
    with contextlib.closing(sqlite3.connect(state / "store.sqlite")) as store:
        return int(store.execute("select count(*) from addresses").fetchone()[0])


def main(minutes: float) -> int:
    os.environ.update(RETENTION)
    with tempfile.TemporaryDirectory(prefix="cse-soak-") as directory:
        state = Path(directory)
        with control_plane(state) as api:
            pid = server_pid(World(api, "namespace"))
            return soak(str(api.base_url), pid, state, minutes)


def soak(url: str, pid: int, state: Path, minutes: float) -> int:
    """Rounds of two clients, both at rest whenever something is measured."""
    rounds: collections.Counter[str] = collections.Counter()
    with httpx.Client(base_url=url, timeout=120) as api:
        for number in range(STAYING):
            check(api.post("/v1/applications", json=body(f"stays-{number}")))
        began, lines = time.monotonic(), []
        while True:
            lines.append(measured(pid, state))
            passed = (time.monotonic() - began) / 60
            print(f"{passed:5.1f} min, {rounds.total()} rounds: {lines[-1]}", flush=True)
            if passed >= minutes:
                break
            until = time.monotonic() + min(60.0, minutes * 60 - passed * 60)
            with ThreadPoolExecutor(2) as pool:
                clients = [pool.submit(work, url, f"c{one}", until, rounds) for one in range(2)]
                for client in clients:
                    client.result()
            time.sleep(3)
        pids = [api.get(f"/v1/applications/stays-{one}").json() for one in range(STAYING)]
        if any(one["status"]["restarts"] or one["status"]["state"] != "running" for one in pids):
            print("an application that was to stay did not")
            return 1
    half = lines[len(lines) // 2]
    grown = {key: lines[-1][key] - half[key] for key in half}
    print(f"grown in the second half: {grown}")
    return int(any(grown[key] > most for key, most in MAY_GROW.items()))


def work(url: str, prefix: str, until: float, rounds: collections.Counter[str]) -> None:
    with httpx.Client(base_url=url, timeout=120) as api:
        while time.monotonic() < until:
            round_of_life(api, prefix)
            rounds[prefix] += 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0))
