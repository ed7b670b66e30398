"""Settings that name a path within each other's mounts (format `path-in-mount`), in a circle.

Each such mount waits for the one that its path lies in; in a circle nothing could ever be shown,
and two programs that begin at different places would wait for each other. Called by
`SettingsSchema`, on settings that are right by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from posixpath import normpath
from typing import Any

from app.domain.explain import FieldError, pointer_to


def circles(
    settings: dict[str, Any], references: Iterable[tuple[tuple[str | int, ...], str]], prefix: str
) -> list[FieldError]:
    """An error for each reference (place, path) in a circle. The first two parts of a place are
    that of a member of a list, `path` of which says where it is mounted."""
    edges: dict[int, set[int]] = {}
    found = []
    for place, path in references:
        name, number = place[0], place[1]
        if not isinstance(number, int):
            continue
        target = _mount_of(settings[str(name)], path)
        if target is not None:
            edges.setdefault(number, set()).add(target)
            found.append((place, path, number, target))
    return [
        FieldError(
            pointer=pointer_to(place, prefix),
            detail=f"{path} lies in a mount that in turn lies in this one"
            if target != number
            else f"{path} lies in this mount itself",
            remedy="give a path outside the circle, or 'from' with a path of the host",
        )
        for place, path, number, target in found
        if _reaches(edges, target, number)
    ]


def _mount_of(mounts: list[dict[str, Any]], path: str) -> int | None:
    """The mount with the longest path above `path`."""
    best, length = None, -1
    for number, mount in enumerate(mounts):
        top = normpath(mount["path"]).rstrip("/")
        if f"{normpath(path)}/".startswith(f"{top}/") and len(top) > length:
            best, length = number, len(top)
    return best


def _reaches(edges: dict[int, set[int]], start: int, goal: int) -> bool:
    pending, seen = [start], set()
    while pending:
        number = pending.pop()
        if number == goal:
            return True
        if number not in seen:
            seen.add(number)
            pending += edges.get(number, ())
    return False
