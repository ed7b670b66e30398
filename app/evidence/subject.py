"""One application as evidence looks at it; the agent gathers these from runtime and broker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from app.domain.launch import BoundElement
from app.evidence import proc


@dataclass(frozen=True)
class Linked:
    """An element of the application and the files of it that were linked."""

    bound: BoundElement
    libraries: list[Path]
    """On the host: the preloaded files, then those that they open themselves."""

    @property
    def name(self) -> str:
        """The element's."""
        return self.bound.element.manifest.name

    @property
    def kind(self) -> str:
        """The element's."""
        return self.bound.element.manifest.kind

    @property
    def by_kernel(self) -> bool:
        """Nothing is linked: the kernel's own service stands for it."""
        return self.bound.element.manifest.provided_by == "kernel"

    @cached_property
    def inodes(self) -> set[int]:
        """Of the library files on the host."""
        return {path.stat().st_ino for path in self.libraries if path.exists()}


@dataclass(frozen=True)
class Subject:
    """`main` is the program's own pid, `since` when it was started."""

    name: str
    pids: list[int]
    main: int | None
    since: datetime | None
    linked: list[Linked]
    data: Path
    expected_sha256: str
    outside_sha256: Callable[[str], str | None]
    """Path as the application sees it → hash of the same file outside, None where unknown."""
    reported: dict[str, Any] = field(default_factory=dict)
    """What the instance told the broker."""

    def users_of(self, linked: Linked) -> list[int]:
        """Processes that have the element's library mapped; all, of one that is no library."""
        if linked.by_kernel:
            return list(self.pids)
        return [pid for pid in self.pids if proc.maps_library(pid, linked.inodes)]
