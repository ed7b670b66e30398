"""A containerlab topology as a stack: nodes of kind `linux` become applications.

A node is read as the Compose service that it resembles, so it takes the same labels (`compose.py`).
What hangs together by links is one network here, whose policy lets those talk that are linked;
a node of kind `bridge` links all its neighbours. Source: containerlab's topology definition.
Called by `app/cli/convert.py`.
"""

from __future__ import annotations

from typing import Any

from app.convert.converted import Converted, as_name, mapping
from app.convert.segments import free_subnets, joined
from app.convert.service import application
from app.convert.surroundings import Choices, Surroundings
from app.domain.explain import pointer_to
from app.domain.network import DEFAULT_NETWORK

_BRIDGES = ("bridge", "ovs-bridge")
_FIELDS = {
    "image": "image",
    "cmd": "command",
    "entrypoint": "entrypoint",
    "env": "environment",
    "binds": "volumes",
    "ports": "ports",
    "user": "user",
    "labels": "labels",
    "memory": "mem_limit",
    "cpu": "cpus",
    "restart-policy": "restart",
}
"""containerlab's field → Compose's."""
_WHY = {
    "exec": "addresses and routes are CSE's own; for other commands use 'command'",
    "mgmt-ipv4": "an application has one address, of the network it is linked to",
    "startup-config": "only router kinds have one",
}


def from_containerlab(content: dict[str, Any], choices: Choices) -> Converted:
    """The stack of a topology file. Raises `InvalidFields`."""
    found = Converted()
    lab = as_name(str(content.get("name") or choices.directory.name)) or "lab"
    topology = mapping(content.get("topology"))
    nodes = {
        key: _whole(mapping(body), topology) for key, body in mapping(topology.get("nodes")).items()
    }
    if not nodes:
        found.refuse(["topology", "nodes"], "there are no nodes", "give a topology file")
    found.leave_out([], content, {"name", "topology", "prefix"}, {"mgmt": "there is no such net"})
    names = _names(nodes, found)
    parts = joined(_segments(topology, nodes, names, found))
    titles = [lab] if len(parts) == 1 else [f"{lab}-{number}" for number, _ in enumerate(parts, 1)]
    networks = dict(zip(titles, parts, strict=True))
    where = {key: title for title, part in networks.items() for key in part.members}
    known = {title: {"name": title} for title in [*titles, DEFAULT_NETWORK]}
    around = Surroundings(lab, names, known, {}, {}, choices)
    subnets = free_subnets([])
    found.document = {
        "name": lab,
        "networks": {
            title: {"subnet": subnet, **part.policy(names)}
            for (title, part), subnet in zip(networks.items(), subnets, strict=False)
        },
        "applications": {
            name: _application(key, nodes[key], where.get(key), around, found)
            for key, name in names.items()
        },
    }
    found.document = {key: value for key, value in found.document.items() if value}
    return found.finished()


def _whole(node: dict[str, Any], topology: dict[str, Any]) -> dict[str, Any]:
    """The node with what its kind, its group and the defaults say, the nearest first."""
    defaults = mapping(topology.get("defaults"))
    group = mapping(mapping(topology.get("groups")).get(str(node.get("group"))))
    kind = node.get("kind") or group.get("kind") or defaults.get("kind")
    whole: dict[str, Any] = {}
    for layer in (defaults, mapping(mapping(topology.get("kinds")).get(str(kind))), group, node):
        for key, value in layer.items():
            if isinstance(value, dict) and isinstance(whole.get(key), dict):
                value = {**whole[key], **value}
            elif isinstance(value, list) and isinstance(whole.get(key), list):
                value = [*whole[key], *value]
            whole[key] = value
    return whole | {"kind": kind}


def _names(nodes: dict[str, dict[str, Any]], found: Converted) -> dict[str, str]:
    """Node → application, of those that become one."""
    names: dict[str, str] = {}
    for key, node in nodes.items():
        place: list[str | int] = ["topology", "nodes", key]
        name = as_name(key)
        if node["kind"] in _BRIDGES:
            continue
        if node["kind"] != "linux":
            detail = f"a node of kind '{node['kind']}' needs the kernel's own interfaces"
            found.refuse([*place, "kind"], detail, "replace it by one of kind 'linux'")
        elif not name or name in names.values():
            detail = f"'{key}' cannot be an application's name"
            found.refuse(place, detail, "rename it: letters, digits and hyphens, each name once")
        else:
            if name != key:
                found.note(place, f"is '{name}' here")
            names[key] = name
    return names


def _segments(
    topology: dict[str, Any],
    nodes: dict[str, dict[str, Any]],
    names: dict[str, str],
    found: Converted,
) -> dict[str, list[str]]:
    """Links, in the brief and in the extended form, and bridges with all their neighbours."""
    segments: dict[str, list[str]] = {}
    for index, link in enumerate(topology.get("links") or []):
        ends = [
            str(end.get("node")) if isinstance(end, dict) else str(end).partition(":")[0]
            for end in mapping(link).get("endpoints") or []
        ]
        if len(ends) != 2 or any(end not in nodes for end in ends):
            detail = "left out: it leads out of the lab; applications reach the host anyway"
            found.note(["topology", "links", index], detail)
            continue
        bridges = [end for end in ends if nodes[end]["kind"] in _BRIDGES]
        members = [end for end in ends if end in names]
        for key in bridges or [f"link {index}"]:
            segments.setdefault(key, []).extend(members)
    if segments:
        detail = "interfaces have no names here: each application has one, with one address"
        found.note(["topology", "links"], detail)
    return segments


def _application(
    key: str, node: dict[str, Any], network: str | None, around: Surroundings, found: Converted
) -> dict[str, Any]:
    place: list[str | int] = ["topology", "nodes", key]
    found.leave_out(place, node, {"kind", "group", *_FIELDS}, _WHY)
    service = {ours: node[theirs] for theirs, ours in _FIELDS.items() if node.get(theirs)}
    binds = [str(bind) for bind in service.get("volumes", [])]
    service["volumes"] = [bind if bind[:1] in "./~" else f"./{bind}" for bind in binds]
    part = Converted()
    made = application(place, service | ({"networks": [network]} if network else {}), around, part)
    found.take(part, pointer_to(place), {ours: theirs for theirs, ours in _FIELDS.items()})
    return made
