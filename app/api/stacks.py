"""Applies a whole stack: everything is checked first, then recorded in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query

from app.api import admission
from app.api.admission import Admitted, Known
from app.api.problems import RESPONSES
from app.api.resources import Change, StackResult
from app.api.services import Given, Services
from app.domain.application import ApplicationSpec
from app.domain.errors import Conflict, CseError, InvalidSpecification
from app.domain.explain import FieldError, InvalidFields, pointer_to
from app.domain.model import Name
from app.domain.network import DEFAULT_NETWORK, NetworkSpec
from app.domain.stack import Stack
from app.domain.volume import VolumeSpec
from app.store.store import Transaction

router = APIRouter(prefix="/v1/stacks", tags=["stacks"], responses=RESPONSES)

LABEL = "cse.stack"


@router.put("/{name}", operation_id="applyStack")
def apply(
    services: Given,
    name: Name,
    stack: Stack,
    prune: Annotated[
        bool, Query(description="Remove applications of this stack that it no longer lists.")
    ] = False,
) -> StackResult:
    """Make networks, volumes and applications so; what already is so is left alone.

    Nothing is changed where anything in it cannot be accepted. Answers when all is recorded;
    `GET /v1/applications/{name}?wait=` tells when each runs.
    """
    if stack.name != name:
        raise InvalidSpecification(
            f"the stack is called '{stack.name}', the path says '{name}'",
            pointer="/name",
            remedy="use the same name in both",
        )
    stack = _labelled(services, stack)
    _check_keys(stack)
    admitted = _admit_all(services, stack)
    _ensure_networks(services, stack, admitted)
    with services.store.write() as transaction:
        changes = _record(services, transaction, stack, admitted, prune)
        transaction.events.add("applied", None, f"stack '{name}' applied")
    for change in changes:
        if change.kind == "application" and change.change != "unchanged":
            services.convergence.wake(change.name)
    return StackResult(name=name, changes=changes)


@router.delete("/{name}", status_code=202, operation_id="deleteStack")
def delete(services: Given, name: Name) -> StackResult:
    """Remove the stack's applications; networks and volumes stay until removed by name."""
    with services.store.write() as transaction:
        names = [
            record.name
            for record in transaction.applications.all()
            if record.spec.labels.get(LABEL) == name and record.desired != "removed"
        ]
        for member in names:
            transaction.applications.set_desired(member, "removed")
        transaction.events.add("stack-removed", None, f"stack '{name}' is being removed")
    for member in names:
        services.convergence.wake(member)
    changes = [Change(kind="application", name=member, change="removed") for member in names]
    return StackResult(name=name, changes=changes)


def _labelled(services: Services, stack: Stack) -> Stack:
    """The stack with its name on everything in it."""
    mark = {LABEL: stack.name}
    return stack.model_copy(
        update={
            "networks": {
                key: spec.model_copy(update={"labels": {**spec.labels, **mark}})
                for key, spec in stack.networks.items()
            },
            "volumes": {
                key: spec.model_copy(update={"labels": {**spec.labels, **mark}})
                for key, spec in stack.volumes.items()
            },
            "applications": {
                key: admission.with_defaults(services, spec).model_copy(
                    update={"labels": {**spec.labels, **mark}}
                )
                for key, spec in stack.applications.items()
            },
        }
    )


def _check_keys(stack: Stack) -> None:
    sections: dict[str, Mapping[str, NetworkSpec | VolumeSpec | ApplicationSpec]] = {
        "networks": stack.networks,
        "volumes": stack.volumes,
        "applications": stack.applications,
    }
    for section, entries in sections.items():
        for key, spec in entries.items():
            if key != spec.name:
                raise InvalidSpecification(
                    f"'{key}' names itself '{spec.name}'",
                    pointer=pointer_to([section, key, "name"]),
                    remedy="leave 'name' out; the key is the name",
                )


