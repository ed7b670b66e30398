"""Settings that stand for something the runtime must bring, found by their schema and replaced.

Called by `rundir`. Their formats in an element's manifest: `host-path`, a path of the host that is
bound read-only to a place which the application can see; `host-directory`, the same for a
directory that the element writes to; `memory-bytes`, the size of a file system in memory that is
made for the application; `shared-contents`, whether a directory is shared with others
(sharing.py). The setting then names that place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FORMATS = {
    "host-path": str,
    "host-directory": str,
    "memory-bytes": int,
    "shared-contents": bool,
}
_FOLDERS = {"memory-bytes": "memory", "shared-contents": "shared"}


@dataclass(frozen=True)
class Place:
    """Something to be brought to `target`, a path of the application."""

    format: Literal["host-path", "host-directory", "memory-bytes", "shared-contents"]
    value: Any
    """Path on the host, or bytes; of `shared-contents` true, which `sharing.bring` replaces."""
    pointer: str
    """JSON pointer of the setting."""
    target: str


def replace_places(
    settings: dict[str, Any], schema: dict[str, Any], directory: str, first: int
) -> tuple[dict[str, Any], list[Place]]:
    """(settings with paths below `directory` in place of what they stand for, those places).

    Numbers count from `first` in the order of the list returned.
    """
    found: list[Place] = []

    def visit(value: Any, schemas: list[dict[str, Any]], pointer: str) -> Any:
        schemas = [part for one in schemas for part in _alternatives(one, schema)]
        for form, kind in FORMATS.items():
            if type(value) is kind and any(one.get("format") == form for one in schemas):
                if value is False:
                    continue
                folder = _FOLDERS.get(form, "files")
                target = f"{directory}/{folder}/{first + len(found)}"
                found.append(Place(form, value, pointer, target))  # type: ignore[arg-type]
                return target
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
