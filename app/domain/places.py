"""Nested settings by place: `("keepalive", "idle")` is where `keepalive.idle` lies.

A change names what it changes and leaves the rest (JSON Merge Patch, RFC 7396); only mappings are
gone into, a list is one value. Used by `api` (PATCH), `catalog` (may it change?) and `agent`
(what has changed?).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Place = tuple[str, ...]


def merge(tree: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A copy with the change in it; null takes a member away."""
    merged = dict(tree)
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Place]:
    """The deepest places whose values differ, or that only one of them has."""
    for key in sorted({*before, *after}):
        one, other = before.get(key), after.get(key)
        if one == other and (key in before) == (key in after):
            continue
        inner = [value for value in (one, other) if value is not None]
        if inner and all(isinstance(value, dict) for value in inner):
            below = list(differences(one or {}, other or {}))
            yield from ((key, *place) for place in below or [()])
        else:
            yield (key,)


def find(tree: dict[str, Any], place: Place) -> Any:
    """None where there is nothing."""
    found: Any = tree
    for key in place:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def with_parents(tree: dict[str, Any], places: list[Place]) -> dict[str, Any]:
    """A copy in which the mappings that these places lie in exist: defaults may fill them."""
    made = copy.deepcopy(tree)
    for place in places:
        node = made
        for key in place[:-1]:
            if not isinstance(node.get(key), dict):
                node[key] = {}
            node = node[key]
    return made


def replaced(tree: dict[str, Any], source: dict[str, Any], places: list[Place]) -> dict[str, Any]:
    """A copy in which these places are as in `source`, also where they are missing there."""
    made = with_parents(tree, places)
    for place in places:
        value, node = find(source, place), find(made, place[:-1])
        if value is None:
            node.pop(place[-1], None)
        else:
            node[place[-1]] = value
    return made
