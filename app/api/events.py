"""What happened: a list, or a stream with ids that last (`Last-Event-ID`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from app.api import streams
from app.api.problems import RESPONSES, problem_of
from app.api.services import Given, Services
from app.domain.errors import Gone
from app.domain.resources import Event, Page
from app.store.store import Transaction

router = APIRouter(prefix="/v1/events", tags=["events"], responses=RESPONSES)

_HEARTBEAT_S = 15.0
"""A comment so often: a client that is gone is noticed, and proxies keep the connection."""
_RETRY_MS = 1000
_BATCH = 100
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A list, or a stream that goes on.",
        "content": {
            streams.SSE: {"schema": {"type": "string"}},
            streams.JSON_LINES: {"schema": {"$ref": "#/components/schemas/Event"}},
        },
    },
}


@router.get("", operation_id="listEvents", response_model=Page[Event], responses=_CONTENT)
async def events(
    services: Given,
    request: Request,
    after: Annotated[int | None, Query(ge=0, description="Only later ones.")] = None,
    application: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    follow: Annotated[bool, Query(description="Wait for more: a stream.")] = False,
    last_event_id: Annotated[int | None, Header(ge=0)] = None,
) -> Page[Event] | Response:
    """The latest events; a stream with `follow` or `Accept: text/event-stream`.

    With `after` or `Last-Event-ID`, what came later: none is left out, and where some of it is kept
    no longer the answer is 410. A stream that falls behind so far ends with an event `resync`.
    """
    seen = last_event_id if last_event_id is not None else after
    if follow or streams.wants_sse(request):
        sse = streams.wants_sse(request)
        media_type = streams.SSE if sse else streams.JSON_LINES
        start = await run_in_threadpool(_start, services, seen)
        body = _follow(services, start, application, sse)
        return StreamingResponse(body, media_type=media_type, headers=streams.HEADERS)
    found = await run_in_threadpool(_read, services, seen, application, limit)
    return Page(items=found, next=str(found[-1].id) if len(found) == limit else None)


def _start(services: Services, seen: int | None) -> int:
    """The id to follow from."""
    with services.store.read() as transaction:
        if seen is not None:
            transaction.events.require(seen)
            return seen
        latest = transaction.events.latest(limit=1)
    return latest[-1].id if latest else 0


def _read(services: Services, seen: int | None, application: str | None, limit: int) -> list[Event]:
    with services.store.read() as transaction:
        if seen is None:
            found = transaction.events.latest(application=application, limit=limit)
        else:
            transaction.events.require(seen)
            found = transaction.events.after(seen, application=application, limit=limit)
        return _visible(services, transaction, found)


def _visible(services: Services, transaction: Transaction, found: list[Event]) -> list[Event]:
    if services.project is None:
        return found
    ours = set(transaction.applications.names(services.project))
    return [event for event in found if event.application in ours]


def _read_on(services: Services, seen: int, application: str | None) -> tuple[list[Event], int]:
    """What follows, and up to where that is all: other applications' events count as seen, else
    the follower of a quiet one would fall behind."""
    with services.store.read() as transaction:
        transaction.events.require(seen)
        found = transaction.events.after(seen, application=application, limit=_BATCH)
        last = transaction.events.latest(limit=1)
        newest = last[-1].id if last else seen
        if len(found) == _BATCH:
            newest = found[-1].id
        return _visible(services, transaction, found), newest


async def _follow(
    services: Services, seen: int, application: str | None, sse: bool
) -> AsyncIterator[str]:
    loop, fresh = asyncio.get_running_loop(), asyncio.Event()
    unsubscribe = services.store.subscribe(partial(loop.call_soon_threadsafe, fresh.set))
    try:
        if sse:
            yield f"retry: {_RETRY_MS}\n\n"
        while True:
            fresh.clear()
            before = seen
            found, last = await run_in_threadpool(_read_on, services, seen, application)
            if found:
                yield "".join(streams.render(event, sse, event.id) for event in found)
            seen = last
            if seen != before:
                continue
            try:
                await asyncio.wait_for(fresh.wait(), _HEARTBEAT_S)
            except TimeoutError:
                yield ": alive\n\n" if sse else "\n"
    except Gone as error:
        text = problem_of(error).model_dump_json(exclude_none=True)
        yield f"event: resync\ndata: {text}\n\n" if sse else text + "\n"
    finally:
        unsubscribe()
