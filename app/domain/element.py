"""An element's manifest: `images/<element>/element.json`. A new folder is a new element."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

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
    provided_by: Literal["library", "kernel"] = "library"
    """`kernel`: nothing is linked; the application gets the kernel's own service in a namespace
    of its own, wherever its program comes from."""
    libraries: dict[str, LibrarySet] = {}
    """`<libc>-<machine>`, as in `glibc-x86_64` or `musl-aarch64` → its files."""
    settings: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    """JSON Schema (2020-12) of an object. Extension keywords: `unit` (of
    bytes or time: `16M` and `40ms` are taken as well); `apply`: `live` or
    `restart`; `format: host-path` marks a path of the host that is mounted read-only into the
    application and replaced by its path there, `host-directory` a directory that is mounted for
    reading and writing, `memory-bytes` the size of a file system in memory, replaced by its
    path."""
    environment: dict[str, str] = {}
    """Set in the application; `{setting}` stands for a setting's value, and a variable whose
    settings are all absent is not set. For elements that read no settings file."""
    needs: list[Literal["tap", "broker", "private-directory"]] = []
    evidence: list[str] = []
    """Names of the claims (app/evidence) that apply to each instance, beside the general ones."""

    @model_validator(mode="after")
    def _files_where_linked(self) -> ElementManifest:
        if self.provided_by == "library" and not self.libraries:
            raise ValueError("an element that is a library needs 'libraries'")
        if self.provided_by == "kernel" and (self.libraries or self.kind != "network"):
            raise ValueError("the kernel provides elements of kind network, without 'libraries'")
        return self


class Element(Model):
    """A manifest and the directory of this host that holds its built libraries."""

    manifest: ElementManifest
    directory: str
    """Holds `element.json` and `lib/<target>/…`; targets of other variants are
    `lib/<target>-<variant>/…`."""
