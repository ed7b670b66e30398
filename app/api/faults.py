"""Faults of one application, of its packets and of its files: add, list, remove."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Response

from app.api.problems import RESPONSES
from app.api.resources import After, Limit, part
from app.api.services import Given, Services
from app.domain.application import ApplicationSpec
from app.domain.errors import AgentUnavailable, Conflict, InvalidSpecification, TimedOut
from app.domain.explain import FieldError, InvalidFields, did_you_mean
from app.domain.fault import Counters, Fault, FaultSpec, beyond_kernel
from app.domain.ports import Line
from app.domain.resources import Page

_FILES = "give it the element filesystem; its program must be one that the library can be linked to"

_UNITS = {
    **dict.fromkeys(("loss", "reorder", "duplicate", "corrupt", "share"), " %"),
    "rate": " bit/s",
    "full_after": " bytes",
    "for": " s",
}


router = APIRouter(prefix="/v1/applications/{name}/faults", tags=["faults"], responses=RESPONSES)
everywhere = APIRouter(prefix="/v1/faults", tags=["faults"], responses=RESPONSES)

_EXAMPLES: dict[str, Any] = {
    "bad line": {
        "summary": "A bad line for half a minute, the same one each time",
        "value": {"loss": "5%", "delay": "20ms", "jitter": "5ms", "for": "30s", "seed": 7},
    },
    "disk": {
        "summary": "A tenth of the writes to databases fails",
        "value": {
            "file": {
                "path": "/srv/**/*.db",
                "op": ["write", "fsync"],
                "errno": "EIO",
                "rate": "10%",
            },
            "for": "30s",
            "seed": 7,
        },
    },
    "cut": {"summary": "Parted from another application", "value": {"cut": "web-b"}},
}


@router.post("", status_code=201, operation_id="addFault")
def add(
    services: Given,
    name: str,
    spec: Annotated[FaultSpec, Body(openapi_examples=_EXAMPLES)],
    response: Response,
) -> Fault:
    """Begin now. The instance, or the kernel, ends it after `for`, whoever is there then."""
    fault = new_fault(name, spec, f"f-{secrets.token_hex(4)}")
    if spec.only_resets:
        fault = fault.model_copy(update={"ends": fault.created})
    with services.store.write() as transaction:
        record = transaction.applications.get(name)
        _must_name_somebody(services, spec, name, transaction.applications.names())
        falls_back = record.coverage is not None and record.coverage.verdict == "kernel"
        _must_be_able(services, record.spec, spec, falls_back=falls_back)
        if not spec.only_resets:
            transaction.faults.add(fault)
        transaction.events.add("fault-started", name, f"{fault.id}: {_said(spec)}")
    counted = services.faults.apply(name, fault if spec.only_resets else None)
    response.headers["Location"] = f"/v1/applications/{name}/faults/{fault.id}"
    return _shown(fault, counted)


@router.get("", operation_id="listFaults")
def list_all(services: Given, name: str, limit: Limit = 1000, after: After = "") -> Page[Fault]:
    """What holds now, by id, with what each has done to the running instance's packets."""
    with services.store.read() as transaction:
        transaction.applications.get(name)
        faults = transaction.faults.of(name)
    counted = _counted(services, name) if faults else {}
    return _holding(faults, counted, after, limit)


@everywhere.get("", operation_id="listAllFaults")
def list_everywhere(services: Given, limit: Limit = 1000, after: After = "") -> Page[Fault]:
    """What holds now anywhere, by id; what each has done is told by the application's own list."""
    with services.store.read() as transaction:
        ours = transaction.applications.names(services.project)
        faults = [one for one in transaction.faults.all() if one.application in ours]
    return _holding(faults, {}, after, limit)


@router.get("/{fault_id}", operation_id="getFault")
def get(services: Given, name: str, fault_id: str) -> Fault:
    """One fault that holds."""
    with services.store.read() as transaction:
        transaction.applications.get(name)
        fault = transaction.faults.get(name, fault_id)
    return _shown(fault, _counted(services, name))


@router.delete("/{fault_id}", status_code=204, operation_id="removeFault")
def remove(services: Given, name: str, fault_id: str) -> Response:
    """End it now; packets that it holds back go on when they are due."""
    with services.store.write() as transaction:
        transaction.applications.get(name)
        transaction.faults.get(name, fault_id)
        transaction.faults.remove(fault_id)
        transaction.events.add("fault-ended", name, f"{fault_id}: removed")
    services.faults.apply(name)
    return Response(status_code=204)


