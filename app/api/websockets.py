"""Two-way streams: commands with a terminal, and captures, over WebSocket.

Theory of operation. What the agent hands on is a blocking iterator; it is pumped by a thread of
its own (`streams.py`), while this handler's task waits for it and for the client at once. Whichever
ends first ends the other. Binary messages are the terminal's or the file's bytes, text messages
are JSON objects that say something about them. What goes wrong is told as `{"problem": …}` before
the close: a browser cannot see the body of a refused upgrade. docs/api.md describes it for clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, ValidationError

from app.api import capturing, streams
from app.api.problems import problem_of
from app.api.services import Services, confine
from app.domain.access import Principal
from app.domain.capture import Pcapng
from app.domain.errors import CseError, InvalidSpecification
from app.domain.model import Model
from app.domain.terminal import Cells, TerminalInput, TerminalPart, TerminalSize

router = APIRouter()

_NORMAL, _POLICY, _INTERNAL = 1000, 1008, 1011
Item = TypeVar("Item")


class Control(Model):
    """A text message of the client."""

    resize: TerminalSize | None = None
    stop: bool = Field(default=False, description="End now: the command, or the capture.")


@router.websocket("/v1/applications/{name}/exec")
async def execute(
    socket: WebSocket,
    name: str,
    command: Annotated[list[str] | None, Query()] = None,
    rows: Annotated[Cells, Query()] = 24,
    columns: Annotated[Cells, Query()] = 80,
) -> None:
    """A command with a terminal; the last message is `{"exit_code": N}`."""
    services: Services = socket.app.state.services
    principal: Principal | None = getattr(socket.state, "principal", None)
    size = TerminalSize(rows=rows, columns=columns)

    def begin() -> Iterator[TerminalPart]:
        _must_exist(services, name, principal)
        if not command:
            raise InvalidSpecification(
                "no command", pointer="/command", remedy="give ?command=sh, once for each word"
            )
        return services.agent.terminal(name, command, size)

    await _serve(socket, begin, lambda parts: _terminal(socket, services, parts))


@router.websocket("/v1/applications/{name}/capture")
async def capture(
    socket: WebSocket,
    name: str,
    filter_text: Annotated[str | None, Query(alias="filter")] = None,
    count: Annotated[int | None, Query()] = None,
    snaplen: Annotated[int, Query()] = 262_144,
    duration: Annotated[str | None, Query(alias="for")] = None,
) -> None:
    """Packets as they pass: binary messages, whole blocks of one pcapng file."""
    services: Services = socket.app.state.services
    principal: Principal | None = getattr(socket.state, "principal", None)
    given = {"filter": filter_text, "count": count, "snaplen": snaplen, "duration": duration}

    def begin() -> Iterator[Pcapng]:
        _must_exist(services, name, principal)
        return capturing.begin(services, name, given)

    await _serve(socket, begin, lambda parts: _capture(socket, parts))


async def _serve(
    socket: WebSocket,
    begin: Callable[[], Iterator[Item]],
    hand_on: Callable[[AsyncIterator[Item]], Awaitable[None]],
) -> None:
    """Open the source and hand its items on; tell what keeps one from it, and close."""
    await socket.accept(subprotocol=_agreed(socket))
    code = _NORMAL
    try:
        parts = await run_in_threadpool(begin)
        async with contextlib.aclosing(streams.pumped(parts)) as items:
            await hand_on(items)
    except CseError as error:
        code = _POLICY if problem_of(error).status < 500 else _INTERNAL
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            problem = problem_of(error).model_dump(mode="json", exclude_none=True)
            await socket.send_text(json.dumps({"problem": problem}))
    except WebSocketDisconnect:
        return
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await socket.close(code)


async def _capture(socket: WebSocket, parts: AsyncIterator[Pcapng]) -> None:
    listening = asyncio.create_task(_until_stop(socket))
    try:
        async for part in _until(parts, listening):
            if part.data:
                await socket.send_bytes(part.data)
    finally:
        listening.cancel()


async def _terminal(
    socket: WebSocket, services: Services, parts: AsyncIterator[TerminalPart]
) -> None:
    first = await anext(parts)
    listening = asyncio.create_task(_keyboard(socket, services, first.session))
    try:
        async for part in _until(parts, listening):
            if part.data:
                await socket.send_bytes(part.data)
            if part.exit_code is not None:
                await socket.send_text(json.dumps({"exit_code": part.exit_code}))
    finally:
        listening.cancel()


async def _keyboard(socket: WebSocket, services: Services, session: str) -> None:
    """Until the client stops or is gone. What is typed after the command's end is lost."""
    while True:
        message = await _receive(socket)
        if message is None:
            return
        with contextlib.suppress(CseError):
            if isinstance(message, bytes):
                typed = TerminalInput(data=message)
                await run_in_threadpool(services.agent.terminal_input, session, typed)
            elif message.stop:
                return
            elif message.resize is not None:
                await run_in_threadpool(services.agent.terminal_resize, session, message.resize)


async def _until_stop(socket: WebSocket) -> None:
    while (message := await _receive(socket)) is not None:
        if isinstance(message, Control) and message.stop:
            return


async def _receive(socket: WebSocket) -> bytes | Control | None:
    """None: the client is gone, or speaks nonsense."""
    message: dict[str, Any] = dict(await socket.receive())
    if message["type"] == "websocket.disconnect":
        return None
    if (data := message.get("bytes")) is not None:
        return bytes(data)
    try:
        return Control.model_validate_json(message.get("text") or "")
    except ValidationError:
        return None


async def _until(items: AsyncIterator[Item], stop: asyncio.Task[None]) -> AsyncIterator[Item]:
    """The items, until there are no more or the task has ended."""
    while True:
        following = asyncio.ensure_future(anext(items, None))
        await asyncio.wait({following, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not following.done():
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            return
        item = following.result()
        if item is None:
            return
        yield item


def _agreed(socket: WebSocket) -> str | None:
    """`cse.v1` where the client offers it; a token among its protocols is not sent back."""
    return "cse.v1" if "cse.v1" in socket.scope.get("subprotocols", []) else None


def _must_exist(services: Services, name: str, principal: Principal | None) -> None:
    if principal is not None and principal.project is not None:
        confine(services, principal.project, "GET", f"/v1/applications/{name}")
    with services.store.read() as transaction:
        transaction.applications.get(name)