def _admit_all(services: Services, stack: Stack) -> dict[str, Admitted]:
    """Every application of the stack, checked as if the rest of the stack were there already."""
    names = admission.known(services)
    names = Known(
        networks={**names.networks, **stack.networks},
        volumes={**names.volumes, **stack.volumes},
        depends_on={
            **names.depends_on,
            **{key: spec.depends_on for key, spec in stack.applications.items()},
        },
    )
    errors: list[FieldError] = []
    for key, spec in stack.applications.items():
        errors += admission.faults(services, spec, names, pointer_to(["applications", key]))
    if errors:
        raise InvalidFields(errors)
    return {
        key: admission.admit(services, spec, names, pointer_to(["applications", key]))
        for key, spec in stack.applications.items()
    }


def _ensure_networks(services: Services, stack: Stack, admitted: dict[str, Admitted]) -> None:
    """Make the networks that are used; where one cannot be made, none of the new ones stays."""
    with services.store.read() as transaction:
        present = {network.name for network in transaction.networks.all()}
    made: set[str] = set()
    try:
        for key, item in admitted.items():
            if item.network is None or item.network.name in made:
                continue
            place = pointer_to(["applications", key, "network", "name"])
            if item.network.name in stack.networks:
                place = pointer_to(["networks", item.network.name])
            admission.ensure_network(services, item.network, place)
            made.add(item.network.name)
    except CseError:
        for name in made - present:
            services.convergence.remove_network(name)
        raise


def _record(
    services: Services,
    transaction: Transaction,
    stack: Stack,
    admitted: dict[str, Admitted],
    prune: bool,
) -> list[Change]:
    changes: list[Change] = []
    for network in stack.networks.values():
        place = pointer_to(["networks", network.name])
        before = transaction.networks.find(network.name)
        if before is not None and network.name != DEFAULT_NETWORK:
            _check_owner("network", before, stack.name, place)
        changed = _at(place, partial(transaction.networks.put, network))
        changes.append(_change("network", network.name, before is not None, changed))
    volumes = {volume.name: volume for volume in transaction.volumes.all()}
    for volume in stack.volumes.values():
        present = volumes.get(volume.name)
        if present is not None:
            _check_owner("volume", present, stack.name, pointer_to(["volumes", volume.name]))
        changed = transaction.volumes.put(volume)
        changes.append(_change("volume", volume.name, present is not None, changed))
    if prune:
        for record in transaction.applications.all():
            ours = record.spec.labels.get(LABEL) == stack.name
            if ours and record.name not in stack.applications and record.desired != "removed":
                transaction.applications.set_desired(record.name, "removed")
                changes.append(Change(kind="application", name=record.name, change="removed"))
    for key, item in admitted.items():
        changes.append(_record_application(services, transaction, stack.name, key, item))
    return changes


def _record_application(
    services: Services, transaction: Transaction, stack: str, key: str, item: Admitted
) -> Change:
    place = pointer_to(["applications", key])
    applications, present = transaction.applications, transaction.applications.find(key)
    if present is not None:
        _check_owner("application", present.spec, stack, place)
        if present.spec == item.spec and present.desired == "running":
            return Change(kind="application", name=key, change="unchanged")
    act = applications.replace if present else applications.insert
    installation = services.store.installation
    _at(place, partial(act, installation, item.spec, item.network, item.coverage))
    verb = "replaced" if present else "created"
    transaction.events.add(verb, key, f"{verb} by stack '{stack}'")
    return _change("application", key, present is not None, True)


def _check_owner(
    kind: str, spec: NetworkSpec | VolumeSpec | ApplicationSpec, stack: str, place: str
) -> None:
    """A stack changes only what it made."""
    owner = spec.labels.get(LABEL)
    if owner != stack:
        belongs = f"belongs to stack '{owner}'" if owner else "was not made by a stack"
        raise Conflict(
            f"{kind} '{spec.name}' exists and {belongs}",
            pointer=place,
            remedy=f"choose another name, or remove it first: cse rm {spec.name}",
        )


def _at(place: str, act: Callable[[], object]) -> bool:
    """Errors of the store point into the resource: make them point into the stack."""
    try:
        return bool(act())
    except CseError as error:
        error.pointer = place + (error.pointer or "")
        raise


def _change(kind: str, name: str, existed: bool, changed: bool) -> Change:
    verb = "unchanged" if not changed else "replaced" if existed else "created"
    return Change.model_validate({"kind": kind, "name": name, "change": verb})
