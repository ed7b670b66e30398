"""From launches and runtimes to what `instances` and `evidence` say. Called by `local`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.domain.application import RuntimeName
from app.domain.errors import CseError
from app.domain.launch import Launch
from app.domain.observed import Claim, Coverage, Instance
from app.evidence import claims, escapes
from app.evidence.subject import Linked, Subject
from app.runtimes import rundir
from app.runtimes.namespace.view import HostView
from app.runtimes.runtime import AnyRuntime

_MAX_NEIGHBOURS = 16
"""Other applications that a claim compares with; more would only take longer."""


def write_coverage(directory: Path, coverage: Coverage) -> None:
    """Beside the launch, for evidence after a restart of the agent."""
    rundir.write_new(f"{directory}/coverage.json", coverage.model_dump_json().encode(), 0o644)


def read_coverage(directory: Path) -> Coverage | None:
    """What preflight found when the application was created."""
    try:
        return Coverage.model_validate_json((directory / "coverage.json").read_text())
    except (OSError, ValueError):
        return None


def neighbours(launches: dict[str, Launch], name: str) -> list[Launch]:
    """The application itself, and some that share an element with it."""
    own = launches[name]
    used = {bound.element.manifest.name for bound in own.elements}
    others = [
        launch
        for launch in launches.copy().values()
        if launch.name != name and used & {one.element.manifest.name for one in launch.elements}
    ]
    return [own, *others[-_MAX_NEIGHBOURS:]]


def subject(state: Path, launch: Launch, runtime: AnyRuntime, reported: dict[str, Any]) -> Subject:
    """One application as the kernel and its runtime show it now."""
    directory = rundir.application_directory(state, launch.name)
    coverage = read_coverage(directory)
    observed = next((one for one in runtime.observe() if one.name == launch.name), None)
    try:
        pids = runtime.pids(launch.name)
    except CseError:
        pids = []
    target = f"{coverage.libc}-{coverage.machine}" if coverage else ""
    return Subject(
        name=launch.name,
        pids=pids,
        main=observed.pid if observed else None,
        since=observed.started_at if observed else None,
        linked=[_linked(launch, number, target) for number in range(len(launch.elements))],
        data=directory / "data",
        expected_sha256=coverage.sha256 if coverage else "",
        outside_sha256=_outside(state, launch),
        reported=reported,
    )


def instances(launch: Launch, found: Subject) -> list[Instance]:
    """One for each element; `started` as the broker heard, or as the library's traces show."""
    made = []
    for linked in found.linked:
        users = found.users_of(linked)
        details: dict[str, Any] = {"escapes": escapes.read(found.data, linked.kind) or {}}
        started = bool(users)
        if linked.kind == "network":
            if not linked.by_kernel:
                started = bool(users) and bool(found.reported.get("live"))
            details |= {key: value for key, value in found.reported.items() if key != "live"}
            if launch.network is not None:
                details |= {
                    "address": str(launch.network.address),
                    "address6": str(launch.network.address6) if launch.network.address6 else None,
                    "mac": launch.network.mac,
                    "network": launch.network.network.name,
                }
        made.append(
            Instance(
                id=f"{launch.name}.{linked.name}",
                application=launch.name,
                element=linked.name,
                kind=linked.kind,
                pids=users,
                started=started,
                settings=linked.bound.settings,
                details=details,
            )
        )
    return made


def count_filtered(reported: dict[str, Any], delivered: int | None) -> None:
    """Add to an instance's counters what its packet filter dropped in the kernel: what the bridge
    delivered without what came through. The instance's number may be a second old."""
    counters = reported.get("counters", {})
    if delivered is not None and isinstance(counters.get("ring_packets"), int):
        counters["kernel_filtered"] = max(0, delivered - counters["ring_packets"])


def evidence(found: Subject, others: list[Subject]) -> list[Claim]:
    """All claims on one application."""
    return claims.check(found, others)


def _linked(launch: Launch, number: int, target: str) -> Linked:
    bound = launch.elements[number]
    manifest = bound.element.manifest
    files = manifest.libraries.get(target)
    suffix = "" if bound.variant == "release" else f"-{bound.variant}"
    home = Path(bound.element.directory) / "lib" / f"{target}{suffix}"
    names = [*files.preload, *files.files] if files else []
    return Linked(bound, [home / name for name in names])


def _outside(state: Path, launch: Launch) -> Callable[[str], str | None]:
    """The same file of the host; programs of images are compared with what preflight read."""
    if launch.spec.runtime is not RuntimeName.NAMESPACE:
        return lambda path: None
    view = HostView(launch, [str(state.resolve())])

    def digest(path: str) -> str | None:
        found = view.find(path)
        if found is None:
            return None
        try:
            with Path(found.host_path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None

    return digest
