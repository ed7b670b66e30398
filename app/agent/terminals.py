"""The terminals that are open on this host, by a name that only their reader knows.

A terminal lives as long as its parts are being read: a client that goes away takes the command
with it, a part at least each second shows that nobody reads any more. Called by `local` and `fake`.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator

from app.domain.errors import NotFound
from app.domain.terminal import TerminalPart, TerminalSession, TerminalSize

_TICK_S = 1.0


class Terminals:
    """Safe from several threads."""

    def __init__(self) -> None:
        self._open: dict[str, TerminalSession] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)

    def parts(self, terminal: TerminalSession) -> Iterator[TerminalPart]:
        """The first part, empty, names the session; the last has the exit code."""
        session = secrets.token_hex(8)
        with self._lock:
            self._open[session] = terminal
        return self._parts(session, terminal)

    def write(self, session: str, data: bytes) -> None:
        """Raises NotFound where the command has ended."""
        self._get(session).write(data)

    def resize(self, session: str, size: TerminalSize) -> None:
        """Raises NotFound where the command has ended."""
        self._get(session).resize(size)

    def close(self) -> None:
        """End all commands."""
        with self._lock:
            terminals = list(self._open.values())
        for terminal in terminals:
            terminal.close()

    def _parts(self, session: str, terminal: TerminalSession) -> Iterator[TerminalPart]:
        try:
            yield TerminalPart(session=session)
            while (data := terminal.read(_TICK_S)) is not None:
                yield TerminalPart(session=session, data=data)
            yield TerminalPart(session=session, exit_code=terminal.close())
        finally:
            with self._lock:
                self._open.pop(session, None)
            terminal.close()

    def _get(self, session: str) -> TerminalSession:
        with self._lock:
            terminal = self._open.get(session)
        if terminal is None:
            raise NotFound("this terminal's command has ended")
        return terminal
