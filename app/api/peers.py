"""Who is at the other end of a Unix socket: told to the guard with every request.

The server's protocol class (given to uvicorn by `app/main.py`): one object for each connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_CREDENTIALS = struct.Struct("3i")


class PeerProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """HTTP, with `peer` (process, user, group) in the state of each request."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the kernel once."""
        found = transport.get_extra_info("socket")
        if found is not None and found.family == socket.AF_UNIX:
            with suppress(OSError):
                size = _CREDENTIALS.size
                data = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
                self.app_state = {**self.app_state, "peer": _CREDENTIALS.unpack(data)}
        super().connection_made(transport)
