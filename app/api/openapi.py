"""Completes the OpenAPI document: what holds for every operation is said once, here.

FastAPI knows parameters and models. Added are a summary from the handler's docstring, the errors
that the operation's shape makes possible (as `application/problem+json`), headers, the scope that
the guard asks for, and examples (`examples.py`). Installed by `app.py`; `make schemas` writes the
result to `schemas/openapi.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from app.api import examples
from app.api.access import COOKIE, needed
from app.api.problems import MEDIA_TYPE
from app.domain.observed import LogLine

_TAGS = {
    "applications": "Unmodified programs with their private services.",
    "stacks": "Several applications, networks, volumes and faults, applied as a whole.",
    "observing": "What goes on inside an application: logs, commands, instances, evidence.",
    "instances": "Running copies of elements; settings that change while programs run.",
    "elements": "The catalogue.",
    "networks": "Segments to which private stacks are plugged.",
    "volumes": "Directories that outlive applications.",
    "secrets": "Values that specifications name and never hold.",
    "events": "What happened.",
    "faults": "Bad lines made to order.",
    "instruments": "Sockets, packets and use of private stacks.",
    "files": "What an application sees of files, who serves them, what it changed.",
    "operations": "Work that outlasts its request.",
    "access": "Tokens, sessions, projects, the audit log.",
    "host": "The server and its host.",
}
_ERRORS: dict[int, tuple[str, str]] = {
    400: ("bad-request", "The request is no HTTP, or no JSON, that can be read."),
    401: ("unauthenticated", "The request has no valid token."),
    403: ("forbidden", "Whoever makes the request has no right to it."),
    404: ("not-found", "There is no resource of this name."),
    409: ("conflict", "The request contradicts the present state of another resource."),
    410: ("gone", "What is asked for was there once, and is kept no longer."),
    412: ("precondition-failed", "The resource has changed since it was read."),
    413: ("request-entity-too-large", "The request's body is too large."),
    422: ("invalid-specification", "A field is unknown, missing or out of range."),
    428: ("precondition-required", "A change has to say which version of it is meant."),
    429: ("too-many-requests", "More requests than this server takes."),
    500: ("internal", "The server or a runtime failed."),
    503: ("agent-unavailable", "The agent did not answer, or this host lacks something."),
    504: ("timed-out", "The step did not end within its time."),
}
_ALWAYS = (403, 413, 429, 500, 503, 504)
_CHANGES = ("post", "put", "patch", "delete")
_TEXT = {"type": "string"}
_HEADERS: dict[str, dict[str, Any]] = {
    "ETag": {"description": "The resource's version, for `If-Match`.", "schema": _TEXT},
    "Location": {"description": "Path of the resource.", "schema": _TEXT},
    "Operation-Location": {"description": "Path of the operation that goes on.", "schema": _TEXT},
    "X-Request-ID": {"description": "Names this request in logs and audit.", "schema": _TEXT},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "description": "The same key and request: the same answer, for a day; done once.",
}
"""Handled by the middleware of `idempotency.py`."""
_VERSIONED = frozenset({"Application", "NetworkSpec", "VolumeSpec", "ProjectSpec-Output"})


def install(api: FastAPI) -> None:
    """Make `api.openapi()` complete."""
    plain = api.openapi

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            _complete(plain())
        assert api.openapi_schema is not None
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation) of all of them."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def _complete(document: dict[str, Any]) -> None:
    components = document["components"]
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "`cse token create`"},
        "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    }
    components["headers"] = _HEADERS
    components["schemas"]["LogLine"] = LogLine.model_json_schema()  # of a stream
    components["responses"] = {str(status): _error(status) for status in _ERRORS}
    document["security"] = [{"token": []}, {"cookie": []}, {}]
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items()]
    for method, path, operation in operations(document):
        if method in ("post", "patch"):
            operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
        _summarize(operation)
        _authorize(operation, method, path)
        _add_statuses(operation, method, path)
        _add_examples(operation)


def _summarize(operation: dict[str, Any]) -> None:
    """The docstring's first sentence in the place of the function's name."""
    text = operation.get("description", "")
    first = text.split("\n\n")[0].replace("\n", " ")
    sentence = first.partition(". ")[0].rstrip(".")
    operation["summary"] = sentence


def _authorize(operation: dict[str, Any], method: str, path: str) -> None:
    scope = needed(method.upper(), path, is_socket=False)
    if scope is None:
        operation["security"] = []
    else:
        operation["x-scope"] = scope.value


def _add_statuses(operation: dict[str, Any], method: str, path: str) -> None:
    responses = operation["responses"]
    for vague in ("4XX", "5XX"):
        responses.pop(vague, None)
    names = {parameter["name"] for parameter in operation.get("parameters", ())}
    good = next(status for status in sorted(responses) if status.startswith("2"))
    if "prefer" in names and "202" not in responses:
        body = {"content": responses[good]["content"]} if responses[good].get("content") else {}
        responses["202"] = {"description": "Not done yet; an operation goes on.", **body}
    if operation["operationId"] == "applyStack":
        responses["202"] = {**responses["200"], "description": "Recorded; an operation goes on."}
    if operation["operationId"] == "replaceApplication":
        responses["201"] = {**responses["200"], "description": "It was not there; it is now."}
    for status, response in responses.items():
        response.setdefault("headers", {}).update(_headers(status, response))
    for status in _possible(operation, method, path):
        responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    operation["responses"] = dict(sorted(responses.items()))


def _headers(status: str, response: dict[str, Any]) -> dict[str, Any]:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    model = schema.get("$ref", "").rpartition("/")[2]
    names = ["X-Request-ID"]
    names += ["ETag"] if model in _VERSIONED else []
    names += ["Location"] if model == "Application" or status == "201" else []
    names += ["Operation-Location"] if status == "202" else []
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _possible(operation: dict[str, Any], method: str, path: str) -> list[int]:
    """The errors that an operation of this shape can end with."""
    parameters = operation.get("parameters", ())
    names = {parameter["name"] for parameter in parameters}
    found = list(_ALWAYS)
    if "x-scope" in operation or path == "/v1/session":
        found.append(401)
    if "requestBody" in operation:
        found.append(400)
    if parameters or "requestBody" in operation or method in ("post", "patch"):
        found.append(422)
    if "{" in path or method in _CHANGES:
        found += [404, 409]
    if "if-match" in names:
        found += [412, 428]
    if "last-event-id" in names:
        found.append(410)
    return found


def _error(status: int) -> dict[str, Any]:
    slug, title = _ERRORS[status]
    return {
        "description": title,
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}},
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": examples.problem(status, slug, title),
            }
        },
    }


def _add_examples(operation: dict[str, Any]) -> None:
    name = operation["operationId"]
    body = operation.get("requestBody", {}).get("content", {})
    for content in body.values():
        if "examples" not in content and name in examples.REQUESTS:
            content["example"] = examples.REQUESTS[name]
    for status, response in operation["responses"].items():
        for kind, content in response.get("content", {}).items():
            if status.startswith("2") and "example" not in content:
                example = examples.response(name, kind)
                if example is not None:
                    content["example"] = example
