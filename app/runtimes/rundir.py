"""The run directory: all that an application's libraries get from the control plane.

Why: the libraries know one place, `/run/cse` (its contents are a contract in ARCHITECTURE.md),
and every runtime must show the same there. The runtimes call `build` when they create an
application and put the returned binds, tmpfs and environment into whatever they start.

On the host everything of one application lies in `STATE/apps/NAME`:

    launch.json      the Launch, written last: without it the directory is half-made
    run/             becomes /run/cse (read-only): *.conf, broker.sock and empty mount points
    data/            becomes /run/cse/data (read and write)
    …                files of the runtime (status, log)
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.errors import HostLacks, InvalidSpecification
from app.domain.launch import BoundElement, Launch
from app.domain.network import NetworkBinding
from app.runtimes import disposal, hosts, secrets, sharing
from app.runtimes.conf import flatten, resolvers, to_lines
from app.runtimes.hostpaths import Place, replace_places

INSIDE = "/run/cse"
"""Where the application sees its run directory."""


@dataclass(frozen=True)
class Bind:
    """One file or directory of the host and where the application sees it."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class Memory:
    """A file system in memory for the application alone."""

    target: str
    size: int | None = None
    """Bytes; None: as much as the kernel gives."""


@dataclass(frozen=True)
class RunDirectory:
    """What a runtime must give to the program; `binds` are in mounting order (outer first)."""

    path: Path
    """`STATE/apps/NAME` on the host."""
    binds: list[Bind]
    tmpfs: list[Memory]
    environment: dict[str, str]
    """What the libraries need."""
    given: dict[str, str]
    """The specification's, with secrets in their places."""


def application_directory(state: Path, name: str) -> Path:
    """`STATE/apps/NAME`."""
    return state / "apps" / name


def build(
    state: Path, launch: Launch, target: str, *, owner: tuple[int, int] | None = None
) -> RunDirectory:
    """Make (or make anew) the run directory; `launch.json` is not written (see `seal`).

    `target` is the program's `<libc>-<machine>`. `owner` (uid, gid) is whom the program runs as,
    so that it can write to `data`. Raises HostLacks where a library is not built, and
    InvalidSpecification where a host path is missing. What is in `data/` is kept.
    """
    top = application_directory(state, launch.name)
    run, data = f"{top}/run", f"{top}/data"
    os.makedirs(top, mode=0o700, exist_ok=True)
    for path in (run, data, f"{run}/data", f"{run}/private"):
        _directory(path)
    if owner is not None and os.geteuid() == 0:
        os.chown(data, *owner)

    binds = [Bind(run, INSIDE, True), Bind(data, f"{INSIDE}/data", False)]
    binds += _name_files(state, launch, run)
    preload: list[str] = []
    environment: dict[str, str] = {}
    memories = [Memory(f"{INSIDE}/private")]
    count = 0
    for bound in launch.linked:
        manifest = bound.element.manifest
        libraries = _libraries(bound, target)
        _directory(f"{run}/lib")
        _directory(f"{run}/lib/{manifest.name}")
        binds.append(Bind(libraries, f"{INSIDE}/lib/{manifest.name}", True))
        if bound.link == "preload":
            overlays = manifest.libraries[target].preload
            preload += [f"{INSIDE}/lib/{manifest.name}/{file}" for file in overlays]
        settings, places = replace_places(bound.settings, manifest.settings, INSIDE, count)
        count += len(places)
        for place in (sharing.bring(state, launch, data, place) for place in places):
            _prepare(run, place, f"/elements/{manifest.name}/settings{place.pointer}")
            if place.format == "memory-bytes":
                memories.append(Memory(place.target, place.value))
            else:
                binds.append(Bind(place.value, place.target, place.format == "host-path"))
        environment |= dict(_environment(manifest.environment, flatten(settings)))
        _write(f"{run}/{manifest.kind}.conf", _conf(launch, bound, settings))
    if preload:
        environment["LD_PRELOAD"] = ":".join(preload)
    if launch.spec.secrets:
        secrets.write_files(state, f"{top}/secrets", launch.spec, owner)
        binds.append(Bind(f"{top}/secrets", secrets.INSIDE, True))
    given = secrets.environment(state, launch.spec)
    return RunDirectory(top, binds, memories, environment, given)


def places(state: Path, launch: Launch) -> tuple[list[Bind], list[Memory]]:
    """What of the application's tree lies elsewhere, as `build` and the runtimes bring it."""
    top = application_directory(state, launch.name)
    binds = [Bind(f"{top}/run", INSIDE, True), Bind(f"{top}/data", f"{INSIDE}/data", False)]
    memories = [Memory(f"{INSIDE}/private"), *map(Memory, launch.spec.tmpfs)]
    count = 0
    for bound in launch.linked:
        found = replace_places(bound.settings, bound.element.manifest.settings, INSIDE, count)[1]
        count += len(found)
        for place in (sharing.bring(state, launch, f"{top}/data", place) for place in found):
            if place.format == "memory-bytes":
                memories.append(Memory(place.target, place.value))
            else:
                binds.append(Bind(place.value, place.target, place.format == "host-path"))
    binds += [Bind(mount.source, mount.target, mount.read_only) for mount in launch.mounts]
    return binds, memories


def write_settings(state: Path, launch: Launch) -> None:
    """The settings files anew, of an application that exists: its next start reads them.

    What is bound into the application stays: settings that name host paths cannot change.
    """
    run = application_directory(state, launch.name) / "run"
    count = 0
    for bound in launch.linked:
        schema = bound.element.manifest.settings
        settings, places = replace_places(bound.settings, schema, INSIDE, count)
        count += len(places)
        _write(f"{run}/{bound.element.manifest.kind}.conf", _conf(launch, bound, settings))


