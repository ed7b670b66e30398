"""Captures that the application's events tell of, from their beginning to their end.

Called by the two ways to get one: over HTTP (`instruments.py`) and WebSocket (`websockets.py`).
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from app.api.services import Services
from app.domain.capture import CaptureRequest, Pcapng
from app.domain.explain import InvalidFields, explain


def begin(services: Services, name: str, given: Mapping[str, Any]) -> Generator[Pcapng]:
    """Packets as they pass. Raises `InvalidFields`, and what the agent raises: some of it only at
    the first part.
    """
    try:
        request = CaptureRequest.model_validate(given)
    except ValidationError as error:
        raise InvalidFields(explain(error.errors(), CaptureRequest)) from error
    return _told(services, name, request, services.agent.capture(name, request))


def _told(
    services: Services, name: str, request: CaptureRequest, parts: Iterator[Pcapng]
) -> Generator[Pcapng]:
    identity = f"cap-{secrets.token_hex(3)}"
    size = 0
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
