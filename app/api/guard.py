"""What every request passes first: strangers' pages, names, sizes, rates, tokens; and the audit.

Theory of operation. A page in the user's browser can send requests to loopback addresses, so one
whose `Host` is not a name of this server (DNS rebinding), or that comes from another site
(`Origin`, `Sec-Fetch-Site`), is refused, WebSockets included. Then the token says who it is and
the path what is needed. What changed something, or was refused for want of rights, is in the audit
log. Wraps the whole API (`app/api/app.py`). The threat model is in ARCHITECTURE.md.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from app.api.access import Authenticator, needed
from app.api.problems import answer, problem_of
from app.api.rates import Rates
from app.domain.access import Principal
from app.domain.access import Scope as Needed
from app.domain.errors import CseError, Forbidden, TooLarge, TooManyRequests, Unauthenticated
from app.domain.resources import Problem
from app.logs import request_id
from app.store.store import Store

log = logging.getLogger(__name__)
audit_log = logging.getLogger("cse.audit")

MAX_BODY = 4 * 2**20
_SAFE = ("GET", "HEAD", "OPTIONS")
_NOBODY = "nobody"
_FAILURES_PER_S = 5.0
"""Guesses at tokens from one client."""


@dataclass(frozen=True)
class Rules:
    """What the settings say about requests."""

    loopback_only: bool = True
    hosts: tuple[str, ...] = ()
    """Names of this server beside the loopback ones; empty, and not loopback only: any."""
    rate: float = 0.0
    """Requests per second from one client, on the average; 0: no bound."""
    audit_history: int = 10_000


class Guard:
    """ASGI middleware."""

    def __init__(
        self, app: ASGIApp, *, rules: Rules, authenticator: Authenticator, store: Store
    ) -> None:
        self._app = app
        self._rules = rules
        self._authenticator = authenticator
        self._store = store
        self._rates = Rates(rules.rate)
        self._failures = Rates(_FAILURES_PER_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with the body counted."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        began, identity = time.monotonic(), _id_of(headers)
        request_id.set(identity)
        principal: Principal | None = None
        is_socket = scope["type"] == "websocket"
        reply = _Reply(send, identity)
        try:
            self._check_origin(scope, headers)
            client = str((scope.get("client") or ("unix",))[0])
            self._rates.take(client)
            if self._authenticator.must_read(headers):
                await run_in_threadpool(self._authenticator.read)
            need = _need(scope)
            principal = self._principal(scope, headers, client, need)
            _permit(principal, need)
            scope.setdefault("state", {})["principal"] = principal
        except CseError as error:
            refusal = problem_of(error)
            await (_denial(refusal, error) if is_socket else _refusal(refusal, error))(
                scope, receive, reply
            )
        else:
            await self._app(scope, receive if is_socket else _Counted(receive), reply)
        self._note(scope, principal, reply.status, identity)
        if log.isEnabledFor(logging.INFO):
            _tell(scope, principal, reply.status, time.monotonic() - began)

    def _check_origin(self, scope: Scope, headers: Mapping[str, str]) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        name = urlsplit(f"//{host}").hostname or ""
        known = _is_loopback(name) or name in self._rules.hosts
        if not known and (self._rules.loopback_only or self._rules.hosts):
            raise Forbidden(
                f"'{host}' is not this server's name",
                remedy="use 127.0.0.1 or localhost, or name it in CSE_HOSTS",
            )
        if origin is not None and urlsplit(origin).netloc != host:
            raise Forbidden(f"requests from pages of {origin} are refused")
        site = headers.get("sec-fetch-site", "none")
        # A link from elsewhere may lead here; nothing is changed by following it.
        follows = headers.get("sec-fetch-mode") == "navigate" and scope.get("method") == "GET"
        if site not in ("same-origin", "none") and not follows:
            raise Forbidden("requests from pages of other sites are refused")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            raise TooLarge(
                f"the body has more than {MAX_BODY} bytes",
                remedy="put large inputs into files or volumes",
            )

    def _principal(
        self, scope: Scope, headers: Mapping[str, str], client: str, need: Needed | None
    ) -> Principal | None:
        try:
            return self._authenticator.identify(headers, scope.get("state", {}).get("peer"))
        except Unauthenticated:
            if need is None:  # whoever logs in anew may still have an old cookie
                return None
            self._failures.take(client)
            raise

    def _note(self, scope: Scope, principal: Principal | None, status: int, identity: str) -> None:
        method = str(scope.get("method", "WEBSOCKET"))
        if method in _SAFE and status not in (401, 403):
            return
        who = principal.name if principal else _NOBODY
        path, keep = str(scope["path"])[:1000], self._rules.audit_history
        audit_log.info("%s %s %s %d", who, method, path, status)
        self._store.later(
            lambda transaction: transaction.audit.add(who, method, path, status, identity, keep)
        )


def _tell(scope: Scope, principal: Principal | None, status: int, seconds: float) -> None:
    method, path = str(scope.get("method", "WEBSOCKET")), str(scope["path"])
    fields = {
        "method": method,
        "path": path,
        "status": status,
        "duration_ms": round(seconds * 1000, 1),
        "principal": principal.name if principal else _NOBODY,
    }
    log.info("%s %s %d", method, path, status, extra=fields)


def _need(scope: Scope) -> Needed | None:
    method, is_socket = str(scope.get("method", "GET")), scope["type"] == "websocket"
    return needed(method, scope["path"], is_socket=is_socket)


def _permit(principal: Principal | None, need: Needed | None) -> None:
    if need is None:
        return
    if principal is None:
        raise Unauthenticated(
            "this server asks for a token",
            remedy="send 'Authorization: Bearer TOKEN'; the CLI takes it from CSE_TOKEN",
        )
    if not principal.scope.includes(need):
        raise Forbidden(
            f"{principal.name} has the scope '{principal.scope}', this needs '{need}'",
            remedy="use a token of that scope",
        )


class _Reply:
    """Passes messages on, with the request's id in the headers; remembers the status."""

    def __init__(self, send: Send, identity: str) -> None:
        self._send = send
        self._identity = identity.encode("latin-1")
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.status = int(message["status"])
            headers = [*message.get("headers", ()), (b"x-request-id", self._identity)]
            message = {**message, "headers": headers}
        elif message["type"] == "websocket.accept":
            self.status = 101
        await self._send(message)


class _Counted:
    """Ends a body without a length (chunked) that goes on for too long."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._seen = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if self._seen > MAX_BODY else message


def _refusal(problem: Problem, error: CseError) -> ASGIApp:
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="cse"'
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = "1"
    return answer(problem, headers)


def _denial(problem: Problem, error: CseError) -> ASGIApp:
    """The problem as the answer to an upgrade to WebSocket; where the server has no way to give
    one, it closes before it has accepted, which is a plain 403."""

    async def deny(scope: Scope, receive: Receive, send: Send) -> None:
        if "websocket.http.response" in scope.get("extensions", {}):
            response: Any = _refusal(problem, error)
            await WebSocket(scope, receive, send).send_denial_response(response)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    return deny


def _id_of(headers: Mapping[str, str]) -> str:
    """The client's own `X-Request-ID` where it can be one."""
    given = headers.get("x-request-id", "")
    if given and len(given) <= 64 and given.isascii() and given.isprintable():
        return given
    return secrets.token_hex(8)


def _is_loopback(name: str) -> bool:
    if name in ("localhost", "cse"):  # "cse": what clients send over a Unix socket
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
