"""The resources as clients see them, and how they follow from record and observation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import Field

from app.domain.access import Scope
from app.domain.application import ApplicationSpec, PublishedPort
from app.domain.change import Kind
from app.domain.health import Health
from app.domain.model import Model
from app.domain.observed import Coverage, Finding, State
from app.domain.status import Status
from app.store.records import ApplicationRecord, Desired

Shown = Literal[
    "starting", "waiting", "running", "restarting", "exited", "stopped", "failed", "removing"
]


class ApplicationStatus(Model):
    """What is there."""

    state: Shown
    """`starting`: steps are under way; `waiting`: for what it depends on; `exited`: ended by
    itself; `stopped`: by request; `failed`: could not be started, `reason` says why."""
    reason: str | None = None
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


Labels = Annotated[
    list[str] | None,
    Query(description="Selector, as in `tier=web,env!=test,zone in (a, b)`; all must fit."),
]
Limit = Annotated[int, Query(ge=1, le=10_000)]
After = Annotated[str, Query(description="`next` of the part before.")]


def part(items: Iterable[Item], key: Callable[[Item], str], after: str, limit: int) -> Page[Item]:
    """Of items in the order of their keys, those after one."""
    fitting = [item for item in items if key(item) > after]
    more = len(fitting) > limit
    return Page(items=fitting[:limit], next=key(fitting[limit - 1]) if more else None)


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
    settings: dict[str, object]
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


def application(
    record: ApplicationRecord, status: Status, health: Health | None = None
) -> Application:
    """The resource from what the store and the reconcile loop know."""
    return Application.model_construct(
        name=record.name,
        id=record.id,
        generation=record.generation,
        desired=record.desired,
        created=record.created,
        updated=record.updated,
        spec=record.spec,
        status=_status(record, status, health),
    )


def etag(record: ApplicationRecord) -> str:
    """Differs after every change of the specification or the desired state."""
    return f'"{record.id}.{record.generation}"'


def etag_of(spec: Model) -> str:
    """Of a resource that is its specification: a network, a volume."""
    return f'"{hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:16]}"'


def _status(record: ApplicationRecord, status: Status, health: Health | None) -> ApplicationStatus:
    observed = status.observed
    if observed is not None and observed.id != record.id:
        observed = None
    state, reason, remedy, problem = _shown(record, status)
    return ApplicationStatus.model_construct(
        state=state,
        reason=reason,
        remedy=remedy,
        problem=problem,
        pid=observed.pid if observed else None,
        exit_code=observed.exit_code if observed else None,
        started_at=observed.started_at if observed else None,
        finished_at=observed.finished_at if observed else None,
        restarts=observed.restarts if observed else 0,
        address=record.address,
        address6=_address6(record),
        ports=record.spec.ports,
        coverage=record.coverage,
        health=health,
    )


def _address6(record: ApplicationRecord) -> IPv6Address | None:
    if record.address is None or record.network is None:
        return None
    return record.network.address6(record.address)


def shown_state(record: ApplicationRecord, status: Status) -> Shown:
    """`status.state` alone."""
    return _shown(record, status)[0]


def _shown(
    record: ApplicationRecord, status: Status
) -> tuple[Shown, str | None, str | None, str | None]:
    """State, reason, remedy and problem type."""
    if record.desired == "removed":
        return "removing", status.condition.detail if status.condition else None, None, None
    observed, condition = status.observed, status.condition
    if condition is not None and condition.generation != record.generation:
        condition = None
    error = condition.error if condition else None
    reason = condition.detail if condition else None
    if error is not None:
        reason = f"{error.pointer}: {error.detail}" if error.pointer else error.detail
    problem = f"urn:cse:problem:{error.slug}" if error else None
    remedy = error.remedy if error else None
    if observed is not None and observed.id == record.id:
        trouble = reason if error else None
        if observed.state is State.RUNNING:
            return "running", trouble, remedy, problem
        if observed.state is State.RESTARTING:
            return "restarting", trouble or observed.reason, remedy, problem
    if condition is not None:
        return ("failed" if error else "waiting"), reason, remedy, problem
    wanted = record.desired == "running"
    if observed is None or observed.id != record.id or observed.state is State.CREATED:
        return ("starting" if wanted else "stopped"), None, None, None
    if observed.state is State.FAILED:
        return "failed", observed.reason, None, "urn:cse:problem:runtime-failure"
    if wanted and record.run_done < record.run_wanted and status.busy:
        return "starting", None, None, None
    return ("exited" if wanted else "stopped"), observed.reason, None, None
