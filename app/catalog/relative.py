"""Makes the host paths of a specification absolute: in a stack file they are relative to it.

Called by the CLI for the files that it is given, and by `templates.py` for those that it offers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.catalog.schema import SettingsSchema

Schemas = Callable[[], Mapping[str, dict[str, Any]]]
"""Element name → JSON Schema of its settings; called only where elements are used."""


def resolve(spec: dict[str, Any], schemas: Schemas, directory: Path) -> None:
    """In place: `from` of mounts, and what an element's schema calls a path of the host."""
    for mount in spec.get("mounts") or []:
        if isinstance(mount, dict) and isinstance(mount.get("from"), str):
            mount["from"] = absolute(mount["from"], directory)
    elements = spec.get("elements")
    for name, use in elements.items() if isinstance(elements, dict) else []:
        settings = use.get("settings") if isinstance(use, dict) else None
        schema = schemas().get(name) if isinstance(settings, dict) else None
        if schema is not None and isinstance(settings, dict):
            for place, text in list(SettingsSchema(schema).host_paths(settings)):
                parent: Any = settings
                for part in place[:-1]:
                    parent = parent[part]
                parent[place[-1]] = absolute(text, directory)


def absolute(path: str, directory: Path) -> str:
    """`path` as seen from `directory`; `~` is the caller's home."""
    return str((directory / Path(path).expanduser()).resolve())
