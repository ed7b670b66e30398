"""Talks to the server. Every command but `run`, `serve` and `agent` goes through it."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer

from app.cli.failures import Refused
from app.domain.errors import AgentUnavailable, InvalidSpecification
from app.domain.explain import FieldError
from app.settings import load

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

Api = Annotated[
    str | None,
    typer.Option(
        "--api",
        envvar="CSE_API",
        help="The server: http://HOST:PORT or unix:PATH.",
        show_default="where 'cse serve' listens",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]

_CONNECT_S = 5.0
_ANSWER_S = 90.0


class Client:
    """One server."""

    def __init__(self, api: str | None = None) -> None:
        self.url = api or os.environ.get("CSE_API") or _default()
        path = self.url.removeprefix("unix:") if self.url.startswith("unix:") else None
        self._headers = {"Authorization": f"Bearer {token}"} if (token := _token()) else {}
        ca = os.environ.get("CSE_CA")
        self._trusted = ssl.create_default_context(cafile=ca) if ca else True
        self._http = httpx.Client(
            base_url="http://cse" if path else self.url,
            transport=httpx.HTTPTransport(uds=path) if path else None,
            headers=self._headers,
            verify=self._trusted,
            timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
            trust_env=False,
        )

    def get(self, path: str, **query: Any) -> Any:
        """The answer's JSON."""
        return self.call("GET", path, query=query)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = _ANSWER_S,
    ) -> Any:
        """The answer's JSON; None where it has no body. Raises `Refused`, `AgentUnavailable`."""
        wanted = {key: value for key, value in (query or {}).items() if value is not None}
        timeout = httpx.Timeout(timeout_s, connect=_CONNECT_S)
        try:
            answer = self._http.request(
                method, path, params=wanted, json=body, headers=headers, timeout=timeout
            )
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise _refusal(answer)
        return answer.json() if answer.content else None

    def lines(self, path: str, **query: Any) -> Iterator[Any]:
        """JSON lines as they come."""
        wanted = {key: value for key, value in query.items() if value is not None}
        timeout = httpx.Timeout(None, connect=_CONNECT_S)
        try:
            with self._http.stream("GET", path, params=wanted, timeout=timeout) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refusal(answer)
                for line in answer.iter_lines():
                    if line:
                        yield json.loads(line)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def parts(self, path: str, **query: Any) -> Iterator[bytes]:
        """A file as it comes."""
        wanted = {key: value for key, value in query.items() if value is not None}
        timeout = httpx.Timeout(None, connect=_CONNECT_S)
        try:
            with self._http.stream("GET", path, params=wanted, timeout=timeout) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refusal(answer)
                yield from answer.iter_raw()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def socket(self, path: str) -> ClientConnection:
        """A WebSocket. Raises OSError, `websockets.exceptions.InvalidHandshake`."""
        from websockets.sync.client import connect, unix_connect

        if self.url.startswith("unix:"):
            place = self.url.removeprefix("unix:")
            return unix_connect(place, f"ws://cse{path}", additional_headers=self._headers)
        url = "ws" + self.url.rstrip("/").removeprefix("http") + path
        trusted = self._trusted if isinstance(self._trusted, ssl.SSLContext) else None
        return connect(url, proxy=None, additional_headers=self._headers, ssl=trusted)

    def _unreachable(self, error: httpx.TransportError) -> AgentUnavailable:
        if isinstance(error, httpx.ReadTimeout):
            return AgentUnavailable(f"the server at {self.url} does not answer in time")
        return AgentUnavailable(
            f"no server answers at {self.url}",
            remedy="start one with 'cse serve', or name another with --api or CSE_API",
        )


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


def _default() -> str:
    settings = load()
    if settings.unix_listen:
        return settings.listen
    host, port = settings.listen_address
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def refused(problem: dict[str, Any]) -> Refused:
    """From `application/problem+json`. Raises KeyError, TypeError where it is not."""
    slug = str(problem["type"]).rpartition(":")[2]
    fields = [FieldError.model_validate(field) for field in problem.get("errors", [])]
    return Refused(slug, problem["detail"], problem.get("remedy"), fields)


def _refusal(answer: httpx.Response) -> Refused:
    try:
        return refused(answer.json())
    except (ValueError, KeyError, TypeError):
        remedy = "is this a CSE server?"
        return Refused("unknown", f"{answer.status_code} from {answer.url}", remedy, [])
