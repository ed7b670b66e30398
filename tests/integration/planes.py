"""A control plane over the fake agent, with a small catalogue; used by the tests of API and CLI."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi.testclient import TestClient

from app.agent.fake import FakeAgent
from app.api.peers import PeerProtocol
from app.main import ControlPlane, listen
from app.reconcile.clock import Clock
from app.settings import load
from tests import stores

_LIBRARIES = {"glibc-x86_64": {"preload": ["libx.so"]}}
ELEMENTS: dict[str, dict[str, Any]] = {
    "net-a": {
        "kind": "network",
        "settings": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "mss": {"type": "integer", "minimum": 500, "maximum": 65000, "default": 1460},
                "ttl": {"type": "integer", "minimum": 1, "default": 64, "apply": "live"},
                "rate": {"type": "number", "apply": "live"},
                "keepalive": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "idle": {"type": "integer", "default": 7200, "apply": "live"},
                        "probes": {"type": "integer", "default": 9, "apply": "restart"},
                    },
                },
                "congestion": {"enum": ["cubic", "reno"], "default": "cubic"},
            },
        },
    },
    "net-b": {"kind": "network"},
    "files": {
        "kind": "filesystem",
        "settings": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "mounts": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["path", "from"],
                        "properties": {
                            "path": {"type": "string", "pattern": "^/"},
                            "from": {"type": "string", "format": "host-path"},
                            "depth": {"type": "integer", "default": 3},
                        },
                    },
                }
            },
        },
    },
}


def write_elements(directory: Path, elements: dict[str, dict[str, Any]] = ELEMENTS) -> Path:
    """A catalogue's directory."""
    for name, rest in elements.items():
        manifest = {
            "name": name,
            "version": "1.0.0",
            "summary": "for tests",
            "license": "Apache-2.0",
            "libraries": _LIBRARIES,
            **rest,
        }
        (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / name / "element.json").write_text(json.dumps(manifest))
    return directory


class Plane:
    """One control plane, and a client that calls it within this process."""

    def __init__(
        self, home: Path, agent: FakeAgent, clock: Clock | None = None, **flags: Any
    ) -> None:
        elements = write_elements(home / "elements")
        flags = {"database": stores.url(home / "state/store.sqlite"), **flags}
        settings = load({}, state_dir=home / "state", elements_dir=elements, **flags)
        self.agent = agent
        self.plane = ControlPlane(settings, agent, clock or Clock())
        self.plane.start()
        self.http = TestClient(
            self.plane.api, base_url="http://127.0.0.1", raise_server_exceptions=False
        )

    def create(self, name: str, *command: str, **spec: Any) -> Any:
        """The resource; fails where it was not accepted."""
        body = {"name": name, "command": list(command) or ["nginx"], **spec}
        answer = self.http.post("/v1/applications", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def status(self, name: str) -> Any:
        """`status` of one application."""
        answer = self.http.get(f"/v1/applications/{name}")
        assert answer.status_code == 200, answer.text
        return answer.json()["status"]

    def names(self) -> list[str]:
        """Of all applications."""
        return [item["name"] for item in self.http.get("/v1/applications").json()["items"]]

    def events(self) -> list[str]:
        """Kinds, oldest first."""
        return [event["kind"] for event in self.http.get("/v1/events").json()["items"]]

    def until_state(self, name: str, state: str) -> Any:
        """The status, once it shows this state."""
        return until(lambda: (found := self.status(name))["state"] == state and found)

    def stop(self) -> None:
        """End the control plane; the fake host goes on."""
        self.plane.stop()


def until(what: Callable[[], Any], seconds: float = 5.0) -> Any:
    """The first true result."""
    deadline = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.01)
    return result


@contextmanager
def served(
    home: Path, agent: FakeAgent, address: str = "127.0.0.1:0", **flags: Any
) -> Iterator[str]:
    """A control plane behind a real server, by default on a free loopback port; its URL."""
    elements = write_elements(home / "elements")
    settings = load(
        {},
        state_dir=home / "state",
        elements_dir=elements,
        listen=address,
        database=stores.url(home / "state/store.sqlite"),
        **flags,
    )
    plane, listener = ControlPlane(settings, agent), listen(settings)
    config = uvicorn.Config(
        plane.api,
        log_level="warning",
        timeout_graceful_shutdown=1,
        http=PeerProtocol,
        ssl_certfile=settings.tls_certificate or None,
        ssl_keyfile=settings.tls_key or None,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    plane.start()
    thread.start()
    try:
        scheme = "https" if settings.tls_certificate else "http"
        is_unix = settings.unix_listen is not None
        yield address if is_unix else f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        plane.stop()
