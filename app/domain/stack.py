"""The stack file: everything that one `cse apply -f` brings about."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from app.domain.application import ApplicationSpec
from app.domain.model import Model, Name
from app.domain.network import NetworkSpec
from app.domain.volume import VolumeSpec


class Stack(Model):
    """Networks, volumes and applications, each by its name."""

    name: Name = "default"
    """Recorded on everything the stack makes, as label `cse.stack`."""
    networks: dict[Name, NetworkSpec] = Field(default={}, description="Name → network.")
    volumes: dict[Name, VolumeSpec] = Field(default={}, description="Name → volume.")
    applications: dict[Name, ApplicationSpec] = Field(description="Name → application.")

    @model_validator(mode="before")
    @classmethod
    def _keys_are_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        filled = dict(value)
        for section in ("networks", "volumes", "applications"):
            entries = filled.get(section)
            if isinstance(entries, dict):
                filled[section] = {
                    key: {"name": key, **(body or {})} if isinstance(body, dict | None) else body
                    for key, body in entries.items()
                }
        return filled
