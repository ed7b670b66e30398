"""Applications: create, list, get, replace, delete, start, stop, restart."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.api import admission, planning, preconditions
from app.api.idempotency import retried
from app.api.operations import Prefer, asks_not_to_wait, begun
from app.api.preconditions import IfMatch, IfNoneMatch
from app.api.problems import RESPONSES
from app.api.resources import Labels, etag
from app.api.services import Given, Services
from app.domain import selector
from app.domain.application import ApplicationSpec
from app.domain.change import Effect, Plan, ResourceChange
from app.domain.errors import AgentUnavailable, InvalidSpecification, TimedOut
from app.domain.model import Name
from app.domain.observed import State
from app.domain.resources import Application, Page
from app.domain.status import Status
from app.store.records import ApplicationRecord
from app.store.store import Transaction

router = APIRouter(prefix="/v1/applications", tags=["applications"], responses=RESPONSES)

Wait = Annotated[
    float,
    Query(ge=0, le=600, description="Seconds to wait until the application is as asked."),
]
_HERE_S = 5.0
"""Whoever waits so long has the steps done in the request's own thread: that is quicker."""
_EXAMPLES: dict[str, Any] = {
    "web": {
        "summary": "nginx on a private TCP/IP stack, documents from an archive",
        "value": {
            "name": "web-a",
            "command": ["nginx", "-g", "daemon off;"],
            "elements": {
                "network-lwip": {},
                "filesystem": {
                    "settings": {
                        "mounts": [
                            {"path": "/srv/www", "source": "archive", "from": "/srv/site.tar.gz"}
                        ]
                    }
                },
            },
            "ports": ["8081:80"],
        },
    },
    "sleep": {"summary": "A program alone", "value": {"name": "nap", "command": ["sleep", "60"]}},
}
Spec = Annotated[ApplicationSpec, Body(openapi_examples=_EXAMPLES)]


@router.post("", status_code=201, operation_id="createApplication", response_model=Application)
def create(
    services: Given, request: Request, spec: Spec, wait: Wait = 10.0, prefer: Prefer = None
) -> Response:
    """Check, record and start an application.

    With `wait`, what keeps it from being started is answered as an error and leaves nothing. 202
    and an operation where it takes longer.
    """
    spec = admission.with_defaults(services, spec)
    wait = 0.0 if asks_not_to_wait(prefer) else wait
    if retried.get() and (made := _made_before(services, spec)) is not None:
        return _answer(services, made, _await(services, made, wait), 201)
    admitted = _admit(services, spec)
    admission.ensure_network(services, admitted.network, "/network/name")
    with services.store.write() as transaction:
        record = transaction.applications.insert(
            services.store.installation, spec, admitted.network, admitted.coverage
        )
        admission.check_project(services, transaction, spec)
        transaction.events.add("created", spec.name, "created")
    services.convergence.wake(spec.name, here=wait >= _HERE_S)
    status = _await(services, record, wait)
    if wait and (error := _lasting_error(status)):
        _remove(services, spec.name, 30.0)
        raise error
    answer = _answer(services, record, status, 201)
    if _is_open(record, status):
        new = frozenset({record.name})
        begun(services, request, answer, "create", [record], "running", new)
        answer.status_code = 202
    return answer


