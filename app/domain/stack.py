"""The stack file: everything that one `cse apply -f` brings about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from app.domain.application import ApplicationSpec
from app.domain.fault import FaultSpec
from app.domain.model import Model, Name
from app.domain.network import NetworkSpec
from app.domain.volume import VolumeSpec

MAX_REPLICAS = 1000


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
        filled = _with_replicas(dict(value))
        for section in ("networks", "volumes", "applications"):
            entries = filled.get(section)
            if isinstance(entries, dict):
                filled[section] = {
                    key: {"name": key, **(body or {})} if isinstance(body, dict | None) else body
                    for key, body in entries.items()
                }
        return filled


def _with_replicas(stack: dict[str, Any]) -> dict[str, Any]:
    """`web: {replicas: 3, …}` is `web-1`, `web-2` and `web-3`; who depends on `web` does on all."""
    applications = stack.get("applications")
    if not isinstance(applications, dict):
        return stack
    copies: dict[str, list[str]] = {}
    expanded: dict[str, Any] = {}
    for name, body in applications.items():
        if not isinstance(body, dict) or "replicas" not in body:
            expanded[name] = body
            continue
        copies[str(name)] = _names_of_copies(str(name), body)
        rest = {key: value for key, value in body.items() if key not in ("replicas", "name")}
        expanded |= dict.fromkeys(copies[str(name)], rest)
    for name, body in expanded.items():
        words = body.get("depends_on") if isinstance(body, dict) else None
        if copies and isinstance(words, list):
            expanded[name] = {**body, "depends_on": list(_each(words, copies))}
    return {**stack, "applications": expanded}


def _names_of_copies(name: str, body: dict[str, Any]) -> list[str]:
    count = body["replicas"]
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_REPLICAS:
        raise ValueError(
            f"'{name}': 'replicas' is out of range; write a number from 0 to {MAX_REPLICAS}"
        )
    if count > 1 and body.get("ports"):
        raise ValueError(f"'{name}': copies cannot publish the same port; remove 'ports'")
    return [f"{name}-{number}" for number in range(1, count + 1)]


def _each(words: list[Any], copies: dict[str, list[str]]) -> Iterator[Any]:
    for word in words:
        name, colon, condition = str(word).partition(":")
        if name in copies:
            yield from (f"{copy}{colon}{condition}" for copy in copies[name])
        else:
            yield word


class StackFile(Stack):
    """A stack as it is written in a file, before `cse` has resolved what is in there."""

    variables: dict[str, str | int | float | bool | None] = Field(
        default={}, description="Name → default (null: must be given); used as ${name}."
    )
    include: str | list[str] = Field(
        default=[], description="Other stack files, relative to this one, that belong to it."
    )
