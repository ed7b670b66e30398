"""What goes on inside an application: logs, commands, instances, evidence."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.api import streams
from app.api.problems import RESPONSES
from app.api.services import Given, Services
from app.domain.observed import Claim, ExecResult, Instance
from app.domain.resources import ExecRequest, Page

router = APIRouter(tags=["observing"], responses=RESPONSES)

_LOG_CONTENT = {
    200: {
        "content": {
            streams.JSON_LINES: {"schema": {"$ref": "#/components/schemas/LogLine"}},
            streams.SSE: {"schema": {"type": "string"}},
        },
        "description": "One line each.",
    }
}


@router.get(
    "/v1/applications/{name}/logs",
    operation_id="readLogs",
    response_class=Response,
    responses={**_LOG_CONTENT},  # type: ignore[dict-item]
)
def logs(
    services: Given,
    request: Request,
    name: str,
    follow: bool = False,
    tail: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """The program's output, oldest first; JSON lines, or server-sent events by `Accept`."""
    _must_exist(services, name)
    lines = services.agent.logs(name, follow=follow, tail=tail)
    return streams.send(request, lines, follow=follow)


@router.post("/v1/applications/{name}/exec", operation_id="execInApplication")
def execute(services: Given, name: str, request: ExecRequest) -> ExecResult:
    """Run a command to its end in the running application's surroundings."""
    _must_exist(services, name)
    return services.agent.exec(name, request.command, timeout_s=request.timeout)


@router.get("/v1/applications/{name}/instances", operation_id="listInstancesOfApplication")
def instances(services: Given, name: str) -> Page[Instance]:
    """The element instances of one application."""
    _must_exist(services, name)
    return Page(items=services.agent.instances(name))


@router.get("/v1/applications/{name}/evidence", operation_id="readEvidence")
def evidence(services: Given, name: str) -> Page[Claim]:
    """Claims about the application's privacy, each checked now against what the kernel shows."""
    _must_exist(services, name)
    return Page(items=services.agent.evidence(name))


def _must_exist(services: Services, name: str) -> None:
    with services.store.read() as transaction:
        transaction.applications.get(name)
