"""A terminal that Docker makes for a command in a container. Opened by `runtime`."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from app.domain.errors import CseError
from app.domain.terminal import TerminalSize
from app.runtimes.docker.engine import Engine
from app.runtimes.docker.streams import end_command
from app.runtimes.readable import readable

_MOST = 1 << 16
_NOTICE_S = 2.0


class ContainerTerminal:
    """Implements `app.domain.terminal.TerminalSession` over Docker's hijacked connection."""

    def __init__(
        self, engine: Engine, identity: str, name: str, command: list[str], size: TerminalSize
    ) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._exit_code: int | None = None
        self._over = False
        api = engine()
        with engine.doing(f"execute '{command[0]}' in '{name}'"):
            self._id = str(api.exec_create(identity, command, stdin=True, tty=True)["Id"])
            self._connection: Any = api.exec_start(self._id, socket=True, tty=True)
        self._raw = getattr(self._connection, "_sock", self._connection)
        self.resize(size)

    def read(self, timeout_s: float) -> bytes | None:
        """See `TerminalSession.read`."""
        if self._exit_code is not None:
            return None
        if not readable(self._raw.fileno(), timeout_s):
            return b""
        try:
            data: bytes = self._raw.recv(_MOST)
        except OSError:
            data = b""
        self._over = not data
        return data or None

    def write(self, data: bytes) -> None:
        """See `TerminalSession.write`."""
        with contextlib.suppress(OSError):
            self._raw.sendall(data)

    def resize(self, size: TerminalSize) -> None:
        """See `TerminalSession.resize`."""
        # Refused where the command has ended already: then there is nothing to tell.
        with contextlib.suppress(CseError), self._engine.doing("resize a terminal"):
            self._engine().exec_resize(self._id, height=size.rows, width=size.columns)

    def close(self) -> int:
        """See `TerminalSession.close`."""
        with self._lock:
            if self._exit_code is None:
                with self._engine.doing("end a terminal"):
                    found = self._inspected()
                    if found["Running"]:
                        end_command(int(found.get("Pid") or 0))
                self._exit_code = 137 if found["Running"] else int(found["ExitCode"] or 0)
                self._connection.close()
            return self._exit_code

    def _inspected(self) -> Any:
        """Docker notices an end a moment after the last output."""
        deadline = time.monotonic() + (_NOTICE_S if self._over else 0.0)
        while True:
            found = self._engine().exec_inspect(self._id)
            if not found["Running"] or time.monotonic() >= deadline:
                return found
            time.sleep(0.01)
