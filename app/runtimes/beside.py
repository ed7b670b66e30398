"""Commands whose output is read as bytes, beside an application or in its surroundings.

Of an application that does not run, the surroundings are made once more, for the command alone
(`Asides`): one at a time, because an archive's index and an encrypted store have one owner, and
ended at once when the application itself starts or is removed. Used by both runtimes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from app.domain.errors import Conflict, HostLacks
from app.domain.files import CommandOutput

_BLOCK = 256 * 1024
_STDERR_KEPT = 64 * 1024
_PATIENCE_S = 20.0


class PipedCommand:
    """Implements `app.domain.files.CommandOutput`: a process of this host with two pipes."""

    def __init__(self, words: Sequence[str | Path]) -> None:
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={},
                start_new_session=True,
            )
        except OSError as error:
            raise HostLacks(f"{words[0]} cannot be executed: {error.strerror}") from error
        self._errors = b""
        self._open = {self._fd(self._process.stdout), self._fd(self._process.stderr)}
        self._lock = threading.Lock()

    def read(self, timeout_s: float) -> bytes | None:
        """See `CommandOutput.read`."""
        deadline = time.monotonic() + timeout_s
        out, err = self._fd(self._process.stdout), self._fd(self._process.stderr)
        while self._open:
            poll = select.poll()
            for fd in self._open:
                poll.register(fd, select.POLLIN)
            ready = poll.poll(max(0, round((deadline - time.monotonic()) * 1000)))
            if not ready:
                return b""
            for fd, _ in ready:
                data = os.read(fd, _BLOCK)
                if not data:
                    self._open.discard(fd)
                elif fd == err:
                    self._errors = (self._errors + data)[-_STDERR_KEPT:]
                if data and fd == out:
                    return data
        return None

    def close(self) -> tuple[int, str]:
        """See `CommandOutput.close`."""
        with self._lock:
            if self._open:
                self.end()
            status = self._process.wait()
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()
            self._open = set()
        return status if status >= 0 else 128 - status, self._errors.decode(errors="replace")

    def end(self) -> None:
        """From any thread: the reader then finds the end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _fd(self, pipe: object) -> int:
        return pipe.fileno()  # type: ignore[attr-defined,no-any-return]


class Asides:
    """At most one command of each application that does not run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._ends: dict[str, Callable[[], None]] = {}

    def open(
        self, name: str, make: Callable[[], tuple[CommandOutput, Callable[[], None]]]
    ) -> CommandOutput:
        """`make` gives the command and what ends it early. Waits for another one, not for long."""
        turn = self._turn(name)
        if not turn.acquire(timeout=_PATIENCE_S):
            raise Conflict(
                f"the files of '{name}' are being read by somebody else",
                remedy="wait for that to end, or start the application",
            )
        try:
            command, end = make()
        except BaseException:
            turn.release()
            raise
        with self._lock:
            self._ends[name] = end
        return _Aside(command, lambda: self._done(name, turn))

    def end(self, name: str) -> None:
        """Before the application starts; returns when nothing of it is left."""
        with self._lock:
            end = self._ends.get(name)
        if end is not None:
            end()

    def _turn(self, name: str) -> threading.Lock:
        with self._lock:
            return self._turns.setdefault(name, threading.Lock())

    def _done(self, name: str, turn: threading.Lock) -> None:
        with self._lock:
            self._ends.pop(name, None)
        turn.release()


class _Aside:
    """A command that gives its turn back when it is closed."""

    def __init__(self, command: CommandOutput, done: Callable[[], None]) -> None:
        self._command = command
        self._done: Callable[[], None] | None = done

    def read(self, timeout_s: float) -> bytes | None:
        return self._command.read(timeout_s)

    def close(self) -> tuple[int, str]:
        try:
            return self._command.close()
        finally:
            done, self._done = self._done, None
            if done is not None:
                done()