def write_secrets(state: Path, launch: Launch) -> None:
    """Those that the application has as files, as they are now; for whom they were made."""
    place = application_directory(state, launch.name) / "secrets"
    if launch.spec.secrets:
        found = place.stat()
        owner = (found.st_uid, found.st_gid)
        secrets.write_files(state, str(place), launch.spec, owner)


def seal(directory: Path, launch: Launch) -> None:
    """Write `launch.json`, after everything else was made: now the application exists."""
    _write(f"{directory}/launch.json", launch.model_dump_json())


def sealed(state: Path) -> Iterator[Launch]:
    """The launches of all applications that exist, by name."""
    try:
        names = sorted(path.name for path in (state / "apps").iterdir())
    except FileNotFoundError:
        return
    for name in names:
        launch = load(state, name)
        if launch is not None:
            yield launch


def load(state: Path, name: str) -> Launch | None:
    """The sealed launch of one application."""
    try:
        text = (application_directory(state, name) / "launch.json").read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Launch.model_validate_json(text)


def remove(state: Path, name: str) -> None:
    """The directory is gone, at once and as a whole: a crash leaves no half application."""
    disposal.take_away(state, application_directory(state, name))


def _conf(launch: Launch, bound: BoundElement, settings: dict[str, Any]) -> str:
    values = flatten(settings)
    if bound.element.manifest.kind == "network":
        values |= flatten(_binding(launch)) | values  # a setting `mtu` is below the network's
    return to_lines(values)


def _libraries(bound: BoundElement, target: str) -> str:
    """The directory with the element's files for this target, all of them there."""
    manifest = bound.element.manifest
    if target not in manifest.libraries:
        raise HostLacks(
            f"element {manifest.name} {manifest.version} has no libraries for {target}",
            remedy=f"it has them for: {', '.join(sorted(manifest.libraries))}",
        )
    suffix = "" if bound.variant == "release" else f"-{bound.variant}"
    directory = f"{bound.element.directory}/lib/{target}{suffix}"
    wanted = manifest.libraries[target]
    missing = [
        file
        for file in [*wanted.preload, *wanted.files]
        if not os.path.exists(f"{directory}/{file}")
    ]
    if missing:
        raise HostLacks(
            f"element {manifest.name}: {', '.join(missing)} not found in {directory}",
            remedy="build the libraries with 'make native'",
        )
    return directory


def _directory(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)


def _prepare(run: str, place: Place, pointer: str) -> None:
    """The mount point of what a setting stands for."""
    point = run + place.target.removeprefix(INSIDE)
    _directory(os.path.dirname(point))
    if place.format == "memory-bytes" or os.path.isdir(place.value):
        _directory(point)
    elif os.path.exists(place.value) and place.format == "host-path":
        Path(point).touch()
    else:
        what = "file or directory" if place.format == "host-path" else "directory"
        raise InvalidSpecification(
            f"{place.value} is no {what} of this host",
            pointer=pointer,
            remedy=f"give the path of an existing {what}",
        )


def _environment(templates: dict[str, str], values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """`{setting}` replaced; a variable whose settings are all absent is left out."""
    for name, template in templates.items():
        keys = re.findall(r"\{([A-Za-z0-9_.-]+)\}", template)
        if keys and not any(key in values for key in keys):
            continue
        yield name, re.sub(r"\{([A-Za-z0-9_.-]+)\}", lambda m: values.get(m[1], ""), template)


def _binding6(binding: NetworkBinding) -> dict[str, Any]:
    gateway = binding.network.gateway6
    if gateway is None:
        return {}
    return {
        "address6": str(binding.address6),
        "prefix6": gateway.network.prefixlen,
        "gateway6": str(gateway.ip),
    }


def _binding(launch: Launch) -> dict[str, Any]:
    """The keys of `network.conf` that say where the private stack is plugged in."""
    binding = launch.network
    if binding is None:
        raise InvalidSpecification(
            f"application {launch.name} uses a network element but is bound to no network"
        )
    servers = binding.network.dns
    return {
        "name": launch.name,
        "address": str(binding.address),
        "prefix": binding.network.subnet.prefixlen,
        "gateway": str(binding.network.gateway.ip),
        **_binding6(binding),
        "mac": binding.mac,
        "mtu": binding.network.mtu,
        "network_mtu": binding.network.mtu,
        "dns": resolvers() if servers is None else [str(server) for server in servers],
    }


def _name_files(state: Path, launch: Launch, run: str) -> list[Bind]:
    """Of a program on the kernel's stack, which looks names up by itself; a mount of the
    specification at the same place wins."""
    if launch.network is None or not launch.on_kernel_stack:
        return []
    network = launch.network.network
    servers = resolvers() if network.dns is None else [str(server) for server in network.dns]
    _write(f"{run}/resolv.conf", "".join(f"nameserver {server}\n" for server in servers))
    files = {
        "/etc/hosts": str(hosts.make(state, network.name)),
        "/etc/resolv.conf": f"{run}/resolv.conf",
    }
    taken = {mount.target for mount in launch.mounts}
    return [Bind(source, place, True) for place, source in files.items() if place not in taken]


def write_new(path: str, data: bytes, mode: int) -> None:
    """A small file, in the place of one that may be there: by three calls of the kernel, where
    a file object takes twice as many."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        if os.write(fd, data) != len(data):  # a full disk may take a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def _write(path: str, text: str) -> None:
    """Whole or not at all, so that a library or a restarted agent never reads half a file."""
    write_new(f"{path}.new", text.encode(), 0o666)
    os.replace(f"{path}.new", path)
