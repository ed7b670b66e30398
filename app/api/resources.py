"""How the resources follow from record and observation, and how lists are parted.

The resources themselves are in `app/domain/resources.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address
from typing import Annotated

from fastapi import Query

from app.domain.health import Health
from app.domain.model import Model
from app.domain.observed import State
from app.domain.resources import Application, ApplicationStatus, Item, Page, Shown
from app.domain.status import Status
from app.store.records import ApplicationRecord

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
        reason=reason or (status.activity if state == "running" else None),
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
