"""The stack files that come with the product, to begin from: `GET /v1/templates`.

Whoever asks for them is elsewhere and does not know where they lie: their paths are made absolute
here, and variables become their defaults. A file that includes others is said to be unusable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from app.catalog import relative, variables
from app.catalog.catalog import Catalog
from app.domain.errors import InvalidSpecification
from app.domain.template import Template


class Templates:
    """Every `*.yaml` of one directory; read anew each time, as they are few and small."""

    def __init__(self, directory: Path, catalog: Catalog) -> None:
        self._directory = directory
        self._catalog = catalog

    def all(self) -> list[Template]:
        """Those that can be used, by name."""
        return [template for _, template in self._read() if isinstance(template, Template)]

    def faults(self) -> dict[str, str]:
        """Files that cannot be used → why; shown by `cse doctor`."""
        return {name: found for name, found in self._read() if isinstance(found, str)}

    def _read(self) -> list[tuple[str, Template | str]]:
        found: list[tuple[str, Template | str]] = []
        for path in sorted(self._directory.glob("*.yaml")):
            try:
                found.append((path.name, self._template(path)))
            except (InvalidSpecification, OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                found.append((path.name, str(error)))
        return found

    def _template(self, path: Path) -> Template:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        if not isinstance(content, dict) or not {"command", "applications"} & set(content):
            raise InvalidSpecification("neither a stack nor an application")
        if "include" in content:
            raise InvalidSpecification("a template includes no other files")
        if "variables" in content:
            content = variables.substitute(content, variables.declared(content, {}))
        for spec in _applications(content):
            relative.resolve(spec, self._schemas, self._directory)
        return Template(name=path.stem, about=_about(text), content=content)

    def _schemas(self) -> dict[str, dict[str, Any]]:
        return {one.manifest.name: one.manifest.settings for one in self._catalog.elements()}


def _applications(content: dict[str, Any]) -> list[dict[str, Any]]:
    listed = content.get("applications", {"": content})
    return [one for one in (listed or {}).values() if isinstance(one, dict)]


def _about(text: str) -> str:
    """The comment that the file begins with, up to its first empty line."""
    lines = []
    for line in text.splitlines():
        words = line.removeprefix("#").strip()
        if not line.startswith("#") or not words:
            break
        lines.append(words)
    return " ".join(lines)
