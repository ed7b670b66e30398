"""Writes what is generated from the code: JSON Schemas, the client, reference pages.

Called by `make schemas`; `make check` calls it with `--check`, which changes nothing and fails
where a file is not what the code says. Add a generated file by adding a line to `generated()`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from app.api.app import description
from app.client_generator import source
from app.domain.application import ApplicationSpec
from app.domain.element import ElementManifest
from app.domain.network import NetworkSpec
from app.domain.stack import MAX_REPLICAS, StackFile
from app.domain.volume import VolumeSpec
from app.settings import product_version, reference

_PROJECT = Path(__file__).resolve().parent.parent
_MODELS: dict[str, type[BaseModel]] = {
    "application": ApplicationSpec,
    "element": ElementManifest,
    "network": NetworkSpec,
    "stack": StackFile,
    "volume": VolumeSpec,
}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON Schema with the short forms that a stack file may use."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    definitions: dict[str, Any] = schema.get("$defs", {})
    if model is StackFile:
        definitions["ApplicationSpec"]["properties"]["replicas"] = {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_REPLICAS,
            "description": "So many copies, called NAME-1, NAME-2, …",
        }
        schema["required"] = []  # what is included may have the applications
        for section in ("ApplicationSpec", "NetworkSpec", "VolumeSpec"):
            definitions[section]["required"] = [
                field for field in definitions[section].get("required", []) if field != "name"
            ]
            if section != "ApplicationSpec":
                definitions[section] = {"anyOf": [definitions[section], {"type": "null"}]}
        _take_variables(schema, definitions)
        definitions["Variable"] = {
            "type": "string",
            "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}",
            "description": "Text in which variables of the file are used, as in ${port}.",
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


_SCALARS = ("boolean", "integer", "number", "string")
_BOUNDS = ("const", "enum", "format", "pattern")
_WORDS = ("default", "description", "examples", "title")


def _take_variables(node: Any, definitions: dict[str, Any]) -> None:
    """Where a value is a number, a word of some kind or the like, text with `${…}` will do too."""
    if not isinstance(node, dict):
        return
    for key in ("properties", "patternProperties", "$defs"):
        for name, part in node.get(key, {}).items():
            _take_variables(part, definitions)
            if key != "$defs":
                node[key][name] = _or_variable(part, definitions)
    for key in ("items", "additionalProperties"):
        if isinstance(part := node.get(key), dict):
            _take_variables(part, definitions)
            node[key] = _or_variable(part, definitions)
    for part in node.get("anyOf", []):
        _take_variables(part, definitions)


def _or_variable(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    kinds = list(_kinds(schema, definitions))
    bound = [kind for kind in kinds if kind.get("type") in _SCALARS]
    free = [kind for kind in bound if kind["type"] == "string" and not set(_BOUNDS) & set(kind)]
    if not bound or free:
        return schema
    words = {key: schema[key] for key in _WORDS if key in schema}
    rest = {key: value for key, value in schema.items() if key not in words}
    choices = rest["anyOf"] if list(rest) == ["anyOf"] else [rest]
    return {**words, "anyOf": [*choices, {"$ref": "#/$defs/Variable"}]}


def _kinds(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a value may be, one by one."""
    if "$ref" in schema:
        yield from _kinds(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    for choice in schema.get("anyOf", []):
        yield from _kinds(choice, definitions)
    if "$ref" not in schema and "anyOf" not in schema:
        yield schema


def generated() -> Iterator[tuple[str, str]]:
    """(path in the project, text) of every generated file."""
    for name, model in _MODELS.items():
        text = json.dumps(_schema(model), indent=2, sort_keys=True)
        yield f"schemas/{name}.schema.json", text + "\n"
    document = description(product_version())
    yield "schemas/openapi.json", json.dumps(document, indent=2, sort_keys=True) + "\n"
    yield "app/client/operations.py", source(document)
    yield "docs/settings.md", reference()


def main(arguments: list[str]) -> int:
    """0; with `--check` 1 where a file is stale or belongs to no model."""
    expected = dict(generated())
    strays = {
        str(path.relative_to(_PROJECT)) for path in (_PROJECT / "schemas").glob("*.json")
    } - set(expected)
    stale = [
        path
        for path, text in expected.items()
        if not (_PROJECT / path).is_file() or (_PROJECT / path).read_text() != text
    ]
    if "--check" in arguments:
        for path in sorted(stale) + sorted(strays):
            sys.stderr.write(f"{path} is not what the code says; run `make schemas`\n")
        return 1 if stale or strays else 0
    for path in stale:
        (_PROJECT / path).parent.mkdir(exist_ok=True)
        (_PROJECT / path).write_text(expected[path])
    for path in strays:
        (_PROJECT / path).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
