"""The OpenAPI document says everything about every operation, and its examples are true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.api.app import description
from app.api.openapi import operations
from app.api.problems import MEDIA_TYPE

DOCUMENT = description("0.0.0")
OPERATIONS = [(f"{method} {path}", found) for method, path, found in operations(DOCUMENT)]
every_operation = pytest.mark.parametrize(
    "operation", [found for _, found in OPERATIONS], ids=[name for name, _ in OPERATIONS]
)


def _resolved(item: dict[str, Any]) -> dict[str, Any]:
    """What a reference within the document leads to."""
    if "$ref" not in item:
        return item
    found: Any = DOCUMENT
    for part in item["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    assert isinstance(found, dict)
    return found


def _examples(content: dict[str, Any]) -> Iterator[Any]:
    if "example" in content:
        yield content["example"]
    for example in content.get("examples", {}).values():
        yield example["value"]


def _contents(operation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(where, media type, content) of the request and of each answer."""
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield "request", media_type, content
    for status, response in operation["responses"].items():
        for media_type, content in _resolved(response).get("content", {}).items():
            yield status, media_type, content


@every_operation
def test_an_operation_is_described(operation: dict[str, Any]) -> None:
    assert operation["operationId"].isalpha()
    assert len(operation["summary"].split()) > 1, "the handler's docstring is its summary"
    assert operation["description"]
    assert set(operation["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}


@every_operation
def test_an_operation_has_errors_as_problems(operation: dict[str, Any]) -> None:
    errors = {s: r for s, r in operation["responses"].items() if s.startswith(("4", "5"))}
    assert {"403", "429", "500", "503"} <= set(errors)
    for response in map(_resolved, errors.values()):
        assert list(response["content"]) == [MEDIA_TYPE]
    assert not {"4XX", "5XX", "default"} & set(operation["responses"])


@every_operation
def test_an_operation_has_examples(operation: dict[str, Any]) -> None:
    lacking = [
        f"{where} {media_type}"
        for where, media_type, content in _contents(operation)
        if not list(_examples(content))
    ]
    assert lacking == [], "add them in app/api/examples.py"


@every_operation
def test_examples_fit_their_schemas(operation: dict[str, Any]) -> None:
    for where, media_type, content in _contents(operation):
        schema = {**content["schema"], "components": DOCUMENT["components"]}
        for example in _examples(content):
            wrong = list(Draft202012Validator(schema).iter_errors(example))
            assert wrong == [], f"{where} {media_type}"


def test_operation_ids_are_unique() -> None:
    names = [operation["operationId"] for _, operation in OPERATIONS]
    assert len(names) == len(set(names))


def test_every_list_that_can_be_long_has_pages() -> None:
    short = {"readEvidence", "listSockets", "listInstancesOfApplication", "collectGarbage"}
    for name, operation in OPERATIONS:
        content = operation["responses"].get("200", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        if "Page_" in schema.get("$ref", "") and operation["operationId"] not in short:
            parameters = {parameter["name"] for parameter in operation["parameters"]}
            assert {"limit", "after"} <= parameters, name
