"""What the conversion of one Compose service has to know besides the service itself.

Made by `compose.py`, used by `service.py`; the caller gives `Choices`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ImageCommand:
    """What an image runs by itself."""

    entrypoint: list[str]
    command: list[str]


ImageCommands = Callable[[str], ImageCommand | None]
"""Image → its command; None where the image is not on this host."""


@dataclass(frozen=True)
class Choices:
    """What the file cannot say."""

    directory: Path
    """Of the file: relative paths in it start here."""
    elements: Sequence[str] = ("network-lwip",)
    """For services that name none."""
    runtime: str = "docker"
    images: ImageCommands = lambda _: None


@dataclass(frozen=True)
class Surroundings:
    """The file around a service; the maps lead from the file's names to those of the stack."""

    project: str
    names: dict[str, str]
    networks: dict[str, dict[str, Any]]
    """With `name`, and what else the stack says of it."""
    volumes: dict[str, str]
    files: dict[str, dict[str, Any]]
    """Compose's secrets and configs, each by its name."""
    choices: Choices
