"""Puts the API together. Called by the composition root, by tests and by the schema generator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app import tracing
from app.api import (
    applications,
    catalogue,
    dashboard,
    events,
    faults,
    files,
    garbage,
    host,
    instances,
    instruments,
    metrics,
    observing,
    openapi,
    operations,
    problems,
    secrets,
    stacks,
    tokens,
    websockets,
)
from app.api.guard import Guard
from app.api.idempotency import Idempotency
from app.api.services import Services

_THREADS = 100
"""Handlers at the same time; most of them wait for an application to start or stop."""


def create_app(services: Services) -> FastAPI:
    """The ASGI application over these services."""
    api = _routes(services.version)
    api.state.services = services
    problems.install(api)
    dashboard.install(api, services.dashboard_dir)
    api.add_middleware(Idempotency, store=services.store, clock=services.clock, routes=api.routes)
    api.add_middleware(
        Guard, rules=services.rules, authenticator=services.authenticator, store=services.store
    )
    return api


def description(version: str) -> dict[str, Any]:
    """The OpenAPI document."""
    return _routes(version).openapi()


def _routes(version: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        yield

    api = FastAPIOffline(
        title="CSE",
        summary="Private TCP/IP stacks, file systems and clocks for unmodified programs.",
        version=version,
        openapi_url="/v1/openapi.json",
        docs_url="/v1/docs",
        redoc_url=None,
        static_url="/v1/docs-assets",
        lifespan=lifespan,
        # Its logs would hold what failed to be validated: also secrets.
        telemetry={
            "tracing": tracing.provider() is not None,
            "tracer_provider": tracing.provider(),
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    rooms = (applications, stacks, observing, instances, catalogue, events, faults, files, host)
    for room in (*rooms, garbage, instruments, metrics, operations, secrets, tokens, websockets):
        api.include_router(room.router)
    api.include_router(faults.everywhere)
    openapi.install(api)
    return api
