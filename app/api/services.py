"""What the handlers work with; made by the composition root, found in the application's state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

from fastapi import Depends, Request

from app.catalog.catalog import Catalog
from app.domain.application import RuntimeName
from app.domain.fault import FaultKeeping
from app.domain.network import NetworkSpec
from app.domain.ports import Agent
from app.domain.status import Convergence
from app.store.store import Store


@dataclass(frozen=True)
class Services:
    """The rooms below the API."""

    store: Store
    agent: Agent
    catalog: Catalog
    convergence: Convergence
    faults: FaultKeeping
    default_network: NetworkSpec
    version: str
    default_runtime: RuntimeName = RuntimeName.NAMESPACE
    paths_are_visible: bool = True
    """Whether this process sees the host's files; otherwise only the agent can tell."""
    dashboard_dir: Path = Path("build/dashboard")
    """The dashboard's built files; need not be there."""
    loopback_only: bool = True
    """Requests must name a loopback host: keeps web pages in a browser away from the API."""


async def _services(request: Request) -> Services:
    # Not a plain function: FastAPI would run it in a thread of the pool, for every request.
    return cast(Services, request.app.state.services)


Given = Annotated[Services, Depends(_services)]
"""Parameter type of a handler that needs the services."""
