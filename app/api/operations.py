"""Operations: what is under way, waiting for it, calling it off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from app.api.problems import RESPONSES
from app.api.services import Given, Services
from app.domain.access import Principal
from app.domain.errors import NotFound
from app.domain.operation import Goal, Operation, State, Target
from app.domain.resources import Page
from app.store.clock import stamp
from app.store.records import ApplicationRecord

router = APIRouter(prefix="/v1/operations", tags=["operations"], responses=RESPONSES)

Prefer = Annotated[
    str | None, Header(description="`respond-async`: do not wait; the answer names an operation.")
]
HEADER = "Operation-Location"
_REMOVED: Goal = "removed"


@router.get("", operation_id="listOperations")
def list_all(
    services: Given,
    state: Annotated[State | None, Query(description="Only those in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str, Query(description="`next` of the part before.")] = "",
) -> Page[Operation]:
    """The newest first; the last thousand that are over are kept."""
    with services.store.read() as transaction:
        found = transaction.operations.page(after, limit, state)
    following = stamp(found[-1].created) if len(found) == limit else None
    found = [one for one in found if _is_ours(services, one)]
    found = [services.operations.get(one.id) if one.state == "running" else one for one in found]
    return Page(items=found, next=following)


@router.get("/{identity}", operation_id="getOperation")
def get(
    services: Given,
    identity: str,
    wait: Annotated[float, Query(ge=0, le=600, description="Seconds, until it is over.")] = 0.0,
) -> Operation:
    """One operation; with `wait`, when it is over or the time is."""
    return _visible(services, services.operations.get(identity, wait))


@router.post("/{identity}/cancel", operation_id="cancelOperation")
def cancel(services: Given, identity: str) -> Operation:
    """Call it off: applications that do not run yet are removed where they are new, else stopped.

    What has been done stays done; ends that are under way go on (409 where there is nothing else).
    """
    _visible(services, services.operations.get(identity))
    return services.operations.cancel(identity)


def begun(
    services: Services,
    request: Request,
    response: Response,
    kind: str,
    records: list[ApplicationRecord],
    goal: Goal,
    new: frozenset[str] = frozenset(),
    leaving: Sequence[ApplicationRecord] = (),
) -> Operation:
    """An operation for what an answer leaves open; named in its `Operation-Location`. `leaving`:
    what is removed beside it, whatever the goal of the others."""
    principal: Principal | None = getattr(request.state, "principal", None)
    targets = [
        Target(
            application=record.name,
            project=record.spec.project,
            id=record.id,
            generation=record.generation,
            goal=goal,
            is_new=record.name in new,
        )
        for record, goal in [
            *((record, goal) for record in records),
            *((record, _REMOVED) for record in leaving),
        ]
    ]
    operation = services.operations.begin(kind, targets, principal.name if principal else None)
    response.headers[HEADER] = f"/v1/operations/{operation.id}"
    return operation


def asks_not_to_wait(prefer: str | None) -> bool:
    """RFC 7240."""
    return "respond-async" in (prefer or "")


def _is_ours(services: Services, operation: Operation) -> bool:
    return all(services.project in (None, target.project) for target in operation.targets)


def _visible(services: Services, operation: Operation) -> Operation:
    if not _is_ours(services, operation):
        raise NotFound(f"there is no operation '{operation.id}'")
    return operation
