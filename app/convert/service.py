"""One Compose service as an application. Called by `compose.py`; its labels are explained there."""

from __future__ import annotations

import re
import shlex
from typing import Any

import yaml

from app.convert.converted import Converted, mapping
from app.convert.places import mounts, ports, tmpfs
from app.convert.surroundings import Surroundings
from app.domain.application import StopRule
from app.domain.explain import did_you_mean

_LABELS = ("cse.elements", "cse.spec")
_SILENT = {"expose", "init", "attach", "pull_policy", "profiles", "stdin_open", "env_file"}
"""Without meaning here: all ports can be reached, a program always has its init, and so on."""
_KNOWN = _SILENT | {
    *("image", "build", "command", "entrypoint", "environment", "ports", "volumes", "tmpfs"),
    *("networks", "network_mode", "depends_on", "links", "healthcheck", "restart", "user"),
    *("working_dir", "stop_signal", "stop_grace_period", "labels", "mem_limit", "cpus", "scale"),
    *("pids_limit", "deploy", "container_name", "hostname", "secrets", "configs"),
}
_WHY = {
    "privileged": "applications have no capabilities",
    "cap_add": "applications have no capabilities",
    "devices": "applications have no devices",
    "dns": "set 'dns' of the network",
    "extra_hosts": "give peers 'aliases', or mount a file at /etc/hosts",
    "sysctls": "set the element's settings",
    "logging": "'cse logs' keeps what programs write",
    "tty": "'cse exec -t' has a terminal",
    "extends": "resolve it: 'docker compose config'",
}
_UNIT_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def application(
    place: list[str | int], service: dict[str, Any], around: Surroundings, found: Converted
) -> dict[str, Any]:
    """The application's fields, those that say something; notes and refusals go to `found`.

    `place`: where the service is in the file; the last part is its name.
    """
    found.leave_out(place, service, _KNOWN, _WHY)
    labels = {name: str(value or "") for name, value in pairs(service.get("labels")).items()}
    spec = _own(labels, place, found)
    namespace = spec.get("runtime", around.choices.runtime) == "namespace"
    image = service.get("image") or (
        f"{around.project}-{place[-1]}" if "build" in service else None
    )
    elements = _elements(labels, service, around, place, found)
    copies = mapping(service.get("deploy")).get("replicas", service.get("scale"))
    made: dict[str, Any] = {
        "command": spec.get("command") or _command(service, image, namespace, around, place, found),
        "runtime": "namespace" if namespace else "docker",
        "image": None if namespace else image,
        "elements": elements,
        "network": _network(service, around, place, found),
        "fallback": "kernel" if elements and "cse.elements" not in labels else None,
        "ports": list(ports(service, place, found)),
        "environment": _environment(service, place, found),
        "working_directory": service.get("working_dir"),
        "user": None if service.get("user") is None else str(service["user"]),
        "mounts": list(mounts(service, around, place, found)),
        "tmpfs": list(tmpfs(service)),
        "limits": _limits(service),
        "restart": _restart(service),
        "stop": _stop(service, place, found),
        "health": _health(service, place, found),
        "depends_on": _depends_on(service, around),
        "replicas": copies if copies != 1 else None,
        "labels": {name: value for name, value in labels.items() if name not in _LABELS},
    }
    for name, value in spec.items():
        both = isinstance(value, dict) and isinstance(made.get(name), dict)
        made[name] = {**made[name], **value} if both else value
    return {name: value for name, value in made.items() if value not in (None, [], {})}


def pairs(value: object) -> dict[str, Any]:
    """`["A=1", "B"]` or `{A: 1, B: null}` → `{"A": "1", "B": None}`."""
    if not isinstance(value, list):
        return mapping(value)
    split = (str(word).partition("=") for word in value)
    return {name: text if equals else None for name, equals, text in split}


def _own(labels: dict[str, str], place: list[str | int], found: Converted) -> dict[str, Any]:
    """What `cse.spec` says; a label that is none of ours is refused, not overlooked."""
    for name in labels:
        if name.startswith("cse.") and name not in _LABELS:
            remedy = did_you_mean(name, _LABELS)
            found.refuse([*place, "labels", name], f"there is no label '{name}'", remedy)
    spec = _yaml(labels.get("cse.spec", "{}"))
    if isinstance(spec, dict):
        return mapping(spec)
    remedy = "write fields of an application: '{priority: 5}'"
    found.refuse([*place, "labels", "cse.spec"], "this is not a map", remedy)
    return {}


def _elements(
    labels: dict[str, str],
    service: dict[str, Any],
    around: Surroundings,
    place: list[str | int],
    found: Converted,
) -> dict[str, Any]:
    text = labels.get("cse.elements")
    uses = _yaml(text) if text is not None else list(around.choices.elements)
    if isinstance(uses, str):
        uses = re.findall(r"[^\s,]+", uses)
    elements = mapping(uses) if isinstance(uses, dict) else {str(name): {} for name in uses or []}
    if service.get("network_mode") in ("host", "none"):
        if service["network_mode"] == "host":
            detail = "no private stack can be the host's own: it is left without a network"
            found.note([*place, "network_mode"], detail)
        elements = {name: use for name, use in elements.items() if not name.startswith("network-")}
    return elements


