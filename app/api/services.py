"""What the handlers work with; made by the composition root, found in the application's state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from app.api.access import Authenticator
from app.api.guard import Rules
from app.api.rendered import Rendered
from app.catalog.catalog import Catalog
from app.catalog.templates import Templates
from app.domain.access import Principal
from app.domain.application import RuntimeName
from app.domain.errors import Forbidden, NotFound
from app.domain.fault import FaultKeeping
from app.domain.health import HealthKeeping
from app.domain.network import NetworkSpec
from app.domain.operation import OperationKeeping
from app.domain.ports import Agent
from app.domain.status import Convergence
from app.store.clock import WallClock
from app.store.store import Store


@dataclass(frozen=True)
class Services:
    """The rooms below the API."""

    store: Store
    agent: Agent
    catalog: Catalog
    templates: Templates
    convergence: Convergence
    faults: FaultKeeping
    operations: OperationKeeping
    health: HealthKeeping
    rendered: Rendered
    default_network: NetworkSpec
    authenticator: Authenticator
    clock: WallClock
    version: str
    default_runtime: RuntimeName = RuntimeName.NAMESPACE
    paths_are_visible: bool = True
    """Whether this process sees the host's files; otherwise only the agent can tell."""
    dashboard_dir: Path = Path("build/dashboard")
    """The dashboard's built files; need not be there."""
    rules: Rules = field(default_factory=Rules)
    runs: Callable[[], set[str]] = set
    """Names of the programs of `cse run` that there are now."""
    project: str | None = None
    """Whoever makes this request sees and changes applications of this project only."""


async def _services(request: Request) -> Services:
    # Not a plain function: FastAPI would run it in a thread of the pool, for every request.
    services = cast(Services, request.app.state.services)
    principal: Principal | None = getattr(request.state, "principal", None)
    if principal is None or principal.project is None:
        return services
    return await run_in_threadpool(
        confine, services, principal.project, request.method, request.url.path
    )


def confine(services: Services, project: str, method: str, path: str) -> Services:
    """The services for somebody confined to a project. Raises `NotFound` for applications of
    others, as if there were none, and `Forbidden` for changes of what all share."""
    parts = path.split("/")[2:]  # after "", "v1"
    room, name = parts[0], parts[1] if len(parts) > 1 else None
    if room in ("networks", "volumes") and method not in ("GET", "HEAD"):
        raise Forbidden(
            f"{room} belong to all projects, this token to '{project}' alone",
            remedy="use a token that is not confined to a project",
        )
    if room in ("applications", "instances") and name is not None:
        application = name.partition(".")[0] if room == "instances" else name
        with services.store.read() as transaction:
            record = transaction.applications.find(application)
            if record is not None and record.spec.project != project:
                raise NotFound(f"there is no application '{application}'")
    return replace(services, project=project)


Given = Annotated[Services, Depends(_services)]
"""Parameter type of a handler that needs the services."""
