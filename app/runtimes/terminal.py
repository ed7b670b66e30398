"""A pseudo-terminal with a command of this host in it. Opened by the namespace runtime.

The command gets the slave as its three standard descriptors and as its controlling terminal; the
latter is taken by `cse-shim exec` inside the sandbox, so that job control works there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import termios
import threading
import time

from app.domain.terminal import TerminalSize
from app.runtimes.readable import readable

_MOST = 1 << 16
_AFTER_EXIT_S = 0.05
"""What a command has written last is there to be read by then."""
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_TYPE_S, _PAUSE_S = 5.0, 0.01
"""So long a command that does not read holds its input up; then it is lost, as on a keyboard."""


class PseudoTerminal:
    """Implements `app.domain.terminal.TerminalSession`."""

    def __init__(self, command: list[str], size: TerminalSize, inherited: list[int]) -> None:
        """`inherited`: descriptors of this process that the command must not get. OSError."""
        self._lock = threading.Lock()
        self._master, slave = os.openpty()
        self._exit_code: int | None = None
        try:
            os.set_blocking(self._master, False)
            _set_size(self._master, size)
            self._pid = os.posix_spawn(
                command[0],
                command,
                {},
                setsid=True,
                setsigdef=_SIGNALS,  # a shell's background job would have Ctrl-C ignored
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.ttyname(slave), os.O_RDWR | os.O_NOCTTY, 0),
                    (os.POSIX_SPAWN_DUP2, 0, 1),
                    (os.POSIX_SPAWN_DUP2, 0, 2),
                    *((os.POSIX_SPAWN_CLOSE, fd) for fd in inherited),
                ],
            )
            self._pidfd = os.pidfd_open(self._pid)
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)

    def read(self, timeout_s: float) -> bytes | None:
        """See `TerminalSession.read`."""
        if self._exit_code is not None:
            return None
        if not readable(self._master, timeout_s):
            over = readable(self._pidfd, 0) and not readable(self._master, _AFTER_EXIT_S)
            return None if over else b""
        try:
            return os.read(self._master, _MOST) or None
        except OSError:  # EIO: nobody has the slave open
            return None

    def write(self, data: bytes) -> None:
        """See `TerminalSession.write`."""
        deadline = time.monotonic() + _TYPE_S
        while data and time.monotonic() < deadline:
            with self._lock:
                if self._exit_code is not None:
                    return
                try:
                    data = data[os.write(self._master, data) :]
                    continue
                except BlockingIOError:
                    pass
                except OSError:
                    return
            time.sleep(_PAUSE_S)

    def resize(self, size: TerminalSize) -> None:
        """See `TerminalSession.resize`."""
        with self._lock, contextlib.suppress(OSError):
            if self._exit_code is None:
                _set_size(self._master, size)

    def close(self) -> int:
        """See `TerminalSession.close`."""
        with self._lock:
            if self._exit_code is None:
                if not readable(self._pidfd, _AFTER_EXIT_S):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self._pid, signal.SIGKILL)
                _, status = os.waitpid(self._pid, 0)
                code = os.waitstatus_to_exitcode(status)
                self._exit_code = code if code >= 0 else 128 - code
                os.close(self._pidfd)
                os.close(self._master)
            return self._exit_code


def _set_size(terminal: int, size: TerminalSize) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))
