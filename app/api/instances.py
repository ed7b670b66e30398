"""Instances: the running copies of elements, and changes of their settings while they run."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.api.problems import RESPONSES
from app.api.resources import After, Limit, part
from app.api.services import Given, Services
from app.catalog.schema import SettingsSchema
from app.domain import places
from app.domain.errors import NotFound
from app.domain.explain import FieldError, InvalidFields, did_you_mean, pointer_to
from app.domain.observed import Instance
from app.domain.resources import Page, SettingsChange

router = APIRouter(prefix="/v1/instances", tags=["instances"], responses=RESPONSES)

Wait = Annotated[
    float, Query(ge=0, le=600, description="Seconds to wait until the host has the change.")
]


@router.get("", operation_id="listInstances")
def instances(services: Given, limit: Limit = 1000, after: After = "") -> Page[Instance]:
    """The element instances of all running applications, by id."""
    with services.store.read() as transaction:
        names = [
            record.name
            for record in transaction.applications.all()
            if services.project in (None, record.spec.project)
        ]
    found: list[Instance] = []
    for name in names:
        observed = services.convergence.status(name).observed
        if observed is not None and observed.pid is not None:
            found += services.agent.instances(name)
    return part(sorted(found, key=lambda one: one.id), lambda one: one.id, after, limit)


@router.patch("/{instance_id}", operation_id="changeInstance")
def change(
    services: Given, instance_id: str, change: SettingsChange, wait: Wait = 10.0
) -> Instance:
    """Change settings while the program runs: those whose schema says `apply: live`.

    The change is part of the application's specification from now on: a restart keeps it.
    """
    name, _, element = instance_id.partition(".")
    _record(services, name, element, change.settings)
    services.convergence.wake(name)
    status = services.convergence.wait_for(name, lambda status: not status.busy, wait)
    if wait and status.condition is not None and status.condition.error is not None:
        raise status.condition.error
    return _instance(services, name, element)


def _record(services: Services, name: str, element: str, asked: dict[str, Any]) -> None:
    with services.store.write() as transaction:
        spec = transaction.applications.get(name).spec
        if element not in spec.elements:
            raise NotFound(
                f"application '{name}' has no instance of '{element}'",
                remedy=did_you_mean(element, spec.elements),
            )
        schema = services.catalog.entry(element).schema
        before = spec.elements[element].settings
        after = schema.in_numbers(places.merge(before, asked))
        changed = list(places.differences(before, after))
        after = places.with_parents(after, changed)
        if errors := _faults(schema, before, after, changed):
            raise InvalidFields(errors)
        if changed:
            transaction.applications.set_settings(name, element, after)
            keys = ", ".join(".".join(place) for place in changed)
            transaction.events.add("settings-changed", name, f"{element}: {keys} changed")


def _faults(
    schema: SettingsSchema,
    before: dict[str, Any],
    after: dict[str, Any],
    changed: list[places.Place],
) -> list[FieldError]:
    """What the schema refuses, and what a running program would not take."""
    errors = schema.check(after, "/settings")
    if errors:
        return errors
    present = schema.with_defaults(places.with_parents(before, changed))
    wanted = schema.with_defaults(after)
    for place in changed:
        pointer, key = pointer_to(place, "/settings"), ".".join(place)
        if places.find(present, place) == places.find(wanted, place):
            continue
        if not schema.is_live(place):
            detail = f"'{key}' cannot change while the program runs"
            remedy = "replace the application (PUT, or 'cse apply'): its program is started anew"
            errors.append(FieldError(pointer=pointer, detail=detail, remedy=remedy))
        elif places.find(wanted, place) is None:
            detail = f"'{key}' has no default to go back to while the program runs"
            errors.append(FieldError(pointer=pointer, detail=detail, remedy="give it a value"))
    return errors


def _instance(services: Services, name: str, element: str) -> Instance:
    """As the agent shows it; of an application that was never on the host, as it will be."""
    entry = services.catalog.entry(element)
    with services.store.read() as transaction:
        settings = transaction.applications.get(name).spec.elements[element].settings
    observed = services.convergence.status(name).observed
    if observed is not None:
        for instance in services.agent.instances(name):
            if instance.element == element:
                return instance
    return Instance(
        id=f"{name}.{element}",
        application=name,
        element=element,
        kind=entry.element.manifest.kind,
        pids=[],
        started=False,
        settings=entry.schema.with_defaults(settings),
    )
