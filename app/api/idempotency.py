"""`Idempotency-Key`: a request that is sent again, because its answer was lost, is not done again.

Theory of operation. Before a `POST` or `PATCH` with a key is carried out, the key is written to
the store with a hash of the request; afterwards, with the answer, for a day. The same key and
request gets the same answer (`Idempotency-Replayed: true`), another request is refused (422), one
that comes while the first is under way too (409). A key without an answer that nobody is working
on was left by a killed server: the request is carried out, and a creation finds by `retried` that
what it would make may be its own. Answers of 5xx are not kept. ASGI middleware within the guard:
each client has keys of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import answer, problem_of
from app.domain.errors import Conflict, CseError, InvalidSpecification
from app.store.clock import WallClock
from app.store.operations import Answer
from app.store.store import Store

retried: ContextVar[bool] = ContextVar("retried", default=False)
"""Whether this very request may have been carried out before, by a server that was killed."""

_METHODS = ("POST", "PATCH")
_HEADER = b"idempotency-key"
_LONGEST = 255
_MOST_KEPT = 2**20


class Idempotency:
    """ASGI middleware."""

    def __init__(
        self, app: ASGIApp, *, store: Store, clock: WallClock, routes: list[BaseRoute]
    ) -> None:
        self._app = app
        self._store = store
        self._clock = clock
        self._routes = routes
        self._under_way: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Requests with a key are looked at; all others pass."""
        given = dict(scope["headers"]).get(_HEADER) if scope["type"] == "http" else None
        if given is None or scope["method"] not in _METHODS or not self._is_for_us(scope):
            await self._app(scope, receive, send)
            return
        try:
            key = _key(scope, given)
            body = await _whole(receive)
            if body is None:
                return
            request = _request(scope, body)
            if key in self._under_way:
                raise Conflict(
                    "a request with this Idempotency-Key is under way",
                    remedy="wait for its answer, then ask again with the same key",
                )
        except CseError as error:
            await answer(problem_of(error))(scope, receive, send)
            return
        self._under_way.add(key)
        try:
            await self._carry_out(key, request, body, (scope, receive, send))
        finally:
            self._under_way.discard(key)

    def _is_for_us(self, scope: Scope) -> bool:
        """Whether there is such a request at all: else the routes say what there is."""
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes)

    async def _carry_out(
        self, key: str, request: str, body: bytes, call: tuple[Scope, Receive, Send]
    ) -> None:
        scope, receive, send = call
        known = await run_in_threadpool(self._begin, key, request)
        if known is not None and known.request != request:
            error = InvalidSpecification(
                "this Idempotency-Key was used for another request",
                remedy="take a new key for each request, the same only to repeat one",
            )
            await answer(problem_of(error))(scope, receive, send)
            return
        if known is not None and known.status is not None:
            headers = dict(known.headers) | {"Idempotency-Replayed": "true"}
            await Response(known.body, known.status, headers)(scope, receive, send)
            return
        retried.set(known is not None)

        async def keep(found: Answer | None) -> None:
            await run_in_threadpool(self._end, key, found)
            self._under_way.discard(key)

        kept = _Kept(send, request, keep)
        try:
            await self._app(scope, _once(body, receive), kept)
        finally:
            if not kept.is_complete:
                await keep(None)

    def _begin(self, key: str, request: str) -> Answer | None:
        with self._store.write() as transaction:
            known = transaction.answers.find(key)
            if known is None:
                transaction.answers.begin(key, request, self._clock)
        return known

    def _end(self, key: str, answered: Answer | None) -> None:
        with self._store.write() as transaction:
            if answered is None:
                transaction.answers.forget(key)
            else:
                transaction.answers.save(key, answered)


class _Kept:
    """Passes the answer on and keeps it: before its end, so that a client who has all of it and
    asks again at once finds it."""

    def __init__(
        self, send: Send, request: str, keep: Callable[[Answer | None], Awaitable[None]]
    ) -> None:
        self._send = send
        self._request = request
        self._keep = keep
        self._status: int | None = None
        self._headers: list[tuple[str, str]] = []
        self._body = bytearray()
        self.is_complete = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = int(message["status"])
            self._headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message.get("headers", ())
                if name.lower() != b"content-length"
            ]
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                self.is_complete = True
                await self._keep(self._answer())
        await self._send(message)

    def _answer(self) -> Answer | None:
        """None where it is not to be kept: a failure of ours, or more than fits."""
        status = self._status
        if status is None or status >= 500 or len(self._body) > _MOST_KEPT:
            return None
        return Answer(self._request, status, self._headers, bytes(self._body))


def _key(scope: Scope, given: bytes) -> str:
    if not 0 < len(given) <= _LONGEST or not given.isascii():
        raise InvalidSpecification(
            "the Idempotency-Key is no word of 1 to 255 ASCII characters",
            pointer="/Idempotency-Key",
            remedy="send for example a UUID",
        )
    principal = scope.get("state", {}).get("principal")
    who = getattr(principal, "name", "")
    return hashlib.sha256(who.encode() + b"\0" + given).hexdigest()


def _request(scope: Scope, body: bytes) -> str:
    head = f"{scope['method']} {scope['path']}?{scope['query_string'].decode('latin-1')}\0"
    return hashlib.sha256(head.encode() + body).hexdigest()


async def _whole(receive: Receive) -> bytes | None:
    """The body; None where the client has gone. The guard bounds its size."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _once(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