@router.get("", operation_id="listApplications", response_model=Page[Application])
def list_all(
    services: Given,
    label: Labels = None,
    project: Annotated[str | None, Query(description="Only of this project.")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    after: Annotated[str, Query(description="`next` of the part before.")] = "",
) -> Response:
    """All applications, by name."""
    fits = selector.parse(label) if label else None
    own = services.project
    fitting = [
        record
        for record in services.store.applications().values()
        if record.name > after
        and (own is None or record.spec.project == own)
        and (project is None or record.spec.project == project)
        and (fits is None or fits(record.spec.labels))
    ]
    items = b",".join(services.rendered.texts(fitting[:limit]))
    more = len(fitting) > limit
    following = b',"next":"%s"' % fitting[limit - 1].name.encode() if more else b""
    text = b"".join((b'{"items":[', items, b"]", following, b"}"))
    return Response(text, media_type="application/json")


@router.get("/{name}", operation_id="getApplication", response_model=Application)
async def get(services: Given, name: str, wait: Wait = 0.0) -> Response:
    """One application; with `wait`, not before it has been started or has failed to be."""
    # Without a thread where nothing has to be waited for: that is half of a read's time.
    record = services.store.application_at_hand(name) if not wait else None
    if record is not None and record.desired != "removed":
        return _answer(services, record, services.convergence.status(name), 200)
    return await run_in_threadpool(_get, services, name, wait)


def _get(services: Services, name: str, wait: float) -> Response:
    if not wait:
        record = services.store.applications().get(name)
        if record is not None and record.desired != "removed":
            return _answer(services, record, services.convergence.status(name), 200)
    with services.store.read() as transaction:
        record = transaction.applications.get(name)
    if not wait:
        return _answer(services, record, services.convergence.status(name), 200)
    status = _await(services, record, wait)
    with services.store.read() as transaction:
        record = transaction.applications.get(name)
    return _answer(services, record, status, 200)


@router.put("/{name}", operation_id="replaceApplication", response_model=Application)
def replace(
    services: Given,
    request: Request,
    name: Name,
    spec: Spec,
    wait: Wait = 10.0,
    prefer: Prefer = None,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Make the application so: created, changed as gently as what differs allows, or left alone.

    `POST …/plan` says what would happen. To change one that is there, its ETag in `If-Match` is
    required (428), or `*` to overrule whatever it has become.
    """
    spec = _named(services, name, spec)
    with services.store.read() as transaction:
        present = _present(transaction, name)
    preconditions.check(_tag(present), if_match, if_none_match)
    change = planning.of_application(present, spec, services.catalog)
    if present is not None and change.action == "unchanged":
        return _answer(services, present, services.convergence.status(name), 200)
    admitted = _admit(services, spec)
    admission.ensure_network(services, admitted.network, "/network/name")
    with services.store.write() as transaction:
        present = _present(transaction, name)
        preconditions.check(_tag(present), if_match, if_none_match)
        preconditions.require(present, if_match, f"application '{name}'")
        change = planning.of_application(present, spec, services.catalog)
        record = _carry_out(services, transaction, change, admitted)
    services.convergence.wake(name)
    status = _await(services, record, 0.0 if asks_not_to_wait(prefer) else wait)
    answer = _answer(services, record, status, 200 if present else 201)
    if _is_open(record, status):
        new = frozenset() if present else frozenset({name})
        begun(services, request, answer, change.action, [record], "running", new)
        answer.status_code = 202
    return answer


@router.post("/{name}/plan", operation_id="planApplication")
def plan(services: Given, name: Name, spec: Spec) -> Plan:
    """What a PUT of this specification would change, and who would notice; nothing is done.

    `version` is the ETag to give the PUT in `If-Match`; empty where there is none yet.
    """
    spec = _named(services, name, spec)
    admitted = _admit(services, spec)
    with services.store.read() as transaction:
        present = _present(transaction, name)
    change = planning.of_application(present, spec, services.catalog)
    found = Plan(name=name, version=_tag(present) or "", changes=[change])
    found = planning.preflighted(found, {name: admitted.coverage})
    return planning.disrupted(services, found)


@router.delete("/{name}", status_code=204, operation_id="deleteApplication")
def delete(
    services: Given,
    request: Request,
    name: str,
    wait: Wait = 30.0,
    prefer: Prefer = None,
    if_match: IfMatch = None,
) -> Response:
    """End the program and remove everything made for it. 202 and an operation while it lasts."""
    with services.store.read() as transaction:
        record = transaction.applications.get(name)
        preconditions.check(etag(record), if_match)
    gone = _remove(services, name, 0.0 if asks_not_to_wait(prefer) else wait)
    answer = Response(status_code=204 if gone else 202)
    if not gone:
        begun(services, request, answer, "delete", [record], "removed")
    return answer


@router.post("/{name}/start", operation_id="startApplication", response_model=Application)
def start(
    services: Given, request: Request, name: str, wait: Wait = 10.0, prefer: Prefer = None
) -> Response:
    """Start the program if it does not run."""
    observed = services.convergence.status(name).observed
    # One that is alive needs no run more; one that has never run is started in any case.
    here = observed is not None and observed.state not in (State.EXITED, State.FAILED)
    wish = _Wish("start", "running", new_run=not here)
    return _carry_on(services, request, name, wish, 0.0 if asks_not_to_wait(prefer) else wait)


@router.post("/{name}/stop", operation_id="stopApplication", response_model=Application)
def stop(
    services: Given, request: Request, name: str, wait: Wait = 30.0, prefer: Prefer = None
) -> Response:
    """End the program by its stop rule; the application stays."""
    wish = _Wish("stop", "stopped")
    return _carry_on(services, request, name, wish, 0.0 if asks_not_to_wait(prefer) else wait)


@router.post("/{name}/restart", operation_id="restartApplication", response_model=Application)
def restart(
    services: Given, request: Request, name: str, wait: Wait = 30.0, prefer: Prefer = None
) -> Response:
    """End the program, and start it anew."""
    wish = _Wish("restart", "running", new_run=True)
    return _carry_on(services, request, name, wish, 0.0 if asks_not_to_wait(prefer) else wait)


def _admit(services: Services, spec: ApplicationSpec) -> admission.Admitted:
    return admission.admit(services, spec, admission.known_to(services, spec))


def _named(services: Services, name: str, spec: ApplicationSpec) -> ApplicationSpec:
    if spec.name != name:
        raise InvalidSpecification(
            f"the specification is for '{spec.name}', the path for '{name}'",
            pointer="/name",
            remedy="use the same name in both; an application cannot be renamed",
        )
    return admission.with_defaults(services, spec)


def _present(transaction: Transaction, name: str) -> ApplicationRecord | None:
    """None also where it is being removed: that is the end of it."""
    record = transaction.applications.find(name)
    return None if record is None or record.desired == "removed" else record


def _tag(record: ApplicationRecord | None) -> str | None:
    return etag(record) if record is not None else None


def _carry_out(
    services: Services,
    transaction: Transaction,
    change: ResourceChange,
    admitted: admission.Admitted,
) -> ApplicationRecord:
    """Record a creation or a change, with its event."""
    applications, spec = transaction.applications, admitted.spec
    if change.action == "unchanged":  # somebody else has just made the same change
        return applications.get(spec.name)
    if change.action == "change" and change.effect is not Effect.RECREATE:
        record = applications.change(spec, restart=change.effect is Effect.RESTART)
        verb = "changed"
    else:
        is_new = change.action == "create"
        act = applications.insert if is_new else applications.replace
        record = act(services.store.installation, spec, admitted.network, admitted.coverage)
        verb = "created" if is_new else "replaced"
    admission.check_project(services, transaction, spec)
    transaction.events.add(verb, spec.name, verb)
    return record


class _Wish(NamedTuple):
    kind: str
    desired: Literal["running", "stopped"]
    new_run: bool = False


def _carry_on(
    services: Services, request: Request, name: str, wish: _Wish, wait: float
) -> Response:
    with services.store.write() as transaction:
        transaction.applications.set_desired(name, wish.desired, new_run=wish.new_run)
        verb = {"running": "start requested", "stopped": "stop requested"}[wish.desired]
        transaction.events.add(verb.replace(" ", "-"), name, verb)
    services.convergence.wake(name)
    status = services.convergence.wait_for(name, lambda status: not status.busy, wait)
    with services.store.read() as transaction:
        record = transaction.applications.get(name)
    answer = _answer(services, record, services.convergence.status(name), 200)
    if status.busy:
        begun(services, request, answer, wish.kind, [record], wish.desired)
        answer.status_code = 202
    return answer


def _made_before(services: Services, spec: ApplicationSpec) -> ApplicationRecord | None:
    """What this very request has made before the server was killed."""
    with services.store.read() as transaction:
        record = _present(transaction, spec.name)
    return record if record is not None and record.spec == spec else None


def _await(services: Services, record: ApplicationRecord, wait: float) -> Status:
    """Until the program runs or has run, or an error keeps it from that."""
    return services.convergence.wait_for(record.name, partial(_settled, record), wait)


def _settled(record: ApplicationRecord, status: Status) -> bool:
    observed = status.observed
    ours = observed is not None and observed.id == record.id
    state = observed.state if observed is not None and ours else None
    if state is State.RUNNING and record.run_done in (0, record.run_wanted):
        return True
    if status.busy:
        return False
    if status.condition is not None and status.condition.error is not None:
        return True
    return record.desired != "running" or state not in (None, State.CREATED)


def _is_open(record: ApplicationRecord, status: Status) -> bool:
    """Whether there is something to wait for yet: also a failure that may pass."""
    if not _settled(record, status):
        return True
    observed, condition = status.observed, status.condition
    there = observed is not None and observed.id == record.id
    may_pass = condition is not None and condition.error is not None and condition.retry_at
    return bool(may_pass) and not (there and observed and observed.state is State.RUNNING)


def _lasting_error(status: Status) -> Exception | None:
    """What will not go away by itself; an agent that is away may come back."""
    error = status.condition.error if status.condition else None
    return None if isinstance(error, AgentUnavailable | TimedOut) else error


def _remove(services: Services, name: str, wait: float) -> bool:
    """Whether it is gone within the time."""
    with services.store.write() as transaction:
        transaction.applications.set_desired(name, "removed")
    services.convergence.wake(name)
    services.convergence.wait_for(name, lambda status: not status.busy, wait)
    with services.store.read() as transaction:
        return transaction.applications.find(name) is None


def _answer(services: Services, record: ApplicationRecord, status: Status, code: int) -> Response:
    # Serialized once: FastAPI would validate and copy what has just been built.
    return Response(
        services.rendered.text(record, status),
        code,
        {"ETag": etag(record), "Location": f"/v1/applications/{record.name}"},
        media_type="application/json",
    )
