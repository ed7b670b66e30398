"""Sends a blocking iterator to a client as it goes: server-sent events or JSON lines.

A follower may block for hours in its `next`, so each has a thread of its own rather than one of
the handlers' pool; their number is bounded. Called by the logs and events handlers.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from itertools import chain
from typing import TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from app.domain.errors import Conflict, CseError

Item = TypeVar("Item")
_FOLLOWERS = threading.BoundedSemaphore(256)
_QUEUE = 1000
"""Lines a slow client may lag behind before the source is held up."""
_PARTS = 8
"""The same of a file's parts, each up to a megabyte."""

SSE = "text/event-stream"
JSON_LINES = "application/x-ndjson"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def wants_sse(request: Request) -> bool:
    """Whether the client is an `EventSource`, or asks like one."""
    return SSE in request.headers.get("accept", "")


def send(request: Request, items: Iterator[BaseModel], *, follow: bool) -> StreamingResponse:
    """The items, one by one; errors before the first of a finite list become problems."""
    sse = wants_sse(request)
    media_type = SSE if sse else JSON_LINES
    if follow:
        body = pumped(items, _QUEUE)
        return StreamingResponse(_text(body, sse), media_type=media_type, headers=HEADERS)
    first = list(_take_one(items))
    everything = chain(first, items)
    return StreamingResponse(
        (render(item, sse) for item in everything), media_type=media_type, headers=HEADERS
    )


def send_bytes(parts: Iterator[bytes], media_type: str) -> StreamingResponse:
    """Parts of a file as they come; empty ones only show that the source is alive."""
    return StreamingResponse(_not_empty(pumped(parts)), media_type=media_type, headers=HEADERS)


def send_whole(parts: Iterator[bytes], media_type: str) -> StreamingResponse:
    """The same of a file that has an end: where the source fails, the connection breaks off, so
    that nobody takes a part for the whole."""
    return StreamingResponse(_or_break(parts), media_type=media_type, headers=HEADERS)


def render(item: BaseModel, sse: bool, item_id: int | None = None) -> str:
    """One item in the stream's format."""
    text = item.model_dump_json(exclude_none=True)
    if not sse:
        return text + "\n"
    return (f"id: {item_id}\n" if item_id is not None else "") + f"data: {text}\n\n"


def _take_one(items: Iterator[BaseModel]) -> Iterator[BaseModel]:
    for item in items:
        yield item
        return


def pumped(items: Iterator[Item], lag: int = _PARTS) -> AsyncGenerator[Item, None]:
    """The items, by a thread of their own; close it to end that. Conflict at too many of them."""
    if not _FOLLOWERS.acquire(blocking=False):
        raise Conflict("too many followers", remedy="end some of them, or use one for all")
    return _in_thread(items, lag)


async def _text(items: AsyncIterator[BaseModel], sse: bool) -> AsyncIterator[str]:
    async for item in items:
        yield render(item, sse)


async def _not_empty(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for part in parts:
        if part:
            yield part


async def _or_break(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    failures: list[CseError] = []

    def noted() -> Iterator[bytes]:
        try:
            yield from parts
        except CseError as error:
            failures.append(error)

    async for part in _not_empty(pumped(noted())):
        yield part
    if failures:
        raise failures[0]


async def _in_thread(items: Iterator[Item], lag: int) -> AsyncGenerator[Item, None]:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Item | None] = asyncio.Queue()
    room = threading.Semaphore(lag)
    gone = threading.Event()

    def put(item: Item | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, item)

    def pump() -> None:
        try:
            for item in items:
                room.acquire()
                if gone.is_set():
                    break
                put(item)
        except (CseError, RuntimeError):
            pass  # the application was removed, or the loop has ended: so does the stream
        finally:
            _FOLLOWERS.release()
            if isinstance(items, Generator):
                items.close()
            if not gone.is_set():
                put(None)

    threading.Thread(target=pump, name="follow", daemon=True).start()
    try:
        while (item := await queue.get()) is not None:
            room.release()
            yield item
    finally:
        gone.set()
        room.release()
