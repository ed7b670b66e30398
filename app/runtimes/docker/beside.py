"""Commands for the bytes they write: in a running container, or in one made like it.

Called by `runtime`. What is made for a container that does not run bears the label of readers, not
the applications', so that it never counts as one; an agent that is killed leaves it to the next.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from app.domain.errors import CseError, RuntimeFailure, TimedOut
from app.runtimes.docker import output
from app.runtimes.docker.engine import Engine
from app.runtimes.docker.imagefiles import reader_labels
from app.runtimes.docker.streams import end_command
from app.runtimes.readable import readable

_STDERR_KEPT = 64 * 1024
_EXIT_WAIT_S = 5.0
_KEPT = ("Image", "Hostname", "Env", "User")


class _Frames:
    """Docker's frames as they come, without waiting longer than asked for."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._raw = getattr(connection, "_sock", connection)
        self._left = 0
        self._stream = 1
        self.errors = b""
        self.ended = False

    def read(self, timeout_s: float) -> bytes | None:
        """Of stdout; see `CommandOutput.read`."""
        deadline = time.monotonic() + timeout_s
        while not self.ended:
            left = deadline - time.monotonic()
            if left <= 0 or not readable(self._raw.fileno(), left):
                return b""
            if self._left == 0:
                self._header()
                continue
            data: bytes = self._raw.recv(min(self._left, 1 << 18))
            self._left -= len(data)
            self.ended = not data
            if self._stream == 2:
                self.errors = (self.errors + data)[-_STDERR_KEPT:]
            elif data:
                return data
        return None

    def _header(self) -> None:
        header = output.exactly(self._raw.recv, 8)
        if header is None:
            self.ended = True
            return
        self._stream, self._left = header[0], int.from_bytes(header[4:8], "big")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.close()

    @property
    def said(self) -> str:
        return self.errors.decode(errors="replace")


class ExecutedCommand:
    """Implements `app.domain.files.CommandOutput` in a running container."""

    def __init__(self, engine: Engine, identity: str, name: str, command: list[str]) -> None:
        self._engine = engine
        self._name = name
        api = engine()
        with engine.doing(f"execute '{command[0]}' in '{name}'"):
            self._id = api.exec_create(identity, command)["Id"]
            self._frames = _Frames(api.exec_start(self._id, socket=True))
        self._ended: tuple[int, str] | None = None

    def read(self, timeout_s: float) -> bytes | None:
        """See `CommandOutput.read`."""
        return self._frames.read(timeout_s)

    def close(self) -> tuple[int, str]:
        """See `CommandOutput.close`."""
        if self._ended is None:
            with self._engine.doing(f"end a command in '{self._name}'"):
                found = self._inspect()
                if not self._frames.ended:
                    end_command(int(found.get("Pid") or 0))
            self._frames.close()
            self._ended = int(found["ExitCode"] or 0), self._frames.said
        return self._ended

    def _inspect(self) -> dict[str, Any]:
        """After the end of the output the command ends very soon, too."""
        deadline = time.monotonic() + _EXIT_WAIT_S
        while True:
            found: dict[str, Any] = self._engine().exec_inspect(self._id)
            if not self._frames.ended or not found["Running"] or time.monotonic() > deadline:
                return found
            time.sleep(0.005)


class AsideContainer:
    """The same in a container like `found` (what Docker says of one), made for the command."""

    def __init__(
        self,
        engine: Engine,
        installation: str,
        found: dict[str, Any],
        name: str,
        command: list[str],
    ) -> None:
        self._engine = engine
        self._name = name
        api = engine()
        with engine.doing(f"make surroundings like those of '{name}'"):
            body = _body(found, installation, command)
            self._id = str(api.create_container_from_config(body)["Id"])
        try:
            with engine.doing(f"execute '{command[0]}' in surroundings like those of '{name}'"):
                params = {"stdout": 1, "stderr": 1, "stream": 1}
                self._frames = _Frames(api.attach_socket(self._id, params=params))
                api.start(self._id)
        except BaseException:
            self._remove()
            raise
        self._ended: tuple[int, str] | None = None

    def read(self, timeout_s: float) -> bytes | None:
        """See `CommandOutput.read`."""
        return self._frames.read(timeout_s)

    def close(self) -> tuple[int, str]:
        """See `CommandOutput.close`."""
        if self._ended is None:
            try:
                self._ended = self._status(), self._frames.said
            finally:
                self._frames.close()
                self._remove()
        return self._ended

    def end(self) -> None:
        """From any thread: the reader then finds the end."""
        self._remove()

    def _status(self) -> int:
        if not self._frames.ended:
            return 137
        try:
            with self._engine.doing(f"wait for a command in '{self._name}'"):
                return int(self._engine().wait(self._id, timeout=_EXIT_WAIT_S)["StatusCode"])
        except (RuntimeFailure, TimedOut):
            return 137
        except CseError:  # removed, for the application starts
            return 137

    def _remove(self) -> None:
        with contextlib.suppress(CseError), self._engine.doing("remove a container"):
            self._engine().remove_container(self._id, force=True, v=True)


def _body(found: dict[str, Any], installation: str, command: list[str]) -> dict[str, Any]:
    """The request that makes it: no network, no restart, no published port."""
    program, *arguments = command
    given, host = found["Config"], found["HostConfig"]
    kept = ("Mounts", "Tmpfs", "CapDrop", "SecurityOpt", "Memory", "MemorySwap", "NanoCpus")
    return {
        **{key: given[key] for key in _KEPT},
        "Image": found["Image"],
        "Entrypoint": [program],
        "Cmd": arguments,
        "WorkingDir": "/",
        "Labels": reader_labels(installation),
        "HostConfig": {
            **{key: host[key] for key in kept if host.get(key)},
            "NetworkMode": "none",
            "Init": True,
            "LogConfig": {"Type": "none", "Config": {}},
        },
    }
