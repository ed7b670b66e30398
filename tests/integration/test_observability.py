"""Logs and traces say which request something was done for, across threads and processes."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app import logs, tracing
from app.agent.fake import FakeAgent
from app.agent.remote import RemoteAgent
from app.agent.server import AgentServer
from app.domain.observed import Finding
from tests.integration.planes import Plane, until


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path, FakeAgent())
    yield made
    made.stop()


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """The control plane's log in JSON lines."""
    root, stream = logging.getLogger(), io.StringIO()
    before = (root.level, root.handlers[:])
    logs.configure("info", "json")
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    yield stream
    root.setLevel(before[0])
    root.handlers[:] = before[1]


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.use(None)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_answers_and_problems_name_their_request(plane: Plane) -> None:
    answer = plane.http.get("/v1/applications/web", headers={"X-Request-ID": "mine"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "mine"
    refused = plane.http.get("/v1", headers={"Host": "evil.example"})
    assert refused.status_code == 403
    assert refused.json()["request_id"] == refused.headers["x-request-id"]
    plane.agent.failures["doctor"] = []
    plane.plane.agent.doctor = lambda: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    broken = plane.http.get("/v1/doctor", headers={"X-Request-ID": "broken"})
    assert broken.status_code == 500
    assert broken.headers.get_list("x-request-id") == ["broken"]
    assert broken.json()["request_id"] == "broken"


def test_a_line_of_the_log_has_request_and_operation(plane: Plane, written: io.StringIO) -> None:
    plane.create("init", "sleep", "0.3")
    body = {"name": "web", "command": ["nginx"], "depends_on": ["init:completed"]}
    made = plane.http.post("/v1/applications?wait=0", json=body, headers={"X-Request-ID": "r-1"})
    operation = made.headers["operation-location"].rpartition("/")[2]
    plane.http.get(f"/v1/operations/{operation}?wait=5", headers={"X-Request-ID": "r-2"})
    found = lines(written)
    request = next(one for one in found if one.get("path") == "/v1/applications"
                   and one["logger"] == "app.api.guard" and one["request_id"] == "r-1")  # fmt: skip
    assert (request["method"], request["status"], request["level"]) == ("POST", 202, "info")
    assert request["duration_ms"] >= 0 and request["time"].endswith("+00:00")
    told = [one for one in found if one.get("operation_id") == operation]
    assert [one["message"].split()[2] for one in told] == ["begun:", "over:"]
    assert told[0]["request_id"] == "r-1"


def test_what_a_worker_does_names_the_request_that_asked(
    plane: Plane, written: io.StringIO
) -> None:
    plane.create("web")
    from app.domain.errors import RuntimeFailure

    plane.agent.failures["stop"] = [RuntimeFailure("the host is sick")]
    plane.http.post("/v1/applications/web/stop?wait=0", headers={"X-Request-ID": "r-9"})
    until(lambda: "the host is sick" in written.getvalue())
    line = next(one for one in lines(written) if "the host is sick" in one["message"])
    assert (line["request_id"], line["application"]) == ("r-9", "web")


def test_lines_are_objects_whatever_is_logged(written: io.StringIO) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("some.library").exception("a %s", 'quoted "word"\n')
    (line,) = lines(written)
    assert line["level"] == "error" and "ValueError: two" in line["error"]
    assert "request_id" not in line


def test_a_trace_leads_from_the_request_to_the_call_of_the_agent(
    spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    plane = Plane(tmp_path, FakeAgent())
    try:
        parent = f"00-{'a' * 32}-{'b' * 16}-01"
        body = {"name": "web", "command": ["nginx"]}
        plane.http.post("/v1/applications", json=body, headers={"traceparent": parent})
        plane.http.post("/v1/applications/web/stop", headers={"traceparent": parent})
        found = {span.name: span for span in _of_trace(spans, "a" * 32)}
    finally:
        plane.stop()
    assert {"step create", "agent create", "step start", "agent start", "step stop"} <= set(found)
    request = next(span for name, span in found.items() if name.startswith("POST /v1/app"))
    assert request.parent is not None and request.parent.span_id == int("b" * 16, 16)
    assert _above(found, "agent create") == "step create"
    attributes = found["agent create"].attributes or {}
    assert found["step create"].parent is not None
    assert "command" not in str(attributes), "what is asked for stays out of traces"


def test_an_operation_is_a_span_that_outlasts_its_request(
    spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    plane = Plane(tmp_path, FakeAgent())
    try:
        plane.create("init", "sleep", "0.3")
        body = {"name": "web", "command": ["nginx"], "depends_on": ["init:completed"]}
        made = plane.http.post("/v1/applications?wait=0", json=body)
        operation = made.headers["operation-location"]
        plane.http.get(f"{operation}?wait=5")
        over = next(one for one in spans.get_finished_spans() if one.name == "operation create")
    finally:
        plane.stop()
    assert over.attributes is not None
    assert over.attributes["cse.operation"] == operation.rpartition("/")[2]
    assert over.end_time is not None and over.start_time is not None
    assert over.end_time - over.start_time > 0.1e9


def test_the_agents_process_carries_request_and_trace_on(
    spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    agent, seen = FakeAgent(), list[str]()
    plain = agent.doctor

    def doctor() -> list[Finding]:
        seen.append(logs.request_id.get())
        return plain()

    agent.doctor = doctor  # type: ignore[method-assign]
    server = AgentServer(agent, str(tmp_path / "agent.sock"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    remote = tracing.traced(RemoteAgent(str(tmp_path / "agent.sock")))
    try:
        logs.request_id.set("r-7")
        with tracing.span("request"):
            remote.doctor()
        until(lambda: len(spans.get_finished_spans()) == 3)
    finally:
        logs.request_id.set(logs.NONE)
        remote.close()
        server.close()
        thread.join()
    assert seen == ["r-7"]
    assert len({span.context.trace_id for span in spans.get_finished_spans()}) == 1


def test_without_a_provider_nothing_is_traced(plane: Plane) -> None:
    assert isinstance(plane.plane.agent, FakeAgent)
    assert tracing.outgoing() == {}


@pytest.mark.parametrize(
    "environment",
    [{}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": "zipkin"},
     {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}],
    ids=["nothing set", "none", "unknown", "disabled"],
)  # fmt: skip
def test_variables_that_ask_for_no_traces(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tracing.configure("cse")
    assert tracing.provider() is None


def _of_trace(spans: InMemorySpanExporter, trace: str) -> list[ReadableSpan]:
    return [one for one in spans.get_finished_spans() if one.context.trace_id == int(trace, 16)]


def _above(found: dict[str, ReadableSpan], name: str) -> str:
    parent = found[name].parent
    assert parent is not None
    return next(one.name for one in found.values() if one.context.span_id == parent.span_id)
