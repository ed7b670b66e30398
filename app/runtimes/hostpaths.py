"""Settings that name paths of the host, found by their schema and replaced.

Called by `rundir`: a setting marked `format: host-path` in an element's manifest names something
that the application cannot see; it is bound to a place that it can see, and the setting then
names that place.
"""

from __future__ import annotations

from typing import Any


def replace_host_paths(
    settings: dict[str, Any], schema: dict[str, Any], directory: str, first: int
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """(settings with `directory/<n>` in place of host paths, [(host path, JSON pointer)]).

    Numbers count from `first` in the order of the list returned.
    """
    found: list[tuple[str, str]] = []

    def visit(value: Any, schemas: list[dict[str, Any]], pointer: str) -> Any:
        schemas = [part for one in schemas for part in _alternatives(one, schema)]
        if isinstance(value, str):
            if any(one.get("format") == "host-path" for one in schemas):
                found.append((value, pointer))
                return f"{directory}/{first + len(found) - 1}"
            return value
        if isinstance(value, dict):
            return {
                key: visit(member, _member_schemas(schemas, key), f"{pointer}/{key}")
                for key, member in value.items()
            }
        if isinstance(value, list):
            return [
                visit(member, _item_schemas(schemas, number), f"{pointer}/{number}")
                for number, member in enumerate(value)
            ]
        return value

    return visit(settings, [schema], ""), found


def _alternatives(one: dict[str, Any], root: dict[str, Any]) -> list[dict[str, Any]]:
    """The schema itself, with `$ref` followed and anyOf, oneOf, allOf, then, else opened up."""
    result, pending, seen = [], [one], set()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        result.append(part)
        reference = part.get("$ref", "")
        if reference.startswith("#/"):
            target: Any = root
            for word in reference[2:].split("/"):
                target = target.get(word, {})
            pending.append(target)
        for keyword in ("anyOf", "oneOf", "allOf"):
            pending += [entry for entry in part.get(keyword, []) if isinstance(entry, dict)]
        pending += [part[key] for key in ("then", "else") if isinstance(part.get(key), dict)]
    return result


def _member_schemas(schemas: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    found = []
    for one in schemas:
        if key in one.get("properties", {}):
            found.append(one["properties"][key])
        elif isinstance(one.get("additionalProperties"), dict):
            found.append(one["additionalProperties"])
    return [entry for entry in found if isinstance(entry, dict)]


def _item_schemas(schemas: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    found = []
    for one in schemas:
        prefix = one.get("prefixItems", [])
        found.append(prefix[number] if number < len(prefix) else one.get("items"))
    return [entry for entry in found if isinstance(entry, dict)]