def _command(
    service: dict[str, Any],
    image: str | None,
    namespace: bool,
    around: Surroundings,
    place: list[str | int],
    found: Converted,
) -> list[str]:
    """Entry point and command as one list; what the service does not say, its image does."""
    entrypoint, command = _words(service.get("entrypoint")), _words(service.get("command"))
    if entrypoint is None and image and not namespace:
        own = around.choices.images(image)
        if own is not None:
            entrypoint = own.entrypoint
            command = own.command if command is None else command
        elif command:
            detail = f"'{image}' is not on this host: if it has an ENTRYPOINT, put it before"
            found.note([*place, "command"], detail)
    whole = [*(entrypoint or []), *(command or [])]
    if not whole:
        detail = "it has no command" + ("" if namespace else f", and '{image}' is not on this host")
        remedy = "add 'command'" + ("" if namespace else f", or: docker pull {image}")
        found.refuse([*place, "command"], detail, remedy)
    return whole


def _words(value: object) -> list[str] | None:
    if isinstance(value, str):
        return shlex.split(value)
    return [str(word) for word in value] if isinstance(value, list) else None


def _network(
    service: dict[str, Any], around: Surroundings, place: list[str | int], found: Converted
) -> dict[str, Any]:
    uses = network_uses(service)
    if not uses:
        return {}
    first = next((name for name in uses if name != "default"), "default")
    use, here = mapping(uses.get(first)), around.networks.get(first)
    if here is None:
        found.refuse([*place, "networks"], f"there is no network '{first}'", "add it")
        return {}
    made: dict[str, Any] = {} if here["name"] == "default" else {"name": here["name"]}
    if use.get("ipv4_address"):
        made["address"] = use["ipv4_address"]
    other = [alias for name in uses for alias in mapping(uses[name]).get("aliases") or []]
    wanted = [*other, service.get("hostname"), service.get("container_name")]
    own = around.names[str(place[-1])]
    aliases = list(dict.fromkeys(str(name) for name in wanted if name and name != own))
    return {**made, "aliases": aliases} if aliases else made


def network_uses(service: dict[str, Any]) -> dict[str, Any]:
    """The networks that a service is on, each with what it says of it; `default` where none."""
    if service.get("network_mode") in ("host", "none"):
        return {}
    uses = service.get("networks") or {"default": None}
    return mapping(uses) if isinstance(uses, dict) else {str(name): None for name in uses}


def _environment(
    service: dict[str, Any], place: list[str | int], found: Converted
) -> dict[str, str]:
    made = {}
    for name, value in pairs(service.get("environment")).items():
        if value is None:
            detail = "left out: its value is that of the shell which starts Compose"
            found.note([*place, "environment", name], detail)
        else:
            made[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return made


def _limits(service: dict[str, Any]) -> dict[str, Any]:
    limits = mapping(mapping(mapping(service.get("deploy")).get("resources")).get("limits"))
    memory = service.get("mem_limit") or limits.get("memory")
    cpus = service.get("cpus") or limits.get("cpus")
    pids = service.get("pids_limit") or limits.get("pids")
    made = {
        "memory": int(str(memory)) if str(memory).isdigit() else memory,
        "cpus": float(cpus) if cpus else None,
        "pids": pids if pids and int(pids) > 0 else None,
    }
    return {name: value for name, value in made.items() if value}


def _restart(service: dict[str, Any]) -> object:
    policy = mapping(mapping(service.get("deploy")).get("restart_policy"))
    if policy:
        condition = {"none": "no", "any": "always"}.get(policy.get("condition", "any"))
        most = policy.get("max_attempts")
        return condition or (f"on-failure:{most}" if most else "on-failure")
    word = str(service.get("restart") or "").lower()
    return {"unless-stopped": "always", "false": "", "no": ""}.get(word, word) or None


def _stop(service: dict[str, Any], place: list[str | int], found: Converted) -> dict[str, Any]:
    made: dict[str, Any] = {}
    signal = str(service.get("stop_signal") or "SIGTERM").upper()
    signal = signal if signal.startswith("SIG") else f"SIG{signal}"
    if signal not in StopRule.model_json_schema()["properties"]["signal"]["enum"]:
        found.note([*place, "stop_signal"], f"left out: 'stop' cannot send {signal}")
    elif signal != "SIGTERM":
        made["signal"] = signal
    if service.get("stop_grace_period"):
        made["grace"] = seconds(service["stop_grace_period"])
    return made


def _health(
    service: dict[str, Any], place: list[str | int], found: Converted
) -> dict[str, Any] | None:
    check = mapping(service.get("healthcheck"))
    test = check.get("test")
    if not check or check.get("disable") or test in (["NONE"], "NONE"):
        return None
    words = ["CMD-SHELL", test] if isinstance(test, str) else [str(word) for word in test or []]
    if len(words) < 2 or words[0] not in ("CMD", "CMD-SHELL"):
        detail = "left out: only the image knows its command; add 'test'"
        found.note([*place, "healthcheck"], detail)
        return None
    command = words[1:] if words[0] == "CMD" else ["/bin/sh", "-c", words[1]]
    made: dict[str, Any] = {"command": command, "interval": "30s", "timeout": "30s"}
    for name in ("interval", "timeout", "start_period"):
        if check.get(name):
            made[name] = seconds(check[name])
    return {**made, **({"retries": check["retries"]} if check.get("retries") else {})}


def _depends_on(service: dict[str, Any], around: Surroundings) -> list[str]:
    uses = service.get("depends_on") or {}
    uses = mapping(uses) if isinstance(uses, dict) else {str(name): {} for name in uses}
    uses = {str(link).partition(":")[0]: {} for link in service.get("links") or []} | uses
    words = {"service_healthy": ":healthy", "service_completed_successfully": ":completed"}
    return [
        f"{around.names.get(name, name)}{words.get(str(mapping(use).get('condition')), '')}"
        for name, use in uses.items()
    ]


def seconds(value: object) -> str:
    """Go's durations, as in `1m30s`, in the words of a stack file: `90s`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(us|ms|s|m|h)", str(value))
    return f"{sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts):g}s"


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
