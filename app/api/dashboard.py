"""Serves the dashboard's built files under `/`: a page, its scripts, styles and fonts.

The page is an ordinary client of `/v1`; nothing here knows more than files. Paths that name no
file are places within the page (`/applications/web-a/logs`), for whoever asks for a page.
Installed last by `app/api/app.py`.
"""

from __future__ import annotations

import mimetypes
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}
_FOREVER = "public, max-age=31536000, immutable"
"""Names under `assets/` contain a hash of the content."""

mimetypes.add_type("font/woff2", ".woff2")
mimetypes.add_type("text/javascript", ".js")


class _Page(Convertor[str]):
    """Every path that is not the API's: what is wrong there stays a problem of the API."""

    regex = "(?!v1(?:/|$)).*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


def install(api: FastAPI, directory: Path) -> None:
    """Serve `directory`, or a page that says how to build it; looked at anew for each request."""
    register_url_convertor("page", _Page())

    async def page(request: Request) -> Response:
        name = request.path_params["name"]
        index = directory / "index.html"
        if not index.is_file():
            if name:
                raise HTTPException(404, "Not Found")
            return HTMLResponse(_unbuilt(), headers={**_HEADERS, "Cache-Control": "no-cache"})
        if path := _inside(directory, name):
            return _file(request, path, _FOREVER if name.startswith("assets/") else "no-cache")
        if name.startswith("assets/") or "text/html" not in request.headers.get("accept", ""):
            raise HTTPException(404, "Not Found")
        return _file(request, index, "no-cache")

    api.router.add_route("/{name:page}", page, methods=["GET"], include_in_schema=False)


def _inside(directory: Path, name: str) -> Path | None:
    """The file of this name, `index.html` for none; nothing outside the directory."""
    path = (directory / (name or "index.html")).resolve()
    return path if path.is_relative_to(directory.resolve()) and path.is_file() else None


def _file(request: Request, path: Path, cache: str) -> Response:
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers = {**_HEADERS, "Cache-Control": cache}
    packed = path.with_name(path.name + ".gz")  # made by the build
    if "gzip" in request.headers.get("accept-encoding", "") and packed.is_file():
        path, headers["Content-Encoding"] = packed, "gzip"
    return FileResponse(path, headers=headers, media_type=media_type)


def _unbuilt() -> str:
    return files("app.api").joinpath("unbuilt.html").read_text(encoding="utf-8")
