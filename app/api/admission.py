"""Decides whether a specification can be carried out, before anything is stored or made.

Every fault of a request is found at once and answered with its place and a remedy. Called by
the handlers of applications and stacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from app.api.services import Services
from app.catalog import resolve
from app.domain.access import Quotas, over_quota
from app.domain.application import ApplicationSpec
from app.domain.errors import CseError, PreflightRefused
from app.domain.explain import FieldError, InvalidFields, did_you_mean, pointer_to
from app.domain.network import NetworkSpec
from app.domain.observed import Coverage
from app.domain.volume import VolumeSpec
from app.store.store import Transaction


@dataclass
class Known:
    """The names that a specification may refer to."""

    networks: dict[str, NetworkSpec]
    volumes: dict[str, VolumeSpec]
    depends_on: dict[str, list[str]] = field(default_factory=dict)
    """Every application → what it depends on."""
    unchecked: set[str] = field(default_factory=set)
    """Those without a health check."""


@dataclass(frozen=True)
class Admitted:
    """A specification that can be carried out, as far as can be known beforehand."""

    spec: ApplicationSpec
    network: NetworkSpec | None
    coverage: Coverage


def known(services: Services) -> Known:
    """What is in the store now."""
    with services.store.read() as transaction:
        records = [one for one in transaction.applications.all() if one.desired != "removed"]
        return Known(
            networks={network.name: network for network in transaction.networks.all()},
            volumes={volume.name: volume for volume in transaction.volumes.all()},
            depends_on={record.name: list(record.spec.dependencies) for record in records},
            unchecked={record.name for record in records if record.spec.health is None},
        )


def known_to(services: Services, spec: ApplicationSpec) -> Known:
    """As `known`; the network alone where it exists and nothing else is named: most starts."""
    if not spec.depends_on and all(mount.volume is None for mount in spec.mounts):
        network = services.store.network(spec.network.name)
        if network is not None:
            return Known(networks={network.name: network}, volumes={})
    return known(services)


def with_defaults(services: Services, spec: ApplicationSpec) -> ApplicationSpec:
    """The runtime that the settings name, where the specification names none; settings of
    elements in numbers."""
    spec = resolve.in_numbers(spec, services.catalog)
    if "runtime" in spec.model_fields_set or services.default_runtime is spec.runtime:
        return spec
    return ApplicationSpec.model_validate(
        {**spec.model_dump(exclude_unset=True), "runtime": services.default_runtime}
    )


def faults(
    services: Services, spec: ApplicationSpec, names: Known, prefix: str = ""
) -> list[FieldError]:
    """Everything wrong with it, without asking the agent."""
    errors = resolve.check(
        spec, services.catalog, visible=services.paths_are_visible, prefix=prefix
    )
    if spec.network.name not in names.networks:
        errors.append(
            _unknown("network", spec.network.name, names.networks, "/network/name", prefix)
        )
    for index, mount in enumerate(spec.mounts):
        if mount.volume is not None and mount.volume not in names.volumes:
            place = pointer_to(["mounts", index, "volume"])
            errors.append(_unknown("volume", mount.volume, names.volumes, place, prefix))
    errors += _secret_errors(services, spec, prefix)
    for index, (other, condition) in enumerate(spec.dependencies.items()):
        place = pointer_to(["depends_on", index])
        if condition == "healthy" and other in names.unchecked:
            errors.append(
                FieldError(
                    pointer=prefix + place,
                    detail=f"'{other}' has no health check, it would never count as healthy",
                    remedy=f"give '{other}' a 'health', or wait for it to be started only",
                )
            )
        if other not in names.depends_on:
            others = set(names.depends_on) - {spec.name}
            errors.append(_unknown("application", other, others, place, prefix))
        elif cycle := _cycle(names.depends_on, spec.name, other):
            errors.append(
                FieldError(
                    pointer=prefix + place,
                    detail=f"'{spec.name}' would wait for itself: {' → '.join(cycle)}",
                    remedy="remove one of these dependencies",
                )
            )
    return errors


def _secret_errors(services: Services, spec: ApplicationSpec, prefix: str) -> Iterator[FieldError]:
    """Those of another project are as if there were none."""
    if not spec.named_secrets:
        return
    known = {one.name for one in services.agent.secrets() if one.project == spec.project}
    for name, place in spec.named_secrets.items():
        if name not in known:
            yield FieldError(
                pointer=prefix + place,
                detail=f"there is no secret '{name}' in project '{spec.project}'",
                remedy=did_you_mean(name, known) if known else f"cse secret set {name} < FILE",
            )


def admit(services: Services, spec: ApplicationSpec, names: Known, prefix: str = "") -> Admitted:
    """All checks, the agent's preflight last. Raises `InvalidFields` or `PreflightRefused`."""
    if errors := faults(services, spec, names, prefix):
        raise InvalidFields(errors)
    network = None
    binding = None
    if resolve.uses_network(spec, services.catalog):
        network = names.networks[spec.network.name]
        provisional = spec.network.address or network.gateway.ip + 1
        binding = resolve.binding(network, provisional, spec)
    bare = spec
    if any(mount.volume for mount in spec.mounts):
        # A volume's directory need not be there yet, and no program is started from one.
        mounts = [mount for mount in spec.mounts if mount.volume is None]
        bare = spec.model_copy(update={"mounts": mounts})
    launch = resolve.launch("preflight", bare, services.catalog, binding, {})
    coverage = services.agent.preflight(launch)
    if coverage.verdict == "refused":
        raise PreflightRefused(
            coverage.reason, pointer=f"{prefix}/command/0", remedy=coverage.remedy or None
        )
    return Admitted(spec, network, coverage)


