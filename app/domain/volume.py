"""Volumes: directories of the host that outlive the applications that mount them."""

from __future__ import annotations

from app.domain.model import Model, Name


class VolumeSpec(Model):
    """A directory kept under the state directory; removed only by request."""

    name: Name
    labels: dict[str, str] = {}
