"""`/metrics`: the control plane and every instance, as Prometheus reads them.

The text format is a few lines of our own: a client library would keep counters of its own, these
are read from where they are. Called by scrapers, with a token of scope `read` where one is asked
for (`authorization` in Prometheus' own configuration).
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Response

from app.api.problems import RESPONSES
from app.api.resources import shown_state
from app.api.services import Given, Services
from app.domain.errors import CseError
from app.domain.usage import Usage

router = APIRouter(responses=RESPONSES)

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_STATES = (
    "starting",
    "waiting",
    "running",
    "restarting",
    "exited",
    "stopped",
    "failed",
    "removing",
)
_PAGE = os.sysconf("SC_PAGE_SIZE")
Sample = tuple[Mapping[str, str], float]


_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get(
    "/metrics",
    operation_id="readMetrics",
    tags=["host"],
    response_class=Response,
    responses=_TEXT,
)
def metrics(services: Given) -> Response:
    """Gauges and counters of the server and of all running applications, for Prometheus."""
    text = "".join([*_server(services), *_applications(services)])
    return Response(text, media_type=MEDIA_TYPE)


def _server(services: Services) -> Iterator[str]:
    records = [
        record
        for record in services.store.applications().values()
        if services.project in (None, record.spec.project)
    ]
    states: Counter[str] = Counter(
        shown_state(record, services.convergence.status(record.name)) for record in records
    )
    yield _metric(
        "cse_applications",
        "gauge",
        "Applications by state.",
        [({"state": state}, states.get(state, 0)) for state in _STATES],
    )
    health: Counter[str] = Counter(
        found.state
        for record in records
        if (found := services.health.status(record.name)) is not None
    )
    yield _metric(
        "cse_health",
        "gauge",
        "Applications with a health check, by what it found.",
        [
            ({"state": state}, health.get(state, 0))
            for state in ("starting", "healthy", "unhealthy")
        ],
    )
    up = 0.0 if services.convergence.agent_error else 1.0
    yield _metric("cse_agent_up", "gauge", "Whether the agent answers.", [({}, up)])
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * _PAGE
    yield _metric(
        "process_cpu_seconds_total",
        "counter",
        "Processor time of the server.",
        [({}, used.ru_utime + used.ru_stime)],
    )
    yield _metric(
        "process_resident_memory_bytes", "gauge", "Memory of the server.", [({}, resident)]
    )
    labels = {"version": services.version}
    yield _metric("cse_build_info", "gauge", "The server's version.", [(labels, 1.0)])


def _applications(services: Services) -> Iterator[str]:
    try:
        usage = services.agent.usage()
    except CseError:
        return  # cse_agent_up says so
    if services.project is not None:
        known = services.store.applications()
        usage = [one for one in usage if _project(known, one) == services.project]
    yield _metric(
        "cse_application_memory_bytes",
        "gauge",
        "Resident memory of its processes.",
        [({"application": one.application}, one.memory) for one in usage],
    )
    yield _metric(
        "cse_application_cpu_seconds_total",
        "counter",
        "Processor time of its processes.",
        [({"application": one.application}, one.cpu) for one in usage],
    )
    yield from _counted("network", {one.application: one.counters for one in usage})
    yield from _counted("filesystem", {one.application: one.files for one in usage})


def _counted(kind: str, found: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for name in sorted({name for counters in found.values() for name in counters}):
        yield _metric(
            f"cse_{kind}_{name}",
            "untyped",
            f"As its {kind} instance counts.",
            [
                ({"application": application}, counters[name])
                for application, counters in found.items()
                if name in counters
            ],
        )


def _project(known: Mapping[str, object], one: Usage) -> str | None:
    record = known.get(one.application)
    return getattr(getattr(record, "spec", None), "project", None)


def _metric(name: str, kind: str, help_text: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{_labels(labels)} {value:.17g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = []
    for key, value in labels.items():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        pairs.append(f'{key}="{escaped}"')
    return "{" + ",".join(pairs) + "}"
