"""Streams of the REST interface: events with lasting ids, terminals and captures by WebSocket."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from app.agent.fake import FakeAgent
from tests.integration.planes import Plane, served, until

SSE = {"Accept": "text/event-stream"}
CSE = "import sys; from app.cli import main; sys.exit(main())"
LOOPBACK = {"Host": "127.0.0.1"}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path, FakeAgent(), event_history=100)
    yield made
    made.stop()


def test_an_event_stream_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    with served(tmp_path, FakeAgent()) as url, httpx.Client(base_url=url, timeout=20) as http:
        http.post("/v1/applications", json={"name": "a", "command": ["nginx"]})
        until(lambda: len(http.get("/v1/events").json()["items"]) == 2)
        with http.stream("GET", "/v1/events?after=0", headers=SSE) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "retry: 1000" and next(lines) == ""
            assert next(lines) == "id: 1"
            assert json.loads(next(lines).removeprefix("data: "))["kind"] == "created"
        with http.stream("GET", "/v1/events", headers={**SSE, "Last-Event-ID": "1"}) as answer:
            ids = [line for line in _until_line(answer, "id: 2") if line.startswith("id:")]
        assert ids == ["id: 2"]
        with http.stream("GET", "/v1/events?follow=true&after=1") as answer:
            assert answer.headers["content-type"].startswith("application/x-ndjson")
            assert json.loads(next(answer.iter_lines()))["id"] == 2


def _until_line(answer: httpx.Response, wanted: str) -> Iterator[str]:
    for line in answer.iter_lines():
        yield line
        if line == wanted:
            return


def test_events_that_are_kept_no_longer_are_gone(plane: Plane) -> None:
    for number in range(600):
        plane.plane.store.record_event("noted", None, str(number))
    for query in ("?after=3", "?after=3&follow=true", "?after=999999"):
        answer = plane.http.get(f"/v1/events{query}")
        assert answer.status_code == 410, query
        problem = answer.json()
        assert problem["type"] == "urn:cse:problem:gone" and "anew" in problem["remedy"]
    header = {**SSE, "Last-Event-ID": "3"}
    assert plane.http.get("/v1/events", headers=header).status_code == 410
    last = plane.http.get("/v1/events?limit=1").json()["items"][0]["id"]
    assert plane.http.get(f"/v1/events?after={last}").json()["items"] == []


def test_a_terminal_by_websocket(plane: Plane) -> None:
    plane.create("web")
    path = "/v1/applications/web/exec?command=sh&command=-c&command=stty%20size;%20cat&rows=30"
    with plane.http.websocket_connect(path, ["cse.v1"], headers=LOOPBACK) as socket:
        assert socket.accepted_subprotocol == "cse.v1"
        assert socket.receive_bytes() == b"30 80\r\n"
        socket.send_text(json.dumps({"resize": {"rows": 10, "columns": 20}}))
        socket.send_bytes(b"x\r")
        assert socket.receive_bytes() == b"x\r\n"
        socket.send_bytes(b"\x03")
        assert socket.receive_bytes() == b"^C"
        assert json.loads(socket.receive_text()) == {"exit_code": 130}
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_bytes()
        assert closed.value.code == 1000


def test_a_client_that_goes_away_ends_its_command(plane: Plane) -> None:
    plane.create("web")
    path = "/v1/applications/web/exec?command=cat"
    before = threading.active_count()
    with plane.http.websocket_connect(path, headers=LOOPBACK) as socket:
        socket.send_bytes(b"x\r")
        socket.receive_bytes()
    until(lambda: not plane.agent.terminals_open)
    until(lambda: threading.active_count() <= before + 1)


BAD_SOCKETS = [
    ("nobody/exec?command=sh", "not-found"),
    ("web/exec", "invalid-specification"),
    ("idle/exec?command=sh", "conflict"),
    ("nobody/capture", "not-found"),
    ("web/capture?for=soon", "invalid-specification"),
]


@pytest.mark.parametrize(("path", "slug"), BAD_SOCKETS)
def test_what_keeps_a_socket_from_working_is_told_in_it(plane: Plane, path: str, slug: str) -> None:
    plane.create("web")
    plane.create("idle", "true")
    plane.until_state("idle", "exited")
    with plane.http.websocket_connect(f"/v1/applications/{path}", headers=LOOPBACK) as socket:
        problem = json.loads(socket.receive_text())["problem"]
        assert problem["type"] == f"urn:cse:problem:{slug}"
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
        assert closed.value.code == 1008


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {**LOOPBACK, "Origin": "http://evil.example"}]
)
def test_sockets_of_strangers_are_refused(plane: Plane, headers: dict[str, str]) -> None:
    plane.create("web")
    path = "/v1/applications/web/exec?command=sh"
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        plane.http.websocket_connect(path, headers=headers),
    ):
        pass
    assert refused.value.status_code == 403


def test_a_capture_by_websocket_is_a_pcapng_file(plane: Plane) -> None:
    plane.create("web", elements={"net-a": {}})
    path = "/v1/applications/web/capture?filter=tcp"
    with plane.http.websocket_connect(path, headers=LOOPBACK) as socket:
        assert socket.receive_bytes().startswith(b"\x0a\x0d\x0d\x0a")
    until(lambda: "capture-ended" in plane.events())
    told = plane.http.get("/v1/events").json()["items"]
    began, ended = (one for one in told if one["kind"].startswith("capture-"))
    assert began["application"] == "web" and began["message"].endswith(": tcp")
    assert ended["message"].startswith(began["message"].split(":")[0])


def test_the_index_says_what_this_server_can(plane: Plane) -> None:
    index = plane.http.get("/v1").json()
    assert {"exec-terminal", "capture-websocket"} <= set(index["api_extensions"])


def test_cse_exec_in_a_terminal(tmp_path: Path) -> None:
    """The command line in a real terminal against a real server: keys, Ctrl-C, exit status."""
    with served(tmp_path, FakeAgent()) as url:
        httpx.post(f"{url}/v1/applications", json={"name": "a", "command": ["nginx"]})
        ours, theirs = pty.openpty()
        command = [sys.executable, "-c", CSE, "exec", "-t", "a", "--", "sh", "-c"]
        process = subprocess.Popen(
            [*command, "echo ready; cat"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "CSE_API": url},
            start_new_session=True,
        )
        os.close(theirs)
        shown = _read_until(ours, b"ready\r\n")
        os.write(ours, b"hello\r")
        shown += _read_until(ours, b"hello\r\n")
        os.write(ours, b"\x03")
        assert process.wait(30) == 130, shown
        os.close(ours)


def _read_until(fd: int, wanted: bytes) -> bytes:
    shown = b""
    while wanted not in shown:
        try:
            shown += os.read(fd, 4096)
        except OSError:
            raise AssertionError(shown) from None
    return shown


def test_cse_exec_in_a_terminal_tells_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.cli.root import run

    with served(tmp_path, FakeAgent()) as url:
        arguments: list[Any] = ["cse", "--api", url, "exec", "-t", "nobody", "sh"]
        monkeypatch.setattr(sys, "argv", arguments)
        assert run() == 125
    assert "no application 'nobody'" in capsys.readouterr().err
