"""What a declaration would change: compares it with the store, and asks who would notice.

Called by `stacks.py` and `applications.py`, for `POST …/plan` and again, within the transaction,
when the plan is carried out: the two can only differ where the version says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from app.api.resources import etag, etag_of
from app.api.services import Services
from app.catalog import effects
from app.catalog.catalog import Catalog
from app.domain.application import ApplicationSpec
from app.domain.change import Effect, FieldChange, Kind, Plan, ResourceChange, strongest
from app.domain.errors import CseError
from app.domain.fault import Fault
from app.domain.network import NetworkSpec
from app.domain.observed import Coverage
from app.domain.stack import Stack
from app.domain.volume import VolumeSpec
from app.store.records import ApplicationRecord
from app.store.store import Transaction

LABEL = "cse.stack"
_FAULT_ID, _VERSION = 12, 24


def fault_id(stack: str, name: str) -> str:
    """Of a stack's fault: the same at every apply."""
    return "f-" + hashlib.sha256(f"{stack}/{name}".encode()).hexdigest()[:_FAULT_ID]


def of_stack(transaction: Transaction, catalog: Catalog, stack: Stack, *, prune: bool) -> Plan:
    """Without `disrupts` (see `disrupted`): that would ask the agent."""
    records = {record.name: record for record in transaction.applications.all()}
    networks = {network.name: network for network in transaction.networks.all()}
    volumes = {volume.name: volume for volume in transaction.volumes.all()}
    faults = {fault.id: fault for fault in transaction.faults.all()}
    changes = [
        *(_network(networks.get(name), spec) for name, spec in stack.networks.items()),
        *(_volume(volumes.get(name), spec) for name, spec in stack.volumes.items()),
        *_removals(records, faults, stack, prune),
        *(
            of_application(records.get(name), spec, catalog)
            for name, spec in stack.applications.items()
        ),
        *_faults(faults, stack),
    ]
    compared = [
        *(etag_of(networks[name]) for name in stack.networks if name in networks),
        *(etag_of(volumes[name]) for name in stack.volumes if name in volumes),
        *(
            f"{name} {etag(record)}"
            for name, record in sorted(records.items())
            if name in stack.applications or record.spec.labels.get(LABEL) == stack.name
        ),
        *sorted(key for key in faults if key in {fault_id(stack.name, n) for n in stack.faults}),
    ]
    return Plan(name=stack.name, version=_version(stack, prune, compared), changes=changes)


def of_application(
    record: ApplicationRecord | None, spec: ApplicationSpec, catalog: Catalog
) -> ResourceChange:
    """What becomes of one application."""
    if record is None or record.desired == "removed":
        return ResourceChange(kind="application", name=spec.name, action="create")
    fields = effects.of_application(record.spec, spec, catalog)
    found = _change("application", spec.name, fields)
    if record.desired == "running":
        return found
    begins = FieldChange(
        pointer="/desired", before=record.desired, after="running", effect=Effect.RESTART
    )
    return _change("application", spec.name, [*fields, begins])


def disrupted(services: Services, plan: Plan) -> Plan:
    """With the names of the applications that would notice each change."""
    with services.store.read() as transaction:
        records = {record.name: record for record in transaction.applications.all()}
    by_address = {str(record.address): record.name for record in records.values()}
    removed = {one.name for one in plan.changes if one.action == "remove"}

    def with_peers(change: ResourceChange) -> ResourceChange:
        ends = change.effect in (Effect.RESTART, Effect.RECREATE)
        if change.kind != "application" or not ends or change.name not in records:
            return change
        peers = {name for name, one in records.items() if change.name in one.spec.dependencies}
        peers |= set(_connected(services, change.name, by_address))
        return change.model_copy(update={"disrupts": sorted(peers - removed - {change.name})})

    return plan.model_copy(update={"changes": [with_peers(change) for change in plan.changes]})


def preflighted(plan: Plan, coverage: Mapping[str, Coverage]) -> Plan:
    """With what preflight found out about each application's program."""
    return plan.model_copy(
        update={
            "changes": [
                change.model_copy(update={"coverage": coverage.get(change.name)})
                if change.kind == "application"
                else change
                for change in plan.changes
            ]
        }
    )


def _connected(services: Services, name: str, by_address: Mapping[str, str]) -> Iterable[str]:
    """Applications to which it has a connection now; nobody where that cannot be asked."""
    try:
        lines = services.agent.report(name, "sockets")
    except CseError:
        return
    for line in lines:
        address = str(line.get("peer", "")).rpartition(":")[0]
        if address in by_address:
            yield by_address[address]


def _removals(
    records: Mapping[str, ApplicationRecord],
    faults: Mapping[str, Fault],
    stack: Stack,
    prune: bool,
) -> Iterable[ResourceChange]:
    if not prune:
        return
    for record in records.values():
        ours = record.spec.labels.get(LABEL) == stack.name
        if ours and record.name not in stack.applications and record.desired != "removed":
            yield ResourceChange(
                kind="application", name=record.name, action="remove", effect=Effect.RECREATE
            )
    kept = {fault_id(stack.name, name) for name in stack.faults}
    for fault in faults.values():
        if fault.stack == stack.name and fault.id not in kept:
            yield ResourceChange(kind="fault", name=fault.id, action="remove", effect=Effect.LIVE)


def _faults(faults: Mapping[str, Fault], stack: Stack) -> Iterable[ResourceChange]:
    for name, wanted in stack.faults.items():
        present = faults.get(fault_id(stack.name, name))
        if present is None or present.application != wanted.application:
            action = "create" if present is None else "change"
            yield ResourceChange.model_validate(
                {"kind": "fault", "name": name, "action": action, "effect": Effect.LIVE}
            )
        else:
            fields = effects.of_other(present.spec, wanted.spec, Effect.LIVE)
            yield _change("fault", name, fields)


def _network(before: NetworkSpec | None, after: NetworkSpec) -> ResourceChange:
    if before is None:
        return ResourceChange(kind="network", name=after.name, action="create")
    return _change("network", after.name, effects.of_network(before, after))


def _volume(before: VolumeSpec | None, after: VolumeSpec) -> ResourceChange:
    if before is None:
        return ResourceChange(kind="volume", name=after.name, action="create")
    return _change("volume", after.name, effects.of_other(before, after, Effect.NONE))


def _change(kind: Kind, name: str, fields: list[FieldChange]) -> ResourceChange:
    return ResourceChange(
        kind=kind,
        name=name,
        action="change" if fields else "unchanged",
        effect=strongest([field.effect for field in fields]),
        fields=fields,
    )


def _version(stack: Stack, prune: bool, compared: Iterable[str]) -> str:
    digest = hashlib.sha256(stack.model_dump_json().encode())
    for part in ("prune" if prune else "keep", *compared):
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()[:_VERSION]
