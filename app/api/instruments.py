"""Looking into private stacks: their sockets, what they use, and their packets as they pass."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api import capturing, streams
from app.api.problems import RESPONSES
from app.api.resources import After, Limit, part
from app.api.services import Given
from app.domain.capture import PCAPNG
from app.domain.ports import Line
from app.domain.resources import Page
from app.domain.usage import SocketEntry, Usage

router = APIRouter(tags=["instruments"], responses=RESPONSES)

_NAMED = frozenset(SocketEntry.model_fields) - {"details"}
_FILE = {200: {"content": {PCAPNG: {"schema": {"type": "string", "format": "binary"}}}}}


@router.get("/v1/applications/{name}/sockets", operation_id="listSockets")
def sockets(services: Given, name: str) -> Page[SocketEntry]:
    """All sockets of the application's private stack, now."""
    with services.store.read() as transaction:
        transaction.applications.get(name)
    return Page(items=[_socket(line) for line in services.agent.report(name, "sockets")])


@router.get("/v1/usage", operation_id="readUsage")
def usage(services: Given, limit: Limit = 10_000, after: After = "") -> Page[Usage]:
    """What each running application has used so far: packets, memory, processor time."""
    found = services.agent.usage()
    if services.project is not None:
        with services.store.read() as transaction:
            ours = transaction.applications.names(services.project)
        found = [one for one in found if one.application in ours]
    found = sorted(found, key=lambda one: one.application)
    return part(found, lambda one: one.application, after, limit)


@router.get(
    "/v1/applications/{name}/capture",
    operation_id="capturePackets",
    response_class=Response,
    responses={**_FILE},  # type: ignore[dict-item]
)
def capture(
    services: Given,
    name: str,
    filter_text: Annotated[
        str | None, Query(alias="filter", description="In tcpdump's language: tcp port 80.")
    ] = None,
    count: Annotated[int | None, Query(description="End after so many packets.")] = None,
    snaplen: Annotated[int, Query(description="Bytes kept of each packet.")] = 262_144,
    duration: Annotated[
        str | None, Query(alias="for", description="End after this time, as in 10s.")
    ] = None,
) -> Response:
    """Packets as they pass, as a pcapng file that grows until the request ends."""
    with services.store.read() as transaction:
        transaction.applications.get(name)
    given = {"filter": filter_text, "count": count, "snaplen": snaplen, "duration": duration}
    parts = capturing.begin(services, name, given)
    return streams.send_bytes((part.data for part in parts), PCAPNG)


def _socket(line: Line) -> SocketEntry:
    named = {key: value for key, value in line.items() if key in _NAMED}
    rest = {
        key: value
        for key, value in line.items()
        if key not in _NAMED and not isinstance(value, str)
    }
    if "program" in named:
        named["program"] = str(named["program"])
    return SocketEntry.model_validate({**named, "details": rest})
