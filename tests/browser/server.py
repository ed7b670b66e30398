"""A control plane that can be lost and come back on the same port, with applications to look at.

Used by the fixtures of this directory and by `tests/browser/pictures.py`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.world import ROOT, free_port, until

CSE = str(Path(sys.executable).with_name("cse"))
NETWORK = "look"
SUBNET = f"10.{140 + os.getpid() % 30}.0.0/20"
PLAIN_SUBNET = f"10.{170 + os.getpid() % 30}.16.0/20"
TALKER = (
    'i=0; while :; do i=$((i+1)); printf "\\033[32mline\\033[0m %s\\n" $i; '
    'echo "warning $i" >&2; sleep 0.3; done'
)


class Server:
    """`cse serve` with a state directory of its own."""

    def __init__(
        self,
        state: Path,
        *,
        require_token: bool = False,
        plain: bool = False,
        examples: Path = ROOT / "examples",
    ) -> None:
        """`plain`: applications use the network `default`, as `make run` has it."""
        self.state = state
        self.plain = plain
        self.examples = examples
        self.token = ""
        self._require_token = require_token
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.api = httpx.Client(base_url=self.url, timeout=60)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        environment = {
            **os.environ,
            "CSE_STATE_DIR": str(self.state),
            "CSE_LISTEN": f"127.0.0.1:{self.port}",
            "CSE_SUBNET": PLAIN_SUBNET,
            "CSE_EXAMPLES_DIR": str(self.examples),
        }
        if self._require_token:
            environment["CSE_REQUIRE_TOKEN"] = "true"
            self._make_token(environment)
        with (self.state / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(
                [CSE, "serve"],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )
        until(lambda: self.api.get("/v1/health").json()["agent"] == "ok", 30)
        if self._require_token or self.plain:
            return
        network = {"name": NETWORK, "subnet": SUBNET}
        answer = self.api.put(f"/v1/networks/{NETWORK}", json=network)
        assert answer.status_code == 200, answer.text

    def _make_token(self, environment: dict[str, str]) -> None:
        command = [CSE, "token", "create", "first", "--scope", "admin", "--offline"]
        made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        self.token = made.stdout.strip()
        self.api.headers["Authorization"] = f"Bearer {self.token}"

    def kill(self) -> None:
        """As a crash does it: applications go on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Remove every application, then end."""
        assert self._process is not None
        with contextlib.suppress(httpx.HTTPError):
            self.remove_all()
        self.api.close()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def remove_all(self) -> None:
        """Every application and network of this server."""
        for item in self.api.get("/v1/applications").json()["items"]:
            self.api.delete(f"/v1/applications/{item['name']}", params={"wait": 30})
        for item in self.api.get("/v1/networks").json()["items"]:
            if item["name"] != "default":  # always there; its bridge goes with the rest
                self.api.delete(f"/v1/networks/{item['name']}")
        self.api.post("/v1/gc")

    def run(self, name: str, command: list[str], **spec: Any) -> dict[str, Any]:
        """Create an application; it runs when this returns."""
        body = {"name": name, "command": command, "network": {"name": NETWORK}, **spec}
        answer = self.api.post("/v1/applications", params={"wait": 30}, json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        assert made["status"]["state"] == "running", made["status"]
        return made
