"""What this host's owner lets the control plane ask for: the agent's own file, checked here.

The agent runs as root and does what the API tells it; this is the bound that the API cannot move.
Without a file everything is allowed, as the API's own checks are then the only ones. Read by
`local` before an application is looked at or made, and again where the file has changed. Paths are
judged by where they lead, not by how they are written.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field, ValidationError

from app.domain.errors import Forbidden, HostLacks
from app.domain.explain import explain, pointer_to
from app.domain.launch import Launch
from app.domain.model import Model
from app.runtimes.hostpaths import replace_places

FILE = "policy.toml"
_ROOT = ("0", "root")


class Policy(Model):
    """The file's content; every field is a bound, absent ones bound nothing."""

    read_paths: list[str] = ["/"]
    """Host paths below these may be mounted."""
    write_paths: list[str] = ["/"]
    """The same for mounts that the application can write to; volumes are always allowed."""
    element_paths: list[str] = ["/"]
    """Builds of elements below these may be linked (`elements.NAME.path`)."""
    runtimes: list[str] = ["namespace", "docker"]
    images: list[str] = ["*"]
    """Patterns of container images."""
    root: bool = True
    """Whether programs may run as root."""
    lowest_port: int = 1
    """Of the host, that may be published."""
    kernel_stack: bool = True
    """Whether an application may be given the kernel's own stack (it needs no capability)."""
    shared_bytes: int = Field(default=8 << 30, ge=0)
    """Bytes on disk of what applications share of archives; what nobody uses is removed beyond."""
    host_network: bool = True
    """Whether an application may use the host's own network: one without a network element."""


class Keeper:
    """The policy of one state directory."""

    def __init__(self, state: Path) -> None:
        self._path = state / FILE
        self._stamp: tuple[int, int] | None = None
        self._policy: Policy | None = None

    def check(self, launch: Launch, state: Path) -> None:
        """Raises `Forbidden` with the field that the policy does not allow."""
        policy = self._read()
        if policy is None:
            return
        for pointer, what in _violations(policy, launch, state):
            raise Forbidden(
                f"this host's policy does not allow {what}",
                pointer=pointer,
                remedy=f"the owner of the host can change {self._path}",
            )

    def shared_bytes(self) -> int:
        """The bound, also without a file."""
        return (self._read() or Policy()).shared_bytes

    def _read(self) -> Policy | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._stamp = self._policy = None
            return None
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            self._policy, self._stamp = _parse(self._path), stamp
        return self._policy


def _parse(path: Path) -> Policy:
    """A file that cannot be read allows nothing: it is refused as a whole."""
    try:
        return Policy.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        found = explain(error.errors(), Policy)
        text = "; ".join(f"{item.pointer}: {item.detail}" for item in found)
    except (OSError, ValueError) as error:
        text = str(error)
    raise HostLacks(f"the policy {path} cannot be read: {text}", remedy="repair the file")


def _violations(policy: Policy, launch: Launch, state: Path) -> Iterator[tuple[str, str]]:
    spec = launch.spec
    if spec.runtime not in policy.runtimes:
        yield "/runtime", f"the runtime '{spec.runtime}'"
    if spec.image is not None and not any(fnmatchcase(spec.image, p) for p in policy.images):
        yield "/image", f"the image '{spec.image}'"
    if not policy.root and os.geteuid() == 0 and _is_root(spec.user):
        yield "/user", "programs of root; name a user"
    if not policy.host_network and launch.network is None:
        yield "/elements", "the host's own network; use a network element"
    if not policy.kernel_stack and (launch.on_kernel_stack or spec.fallback == "kernel"):
        yield "/fallback", "the kernel's own stack"
    for index, port in enumerate(spec.ports):
        if port.host_port < policy.lowest_port:
            yield f"/ports/{index}", f"the host's port {port.host_port}"
    yield from _paths(policy, launch, state)


def _paths(policy: Policy, launch: Launch, state: Path) -> Iterator[tuple[str, str]]:
    volumes = [str(state / "volumes")]
    for index, mount in enumerate(launch.mounts):
        allowed = policy.read_paths if mount.read_only else policy.write_paths
        if not _below(mount.source, [*allowed, *volumes]):
            verb = "reading" if mount.read_only else "writing"
            yield f"/mounts/{index}/from", f"{verb} {mount.source}"
    for bound in launch.elements:
        name, schema = bound.element.manifest.name, bound.element.manifest.settings
        use = launch.spec.elements.get(name)
        if use is not None and use.path is not None and not _below(use.path, policy.element_paths):
            yield pointer_to(["elements", name, "path"]), f"the element in {use.path}"
        _, places = replace_places(bound.settings, schema, "", 0)
        for place in places:
            if place.format in ("memory-bytes", "shared-contents"):
                continue
            writes = place.format == "host-directory"
            allowed = policy.write_paths if writes else policy.read_paths
            if not _below(str(place.value), allowed):
                pointer = pointer_to(["elements", name, "settings"]) + place.pointer
                yield pointer, f"{'writing' if writes else 'reading'} {place.value}"


def _is_root(user: str | None) -> bool:
    return user is None or user.partition(":")[0] in _ROOT


def _below(path: str, places: list[str]) -> bool:
    real = os.path.realpath(path)
    return any(
        real == top or real.startswith(top.rstrip("/") + "/")
        for top in (os.path.realpath(place) for place in places)
    )
