"""From a specification to a `Launch`: everything that can be known before the host is touched.

`check` finds every fault of a specification at once (the API answers with them before anything
is stored); `launch` builds what the agent receives. Called by `api`, `reconcile` and `cli run`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from app.catalog.catalog import Catalog
from app.domain.application import ApplicationSpec
from app.domain.errors import CseError
from app.domain.explain import FieldError, InvalidFields, pointer_to
from app.domain.launch import BoundElement, BoundMount, Launch
from app.domain.network import NetworkBinding, NetworkSpec, mac_for


def check(
    spec: ApplicationSpec, catalog: Catalog, *, visible: bool = True, prefix: str = ""
) -> list[FieldError]:
    """What is wrong with the specification's elements and host paths.

    `visible`: whether this process sees the host's files and can tell which are missing.
    """
    errors: list[FieldError] = []
    of_kind: dict[str, str] = {}
    for name, use in spec.elements.items():
        place = pointer_to(["elements", name], prefix)
        try:
            entry = catalog.entry(name, use.path)
        except CseError as error:
            errors.append(FieldError(pointer=place, detail=error.detail, remedy=error.remedy))
            continue
        kind = entry.element.manifest.kind
        if other := of_kind.get(kind):
            errors.append(
                FieldError(
                    pointer=place,
                    detail=f"'{name}' and '{other}' are both of kind {kind}",
                    remedy="an application has at most one element of a kind; remove one",
                )
            )
        of_kind[kind] = name
        errors += entry.schema.check(use.settings, f"{place}/settings")
        for path, text in entry.schema.host_paths(entry.schema.with_defaults(use.settings)):
            errors += _check_path(text, pointer_to(path, f"{place}/settings"), visible)
    for index, mount in enumerate(spec.mounts):
        if mount.source is not None:
            place = pointer_to(["mounts", index, "from"], prefix)
            errors += _check_path(mount.source, place, visible)
    if "network" not in of_kind:
        errors += _network_needed(spec, prefix)
    return errors


def in_numbers(spec: ApplicationSpec, catalog: Catalog) -> ApplicationSpec:
    """The specification with element settings such as `16M` in the unit of their schema."""
    changed = {}
    for name, use in spec.elements.items():
        if not use.settings:
            continue
        with suppress(CseError):
            found = catalog.entry(name, use.path).schema.in_numbers(use.settings)
            if found != use.settings:
                changed[name] = use.model_copy(update={"settings": found})
    if not changed:
        return spec
    return spec.model_copy(update={"elements": {**spec.elements, **changed}})


def uses_network(spec: ApplicationSpec, catalog: Catalog) -> bool:
    """Whether an element of kind network is used, so that an address is needed."""
    return any(
        catalog.entry(name, use.path).element.manifest.kind == "network"
        for name, use in spec.elements.items()
    )


def binding(network: NetworkSpec, address: IPv4Address, spec: ApplicationSpec) -> NetworkBinding:
    """The application's place on its network."""
    return NetworkBinding(
        network=network, address=address, mac=mac_for(address), aliases=spec.network.aliases
    )


def settings(spec: ApplicationSpec, catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Element → its settings with defaults, for those that the catalogue has."""
    found = {}
    for name, use in spec.elements.items():
        with suppress(CseError):
            found[name] = catalog.entry(name).schema.with_defaults(use.settings)
    return found


def launch(
    launch_id: str,
    spec: ApplicationSpec,
    catalog: Catalog,
    network: NetworkBinding | None,
    volumes: Mapping[str, str],
) -> Launch:
    """The specification wholly resolved; `volumes`: name → directory on the host.

    Raises `InvalidFields` where the catalogue has changed so that the settings no longer fit.
    """
    bound = []
    for name, use in spec.elements.items():
        entry = catalog.entry(name, use.path)
        if errors := entry.schema.check(use.settings, pointer_to(["elements", name, "settings"])):
            raise InvalidFields(errors)
        filled = entry.schema.with_defaults(use.settings)
        bound.append(
            BoundElement(element=entry.element, settings=filled, variant=use.variant, link=use.link)
        )
    mounts = [
        BoundMount(
            source=mount.source if mount.source is not None else volumes[str(mount.volume)],
            target=mount.path,
            read_only=mount.read_only,
        )
        for mount in spec.mounts
    ]
    return Launch(id=launch_id, spec=spec, elements=bound, network=network, mounts=mounts)


def _check_path(text: str, pointer: str, visible: bool) -> list[FieldError]:
    if not text.startswith("/"):
        remedy = "write an absolute path; 'cse apply' resolves relative ones by the stack file"
        return [FieldError(pointer=pointer, detail=f"'{text}' is a relative path", remedy=remedy)]
    if "\0" in text or "\n" in text:
        return [FieldError(pointer=pointer, detail="a path holds NUL or a newline")]
    if visible and not Path(text).exists():
        detail, remedy = _why_missing(text)
        return [FieldError(pointer=pointer, detail=detail, remedy=remedy)]
    return []


def _why_missing(text: str) -> tuple[str, str]:
    path = Path(text)
    parent = next(parent for parent in path.parents if parent.exists())
    if not os.access(parent, os.X_OK):
        return f"'{text}' cannot be reached", f"give this user access to {parent}"
    missing = path.relative_to(parent).parts[0]
    remedy = f"there is no '{missing}' in {parent}; create it or correct the path"
    return f"'{text}' does not exist on this host", remedy


def _network_needed(spec: ApplicationSpec, prefix: str) -> list[FieldError]:
    """Ports and addresses mean nothing without a private stack: say so instead of ignoring."""
    remedy = "add an element of kind network, such as network-lwip, or remove this"
    unused = {
        "ports": bool(spec.ports),
        "network": bool(spec.network.address or spec.network.aliases),
    }
    return [
        FieldError(
            pointer=pointer_to([field], prefix),
            detail=f"'{field}' needs a private stack, and no network element is used",
            remedy=remedy,
        )
        for field, used in unused.items()
        if used
    ]
