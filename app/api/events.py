"""What happened: a list, or a stream with ids that last (`Last-Event-ID`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from app.api import streams
from app.api.problems import RESPONSES
from app.api.resources import Page
from app.api.services import Given, Services
from app.store.records import Event

router = APIRouter(prefix="/v1/events", tags=["events"], responses=RESPONSES)

_HEARTBEAT_S = 15.0
"""A comment so often: a client that is gone is noticed, and proxies keep the connection."""


@router.get("", operation_id="listEvents", response_model=Page[Event])
async def events(
    services: Given,
    request: Request,
    after: Annotated[int | None, Query(ge=0, description="Only later ones.")] = None,
    application: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    follow: bool = False,
    last_event_id: Annotated[int | None, Header()] = None,
) -> Page[Event] | Response:
    """The latest events; as a stream with `follow` or `Accept: text/event-stream`."""
    seen = last_event_id if last_event_id is not None else after
    if follow or streams.wants_sse(request):
        sse = streams.wants_sse(request)
        media_type = streams.SSE if sse else streams.JSON_LINES
        body = _follow(services, seen, application, sse)
        return StreamingResponse(body, media_type=media_type)
    found = await run_in_threadpool(_read, services, seen, application, limit)
    return Page(items=found, next=str(found[-1].id) if len(found) == limit else None)


def _read(services: Services, seen: int | None, application: str | None, limit: int) -> list[Event]:
    with services.store.read() as transaction:
        if seen is None:
            return transaction.events.latest(application=application, limit=limit)
        return transaction.events.after(seen, application=application, limit=limit)


async def _follow(
    services: Services, seen: int | None, application: str | None, sse: bool
) -> AsyncIterator[str]:
    loop, fresh = asyncio.get_running_loop(), asyncio.Event()
    unsubscribe = services.store.subscribe(partial(loop.call_soon_threadsafe, fresh.set))
    try:
        if seen is None:
            latest = await run_in_threadpool(_read, services, None, None, 1)
            seen = latest[-1].id if latest else 0
        while True:
            fresh.clear()
            while found := await run_in_threadpool(_read, services, seen, application, 100):
                for event in found:
                    yield streams.render(event, sse, event.id)
                seen = found[-1].id
            try:
                await asyncio.wait_for(fresh.wait(), _HEARTBEAT_S)
            except TimeoutError:
                yield ": alive\n\n" if sse else "\n"
    finally:
        unsubscribe()
