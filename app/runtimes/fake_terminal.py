"""A terminal of the fake runtime: echoes what is typed, and turns Ctrl-C and Ctrl-D into their
meaning, as the kernel's does. Called by `app/runtimes/fake.py`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from app.domain.terminal import TerminalSize
from app.runtimes.fake_program import Program, exists

_CTRL_C, _CTRL_D = b"\x03", b"\x04"


class FakeTerminal:
    """Implements `app.domain.terminal.TerminalSession`."""

    def __init__(
        self,
        command: list[str],
        size: TerminalSize,
        make: Callable[[Callable[[str, str], None]], Program],
    ) -> None:
        self._changed = threading.Condition()
        self._output = bytearray()
        self._exit_code: int | None = None
        self._closed_input = False
        self._program = make(lambda _, text: self._append(text.encode() + b"\r\n"))
        self._known = exists(command)
        self.resize(size)
        threading.Thread(target=self._run, daemon=True).start()

    def read(self, timeout_s: float) -> bytes | None:
        """See `TerminalSession.read`."""
        with self._changed:
            self._changed.wait_for(lambda: self._output or self._exit_code is not None, timeout_s)
            data = bytes(self._output)
            self._output.clear()
            return None if not data and self._exit_code is not None else data

    def write(self, data: bytes) -> None:
        """See `TerminalSession.write`."""
        if data == _CTRL_C:
            self._append(b"^C")
            self._program.kill(signal.SIGINT)
        elif data == _CTRL_D:
            self._closed_input = True
            self._program.kill(signal.SIGHUP)
        else:
            self._append(data.replace(b"\r", b"\r\n"))

    def resize(self, size: TerminalSize) -> None:
        """See `TerminalSession.resize`."""
        self._program.size = (size.rows, size.columns)
        self._program.kill(signal.SIGWINCH)

    def close(self) -> int:
        """See `TerminalSession.close`."""
        self._program.kill(signal.SIGKILL)
        with self._changed:
            self._changed.wait_for(lambda: self._exit_code is not None)
            return self._exit_code if self._exit_code is not None else 0

    def _run(self) -> None:
        status = self._program.run() if self._known else 127
        with self._changed:
            self._exit_code = 0 if self._closed_input and status == 129 else status
            self._changed.notify_all()

    def _append(self, data: bytes) -> None:
        with self._changed:
            self._output += data
            self._changed.notify_all()
