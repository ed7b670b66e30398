"""Finds the elements: every folder of the elements directory that holds an `element.json`.

A new folder is a new element without a change here. Called by `api` (listing, checking of
specifications), `reconcile` and `cli` (through `app.catalog.resolve`).
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

from pydantic import ValidationError

from app.catalog.schema import SettingsSchema
from app.domain.element import Element, ElementManifest
from app.domain.errors import InvalidSpecification, NotFound
from app.domain.explain import did_you_mean, explain


class Entry:
    """One element, with the compiled schema of its settings."""

    def __init__(self, element: Element) -> None:
        self.element = element
        self.schema = SettingsSchema(element.manifest.settings)


class Catalog:
    """The elements of one directory; read again when a manifest changes, comes or goes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._stamp: tuple[tuple[str, int, int], ...] | None = None
        self._entries: dict[str, Entry] = {}
        self._faults: dict[str, str] = {}

    def elements(self) -> list[Element]:
        """All usable elements, by name."""
        return [entry.element for _, entry in sorted(self._read().items())]

    def faults(self) -> dict[str, str]:
        """Folders whose manifest cannot be used → why; shown by `cse doctor`."""
        self._read()
        return dict(self._faults)

    def entry(self, name: str) -> Entry:
        """The element of this name. Raises `NotFound` with the nearest name as remedy."""
        entries = self._read()
        if name in entries:
            return entries[name]
        if name in self._faults:
            raise InvalidSpecification(
                f"the manifest of element '{name}' is broken: {self._faults[name]}",
                remedy=f"repair {self._directory / name / 'element.json'}",
            )
        remedy = did_you_mean(name, entries)
        if not entries:
            remedy = f"{self._directory} holds no elements; run 'make native' to build them"
        raise NotFound(f"there is no element '{name}'", remedy=remedy)

    def _read(self) -> dict[str, Entry]:
        with self._lock:
            stamp = self._take_stamp()
            if stamp != self._stamp:
                self._entries, self._faults = {}, {}
                for path, _, _ in stamp:
                    self._add(Path(path))
                self._stamp = stamp
            return self._entries

    def _take_stamp(self) -> tuple[tuple[str, int, int], ...]:
        found = []
        for path in sorted(self._directory.glob("*/element.json")):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((str(path), status.st_mtime_ns, status.st_size))
        return tuple(found)

    def _add(self, path: Path) -> None:
        folder = path.parent.name
        try:
            manifest = load_manifest(path)
            if manifest.name != folder:
                raise InvalidSpecification(
                    f"the folder is called '{folder}' but the manifest says '{manifest.name}'"
                )
            self._entries[folder] = Entry(
                Element(manifest=manifest, directory=str(path.parent.absolute()))
            )
        except InvalidSpecification as error:
            self._faults[folder] = str(error)


def load_manifest(path: Path) -> ElementManifest:
    """Read and check one manifest, its settings schema included."""
    try:
        manifest = ElementManifest.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        if isinstance(error, ValidationError):
            reasons = explain(error.errors(), ElementManifest)
            text = "; ".join(f"{item.pointer}: {item.detail}" for item in reasons)
        else:
            text = str(error)
        raise InvalidSpecification(text) from error
    SettingsSchema(manifest.settings)
    return manifest
