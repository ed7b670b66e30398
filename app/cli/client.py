"""The server that a command talks to. Every command but `run`, `serve` and `agent` uses it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from app.client import Client
from app.settings import load

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


def connect(api: str | None = None, *, timeout_s: float = 90.0) -> Client:
    """The server that is named, or the one that `cse serve` starts here."""
    url = api or os.environ.get("CSE_API") or _default()
    return Client.from_environment(url, timeout_s=timeout_s)


def _default() -> str:
    settings = load()
    if settings.unix_listen:
        return settings.listen
    host, port = settings.listen_address
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
