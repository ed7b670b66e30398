"""Applies a whole stack: everything is checked first, then recorded in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from app.api import admission, planning
from app.api.admission import Admitted, Known
from app.api.faults import has_files, kernel_errors, new_fault, stack_of
from app.api.operations import begun
from app.api.planning import LABEL
from app.api.problems import RESPONSES, PreconditionFailed
from app.api.services import Given, Services
from app.domain.application import ApplicationSpec
from app.domain.change import Effect, Plan, ResourceChange
from app.domain.errors import Conflict, CseError, Forbidden, InvalidSpecification
from app.domain.explain import FieldError, InvalidFields, did_you_mean, pointer_to
from app.domain.model import Name
from app.domain.network import DEFAULT_NETWORK, NetworkSpec
from app.domain.resources import Change, StackResult
from app.domain.stack import Stack
from app.domain.volume import VolumeSpec
from app.store.store import Transaction

router = APIRouter(prefix="/v1/stacks", tags=["stacks"], responses=RESPONSES)


IfMatch = Annotated[
    str | None, Header(description="`version` of a plan: refused (412) where it is stale.")
]
Prune = Annotated[
    bool, Query(description="Remove applications and faults of this stack that it lists no more.")
]


@router.post("/{name}/plan", operation_id="planStack")
def plan(services: Given, name: Name, stack: Stack, prune: Prune = False) -> Plan:
    """What applying would change, field by field, and who would notice; nothing is done."""
    stack = _checked(services, name, stack)
    admitted = _admit_all(services, stack)
    with services.store.read() as transaction:
        _check_owners(transaction, stack)
        found = planning.of_stack(transaction, services.catalog, stack, prune=prune)
    found = planning.preflighted(found, {name: one.coverage for name, one in admitted.items()})
    return planning.disrupted(services, found)


@router.put("/{name}", operation_id="applyStack")
def apply(
    services: Given,
    request: Request,
    response: Response,
    name: Name,
    stack: Stack,
    prune: Prune = False,
    if_match: IfMatch = None,
) -> StackResult:
    """Make networks, volumes, applications and faults so; what already is so is left alone.

    Nothing is changed where anything in it cannot be accepted. Answers when all is recorded, with
    202 and an operation where there is something to be done.
    """
    stack = _checked(services, name, stack)
    admitted = _admit_all(services, stack)
    _ensure_networks(services, stack, admitted)
    with services.store.write() as transaction:
        _check_owners(transaction, stack)
        found = planning.of_stack(transaction, services.catalog, stack, prune=prune)
        _check_version(found, if_match)
        changes = [
            _carry_out(services, transaction, stack, change, admitted) for change in found.changes
        ]
        last_of = {item.spec.project: key for key, item in admitted.items()}
        for key in last_of.values():  # once for each project, when all of it is there
            place = pointer_to(["applications", key])
            admission.check_project(services, transaction, admitted[key].spec, place)
        transaction.events.add("applied", None, f"stack '{name}' applied")
        records = {record.name: record for record in transaction.applications.all()}
    _tell(services, stack, changes)
    new = frozenset(one.name for one in changes if one.change == "created")
    concerned = [one for one in changes if one.kind == "application" and one.change != "unchanged"]
    leaving = [records[one.name] for one in concerned if one.change == "removed"]
    staying = [records[one.name] for one in concerned if one.change != "removed"]
    operation = None
    if concerned:
        response.status_code = 202
        kind = f"apply stack {name}"
        operation = begun(services, request, response, kind, staying, "running", new, leaving).id
    return StackResult(name=name, changes=changes, operation=operation)


@router.delete("/{name}", status_code=202, operation_id="deleteStack")
def delete(services: Given, request: Request, response: Response, name: Name) -> StackResult:
    """Remove the stack's applications; networks and volumes stay until removed by name."""
    with services.store.write() as transaction:
        members = [
            record
            for record in transaction.applications.all()
            if record.spec.labels.get(LABEL) == name
            and record.desired != "removed"
            and services.project in (None, record.spec.project)
        ]
        names = [record.name for record in members]
        transaction.applications.remove_all(members)
        transaction.events.add("stack-removed", None, f"stack '{name}' is being removed")
    for member in names:
        services.convergence.wake(member)
    changes = [Change(kind="application", name=member, change="removed") for member in names]
    operation = None
    if members:
        kind = f"delete stack {name}"
        operation = begun(services, request, response, kind, members, "removed").id
    return StackResult(name=name, changes=changes, operation=operation)


def _checked(services: Services, name: str, stack: Stack) -> Stack:
    """The stack with its name on everything in it; what can be wrong with it by itself is told."""
    if stack.name != name:
        raise InvalidSpecification(
            f"the stack is called '{stack.name}', the path says '{name}'",
            pointer="/name",
            remedy="use the same name in both",
        )
    _check_keys(stack)
    if services.project is not None and (stack.networks or stack.volumes):
        raise Forbidden(
            f"networks and volumes belong to all projects, this token to '{services.project}'",
            pointer="/networks" if stack.networks else "/volumes",
            remedy="have them made by a token that is not confined to a project",
        )
    return _labelled(services, stack)


