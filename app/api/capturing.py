"""Captures that the application's events tell of, from their beginning to their end.

Called by the two ways to get one: over HTTP (`instruments.py`) and WebSocket (`websockets.py`).
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator, Mapping
from itertools import chain
from typing import Any

from pydantic import ValidationError

from app.api.services import Services
from app.domain.capture import CaptureRequest, Pcapng
from app.domain.explain import InvalidFields, explain


def begin(services: Services, name: str, given: Mapping[str, Any]) -> Iterator[Pcapng]:
    """Packets as they pass; what is wrong is raised here, not after a beginning.

    Raises `InvalidFields`, and whatever the agent does.
    """
    try:
        request = CaptureRequest.model_validate(given)
    except ValidationError as error:
        raise InvalidFields(explain(error.errors(), CaptureRequest)) from error
    parts = _told(services, name, request)
    return chain([next(parts)], parts)


def _told(services: Services, name: str, request: CaptureRequest) -> Generator[Pcapng]:
    identity = f"cap-{secrets.token_hex(3)}"
    size = 0
    parts = services.agent.capture(name, request)
    first = next(parts)  # where it cannot begin there is nothing to tell
    said = f"{identity}: {request.filter or 'all packets'}"
    services.store.record_event("capture-started", name, said)
    try:
        yield first
        for part in parts:
            size += len(part.data)
            yield part
    finally:
        services.store.record_event("capture-ended", name, f"{identity}: {size} bytes")
