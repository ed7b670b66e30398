"""Carries requests of the generated methods (`operations.py`) to one server.

TCP, TLS or a Unix socket; tokens; answers into models. Fields of an answer that this version does
not know are passed over, so that a client may be older than its server.
"""

from __future__ import annotations

import json
import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter

from app.client.errors import Unreachable, error_of
from app.domain.errors import InvalidSpecification

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Query = Mapping[str, Any]

DEFAULT_URL = "http://127.0.0.1:8420"
_CONNECT_S = 5.0
_ANSWER_S = 90.0
_BEYOND_WAIT_S = 30.0


@dataclass(frozen=True)
class Answer:
    """What came beside a result."""

    status: int
    etag: str | None
    """The resource's version, for `if_match`."""
    operation: str | None
    """The id of the operation that goes on, where the answer is 202."""
    request_id: str | None
    replayed: bool
    """Whether this is the answer to an earlier request with the same `idempotency_key`."""


class Transport:
    """One server. Threads may share it."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        ca: str | None = None,
        timeout_s: float = _ANSWER_S,
    ) -> None:
        """`url`: `http://HOST:PORT`, `https://…` or `unix:PATH`; `ca`: a file of certificates
        (PEM) to trust."""
        self.url = url
        self._timeout_s = timeout_s
        self._path = url.removeprefix("unix:") if url.startswith("unix:") else None
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._trusted: ssl.SSLContext | bool = _trust(ca)
        self._own = threading.local()
        self._http = httpx.Client(
            base_url="http://cse" if self._path else url,
            transport=httpx.HTTPTransport(uds=self._path) if self._path else None,
            headers=self._headers,
            verify=self._trusted,
            trust_env=False,
        )

    @classmethod
    def from_environment(cls, url: str | None = None, *, timeout_s: float = _ANSWER_S) -> Self:
        """As the command line does it: `CSE_API`, `CSE_TOKEN` (or `@FILE`), `CSE_CA`."""
        place = url or os.environ.get("CSE_API") or DEFAULT_URL
        ca = os.environ.get("CSE_CA") or None
        return cls(place, token=_token(), ca=ca, timeout_s=timeout_s)

    @property
    def last(self) -> Answer:
        """What came beside this thread's last result: its ETag, its operation."""
        found: Answer | None = getattr(self._own, "answer", None)
        if found is None:
            raise LookupError("this thread has had no answer yet")
        return found

    def close(self) -> None:
        """End its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def socket(self, path: str, query: str = "") -> ClientConnection:
        """A WebSocket. Raises OSError, `websockets.exceptions.InvalidHandshake`."""
        from websockets.sync.client import connect, unix_connect

        rest = f"{path}?{query}" if query else path
        if self._path is not None:
            return unix_connect(self._path, f"ws://cse{rest}", additional_headers=self._headers)
        url = "ws" + self.url.rstrip("/").removeprefix("http") + rest
        trusted = self._trusted if isinstance(self._trusted, ssl.SSLContext) else None
        return connect(url, proxy=None, additional_headers=self._headers, ssl=trusted)

    def _call(
        self,
        method: str,
        path: str,
        returns: type[T],
        *,
        query: Query | None = None,
        headers: Query | None = None,
        body: BaseModel | Mapping[str, Any] | None = None,
    ) -> T:
        answer = self._send(method, path, query, headers, body)
        if returns is str:
            return answer.text  # type: ignore[return-value]
        return TypeAdapter(returns).validate_json(answer.content, extra="ignore")

    def _done(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        headers: Query | None = None,
    ) -> None:
        """A call whose answer has no body."""
        self._send(method, path, query, headers, None)

    def _lines(
        self, path: str, returns: type[M], *, query: Query, timeout_s: float | None = None
    ) -> Iterator[M]:
        """JSON lines as they come."""
        accept = {"Accept": "application/x-ndjson"}
        with self._streamed(path, query, accept, timeout_s) as answer:
            for line in answer.iter_lines():
                if line:
                    yield self._line(json.loads(line), returns, answer)

    def _bytes(self, path: str, *, query: Query) -> Iterator[bytes]:
        """A file as it comes."""
        with self._streamed(path, query, {}, None) as answer:
            yield from answer.iter_raw()

    def _line(self, value: Any, returns: type[M], answer: httpx.Response) -> M:
        if isinstance(value, dict) and str(value.get("type", "")).startswith("urn:cse:problem:"):
            raise error_of(int(value["status"]), value, str(answer.url), answer.headers)
        return returns.model_validate(value, extra="ignore")

    def _send(
        self,
        method: str,
        path: str,
        query: Query | None,
        headers: Query | None,
        body: BaseModel | Mapping[str, Any] | None,
    ) -> httpx.Response:
        wanted = _given(query)
        limit = max(self._timeout_s, float(wanted.get("wait", 0.0)) + _BEYOND_WAIT_S)
        if isinstance(body, BaseModel):
            body = body.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if isinstance(body, Mapping) and "timeout" in body:  # of a command
            limit = max(limit, float(body["timeout"]) + _BEYOND_WAIT_S)
        try:
            answer = self._http.request(
                method,
                path,
                params=wanted,
                headers=_given(headers),
                json=body,
                timeout=httpx.Timeout(limit, connect=_CONNECT_S),
            )
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        self._remember(answer)
        return answer

    @contextmanager
    def _streamed(
        self, path: str, query: Query, headers: dict[str, str], timeout_s: float | None
    ) -> Iterator[httpx.Response]:
        timeout = httpx.Timeout(timeout_s, connect=_CONNECT_S)
        call = {"params": _given(query), "headers": headers, "timeout": timeout}
        try:
            with self._http.stream("GET", path, **call) as answer:  # type: ignore[arg-type]
                if answer.is_error:
                    answer.read()
                self._remember(answer)
                yield answer
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _remember(self, answer: httpx.Response) -> None:
        """Raises what it stands for where it is an error."""
        headers = answer.headers
        operation = headers.get("Operation-Location")
        self._own.answer = Answer(
            status=answer.status_code,
            etag=headers.get("ETag"),
            operation=operation.rpartition("/")[2] if operation else None,
            request_id=headers.get("X-Request-ID"),
            replayed=headers.get("Idempotency-Replayed") == "true",
        )
        if answer.is_error:
            raise error_of(answer.status_code, _json(answer), str(answer.url), headers)

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        if isinstance(error, httpx.ReadTimeout):
            return Unreachable(f"the server at {self.url} does not answer in time")
        return Unreachable(
            f"no server answers at {self.url}",
            remedy="start one with 'cse serve', or name another with --api or CSE_API",
        )


def quoted(part: str) -> str:
    """One segment of a path."""
    return quote(part, safe="")


def _given(values: Query | None) -> dict[str, Any]:
    """Without what the caller left to the server."""
    return {key: value for key, value in (values or {}).items() if value is not None}


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _trust(ca: str | None) -> ssl.SSLContext | bool:
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise InvalidSpecification(
            f"the certificate authority's file {ca}: {error.strerror or error}",
            remedy="name a file of certificates (PEM) in CSE_CA",
        ) from error


def _token() -> str | None:
    """From `CSE_TOKEN`: the token, or `@FILE`, which keeps it out of the environment of others."""
    given = os.environ.get("CSE_TOKEN", "")
    if given.startswith("@"):
        try:
            return Path(given[1:]).expanduser().read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InvalidSpecification(
                f"CSE_TOKEN names {given[1:]}: {error.strerror}", remedy="correct the path"
            ) from error
    return given or None
