"""A Compose file as a stack: services become applications with private services.

A service says what it wants by two labels:

    cse.elements: network-lwip, clock-faketime     # or a map: {clock-faketime: {settings: …}}
    cse.spec: "{fallback: refuse}"                 # any other fields of an application

Services without the first get the elements that the caller names. The file is one that Compose
has resolved (`docker compose config`), or a plain one: short forms are understood, variables and
`extends` are Compose's own affair. Source: the Compose Specification. Called by
`app/cli/convert.py`; what is in one service is read by `service.py`.
"""

from __future__ import annotations

import re
from typing import Any

from app.convert.converted import Converted, as_name, mapping
from app.convert.segments import free_subnets, joined
from app.convert.service import application, network_uses
from app.convert.surroundings import Choices, Surroundings
from app.domain.network import DEFAULT_NETWORK

_KNOWN = {"name", "version", "services", "networks", "volumes", "secrets", "configs"}
_UNRESOLVED = re.compile(r"(?<!\$)(?:\$\$)*\$[{A-Za-z_]")


def from_compose(content: dict[str, Any], choices: Choices) -> Converted:
    """The stack of a Compose file. Raises `InvalidFields`."""
    found = Converted()
    content = _plain(content, [], found)
    services = mapping(content.get("services"))
    if not services:
        found.refuse(["services"], "there are no services", "give a Compose file")
    found.leave_out([], content, _KNOWN, {"include": "resolve it: 'docker compose config'"})
    project = as_name(str(content.get("name") or choices.directory.name)) or "default"
    volumes = {
        key: as_name(str(mapping(body).get("name") or f"{project}_{key}"))
        for key, body in mapping(content.get("volumes")).items()
    }
    names = _names(services, found)
    networks = _networks(content, project, names, found)
    files = {
        key: mapping(body)
        for section in ("secrets", "configs")
        for key, body in mapping(content.get(section)).items()
    }
    around = Surroundings(project, names, networks, volumes, files, choices)
    own = {
        body["name"]: {key: value for key, value in body.items() if key != "name"}
        for body in networks.values()
        if len(body) > 1 and not body.get("external")
    }
    found.document = {
        "name": project,
        "networks": own,
        "volumes": {name: {} for name in volumes.values()},
        "applications": {
            names[key]: application(["services", key], mapping(body), around, found)
            for key, body in services.items()
            if key in names
        },
        **mapping(content.get("x-cse")),
    }
    found.document = {key: value for key, value in found.document.items() if value}
    return found.finished()


def _names(services: dict[str, Any], found: Converted) -> dict[str, str]:
    """Service → application."""
    names: dict[str, str] = {}
    for key in services:
        name = as_name(key)
        if not name or name in names.values():
            remedy = "rename it: letters, digits and hyphens, each name once"
            found.refuse(["services", key], f"'{key}' cannot be an application's name", remedy)
            continue
        if name != key:
            found.note(["services", key], f"is '{name}' here; mend where others connect to '{key}'")
        names[key] = name
    return names


def _networks(
    content: dict[str, Any], project: str, names: dict[str, str], found: Converted
) -> dict[str, dict[str, Any]]:
    """Network of the file → network of the stack, with its name; those with common members are one.

    Compose's `default` is ours, unless it is more than that.
    """
    listed = mapping(content.get("networks"))
    bodies: dict[str, dict[str, Any]] = {"default": {}} | {
        key: mapping(body) for key, body in listed.items()
    }
    members: dict[str, list[str]] = {key: [] for key in bodies}
    for key, service in mapping(content.get("services")).items():
        for network in network_uses(mapping(service)):
            if network in members and key in names:
                members[network].append(key)
    free = free_subnets([subnet for body in bodies.values() if (subnet := _subnet(body))])
    made: dict[str, dict[str, Any]] = {}
    for part in joined(members):
        first = next((key for key in part.segments if key != "default"), "default")
        plain = not _subnet(bodies["default"]) and "x-cse" not in bodies["default"]
        if part.segments == ["default"] and plain:
            made["default"] = {"name": DEFAULT_NETWORK}
            continue
        one = _network(part.segments, first, bodies, project, free, found)
        if len(part.segments) > 1:
            one |= part.policy(names)
            detail = f"one network here, '{one['name']}'; its policy says who may talk to whom"
            found.note(["networks"], f"{', '.join(part.segments)}: {detail}")
        made |= dict.fromkeys(part.segments, one)
    return made


def _network(
    keys: list[str],
    first: str,
    bodies: dict[str, dict[str, Any]],
    project: str,
    free: list[str],
    found: Converted,
) -> dict[str, Any]:
    """What becomes of the networks of these keys, which are one here."""
    body = bodies[first]
    name = as_name(str(body.get("name") or f"{project}_{first}"))
    if body.get("external"):
        return {"name": name, "external": True}
    subnets = [subnet for key in keys if (subnet := _subnet(bodies[key]))]
    sizes = [
        int(size)
        for key in keys
        if (size := mapping(bodies[key].get("driver_opts")).get("com.docker.network.driver.mtu"))
    ]
    for key in keys:
        known = {"name", "ipam", "internal", "driver_opts", "external", "labels", "attachable"}
        known |= {"driver"} if bodies[key].get("driver") == "bridge" else set()
        why = {"driver": "all networks here are bridges"}
        found.leave_out(["networks", key], bodies[key], known, why)
    return {
        "name": name,
        "subnet": subnets[0] if subnets else free.pop(0),
        **({"nat": False} if all(bodies[key].get("internal") for key in keys) else {}),
        **({"mtu": min(sizes)} if sizes else {}),
        **mapping(body.get("x-cse")),
    }


def _subnet(body: dict[str, Any]) -> str | None:
    """The first IPv4 subnet of a network's `ipam`."""
    for entry in mapping(body.get("ipam")).get("config") or []:
        subnet = str(mapping(entry).get("subnet") or "")
        if subnet and ":" not in subnet:
            return subnet
    return None


def _plain(node: Any, place: list[str | int], found: Converted) -> Any:
    """`$$` is a `$`; what Compose would have to fill in is refused."""
    if isinstance(node, dict):
        return {key: _plain(value, [*place, str(key)], found) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value, [*place, index], found) for index, value in enumerate(node)]
    if not isinstance(node, str):
        return node
    if _UNRESOLVED.search(node):
        remedy = "install Compose v2 here, or convert what 'docker compose config' prints"
        found.refuse(place, "has variables, and Compose is not there to fill them in", remedy)
    return node.replace("$$", "$")
