"""Every error as `application/problem+json` (RFC 9457), with a stable `type` and field pointers.

The one table from errors to HTTP. Installed by `app/api/app.py`.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.domain import errors
from app.domain.application import ApplicationSpec
from app.domain.explain import FieldError, InvalidFields, explain
from app.domain.fault import FaultSpec
from app.domain.network import NetworkSpec
from app.domain.resources import Problem, SessionRequest
from app.domain.secret import SecretSpec
from app.domain.stack import Stack
from app.domain.volume import VolumeSpec
from app.logs import NONE, request_id

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class PreconditionFailed(errors.CseError):
    """The resource has changed since it was read."""

    slug = "precondition-failed"


class PreconditionRequired(errors.CseError):
    """A change of what is there has to say which version of it is meant."""

    slug = "precondition-required"


STATUS: dict[type[errors.CseError], HTTPStatus] = {
    errors.InvalidSpecification: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.PreflightRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Gone: HTTPStatus.GONE,
    PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    PreconditionRequired: HTTPStatus.PRECONDITION_REQUIRED,
    errors.HostLacks: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.AgentUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.TimedOut: HTTPStatus.GATEWAY_TIMEOUT,
    errors.RuntimeFailure: HTTPStatus.INTERNAL_SERVER_ERROR,
}


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "The request cannot be carried out."},
    "5XX": {"model": Problem, "description": "The host or the agent could not do it."},
}
"""For the OpenAPI description of every route."""


def problem_of(error: errors.CseError) -> Problem:
    """The problem that stands for an error of ours."""
    status = next(
        (STATUS[kind] for kind in type(error).__mro__ if kind in STATUS),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    if isinstance(error, InvalidFields):
        fields = error.errors
    elif error.pointer is not None:
        fields = [FieldError(pointer=error.pointer, detail=error.detail, remedy=error.remedy)]
    else:
        fields = []
    return Problem(
        type=f"urn:cse:problem:{error.slug}",
        title=error.title,
        status=status,
        detail=error.detail,
        remedy=error.remedy,
        errors=fields,
    )


def answer(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The problem as a response."""
    if (identity := request_id.get()) != NONE:
        problem = problem.model_copy(update={"request_id": identity})
    text = problem.model_dump_json(exclude_none=True)
    return Response(text, problem.status, headers, media_type=MEDIA_TYPE)


def install(api: FastAPI) -> None:
    """Make every error of the API a problem."""
    api.add_exception_handler(errors.CseError, _ours)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(Exception, _unexpected)


def _ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, errors.CseError)
    return answer(problem_of(error))


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    model = _body_model(request)
    found = explain(error.errors(), model, show_input=model not in (SecretSpec, SessionRequest))
    return answer(problem_of(InvalidFields(found)))


def _body_model(request: Request) -> type[BaseModel] | None:
    """What the route's body was to be: the names it allows make the remedies."""
    path = request.url.path
    if path.endswith("/faults"):
        return FaultSpec
    if path.startswith("/v1/applications"):
        return ApplicationSpec if request.method in ("POST", "PUT") else None
    models: dict[str, type[BaseModel]] = {
        "/v1/stacks": Stack,
        "/v1/networks": NetworkSpec,
        "/v1/secrets": SecretSpec,
        "/v1/session": SessionRequest,
        "/v1/volumes": VolumeSpec,
    }
    return next((model for start, model in models.items() if path.startswith(start)), None)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods(request))
    remedies = {
        404: "see /v1/docs for what there is",
        405: f"this path takes {headers.get('Allow')}",
    }
    problem = Problem(
        type=f"urn:cse:problem:{status.phrase.lower().replace(' ', '-')}",
        title=status.phrase,
        status=status,
        detail=f"{request.method} {request.url.path}: {error.detail}",
        remedy=remedies.get(error.status_code),
    )
    return answer(problem, headers)


def _methods(request: Request) -> list[str]:
    """Of all routes with this path: each route by itself knows its own only."""
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    problem = Problem(
        type="urn:cse:problem:internal",
        title="The server has a bug.",
        status=500,
        detail=f"{type(error).__name__}: {error}",
        remedy="see the server's log, and report it",
    )
    # Made outside of the guard, which gives all other answers their header.
    return answer(problem, {"X-Request-ID": request_id.get()})
