"""What a change of settings comes to on this host: new settings files, and words for the running.

Only what differs in the specification changes; everything else stays as it was resolved when the
application was created, whatever the catalogue says by now. Called by `local`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.domain import places
from app.domain.application import ApplicationSpec
from app.domain.launch import BoundElement, Launch
from app.runtimes.conf import flatten


@dataclass(frozen=True)
class Change:
    """`told`: kind of element → the keys and values of a `set` message."""

    launch: Launch
    told: dict[str, dict[str, str]]


def change(
    launch: Launch, spec: ApplicationSpec, settings: dict[str, dict[str, Any]]
) -> Change | None:
    """None where nothing differs. `settings`: element → resolved settings by `spec`."""
    told: dict[str, dict[str, str]] = {}
    elements = []
    for bound in launch.elements:
        name = bound.element.manifest.name
        before, after = launch.spec.elements.get(name), spec.elements.get(name)
        differing: list[places.Place] = []
        if before is not None and after is not None and name in settings:
            differing = list(places.differences(before.settings, after.settings))
        if not differing:
            elements.append(bound)
            continue
        new = places.replaced(bound.settings, settings[name], differing)
        flat = _flat_at(new, differing)
        told[bound.element.manifest.kind] = flat
        changed = sorted({*bound.changed, *flat})
        elements.append(bound.model_copy(update={"settings": new, "changed": changed}))
    if not told:
        return None
    return Change(launch.model_copy(update={"elements": elements, "spec": spec}), told)


def missed(launch: Launch) -> dict[str, dict[str, str]]:
    """Kind → everything changed since the creation: an instance that was away may need it."""
    return {
        bound.element.manifest.kind: values
        for bound in launch.elements
        if (values := _changed(bound))
    }


def _changed(bound: BoundElement) -> dict[str, str]:
    flat = flatten(bound.settings)
    return {key: flat[key] for key in bound.changed if key in flat}


def _flat_at(settings: dict[str, Any], differing: list[places.Place]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for place in differing:
        flat |= flatten(places.find(settings, place), ".".join(place))
    return flat