def check_project(
    services: Services, transaction: Transaction, spec: ApplicationSpec, prefix: str = ""
) -> None:
    """After it has been recorded, in the same transaction: whether its project may have it."""
    if services.project is not None and spec.project != services.project:
        raise InvalidFields(
            [
                FieldError(
                    pointer=f"{prefix}/project",
                    detail=f"this token is confined to project '{services.project}'",
                    remedy=f"write 'project: {services.project}'",
                )
            ]
        )
    project = services.store.project(transaction, spec.project)
    if project is None:
        names = {one.name: one for one in transaction.projects.all()}
        raise InvalidFields([_unknown("project", spec.project, names, "/project", prefix)])
    if project.quotas == Quotas():
        return
    members = [
        record.spec
        for record in transaction.applications.all()
        if record.spec.project == project.name and record.desired != "removed"
    ]
    if errors := list(over_quota(project, members)):
        raise InvalidFields(
            [error.model_copy(update={"pointer": prefix + error.pointer}) for error in errors]
        )


def _unknown(
    kind: str, name: str, names: Mapping[str, object] | set[str], place: str, prefix: str
) -> FieldError:
    return FieldError(
        pointer=prefix + place,
        detail=f"there is no {kind} '{name}'",
        remedy=did_you_mean(name, names) if names else f"create the {kind} first",
    )


def _cycle(depends_on: Mapping[str, list[str]], start: str, then: str) -> list[str] | None:
    """The path from `then` back to `start`, where there is one."""
    paths = [[start, then]]
    seen: set[str] = set()
    while paths:
        path = paths.pop()
        if path[-1] == start:
            return path
        if path[-1] not in seen:
            seen.add(path[-1])
            paths += [[*path, other] for other in depends_on.get(path[-1], [])]
    return None


def ensure_network(services: Services, network: NetworkSpec | None, pointer: str) -> None:
    """Make the network on the host; what keeps it from that is told at `pointer`."""
    if network is None:
        return
    try:
        services.convergence.ensure_network(network)
    except CseError as error:
        error.pointer = pointer
        raise