def new_fault(application: str, spec: FaultSpec, identity: str, stack: str | None = None) -> Fault:
    """Beginning now."""
    created = datetime.now(UTC)
    return Fault(
        id=identity,
        application=application,
        spec=spec,
        seed=spec.seed if spec.seed is not None else secrets.randbits(32),
        created=created,
        ends=created + timedelta(seconds=spec.duration) if spec.duration is not None else None,
        stack=stack,
    )


def has_files(services: Services, spec: ApplicationSpec) -> bool:
    """Whether its calls go through a file-system element."""
    used = (services.catalog.entry(one, use.path) for one, use in spec.elements.items())
    return any(one.element.manifest.kind == "filesystem" for one in used)


def stack_of(services: Services, spec: ApplicationSpec) -> Literal["private", "kernel"] | None:
    """Whose packets could meet a fault: those of a library, or of a namespace of its own."""
    used = [
        services.catalog.entry(element, use.path).element.manifest
        for element, use in spec.elements.items()
    ]
    network = [one for one in used if one.kind == "network"]
    if not network:
        return None
    return "kernel" if all(one.provided_by == "kernel" for one in network) else "private"


def kernel_errors(application: str, spec: FaultSpec, place: str = "") -> list[FieldError]:
    """What `spec` asks of a kernel's stack that it cannot do."""
    return [
        FieldError(
            pointer=f"{place}/{field}",
            detail=f"'{application}' is on the kernel's own stack, which has no {field}: {reason}",
            remedy="network-lwip has it; the kernel can do loss, rate, cut, refuse and reset",
        )
        for field, reason in beyond_kernel(spec)
    ]


def _must_be_able(
    services: Services, application: ApplicationSpec, spec: FaultSpec, *, falls_back: bool
) -> None:
    if spec.file is not None:
        if not has_files(services, application) or falls_back:
            raise Conflict(
                f"'{application.name}' has no file system of its own to meet a fault", remedy=_FILES
            )
        return
    stack = stack_of(services, application)
    if stack is None:
        raise Conflict(
            f"'{application.name}' has no network stack of its own to meet a fault",
            remedy="give it a network element, for example network-lwip",
        )
    if (stack == "kernel" or falls_back) and (found := kernel_errors(application.name, spec)):
        raise InvalidFields(found)


def _must_name_somebody(services: Services, spec: FaultSpec, own: str, names: list[str]) -> None:
    for field, value in (("cut", spec.cut), ("to", spec.to)):
        if value is None or value in names or (field == "to" and not value[0].isalpha()):
            if value == own and field == "cut":
                raise InvalidSpecification(
                    "an application cannot be cut from itself", pointer="/cut"
                )
            continue
        raise InvalidSpecification(
            f"there is no application '{value}'",
            pointer=f"/{field}",
            remedy=did_you_mean(value, [name for name in names if name != own]),
        )


def _counted(services: Services, name: str) -> dict[str, Counters]:
    try:
        lines = services.agent.report(name, "faults")
    except (AgentUnavailable, TimedOut):
        return {}
    return {str(line["id"]): _numbers(line) for line in lines}


def _numbers(line: Line) -> Counters:
    return {key: value for key, value in line.items() if isinstance(value, int)}


def _shown(fault: Fault, counted: dict[str, Counters]) -> Fault:
    left = None
    if fault.ends is not None:
        left = max(0.0, (fault.ends - datetime.now(UTC)).total_seconds())
    return fault.model_copy(update={"remaining": left, "counters": counted.get(fault.id, {})})


def _holding(
    faults: list[Fault], counted: dict[str, Counters], after: str, limit: int
) -> Page[Fault]:
    now = datetime.now(UTC)
    holding = [fault for fault in faults if fault.ends is None or fault.ends > now]
    shown = [_shown(fault, counted) for fault in sorted(holding, key=lambda one: one.id)]
    return part(shown, lambda one: one.id, after, limit)


def _said(spec: FaultSpec) -> str:
    """As in `loss 5 %, delay 20 ms, for 30 s`, for people who read events."""
    given = spec.model_dump(mode="json", exclude_defaults=True)
    file = given.pop("file", {})
    if "rate" in file:
        file["share"] = file.pop("rate")
    if "op" in file:
        file["op"] = " ".join(file["op"])
    return ", ".join(_worded(key, value) for key, value in [*file.items(), *given.items()])


def _worded(key: str, value: object) -> str:
    if isinstance(value, bool):
        return key
    if key in ("delay", "jitter") and isinstance(value, float):
        return f"{key} {value * 1000:g} ms"
    unit = _UNITS.get(key, "")
    return f"{key} {value:g}{unit}" if isinstance(value, float) else f"{key} {value}{unit}"