def _labelled(services: Services, stack: Stack) -> Stack:
    """The stack with its name on everything in it."""
    mark = {LABEL: stack.name}
    return stack.model_copy(
        update={
            "networks": {
                key: spec.model_copy(update={"labels": {**spec.labels, **mark}})
                for key, spec in stack.networks.items()
            },
            "volumes": {
                key: spec.model_copy(update={"labels": {**spec.labels, **mark}})
                for key, spec in stack.volumes.items()
            },
            "applications": {
                key: admission.with_defaults(services, spec).model_copy(
                    update={"labels": {**spec.labels, **mark}}
                )
                for key, spec in stack.applications.items()
            },
        }
    )


def _check_keys(stack: Stack) -> None:
    sections: dict[str, Mapping[str, NetworkSpec | VolumeSpec | ApplicationSpec]] = {
        "networks": stack.networks,
        "volumes": stack.volumes,
        "applications": stack.applications,
    }
    for section, entries in sections.items():
        for key, spec in entries.items():
            if key != spec.name:
                raise InvalidSpecification(
                    f"'{key}' names itself '{spec.name}'",
                    pointer=pointer_to([section, key, "name"]),
                    remedy="leave 'name' out; the key is the name",
                )


def _admit_all(services: Services, stack: Stack) -> dict[str, Admitted]:
    """Every application of the stack, checked as if the rest of the stack were there already."""
    names = admission.known(services)
    present = names.unchecked
    names = Known(
        networks={**names.networks, **stack.networks},
        volumes={**names.volumes, **stack.volumes},
        depends_on={
            **names.depends_on,
            **{key: list(spec.dependencies) for key, spec in stack.applications.items()},
        },
    )
    ours = {key for key, spec in stack.applications.items() if spec.health is None}
    names.unchecked = (present - set(stack.applications)) | ours
    errors: list[FieldError] = []
    for key, spec in stack.applications.items():
        errors += admission.faults(services, spec, names, pointer_to(["applications", key]))
    errors += _fault_errors(services, stack, set(names.depends_on))
    if errors:
        raise InvalidFields(errors)
    return {
        key: admission.admit(services, spec, names, pointer_to(["applications", key]))
        for key, spec in stack.applications.items()
    }


def _fault_errors(services: Services, stack: Stack, known: set[str]) -> Iterator[FieldError]:
    for key, fault in stack.faults.items():
        place = pointer_to(["faults", key])
        peer = fault.to if fault.to and fault.to[0].isalpha() else None
        for field, name in (("cut", fault.cut), ("to", peer)):
            if name is not None and name not in known:
                detail = f"there is no application '{name}'"
                remedy = did_you_mean(name, known)
                yield FieldError(pointer=f"{place}/{field}", detail=detail, remedy=remedy)
        spec = stack.applications.get(fault.application)
        if spec is None:
            yield FieldError(
                pointer=f"{place}/application",
                detail=f"the stack has no application '{fault.application}'",
                remedy=did_you_mean(fault.application, stack.applications),
            )
        elif fault.file is not None:
            if not has_files(services, spec):
                yield FieldError(
                    pointer=f"{place}/application",
                    detail=f"'{fault.application}' has no file system of its own to meet a fault",
                    remedy="give it the element filesystem",
                )
        elif (used := stack_of(services, spec)) is None:
            yield FieldError(
                pointer=f"{place}/application",
                detail=f"'{fault.application}' has no network stack of its own to meet a fault",
                remedy="give it a network element, for example network-lwip",
            )
        elif used == "kernel":
            yield from kernel_errors(fault.application, fault.spec, place)
        if fault.spec.only_resets:
            yield FieldError(
                pointer=f"{place}/reset",
                detail="a reset is done once and does not last; a stack says what is to last",
                remedy=f"reset by hand: cse fault add {fault.application} --reset {fault.reset}",
            )


def _ensure_networks(services: Services, stack: Stack, admitted: dict[str, Admitted]) -> None:
    """Make the networks that are used; where one cannot be made, none of the new ones stays."""
    with services.store.read() as transaction:
        present = {network.name for network in transaction.networks.all()}
    made: set[str] = set()
    try:
        for key, item in admitted.items():
            if item.network is None or item.network.name in made:
                continue
            place = pointer_to(["applications", key, "network", "name"])
            if item.network.name in stack.networks:
                place = pointer_to(["networks", item.network.name])
            admission.ensure_network(services, item.network, place)
            made.add(item.network.name)
    except CseError:
        for name in made - present:
            services.convergence.remove_network(name)
        raise


