"""Who makes a request, and what it needs: tokens, cookies, peers of a Unix socket.

Called by `guard.py` for every request, before anything else of it is looked at.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from http.cookies import CookieError, SimpleCookie

from app.domain.access import LOCAL, Principal, Scope, Token
from app.domain.errors import Unauthenticated
from app.store.access import digest
from app.store.store import Store

COOKIE = "cse_token"
SUBPROTOCOL = "cse.token."
"""Before the token, among the subprotocols that a browser's WebSocket offers: it can send neither
headers of its own nor, from another port, cookies."""
_CACHE_S = 1.0
"""So long a revoked token may be taken by another server of the same store; never by its own."""
_USED_S = 60.0
_ADMIN = ("/v1/tokens", "/v1/projects", "/v1/audit", "/v1/gc")
_PUBLIC = ("/v1/health", "/v1/session", "/v1/openapi.json", "/v1/docs", "/v1/docs-assets")
_SAFE = ("GET", "HEAD", "OPTIONS")

Peer = tuple[int, int, int]
"""Process, user, group at the other end of a Unix socket (SO_PEERCRED)."""


class Authenticator:
    """`required`: a request without a token is nobody's; else it is whoever is on this host."""

    def __init__(self, store: Store, *, required: bool) -> None:
        self._store = store
        self.required = required
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}
        self._read_at = float("-inf")
        self._used: dict[str, float] = {}

    def forget(self) -> None:
        """Tokens have changed: read them again."""
        with self._lock:
            self._read_at = float("-inf")

    def must_read(self, headers: Mapping[str, str]) -> bool:
        """Whether this request has a token, and those known here are old."""
        old = time.monotonic() - self._read_at > _CACHE_S
        return old and presented(headers) is not None

    def read(self) -> None:
        """From the store."""
        moment = time.monotonic()
        with self._store.read() as transaction:
            tokens = transaction.tokens.hashed()
        with self._lock:
            self._tokens, self._read_at = tokens, moment

    def identify(self, headers: Mapping[str, str], peer: Peer | None) -> Principal | None:
        """None: nobody. Raises `Unauthenticated` for a token that is not, or no longer, valid."""
        if (given := presented(headers)) is not None:
            return self._of_token(given)
        if peer is not None and peer[1] in (0, os.geteuid()):
            return Principal(f"uid {peer[1]}", Scope.ADMIN)
        return None if self.required else LOCAL

    def _of_token(self, given: str) -> Principal:
        token = self._known().get(digest(given))
        now = datetime.now(UTC)
        if token is None or (token.expires is not None and token.expires <= now):
            raise Unauthenticated(
                "this token is not known here, was revoked or has expired",
                remedy="have a new one made: cse token create NAME",
            )
        moment = time.monotonic()
        if moment - self._used.get(token.id, float("-inf")) > _USED_S:
            self._used[token.id] = moment
            self._store.later(lambda transaction: transaction.tokens.used(token.id))
        return Principal(f"token {token.name}", token.scope, token.project, token.id)

    def _known(self) -> dict[str, Token]:
        with self._lock:
            never = self._read_at == float("-inf")
        if never:
            self.read()
        return self._tokens


def presented(headers: Mapping[str, str]) -> str | None:
    """The token of a request: `Authorization: Bearer`, a WebSocket's subprotocol, or the cookie."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    for word in headers.get("sec-websocket-protocol", "").split(","):
        if word.strip().startswith(SUBPROTOCOL):
            return word.strip().removeprefix(SUBPROTOCOL)
    if cookie := headers.get("cookie"):
        jar = SimpleCookie()
        try:
            jar.load(cookie)
        except CookieError:
            return None
        return jar[COOKIE].value if COOKIE in jar else None
    return None


_SECRETS = ("/capture", "/files/content", "/files/archive")
"""Packets show what others only send, files what commands would show."""


def needed(method: str, path: str, *, is_socket: bool) -> Scope | None:
    """The scope that a request needs; None: nothing secret is there (health, files of pages)."""
    within = partial(_within, path)
    if within(_PUBLIC) or not within(("/v1", "/metrics")):
        return None
    if within(_ADMIN) and not (method in _SAFE and within(("/v1/projects",))):
        return Scope.ADMIN
    if is_socket or path.endswith(_SECRETS):
        return Scope.OPERATE
    if path.endswith("/plan") or method in _SAFE:
        return Scope.READ
    return Scope.OPERATE


def _within(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(place + "/") for place in places)
