"""A running control plane for the acceptance tests, used as its users do: REST and files only.

`World` starts `cse serve` on a free loopback port with a state directory of its own, and
removes every application it started. Tests speak of applications by name and look at what the
kernel shows (`/proc`, `ss`, `curl`), never at the inside of the project.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "cse/example"
NETWORK = "accept"
# One of many, so that what a killed run may have left does not stop the next one.
SUBNET = f"10.{100 + os.getpid() % 30}.0.0/20"


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: Callable[[], Any], seconds: float = 10.0, every: float = 0.05) -> Any:
    """The first true result of `what`; the last exception or result is reported on failure."""
    deadline = time.monotonic() + seconds
    while True:
        problem: object
        try:
            result = what()
            if result:
                return result
            problem = f"still {result!r}"
        except (OSError, subprocess.SubprocessError, httpx.HTTPError, LookupError) as error:
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {seconds} s: {problem}")
        time.sleep(every)


class World:
    """One control plane and the applications of one test, all of one runtime."""

    def __init__(self, api: httpx.Client, runtime: str) -> None:
        self.api = api
        self.runtime = runtime
        self._started: list[str] = []

    # ---- applications

    def run(self, name: str, command: list[str], **spec: Any) -> dict[str, Any]:
        """Create an application on the test network and return its resource once it runs."""
        body = self.specification(name, command, **spec)
        self._started.append(name)
        answer = self.api.post("/v1/applications", params={"wait": 120}, json=body, timeout=150)
        assert answer.status_code == 201, answer.text
        resource: dict[str, Any] = answer.json()
        assert resource["status"]["state"] == "running", resource["status"]
        return resource

    def specification(self, name: str, command: list[str], **spec: Any) -> dict[str, Any]:
        """What `run` asks for."""
        body: dict[str, Any] = {"name": name, "command": command, "runtime": self.runtime, **spec}
        if self.runtime == "docker":
            body.setdefault("image", IMAGE)
        body.setdefault("network", {"name": NETWORK})
        return body

    def get(self, name: str, part: str = "") -> Any:
        """`GET /v1/applications/{name}[/part]`."""
        answer = self.api.get(f"/v1/applications/{name}{part and '/' + part}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def address(self, name: str) -> str:
        """The application's own IPv4 address."""
        return str(self.get(name)["status"]["address"])

    def exec(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside the application, with its elements linked."""
        answer = self.api.post(
            f"/v1/applications/{name}/exec", json={"command": list(command)}, timeout=60
        )
        assert answer.status_code == 200, answer.text
        result = answer.json()
        return subprocess.CompletedProcess(
            list(command), result["exit_code"], result["stdout"], result["stderr"]
        )

    def remove(self, name: str) -> None:
        """Delete the application; it is gone when this returns."""
        answer = self.api.delete(f"/v1/applications/{name}", timeout=60)
        assert answer.status_code in (200, 202, 204, 404), answer.text
        if name in self._started:
            self._started.remove(name)

    def remove_all(self) -> None:
        """What the fixture calls after each test."""
        for name in list(reversed(self._started)):
            self.remove(name)

    # ---- what the kernel shows

    def pids(self, name: str) -> list[int]:
        """Processes of the application that have an element's library mapped."""
        instances = self.get(name, "instances")
        items = instances["items"] if isinstance(instances, dict) else instances
        return sorted({pid for instance in items for pid in instance["pids"]})

    def verdicts(self, name: str) -> dict[str, list[tuple[str, str]]]:
        """Claim → (verdict, observation) of each instance that it was checked on."""
        claims = self.get(name, "evidence")
        items = claims["items"] if isinstance(claims, dict) else claims
        found: dict[str, list[tuple[str, str]]] = {}
        for claim in items:
            found.setdefault(claim["claim"], []).append((claim["verdict"], claim["observation"]))
        return found


def curl(url: str, *options: str) -> str:
    """The body that the host's own curl gets, over the kernel's own stack."""
    command = ["curl", "-sS", "--fail", "--max-time", "5", *options, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def maps(pid: int) -> list[tuple[str, str, int, str]]:
    """(permissions, device, inode, path) of each mapped file of a process."""
    rows = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6:
            rows.append((fields[1], fields[3], int(fields[4]), fields[5]))
    return rows


def kernel_tcp_sockets(pid: int) -> list[str]:
    """Rows of the kernel's TCP and UDP tables in a process's network namespace."""
    rows = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        path = Path(f"/proc/{pid}/net/{table}")
        if path.exists():
            rows += path.read_text().splitlines()[1:]
    return rows


def _remove_everything(api: httpx.Client) -> None:
    """What a test has left, too: where it failed, nobody else removes its applications."""
    for item in api.get("/v1/applications").json()["items"]:
        api.delete(f"/v1/applications/{item['name']}", params={"wait": 30})
    for item in api.get("/v1/networks").json()["items"]:
        api.delete(f"/v1/networks/{item['name']}")
    api.post("/v1/gc")  # the default network stays in the store, its bridge need not


@contextlib.contextmanager
def control_plane(state: Path) -> Iterator[httpx.Client]:
    """`cse serve` on its embedded defaults, stopped at the end with everything it made."""
    port = free_port()
    environment = {**os.environ, "CSE_STATE_DIR": str(state), "CSE_LISTEN": f"127.0.0.1:{port}"}
    log = state / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("cse")), "serve"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
    api = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    try:
        until(lambda: api.get("/v1/health").status_code == 200, 20)
        answer = api.post("/v1/networks", json={"name": NETWORK, "subnet": SUBNET})
        assert answer.status_code == 201, answer.text
        yield api
    except AssertionError as error:
        error.add_note(re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))[-4000:])
        raise
    finally:
        with contextlib.suppress(httpx.HTTPError):  # a server that has died removes nothing
            _remove_everything(api)
        api.close()
        server.send_signal(signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
