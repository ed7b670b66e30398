"""Ports, mounts and volumes of a Compose service, in their short and long forms.

Called by `service.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.convert.converted import Converted, mapping
from app.convert.surroundings import Surroundings

_PORT = re.compile(
    r"(?:(?:(?P<host>\d+\.\d+\.\d+\.\d+|\[[0-9a-fA-F:]+\]):)?(?P<published>\d+(?:-\d+)?)?:)?"
    r"(?P<target>\d+(?:-\d+)?)(?:/(?P<protocol>tcp|udp|sctp))?"
)


def ports(service: dict[str, Any], place: list[str | int], found: Converted) -> Iterator[str]:
    """Published ports, as `[ADDRESS:]HOST:PORT[/udp]`; a range becomes one for each port."""
    for index, entry in enumerate(service.get("ports") or []):
        here = [*place, "ports", index]
        body = mapping(entry)
        if not body:
            match = _PORT.fullmatch(str(entry))
            if not match:
                found.refuse(here, f"'{entry}' is not a port", "write HOST:PORT")
                continue
            body = {**match.groupdict(), "host_ip": match["host"]}
        if not body.get("published"):
            detail = "left out: no host port is named; the application's own address serves it"
            found.note(here, detail)
        elif body.get("protocol") == "sctp" or ":" in str(body.get("host_ip") or ""):
            found.note(here, "left out: tcp and udp over IPv4 can be published")
        else:
            yield from _published(body, here, found)


def _published(body: dict[str, Any], here: list[str | int], found: Converted) -> Iterator[str]:
    outer, inner = _range(body["published"]), _range(body["target"])
    if len(outer) != len(inner):
        found.refuse(here, "the ranges are of different length", "give each port its own line")
        return
    host = body.get("host_ip")
    before = f"{host}:" if host and host != "0.0.0.0" else ""
    after = "/udp" if body.get("protocol") == "udp" else ""
    for one, other in zip(outer, inner, strict=True):
        yield f"{before}{one}:{other}{after}"


def _range(text: object) -> range:
    first, _, last = str(text).partition("-")
    return range(int(first), int(last or first) + 1)


def mounts(
    service: dict[str, Any], around: Surroundings, place: list[str | int], found: Converted
) -> Iterator[dict[str, Any]]:
    """Binds, named volumes, and the files of secrets and configs."""
    for index, entry in enumerate(service.get("volumes") or []):
        here = [*place, "volumes", index]
        body = mapping(entry) or _volume(str(entry))
        target, source = str(body.get("target")), body.get("source")
        writable = {} if body.get("read_only") else {"read_only": False}
        if body.get("type") == "bind" and source:
            yield {"path": target, "from": _path(str(source), around), **writable}
        elif body.get("type") == "volume" and source:
            if source not in around.volumes:
                found.refuse(here, f"there is no volume '{source}'", "add it under 'volumes'")
                continue
            yield {"path": target, "volume": around.volumes[source], **writable}
        elif body.get("type") not in ("tmpfs", "volume"):
            found.note(here, f"left out: CSE has no mounts of type '{body.get('type')}'")
    for section, directory in (("secrets", "/run/secrets/"), ("configs", "/")):
        for index, entry in enumerate(service.get(section) or []):
            body = mapping(entry) or {"source": entry}
            name = str(body.get("source"))
            if not (file := around.files.get(name, {}).get("file")):
                detail = "left out: only those that are files can be mounted"
                found.note([*place, section, index], detail)
                continue
            target = str(body.get("target") or name)
            path = target if target.startswith("/") else directory + target
            yield {"path": path, "from": _path(str(file), around)}


def tmpfs(service: dict[str, Any]) -> Iterator[str]:
    """Directories in memory, and volumes without a name, which nobody finds again."""
    listed = service.get("tmpfs") or []
    for word in [listed] if isinstance(listed, str) else listed:
        yield str(word).partition(":")[0]
    for entry in service.get("volumes") or []:
        body = mapping(entry) or _volume(str(entry))
        if body.get("type") == "tmpfs" or (body.get("type") == "volume" and not body.get("source")):
            yield str(body.get("target"))


def _volume(text: str) -> dict[str, Any]:
    """`[SOURCE:]TARGET[:ro]` in the long form."""
    words = text.split(":")
    if len(words) == 1:
        return {"type": "volume", "target": words[0]}
    kind = "bind" if words[0][:1] in "./~" else "volume"
    options = words[2].split(",") if len(words) > 2 else []
    return {"type": kind, "source": words[0], "target": words[1], "read_only": "ro" in options}


def _path(text: str, around: Surroundings) -> str:
    return str((around.choices.directory / Path(text).expanduser()).resolve())
