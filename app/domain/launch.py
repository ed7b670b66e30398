"""What the agent receives: one application, wholly resolved, nothing left to look up."""

from __future__ import annotations

from typing import Any, Literal

from app.domain.application import AbsolutePath, ApplicationSpec
from app.domain.element import Element
from app.domain.model import Model
from app.domain.network import NetworkBinding


class BoundElement(Model):
    """An element with the settings checked and defaults filled in."""

    element: Element
    settings: dict[str, Any]
    changed: list[str] = []
    """Settings changed since the program was created (`keepalive.idle`): an instance that connects
    to the broker again is told them, it may have missed the change."""
    variant: Literal["release", "debug", "asan"] = "release"
    link: Literal["preload", "bundled"] = "preload"


class BoundMount(Model):
    """`source` is an absolute, existing path of the host."""

    source: AbsolutePath
    target: AbsolutePath
    read_only: bool


class Launch(Model):
    """`spec` says what was asked; the other fields are what that resolved to."""

    id: str
    """Unique for all time; part of every ownership mark."""
    spec: ApplicationSpec
    elements: list[BoundElement]
    network: NetworkBinding | None
    """None where no element of kind network is used: the kernel's own network of this host."""
    mounts: list[BoundMount]

    @property
    def name(self) -> str:
        """The application's name."""
        return self.spec.name
