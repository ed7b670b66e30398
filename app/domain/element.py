"""An element's manifest: `images/<element>/element.json`. A new folder is a new element."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.domain.model import Model, Name


class LibrarySet(Model):
    """The files of one build, relative to `lib/<target>/` in the element's directory."""

    preload: list[str] = Field(min_length=1)
    """Overlays, linked into the program in this order (LD_PRELOAD)."""
    files: list[str] = []
    """Implementations and helpers that the overlays open themselves."""


class ElementManifest(Model):
    """What an element is, what it needs and what it lets one set."""

    name: Name
    kind: Literal["network", "filesystem", "clock", "name-service"]
    """An application has at most one element of a kind."""
    version: str = Field(pattern=r"^\d+\.\d+\.\d+([-+].*)?$")
    summary: str = Field(max_length=120)
    description: str = ""
    license: str
    libraries: dict[str, LibrarySet]
    """`<libc>-<machine>`, as in `glibc-x86_64` or `musl-aarch64` → its files."""
    settings: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    """JSON Schema (2020-12) of an object. Extension keywords: `unit`; `apply`: `live` or
    `restart`; `format: host-path` marks a path of the host that is mounted read-only into the
    application and replaced by its path there."""
    environment: dict[str, str] = {}
    """Set in the application; `{setting}` stands for a setting's value, and a variable whose
    settings are all absent is not set. For elements that read no settings file."""
    needs: list[Literal["tap", "broker", "private-directory"]] = []
    evidence: list[str] = []
    """Names of the claims (app/evidence) that apply to each instance, beside the general ones."""


class Element(Model):
    """A manifest and the directory of this host that holds its built libraries."""

    manifest: ElementManifest
    directory: str
    """Holds `element.json` and `lib/<target>/…`; targets of other variants are
    `lib/<target>-<variant>/…`."""
