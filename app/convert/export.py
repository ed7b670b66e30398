"""A stack as a Compose file that plain Docker Compose runs and `compose.py` reads back.

Under plain Compose the programs have the kernel's own services. What Compose has no word for is
kept in the labels that `compose.py` explains, in `x-cse` of the file and of its networks. Called
by `app/cli/convert.py`.
"""

from __future__ import annotations

from typing import Any

import yaml

from app.convert.converted import Converted
from app.domain.application import ApplicationSpec, MountUse, PublishedPort, Restart
from app.domain.network import DEFAULT_NETWORK, NetworkSpec
from app.domain.stack import Stack

_CONDITIONS = {
    "started": "service_started",
    "healthy": "service_healthy",
    "completed": "service_completed_successfully",
}


def to_compose(stack: Stack, image: str | None = None) -> Converted:
    """The Compose file of a stack. Raises `InvalidFields`.

    `image`: for applications that have none, as those of the namespace runtime may.
    """
    found = Converted()
    own = {
        "faults": {
            name: fault.model_dump(mode="json", exclude_defaults=True)
            for name, fault in stack.faults.items()
        }
    }
    used = {spec.network.name for spec in stack.applications.values()} - {DEFAULT_NETWORK}
    document = {
        "name": stack.name,
        "services": {
            name: _service(spec, stack, image, found) for name, spec in stack.applications.items()
        },
        "networks": {
            **{name: _network(spec) for name, spec in stack.networks.items()},
            **{name: {"name": name, "external": True} for name in used - set(stack.networks)},
        },
        "volumes": {name: {"name": name} for name in stack.volumes},
        "x-cse": {section: entries for section, entries in own.items() if entries},
    }
    found.document = _dollars({key: value for key, value in document.items() if value})
    return found.finished()


def _service(
    spec: ApplicationSpec, stack: Stack, image: str | None, found: Converted
) -> dict[str, Any]:
    if spec.image is None and image is None:
        detail = f"'{spec.name}' has no image"
        found.refuse(["applications", spec.name, "image"], detail, "add one, or give --image IMAGE")
    network: dict[str, Any] = {"aliases": spec.network.aliases} if spec.network.aliases else {}
    fixed = spec.network.address if spec.network.name in stack.networks else None
    if fixed:
        network["ipv4_address"] = str(fixed)
    plain = {name: value for name, value in spec.environment.items() if isinstance(value, str)}
    service = {
        "image": spec.image or image,
        "entrypoint": spec.command,
        "environment": plain,
        "working_dir": spec.working_directory,
        "user": spec.user,
        "networks": {spec.network.name: network}
        if network or spec.network.name != DEFAULT_NETWORK
        else None,
        "ports": [_port(port) for port in spec.ports],
        "volumes": [_volume(mount) for mount in spec.mounts],
        "tmpfs": spec.tmpfs,
        "mem_limit": spec.limits.memory,
        "cpus": spec.limits.cpus,
        "pids_limit": spec.limits.pids,
        "restart": _restart(spec),
        "stop_signal": spec.stop.signal if spec.stop.signal != "SIGTERM" else None,
        "stop_grace_period": f"{spec.stop.grace:g}s",
        "healthcheck": _health(spec),
        "depends_on": {
            name: {"condition": _CONDITIONS[_condition(name, condition, stack)]}
            for name, condition in spec.dependencies.items()
        },
        "labels": {**spec.labels, **_labels(spec, stack)},
    }
    return {key: value for key, value in service.items() if value not in (None, [], {})}


def _condition(name: str, condition: str, stack: Stack) -> str:
    """Compose waits for `healthy` only where it can ask itself, by a command."""
    other = stack.applications.get(name)
    asked = other is not None and other.health is not None and other.health.command is not None
    return "started" if condition == "healthy" and not asked else condition


def _labels(spec: ApplicationSpec, stack: Stack) -> dict[str, str]:
    """`cse.elements` always; `cse.spec` for what has no other place."""
    uses = {
        name: use.model_dump(mode="json", exclude_defaults=True)
        for name, use in spec.elements.items()
    }
    short = not any(uses.values())
    elements = ", ".join(uses) if short else _line(uses)
    rest = spec.model_dump(mode="json", include=_wordless(spec, stack), exclude_defaults=True)
    referred = {
        name: value
        for name, value in spec.model_dump(mode="json")["environment"].items()
        if not isinstance(value, str)
    }
    rest |= {"environment": referred} if referred else {}
    if spec.runtime == "namespace":
        rest |= {"runtime": "namespace"} | ({"image": spec.image} if spec.image else {})
    return {"cse.elements": elements, **({"cse.spec": _line(rest)} if rest else {})}


def _wordless(spec: ApplicationSpec, stack: Stack) -> set[str]:
    """The fields for which Compose has no words, or not these."""
    waits = spec.dependencies.items()
    lost = {
        "health": spec.health is not None and spec.health.command is None,
        "restart": spec.restart.delay != Restart().delay,
        "network": spec.network.address is not None and spec.network.name not in stack.networks,
        "depends_on": any(_condition(name, how, stack) != how for name, how in waits),
    }
    return {"priority", "fallback", "project"} | {name for name, is_lost in lost.items() if is_lost}


def _network(spec: NetworkSpec) -> dict[str, Any]:
    rest = spec.model_dump(
        mode="json", exclude={"name", "subnet", "nat", "mtu"}, exclude_defaults=True
    )
    body = {
        "name": spec.name,
        "driver_opts": {"com.docker.network.driver.mtu": str(spec.mtu)},
        "ipam": {"config": [{"subnet": str(spec.subnet)}]},
        "internal": True if not spec.nat else None,
        "x-cse": rest,
    }
    return {key: value for key, value in body.items() if value}


def _port(port: PublishedPort) -> str:
    host = "" if str(port.host_address) == "0.0.0.0" else f"{port.host_address}:"
    protocol = "" if port.protocol == "tcp" else f"/{port.protocol}"
    return f"{host}{port.host_port}:{port.container_port}{protocol}"


def _volume(mount: MountUse) -> dict[str, Any]:
    kind = "bind" if mount.source else "volume"
    source = mount.source or mount.volume
    return {
        "type": kind,
        "source": source,
        "target": mount.path,
        **({"read_only": True} if mount.read_only else {}),
    }


def _restart(spec: ApplicationSpec) -> str | None:
    if spec.restart.policy == "no":
        return None
    most = spec.restart.max_retries
    return f"{spec.restart.policy}:{most}" if most else spec.restart.policy


def _health(spec: ApplicationSpec) -> dict[str, Any] | None:
    check = spec.health
    if check is None or check.command is None:
        return None
    return {
        "test": ["CMD", *check.command],
        "interval": f"{check.interval:g}s",
        "timeout": f"{check.timeout:g}s",
        "retries": check.retries,
        "start_period": f"{check.start_period:g}s",
    }


def _line(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=100_000)
    return text.strip()


def _dollars(node: Any) -> Any:
    """Compose reads `$` as the beginning of a variable; `$$` is a plain one."""
    if isinstance(node, dict):
        return {key: _dollars(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_dollars(value) for value in node]
    return node.replace("$", "$$") if isinstance(node, str) else node
