"""A stack file to begin from, as `GET /v1/templates` shows it."""

from __future__ import annotations

from typing import Any

from app.domain.model import Model


class Template(Model):
    """One stack file of the examples' directory."""

    name: str
    """Of the file, without `.yaml`."""
    about: str
    """The first lines of comment in the file."""
    content: dict[str, Any]
    """A stack, or one application (which has a `command`), with the paths of the host that runs
    applications and the defaults of its variables."""
