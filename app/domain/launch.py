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
    def linked(self) -> list[BoundElement]:
        """The elements that are libraries."""
        return [one for one in self.elements if one.element.manifest.provided_by == "library"]

    @property
    def has_private_stack(self) -> bool:
        """A network element is linked: the application's network namespace stays empty."""
        return any(one.element.manifest.kind == "network" for one in self.linked)

    @property
    def on_kernel_stack(self) -> bool:
        """A place on a network, and the kernel's own stack there: as an element, or as the
        `fallback: kernel` of one."""
        return self.network is not None and not self.has_private_stack

    def on_the_kernel(self) -> Launch:
        """Without the network element that cannot be linked, but still on its network."""
        kept = [
            one
            for one in self.elements
            if one.element.manifest.kind != "network" or one not in self.linked
        ]
        return self.model_copy(update={"elements": kept})

    @property
    def name(self) -> str:
        """The application's name."""
        return self.spec.name
