"""An element's settings schema: checks values, fills defaults, finds paths of the host.

JSON Schema (2020-12) validates but does not fill in defaults, and its messages name neither a
remedy nor, below `oneOf`, the branch that was meant; this adds both. Called by `catalog` and
`resolve`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError

from app.catalog import quantities
from app.catalog.circles import circles
from app.domain.errors import InvalidSpecification
from app.domain.explain import FieldError, did_you_mean, pointer_to

Schema = dict[str, Any]

_MAX_REMEMBERED = 1000
"""Settings that have been found right and filled in, of each element: most applications have the
same, and a start asks several times."""


@lru_cache(64)
def _check(schema: str) -> None:
    """Whether it is a JSON Schema: 20 ms, and each manifest is read twice when a server begins."""
    Draft202012Validator.check_schema(json.loads(schema))


class SettingsSchema:
    """One element's settings, compiled once. Raises `InvalidSpecification` on a bad schema."""

    def __init__(self, schema: Schema) -> None:
        try:
            _check(json.dumps(schema, sort_keys=True))
        except SchemaError as error:
            raise InvalidSpecification(
                f"'settings' is not a JSON Schema: {error.message}",
                pointer=pointer_to(error.absolute_path, "/settings"),
            ) from error
        self._schema = schema
        self._validator = Draft202012Validator(schema)
        self._faultless: set[str] = set()
        self._filled: dict[str, dict[str, Any]] = {}

    def check(self, value: dict[str, Any], prefix: str = "") -> list[FieldError]:
        """Everything wrong with `value`; pointers begin with `prefix`."""
        text = repr(value)
        if text in self._faultless:
            return []
        found: dict[tuple[str, str], FieldError] = {}
        for failure in self._validator.iter_errors(value):
            for error in _explain(failure, prefix):
                found.setdefault((error.pointer, error.detail), error)
        if not found:
            inside = self._of_format(value, "path-in-mount")
            for error in circles(value, inside, prefix):
                found[error.pointer, error.detail] = error
        if not found and len(self._faultless) < _MAX_REMEMBERED:
            self._faultless.add(text)
        return sorted(found.values(), key=lambda error: error.pointer)

    def with_defaults(self, value: dict[str, Any]) -> dict[str, Any]:
        """Also every absent setting that has a default, at any depth. Not to be changed: the same
        object is returned for the same settings."""
        text = repr(value)
        if (known := self._filled.get(text)) is not None:
            return known
        filled = self._fill(copy.deepcopy(value))
        if len(self._filled) < _MAX_REMEMBERED:
            self._filled[text] = filled
        return filled

    def _fill(self, filled: dict[str, Any]) -> dict[str, Any]:
        for schema, node, _ in self._walk(self._schema, filled, ()):
            if isinstance(node, dict):
                for name, below in schema.get("properties", {}).items():
                    resolved = self._resolve(below)
                    if name not in node and "default" in resolved:
                        node[name] = copy.deepcopy(resolved["default"])
        return filled

    def in_numbers(self, value: dict[str, Any]) -> dict[str, Any]:
        """The same with `16M` and the like as numbers in the unit that the schema names."""
        found = copy.deepcopy(value)
        self._convert(self._schema, found)
        return found

    def _convert(self, schema: Schema, node: Any) -> None:
        schema = self._resolve(schema)
        for keyword in ("allOf", "oneOf", "anyOf"):
            for branch in map(self._resolve, schema.get(keyword, [])):
                if _is_of(branch, node):
                    self._convert(branch, node)
        if isinstance(node, dict):
            rest = schema.get("additionalProperties")
            for name in node:
                below = schema.get("properties", {}).get(name, rest)
                if isinstance(below, dict):
                    node[name] = quantities.number(self._resolve(below), node[name])
                    self._convert(below, node[name])
        elif isinstance(node, list) and isinstance(schema.get("items"), dict):
            for item in node:
                self._convert(schema["items"], item)

    def is_live(self, place: Sequence[str]) -> bool:
        """Whether a running program takes a change there."""
        return self.apply(place) == "live"

    def apply(self, place: Sequence[str]) -> str | None:
        """`live` or `restart`: the deepest `apply` on the way says; None where none does."""
        word: str | None = None
        schemas = [self._schema]
        for name in place:
            found: list[Schema] = []
            for schema in self._branches(schemas):
                below = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
                if isinstance(below, dict):
                    found.append(self._resolve(below))
            schemas = found
            for schema in schemas:
                word = schema.get("apply", word)
        return word

    def _branches(self, schemas: list[Schema]) -> Iterator[Schema]:
        for schema in map(self._resolve, schemas):
            yield schema
            for keyword in ("allOf", "oneOf", "anyOf"):
                yield from self._branches(schema.get(keyword, []))

    def host_paths(self, value: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Place and text of each value whose schema says that it is a path of the host."""
        return self._of_format(value, "host-path", "host-directory")

    def _of_format(
        self, value: dict[str, Any], *formats: str
    ) -> Iterator[tuple[tuple[str | int, ...], str]]:
        seen = set()
        for schema, node, place in self._walk(self._schema, value, ()):
            wanted = schema.get("format") in formats and isinstance(node, str)
            if wanted and place not in seen:
                seen.add(place)
                yield place, node

    def _walk(
        self, schema: Schema, node: Any, place: tuple[str | int, ...]
    ) -> Iterator[tuple[Schema, Any, tuple[str | int, ...]]]:
        """Schema and value side by side, parents first (so that new defaults are visited too)."""
        schema = self._resolve(schema)
        yield schema, node, place
        for branch in schema.get("allOf", []):
            yield from self._walk(branch, node, place)
        for branch in [*schema.get("oneOf", []), *schema.get("anyOf", [])]:
            if self._validator.evolve(schema=branch).is_valid(node):
                yield from self._walk(branch, node, place)
                break
        if isinstance(node, dict):
            properties = schema.get("properties", {})
            rest = schema.get("additionalProperties")
            for name in list(node):
                below = properties.get(name, rest)
                if isinstance(below, dict):
                    yield from self._walk(below, node[name], (*place, name))
        elif isinstance(node, list) and isinstance(schema.get("items"), dict):
            for index, item in enumerate(node):
                yield from self._walk(schema["items"], item, (*place, index))

    def _resolve(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            target: Any = self._schema
            for part in schema["$ref"].removeprefix("#").strip("/").split("/"):
                key = part.replace("~1", "/").replace("~0", "~")
                target = target.get(key, {}) if key else target
            schema = {**target, **{key: item for key, item in schema.items() if key != "$ref"}}
        return schema


def _is_of(branch: Schema, node: Any) -> bool:
    """Whether what is a constant in the branch is so in the value."""
    if not isinstance(node, dict):
        return True
    constants = {
        name: below["const"]
        for name, below in branch.get("properties", {}).items()
        if isinstance(below, dict) and "const" in below
    }
    return all(name not in node or node[name] == word for name, word in constants.items())


def _explain(failure: ValidationError, prefix: str) -> Iterator[FieldError]:
    if failure.validator in ("oneOf", "anyOf") and failure.context:
        for deeper in _meant_branch(failure):
            yield from _explain(deeper, prefix)
        return
    if "dependentSchemas" in failure.schema_path:
        yield _without_effect(failure, prefix)
        return
    pointer = pointer_to(failure.absolute_path, prefix)
    if failure.validator == "additionalProperties" and isinstance(failure.instance, dict):
        known = failure.schema.get("properties", {})  # type: ignore[union-attr]
        for name in failure.instance:
            if name not in known:
                yield FieldError(
                    pointer=f"{pointer}{pointer_to([name])}",
                    detail=f"'{name}' is not a setting here",
                    remedy=did_you_mean(name, known),
                )
    elif failure.validator == "required" and isinstance(failure.instance, dict):
        for name in cast("list[str]", failure.validator_value):
            if name not in failure.instance:
                yield FieldError(
                    pointer=f"{pointer}{pointer_to([name])}",
                    detail=f"'{name}' is missing",
                    remedy="add it",
                )
    else:
        yield FieldError(pointer=pointer, detail=failure.message, remedy=_remedy(failure))


def _without_effect(failure: ValidationError, prefix: str) -> FieldError:
    """A setting that counts only beside others of a certain value."""
    place, path = list(failure.schema_path), list(failure.absolute_path)
    name = str(place[place.index("dependentSchemas") + 1])
    if failure.validator == "const":  # it is the other setting that the failure is about
        wanted = f"{path.pop()}: {failure.validator_value}"
    else:
        wanted = " and ".join(
            f"{other}: {below['const']}"
            for other, below in failure.schema["properties"].items()  # type: ignore[index]
        )
    return FieldError(
        pointer=pointer_to([*path, name], prefix),
        detail=f"'{name}' has no effect without {wanted}",
        remedy=f"leave it out, or write {wanted}",
    )


def _meant_branch(failure: ValidationError) -> list[ValidationError]:
    """The errors of the branch the user most likely meant: the one whose constants match."""
    branches: dict[object, list[ValidationError]] = {}
    for error in failure.context or []:
        branches.setdefault(error.schema_path[0], []).append(error)

    # What is a constant in one branch tells the branches apart; another wrong word does not.
    telling = {error.path[-1] for error in failure.context or [] if _is_constant(error)}

    def distance(errors: list[ValidationError]) -> tuple[int, int]:
        wrong_kind = sum(
            error.validator in ("const", "enum", "type")
            and (not telling or (len(error.path) > 0 and error.path[-1] in telling))
            for error in errors
        )
        return wrong_kind, len(errors)

    return min(branches.values(), key=distance)


def _is_constant(error: ValidationError) -> bool:
    return error.validator == "const" and len(error.path) > 0


def _remedy(failure: ValidationError) -> str | None:
    limit = failure.validator_value
    match failure.validator:
        case "enum" if isinstance(limit, list):
            return did_you_mean(failure.instance, [str(item) for item in limit])
        case "const":
            return f"write {limit!r}"
        case "type":
            kinds = limit if isinstance(limit, list) else [limit]
            schema = failure.schema
            if isinstance(schema, dict) and (written := quantities.example(schema)):
                return written
            return "write " + " or ".join(_article(str(kind)) for kind in kinds)
        case "minimum":
            return f"write at least {limit}"
        case "maximum":
            return f"write at most {limit}"
        case "exclusiveMinimum":
            return f"write more than {limit}"
        case "exclusiveMaximum":
            return f"write less than {limit}"
    schema = failure.schema
    description = schema.get("description") if isinstance(schema, dict) else None
    if description:
        return str(description)
    return f"it must match {limit}" if failure.validator == "pattern" else None


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"
