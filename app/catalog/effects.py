"""Which fields of a specification differ, and what a change of each does to what runs.

Called by `app/api/planning.py`, for plans and before every replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from app.catalog.catalog import Catalog
from app.domain import places
from app.domain.application import ApplicationSpec
from app.domain.change import Effect, FieldChange
from app.domain.errors import CseError
from app.domain.explain import pointer_to
from app.domain.model import Model
from app.domain.network import NetworkSpec

_UNNOTICED = frozenset({"labels", "depends_on", "project", "health", "priority"})
_NETWORK_LIVE = frozenset({"policy", "nat"})


def of_application(
    before: ApplicationSpec, after: ApplicationSpec, catalog: Catalog
) -> list[FieldChange]:
    """Nothing where the two mean the same."""

    def effect(place: places.Place) -> Effect:
        if place[0] in _UNNOTICED:
            return Effect.NONE
        if place[0] == "elements" and len(place) > 3 and place[2] == "settings":
            return _of_setting(before, after, catalog, place[1], place[3:])
        return Effect.RECREATE

    found = list(_differences(before, after, effect))
    one, other = list(before.elements), list(after.elements)
    if one != other and set(one) == set(other):  # they are linked in this order
        found.append(
            FieldChange(pointer="/elements", before=one, after=other, effect=Effect.RECREATE)
        )
    return found


def of_network(before: NetworkSpec, after: NetworkSpec) -> list[FieldChange]:
    """Applications get what their network is when they are made; filters follow at once."""

    def effect(place: places.Place) -> Effect:
        if place[0] in _UNNOTICED:
            return Effect.NONE
        return Effect.LIVE if place[0] in _NETWORK_LIVE else Effect.LATER

    return list(_differences(before, after, effect))


def of_other(before: Model, after: Model, effect: Effect) -> list[FieldChange]:
    """The same effect for every field."""
    return list(_differences(before, after, lambda _: effect))


def _differences(
    before: Model, after: Model, effect: Callable[[places.Place], Effect]
) -> Iterator[FieldChange]:
    one = before.model_dump(mode="json", by_alias=True)
    other = after.model_dump(mode="json", by_alias=True)
    for place in places.differences(one, other):
        yield FieldChange(
            pointer=pointer_to(place),
            before=places.find(one, place),
            after=places.find(other, place),
            effect=effect(place),
        )


def _of_setting(
    before: ApplicationSpec,
    after: ApplicationSpec,
    catalog: Catalog,
    element: str,
    place: places.Place,
) -> Effect:
    if element not in before.elements or element not in after.elements:
        return Effect.RECREATE
    try:
        entry = catalog.entry(element, after.elements[element].path)
    except CseError:
        return Effect.RECREATE
    one = entry.schema.with_defaults(before.elements[element].settings)
    other = entry.schema.with_defaults(after.elements[element].settings)
    if places.find(one, place) == places.find(other, place):
        return Effect.NONE
    apply = entry.schema.apply(place)
    if apply == "live" and places.find(other, place) is not None:
        return Effect.LIVE
    # What the program is started with is written when it is created: its environment.
    environment = " ".join(entry.element.manifest.environment.values())
    return Effect.RECREATE if apply is None or f"{{{place[0]}}}" in environment else Effect.RESTART
