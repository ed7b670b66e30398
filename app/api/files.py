"""What applications see of files: directories, who serves a path, changes, contents, archives.

Directories, explanations and changes are seen with the scope `read`; contents need `operate`, as
they are what `exec` would show. Names of files are bytes: `path` may have any, percent-encoded.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Literal
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response

from app.api import streams
from app.api.problems import RESPONSES
from app.api.resources import Limit
from app.api.services import Given, Services
from app.domain import files
from app.domain.errors import InvalidSpecification
from app.domain.files import (
    Changes,
    Directory,
    Encoded,
    Explanation,
    FilesRequest,
    encode_path,
)
from app.domain.served import explanation

router = APIRouter(tags=["files"], responses=RESPONSES)

_BYTES = "application/octet-stream"
_TAR = {"tar": "application/x-tar", "tar.gz": "application/gzip"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_CONTENT = {200: {"content": {_BYTES: _BINARY}}}
_ARCHIVE = {200: {"content": dict.fromkeys(_TAR.values(), _BINARY)}}

Path = Annotated[
    str, Query(description="Absolute; bytes that are not UTF-8 as %XX.", examples=["/srv/www"])
]
Behind = Annotated[Encoded, Query(description="`next` of the part before.")]


@router.get("/v1/applications/{name}/files", operation_id="listFiles")
def list_files(
    services: Given,
    request: Request,
    name: str,
    path: Path = "/",
    limit: Limit = 1000,
    after: Behind = "",
) -> Directory:
    """A directory as the application sees it, running or not, each name with the mount and layer
    that serve it and what was changed."""
    asked = FilesRequest(what="list", path=_path(request), limit=limit, after=after)
    return files.directory(_answer(services, name, asked))


@router.get("/v1/applications/{name}/files/explain", operation_id="explainFile")
def explain(services: Given, request: Request, name: str, path: Path) -> Explanation:
    """Which mount and layer serve a path, where its content is, and why. Also of removed names."""
    return explanation(_answer(services, name, FilesRequest(what="explain", path=_path(request))))


@router.get("/v1/applications/{name}/files/changes", operation_id="listFileChanges")
def changes(
    services: Given,
    request: Request,
    name: str,
    path: Path = "/",
    limit: Limit = 1000,
    after: Behind = "",
) -> Changes:
    """What the application changed below a path of a `cow` or `memory` mount, or ("/") in all."""
    asked = FilesRequest(what="changes", path=_path(request), limit=limit, after=after)
    return files.changes(_answer(services, name, asked))


@router.get(
    "/v1/applications/{name}/files/content",
    operation_id="readFile",
    response_class=Response,
    responses={**_CONTENT},  # type: ignore[dict-item]
)
def content(
    services: Given,
    request: Request,
    name: str,
    path: Path,
    offset: Annotated[int, Query(ge=0, description="Leave out so many bytes.")] = 0,
    limit: Annotated[int | None, Query(ge=0, description="End after so many bytes.")] = None,
) -> Response:
    """A file's bytes; the connection breaks off where they cannot all be read."""
    asked = FilesRequest(
        what="content",
        path=_path(request),
        offset=offset,
        limit=-1 if limit is None else limit,
    )
    parts = _without_first_line(_answer(services, name, asked))
    return _download(parts, _BYTES, asked.path.rpartition("/")[2])


@router.get(
    "/v1/applications/{name}/files/archive",
    operation_id="archiveFiles",
    response_class=Response,
    responses={**_ARCHIVE},  # type: ignore[dict-item]
)
def archive(
    services: Given,
    request: Request,
    name: str,
    path: Path,
    changes: Annotated[
        bool,
        Query(description="Only what was changed; removed names as `.wh.NAME`, as in OCI layers."),
    ] = False,
    format: Annotated[Literal["tar", "tar.gz"], Query()] = "tar.gz",
) -> Response:
    """A tree as the application sees it, as an archive that can be a `lower` itself."""
    asked = FilesRequest(what="archive", path=_path(request), changes_only=changes)
    parts = _answer(services, name, asked)
    if format == "tar.gz":
        parts = _gzipped(parts)
    last = asked.path.rpartition("/")[2] or "root"
    return _download(parts, _TAR[format], f"{name}-{last}.{format}")


def _path(request: Request) -> Encoded:
    """From the URL itself: what frameworks make of it is text."""
    query = request.scope["query_string"].decode("latin-1")
    given = parse_qs(query, keep_blank_values=True, errors="surrogateescape").get("path", ["/"])
    if len(given) > 1:
        raise InvalidSpecification("more than one path", pointer="/path", remedy="give one")
    return encode_path(given[0])


def _answer(services: Services, name: str, asked: FilesRequest) -> Iterator[bytes]:
    with services.store.read() as transaction:
        transaction.applications.get(name)
    parts = services.agent.files(name, asked)
    return (part.data for part in parts)


def _without_first_line(parts: Iterator[bytes]) -> Iterator[bytes]:
    """That line says what kind of file it was."""
    head = b""
    for part in parts:
        head += part
        if b"\n" in head or len(head) > files.LINE_MAX:
            return chain([head.partition(b"\n")[2]], parts)
    return iter(())


def _gzipped(parts: Iterator[bytes]) -> Iterator[bytes]:
    squeeze = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for part in parts:
        yield squeeze.compress(part)
    yield squeeze.flush()


def _download(parts: Iterator[bytes], media_type: str, encoded_name: str) -> Response:
    """Never shown as a page: what is in it is the application's."""
    response = streams.send_whole(parts, media_type)
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{encoded_name}"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
