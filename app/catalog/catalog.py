"""Finds the elements: every folder of the elements directory that holds an `element.json`.

A new folder is a new element without a change here. Called by `api` (listing, checking of
specifications), `reconcile` and `cli` (through `app.catalog.resolve`).
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from pydantic import ValidationError

from app.catalog.schema import SettingsSchema
from app.domain.element import Element, ElementManifest
from app.domain.errors import InvalidSpecification, NotFound
from app.domain.explain import did_you_mean, explain

Stamp = tuple[str, int, int]
"""Path of a manifest, time of its last change, size."""


class Entry:
    """One element, with the compiled schema of its settings."""

    def __init__(self, element: Element, stamp: Stamp) -> None:
        self.element = element
        self.manifest_path = stamp[0]
        self.stamp = stamp
        self.schema = SettingsSchema(element.manifest.settings)


class Catalog:
    """The elements of one directory; read again when a manifest changes, comes or goes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._stamps: list[Stamp] | None = None
        self._entries: dict[str, Entry] = {}
        self._faults: dict[str, str] = {}
        self._elsewhere: dict[str, Entry] = {}

    def elements(self) -> list[Element]:
        """All usable elements, by name."""
        return [entry.element for _, entry in sorted(self._read().items())]

    def faults(self) -> dict[str, str]:
        """Folders whose manifest cannot be used → why; shown by `cse doctor`."""
        self._read()
        return dict(self._faults)

    def entry(self, name: str, path: str | None = None) -> Entry:
        """The element of this name, or the build of it that lies at `path`.

        Raises `NotFound` with the nearest name as remedy.
        """
        if path is not None:
            return self._entry_at(name, path)
        known = self._entries.get(name)
        if known is not None and _stamp(known.manifest_path) == known.stamp:
            return known  # a start asks several times: the other elements do not matter to it
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

    def _entry_at(self, name: str, path: str) -> Entry:
        stamp = _stamp(os.path.join(path, "element.json"))
        if stamp is None:
            raise NotFound(
                f"{path} holds no element.json",
                remedy="name a directory such as build/elements/network-lwip, or a copy of it",
            )
        known = self._elsewhere.get(path)
        if known is None or known.stamp != stamp:
            element = Element(manifest=load_manifest(Path(stamp[0])), directory=path)
            known = self._elsewhere[path] = Entry(element, stamp)
        if known.element.manifest.name != name:
            raise InvalidSpecification(f"{path} is '{known.element.manifest.name}', not '{name}'")
        return known

    def _read(self) -> dict[str, Entry]:
        with self._lock:
            stamps = self._take_stamps()
            if stamps != self._stamps:
                self._entries, self._faults = {}, {}
                for stamp in stamps:
                    self._add(stamp)
                self._stamps = stamps
            return self._entries

    def _take_stamps(self) -> list[Stamp]:
        found = (_stamp(str(path)) for path in sorted(self._directory.glob("*/element.json")))
        return [stamp for stamp in found if stamp is not None]

    def _add(self, stamp: Stamp) -> None:
        path = Path(stamp[0])
        folder = path.parent.name
        try:
            manifest = load_manifest(path)
            if manifest.name != folder:
                raise InvalidSpecification(
                    f"the folder is called '{folder}' but the manifest says '{manifest.name}'"
                )
            self._entries[folder] = Entry(
                Element(manifest=manifest, directory=str(path.parent.absolute())), stamp
            )
        except InvalidSpecification as error:
            self._faults[folder] = str(error)


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return (path, status.st_mtime_ns, status.st_size)


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