def _check_owners(transaction: Transaction, stack: Stack) -> None:
    """A stack changes only what it made."""
    for network in stack.networks.values():
        before = transaction.networks.find(network.name)
        if before is not None and network.name != DEFAULT_NETWORK:
            _check_owner("network", before, stack.name, pointer_to(["networks", network.name]))
    volumes = {volume.name: volume for volume in transaction.volumes.all()}
    for name in stack.volumes:
        if name in volumes:
            _check_owner("volume", volumes[name], stack.name, pointer_to(["volumes", name]))
    for key in stack.applications:
        record = transaction.applications.find(key)
        if record is not None and record.desired != "removed":
            place = pointer_to(["applications", key])
            _check_owner("application", record.spec, stack.name, place)


def _check_version(found: Plan, if_match: str | None) -> None:
    if if_match is not None and if_match.strip('"') not in ("*", found.version):
        raise PreconditionFailed(
            "the plan is stale: the stack, or what it was compared with, has changed since",
            remedy="make the plan anew: cse plan",
        )


def _carry_out(
    services: Services,
    transaction: Transaction,
    stack: Stack,
    change: ResourceChange,
    admitted: dict[str, Admitted],
) -> Change:
    """Record one change of the plan."""
    if change.action == "unchanged":
        return _change(change, "unchanged")
    name = change.name
    if change.kind == "network":
        place = pointer_to(["networks", name])
        _at(place, partial(transaction.networks.put, stack.networks[name]))
    elif change.kind == "volume":
        transaction.volumes.put(stack.volumes[name])
    elif change.kind == "fault":
        _record_fault(transaction, stack, change)
    elif change.action == "remove":
        transaction.applications.set_desired(name, "removed")
    else:
        return _record_application(services, transaction, stack.name, change, admitted[name])
    verb = {"create": "created", "change": "changed", "remove": "removed"}[change.action]
    return _change(change, verb)


def _record_application(
    services: Services,
    transaction: Transaction,
    stack: str,
    change: ResourceChange,
    item: Admitted,
) -> Change:
    applications, key = transaction.applications, change.name
    place = pointer_to(["applications", key])
    if change.action == "change" and change.effect is not Effect.RECREATE:
        applications.change(item.spec, restart=change.effect is Effect.RESTART)
        transaction.events.add("changed", key, f"changed by stack '{stack}'")
        return _change(change, "changed")
    act = applications.insert if change.action == "create" else applications.replace
    installation = services.store.installation
    _at(place, partial(act, installation, item.spec, item.network, item.coverage))
    verb = "created" if change.action == "create" else "replaced"
    transaction.events.add(verb, key, f"{verb} by stack '{stack}'")
    return _change(change, verb)


def _record_fault(transaction: Transaction, stack: Stack, change: ResourceChange) -> None:
    if change.action == "remove":
        transaction.faults.remove(change.name)
        return
    wanted, identity = stack.faults[change.name], planning.fault_id(stack.name, change.name)
    transaction.faults.remove(identity)
    fault = new_fault(wanted.application, wanted.spec, identity, stack.name)
    place = pointer_to(["faults", change.name])
    _at(place, partial(transaction.faults.add, fault))
    transaction.events.add("fault-started", wanted.application, f"{identity}: by stack")


def _tell(services: Services, stack: Stack, changes: list[Change]) -> None:
    """The loops that carry it out, after the commit."""
    waking = [
        change.name
        for change in changes
        if change.kind == "application" and change.change != "unchanged"
    ]
    priority = {name: spec.priority for name, spec in stack.applications.items()}
    for name in sorted(waking, key=lambda name: -priority.get(name, 0)):
        services.convergence.wake(name)
    if any(change.kind == "fault" and change.change != "unchanged" for change in changes):
        with services.store.read() as transaction:
            concerned = {*(fault.application for fault in stack.faults.values())}
            concerned |= {
                record.name
                for record in transaction.applications.all()
                if record.spec.labels.get(LABEL) == stack.name
            }
        for name in sorted(concerned):
            services.faults.apply(name)


def _check_owner(
    kind: str, spec: NetworkSpec | VolumeSpec | ApplicationSpec, stack: str, place: str
) -> None:
    owner = spec.labels.get(LABEL)
    if owner != stack:
        belongs = f"belongs to stack '{owner}'" if owner else "was not made by a stack"
        raise Conflict(
            f"{kind} '{spec.name}' exists and {belongs}",
            pointer=place,
            remedy=f"choose another name, or remove it first: cse rm {spec.name}",
        )


def _at(place: str, act: Callable[[], object]) -> bool:
    """Errors of the store point into the resource: make them point into the stack."""
    try:
        return bool(act())
    except CseError as error:
        error.pointer = place + (error.pointer or "")
        raise


def _change(change: ResourceChange, verb: str) -> Change:
    return Change.model_validate({"kind": change.kind, "name": change.name, "change": verb})
