"""Traces by OpenTelemetry, where somebody asks for them: request → convergence → step → agent.

Set up by `cse serve` and `cse agent` from the standard `OTEL_*` variables, with the SDK of the
extra `cse[otel]`. FastAPI makes the spans of requests, `span` the others. Without a provider
nothing of OpenTelemetry is called.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

from opentelemetry import context, propagate
from opentelemetry.trace import SpanKind, StatusCode, TracerProvider

log = logging.getLogger(__name__)

T = TypeVar("T")
_NAME = "cse"
_provider: TracerProvider | None = None
_UNTRACED = frozenset({"wait_change", "observe", "reports", "probe", "close"})
"""Calls of the agent that come of themselves, all the time."""


def use(provider: TracerProvider | None) -> None:
    """Send spans there from now on; None: nowhere."""
    global _provider  # noqa: PLW0603
    _provider = provider


def provider() -> TracerProvider | None:
    """Where spans go."""
    return _provider


def configure(service: str) -> None:
    """As `OTEL_TRACES_EXPORTER` (otlp, console, none) and `OTEL_EXPORTER_OTLP_…` say; nothing
    where none of them is set. `service` is named where `OTEL_SERVICE_NAME` does not."""
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    wanted = exporter or any(os.environ.get(name) for name in endpoints)
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not wanted or exporter == "none" or is_off:
        return
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or service})
        made = Provider(resource=resource)
        made.add_span_processor(BatchSpanProcessor(_exporter(exporter or "otlp")))
    except ImportError as error:
        log.warning("no traces: OTEL_… is set, and %s: pip install --editable '.[otel]'", error)
        return
    use(made)


def _exporter(name: str) -> Any:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if name != "otlp":
        raise ImportError(f"there is no exporter '{name}' here, only otlp, console and none")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


@contextmanager
def span(name: str, **attributes: str) -> Iterator[None]:
    """A part of what is being done; an error that leaves it is its status."""
    if _provider is None:
        yield
        return
    tracer = _provider.get_tracer(_NAME)
    named = {f"cse.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(name, attributes=named):
        yield


def longer(name: str, **attributes: str) -> Callable[[str | None], None]:
    """A span that outlasts the caller: the answer ends it, with what went wrong or None."""
    if _provider is None:
        return lambda error: None
    named = {f"cse.{key}": value for key, value in attributes.items()}
    begun = _provider.get_tracer(_NAME).start_span(name, attributes=named)

    def end(error: str | None) -> None:
        if error is not None:
            begun.set_status(StatusCode.ERROR, error)
        begun.end()

    return end


def outgoing() -> dict[str, str]:
    """What tells another process of the present span (`traceparent`)."""
    carrier: dict[str, str] = {}
    if _provider is not None:
        propagate.inject(carrier)
    return carrier


@contextmanager
def incoming(name: str, carrier: Mapping[str, str]) -> Iterator[None]:
    """A span below the one that another process told of."""
    if _provider is None:
        yield
        return
    token = context.attach(propagate.extract(carrier))
    try:
        tracer = _provider.get_tracer(_NAME)
        with tracer.start_as_current_span(name, kind=SpanKind.SERVER):
            yield
    finally:
        context.detach(token)


class _Traced:
    """An agent whose calls are spans."""

    def __init__(self, agent: object) -> None:
        self._agent = agent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._agent, name)
        if name.startswith("_") or name in _UNTRACED or not callable(found):
            return found

        @wraps(found)
        def call(*words: Any, **named: Any) -> Any:
            application = {"application": words[0]} if words and isinstance(words[0], str) else {}
            with span(f"agent {name}", **application):
                return found(*words, **named)

        return call


def traced(agent: T) -> T:
    """The agent, with a span for each call while there is a provider."""
    return agent if _provider is None else cast(T, _Traced(agent))
