"""Who serves a path of an application, and why: the answer to `explain`, in words.

The agent adds to what `cse-files` says what only the host knows: where its binds lead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.domain.files import (
    STATUS_WORDS,
    Explanation,
    FileLayer,
    Words,
    fields,
    lines,
    made,
    named,
    text,
)

_SURROUNDINGS = {"namespace": "the host's own", "docker": "the image's own"}


class _Binds:
    """Where paths of the application lie on the host."""

    def __init__(self) -> None:
        self.binds: list[tuple[str, str]] = []
        self.memories: list[str] = []
        self.runtime = ""

    def add(self, verb: str, words: Words) -> bool:
        if verb == "bind":
            self.binds.append((text(words["inside"]), text(words["outside"])))
        elif verb == "memory":
            self.memories.append(text(words["inside"]))
        elif verb == "surroundings":
            self.runtime = text(words["runtime"])
        else:
            return False
        return True

    def host(self, path: str | None) -> str | None:
        """None: nowhere that outlives the application, or in an image."""
        if path is None:
            return None
        inside, outside = max(
            [("", ""), *((own, host) for own, host in self.binds if _within(path, own))],
            key=lambda pair: len(pair[0]),
        )
        if any(len(one) > len(inside) and _within(path, one) for one in self.memories):
            return None
        if inside:
            return outside + path[len(inside.rstrip("/")) :]
        return path if self.runtime == "namespace" else None

    def outside(self, path: str) -> str:
        """Why a path outside every mount of the private tree is there."""
        if _within(path, "/run/cse"):
            return "the application's run directory"
        if any(_within(path, one) for one in self.memories):
            return "a file system in memory that the runtime made for the application"
        if any(_within(path, inside) for inside, _ in self.binds):
            return "a mount of the application's specification"
        own = _SURROUNDINGS.get(self.runtime, "the surroundings' own")
        return f"outside every mount of the private tree: {own}"


def explanation(data: Iterable[bytes]) -> Explanation:
    """From the lines of agent and `cse-files`."""
    binds = _Binds()
    path: Words = {}
    mount: Words = {}
    change: Words = {}
    layers: list[FileLayer] = []
    for verb, words in lines(data):
        if binds.add(verb, words):
            continue
        if verb == "path":
            path = words
        elif verb == "mount":
            mount = words
        elif verb == "layer":
            layers.append(_layer(words, binds))
        elif verb == "change":
            change = words
    given: dict[str, Any] = {
        **fields(path, *STATUS_WORDS, "owner", "link", "mount", "source", "layer", "state", "real"),
        **fields(change, "change"),
        **named("path", path),
        "exists": "errno" not in path,
        "layers": layers,
    }
    inside = "mount" in given
    real = given.get("real") if inside else given["path"]
    filled = given.get("source") not in ("archive", "computed", "encrypted")
    given["host"] = binds.host(real) if given["exists"] and filled else None
    why = _why_inside(given, mount, "leads" in path) if inside else _why_outside(given, path, binds)
    return made(Explanation, **given, why=why)  # type: ignore[no-any-return]


def _layer(words: Words, binds: _Binds) -> FileLayer:
    given = fields(words, *STATUS_WORDS, "number", "source", "root")
    archive = text(words["from"]) if "from" in words else None
    if archive is not None and "inside" not in words:
        archive = binds.host(archive)
    if given.get("source") == "directory" or given.get("source") == "upper":
        given["host_root"] = binds.host(given.get("root"))
    more = {"archive": archive, "has": "kind" in words, "hides": "hides" in words}
    return made(FileLayer, **given, **more)  # type: ignore[no-any-return]


def _why_outside(given: dict[str, Any], path: Words, binds: _Binds) -> str:
    if "leads" in path:
        return "a directory that is there because a mount point lies below it"
    if not given["exists"]:
        return f"there is nothing; it would be {binds.outside(given['path'])}"
    return binds.outside(given["path"])


def _why_inside(given: dict[str, Any], mount: Words, leads: bool) -> str:
    layers: list[FileLayer] = given["layers"]
    below = [one for one in layers[1:] if one.has]
    is_cow = mount.get("cow") == "1"
    if leads:
        return "a directory that is there because a mount point lies below it"
    if not given["exists"]:
        if is_cow and layers and layers[0].hides and below:
            return f"removed by the application: a whiteout hides what layer {below[0].number} has"
        return "no layer of the mount has it" if len(layers) > 1 else "the mount does not have it"
    if given.get("kind") == "directory" and len([one for one in layers if one.has]) > 1:
        return f"a directory of several layers, shown as one{_opaque(layers)}"
    if is_cow and given.get("source") == "upper":
        if not below:
            return "made by the application: nothing of this name lies below"
        if "change" not in given:
            return f"copied up from layer {below[0].number}, and still the same"
        return f"copied up from layer {below[0].number} when the application changed it"
    return _of_source(given, layers, is_cow)


def _opaque(layers: list[FileLayer]) -> str:
    return "; made anew by the application, so nothing from below" if layers[0].hides else ""


def _of_source(given: dict[str, Any], layers: list[FileLayer], is_cow: bool) -> str:
    said = "not changed by the application; " if is_cow else ""
    if len(layers) - is_cow > 1:
        said += "in the topmost layer that has it; "
    if given.get("source") == "archive":
        states = {
            "unfilled": "its content is still in the archive, and is filled in at the first open",
            "damaged": "the archive does not yield its content",
        }
        filled = "filled from the archive, its content is on private tmpfs"
        if given.get("kind") != "file":
            filled = "as the archive's index says"
        return said + states.get(given.get("state", ""), filled)
    return said + {
        "memory": "in memory, gone when the program ends",
        "encrypted": "in clear on private tmpfs, sealed into the store when it changes",
        "computed": "the output of a command, on private tmpfs",
    }.get(given.get("source", ""), "the file itself")


def _within(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")
