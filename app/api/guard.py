"""Keeps web pages and oversized bodies away from an API that does not authenticate.

A page in the user's browser can send requests to loopback addresses: one with a foreign `Origin`
is refused, and one whose `Host` is not a loopback name (DNS rebinding) too. Wraps the whole API.
"""

from __future__ import annotations

from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from app.api.problems import Problem, answer

_MAX_BODY = 4 * 2**20


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, loopback_only: bool) -> None:
        self._app = app
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with the body counted."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        is_socket = scope["type"] == "websocket"
        if refusal := self._refusal(headers):
            await (_denial(refusal) if is_socket else answer(refusal))(scope, receive, send)
            return
        await self._app(scope, receive if is_socket else _Counted(receive), send)

    def _refusal(self, headers: dict[str, str]) -> Problem | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._loopback_only and not _is_loopback(host):
            return _problem(
                HTTPStatus.FORBIDDEN,
                f"'{host}' is not this server's name",
                "use 127.0.0.1 or localhost, or set CSE_ALLOW_REMOTE=true",
            )
        if origin is not None and urlsplit(origin).netloc != host:
            return _problem(
                HTTPStatus.FORBIDDEN, f"requests from pages of {origin} are refused", None
            )
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > _MAX_BODY:
            return _problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has more than {_MAX_BODY} bytes",
                "put large inputs into files or volumes",
            )
        return None


class _Counted:
    """Ends a body without a length (chunked) that goes on for too long."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._seen = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if self._seen > _MAX_BODY else message


def _denial(refusal: Problem) -> ASGIApp:
    """The problem as the answer to an upgrade to WebSocket; where the server has no way to give
    one, it closes before it has accepted, which is a plain 403."""

    async def deny(scope: Scope, receive: Receive, send: Send) -> None:
        if "websocket.http.response" in scope.get("extensions", {}):
            await WebSocket(scope, receive, send).send_denial_response(answer(refusal))
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    return deny


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if name in ("localhost", "cse"):  # "cse": what clients send over a Unix socket
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _problem(status: HTTPStatus, detail: str, remedy: str | None) -> Problem:
    return Problem(
        type=f"urn:cse:problem:{status.phrase.lower().replace(' ', '-')}",
        title=status.phrase,
        status=status,
        detail=detail,
        remedy=remedy,
    )
