"""The stack file: everything that one `cse apply -f` brings about."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from app.domain.application import ApplicationSpec
from app.domain.fault import FaultSpec
from app.domain.model import Model, Name
from app.domain.network import NetworkSpec
from app.domain.volume import VolumeSpec


class StackFault(FaultSpec):
    """A fault of one of the stack's applications; while it is listed it holds."""

    application: Name

    @property
    def spec(self) -> FaultSpec:
        """The fault itself."""
        return FaultSpec.model_validate(self.model_dump(exclude={"application"}))


class Stack(Model):
    """Networks, volumes, applications and faults, each by its name."""

    name: Name = "default"
    """Recorded on everything the stack makes, as label `cse.stack`."""
    networks: dict[Name, NetworkSpec] = Field(default={}, description="Name → network.")
    volumes: dict[Name, VolumeSpec] = Field(default={}, description="Name → volume.")
    applications: dict[Name, ApplicationSpec] = Field(description="Name → application.")
    faults: dict[Name, StackFault] = Field(default={}, description="Name → fault.")

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


class StackFile(Stack):
    """A stack as it is written in a file, before `cse` has resolved what is in there."""

    variables: dict[str, str | int | float | bool | None] = Field(
        default={}, description="Name → default (null: must be given); used as ${name}."
    )
    include: str | list[str] = Field(
        default=[], description="Other stack files, relative to this one, that belong to it."
    )
