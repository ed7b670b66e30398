"""The resources as clients see them: what the API answers with and the client returns.

Made by `app/api/resources.py`, read by `app/client`; neither imports the other.
"""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field

from app.domain.access import Scope
from app.domain.application import ApplicationSpec, PublishedPort
from app.domain.change import Kind
from app.domain.explain import FieldError
from app.domain.health import Health
from app.domain.model import Model
from app.domain.observed import Coverage, Finding

Desired = Literal["running", "stopped", "removed"]
Shown = Literal[
    "starting", "waiting", "running", "restarting", "exited", "stopped", "failed", "removing"
]


class ApplicationStatus(Model):
    """What is there."""

    state: Shown
    """`starting`: steps are under way; `waiting`: for what it depends on; `exited`: ended by
    itself; `stopped`: by request; `failed`: could not be started, `reason` says why."""
    reason: str | None = None
    """Why it is not as it should be; while it runs, what an instance is busy with (an index)."""
    remedy: str | None = None
    problem: str | None = None
    """Type of the problem that `reason` describes."""
    pid: int | None = None
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    restarts: int = 0
    address: IPv4Address | None = None
    """Of its private stack."""
    address6: IPv6Address | None = None
    ports: list[PublishedPort] = Field(default_factory=list)
    coverage: Coverage | None = None
    """What preflight found out about the program."""
    health: Health | None = None
    """What its health check found; absent where it has none or does not run."""


class Application(Model):
    """One unmodified program with its private services."""

    name: str
    id: str
    """Changes with every replacement of the specification."""
    generation: int
    desired: Desired
    created: datetime
    updated: datetime
    spec: ApplicationSpec
    status: ApplicationStatus


Item = TypeVar("Item")


class Page(Model, Generic[Item]):
    """A part of a list."""

    items: list[Item]
    next: str | None = None
    """Pass as `after` for the following part; absent at the end."""


class ElementResource(Model):
    """An element of the catalogue."""

    name: str
    kind: str
    version: str
    summary: str
    description: str
    license: str
    targets: list[str]
    """`<libc>-<machine>` for which libraries are there."""
    settings: dict[str, Any]
    """JSON Schema of `settings` in a specification."""
    needs: list[str]


class ExecRequest(Model):
    """A command to run beside an application."""

    command: list[str] = Field(min_length=1, examples=[["ls", "-l", "/srv"]])
    timeout: float = Field(default=60.0, gt=0, le=3600)
    """Seconds; the command is killed after that."""


class SettingsChange(Model):
    """Settings of an element to change while its program runs."""

    settings: dict[str, Any] = Field(
        examples=[{"ttl": 32, "keepalive": {"idle": 60}}],
        description="What changes; the rest stays. null: back to the default.",
    )


class Change(Model):
    """What applying a stack did to one resource."""

    kind: Kind
    name: str
    change: Literal["created", "changed", "replaced", "unchanged", "removed"]
    """`changed`: what runs goes on, or is restarted; `replaced`: it was made anew."""


class StackResult(Model):
    """What applying a stack did."""

    name: str
    changes: list[Change]
    operation: str | None = None
    """Tells when all of it runs, or is gone."""


class Index(Model):
    """The interface's version, and what it has beyond its first release."""

    api: Literal["v1"]
    version: str
    api_extensions: list[str] = Field(examples=[["exec-terminal", "capture-websocket"]])


class SessionRequest(Model):
    """A token to be kept in a cookie."""

    token: str = Field(min_length=1, max_length=200)


class Session(Model):
    """Who a client is."""

    principal: str = Field(examples=["token ci", "local"])
    scope: Scope
    project: str | None = None
    token_required: bool
    """Whether this server refuses requests without a token."""


class ServerHealth(Model):
    """Whether the parts answer."""

    status: Literal["ok", "degraded"]
    version: str
    agent: str
    """`ok`, or why it cannot be reached."""
    applications: int


class Doctor(Model):
    """What the host has and lacks."""

    findings: list[Finding]


class Event(Model):
    """Something that happened, in the order it was recorded."""

    id: int
    time: datetime
    kind: str
    """Short stable word: created, started, exited, failed, …"""
    application: str | None
    message: str


class Problem(Model):
    """What went wrong, where, and what to do."""

    type: str = Field(examples=["urn:cse:problem:invalid-specification"])
    title: str
    status: int
    detail: str
    remedy: str | None = None
    errors: list[FieldError] = Field(default_factory=list)
    request_id: str | None = None
    """Names the request in the server's log and audit."""
