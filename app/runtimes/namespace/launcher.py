"""The process that an agent's shims are forked from (images/_shim/launch.c). Used by `runtime`."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_TITLE = 1000
"""Bytes of arguments, which a shim overwrites with its directory for `ps` to show."""


class Launcher:
    """Begun at the first start, and again where it was killed; safe from several threads."""

    def __init__(self, shim: Path, inherited: Sequence[int]) -> None:
        """`inherited`: descriptors that neither it nor the shims may have."""
        self._shim = shim
        self._inherited = inherited
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._pid = 0

    def launch(self, directory: Path, gate: Sequence[int] = ()) -> int:
        """Start the shim of an application; the descriptor that it announces on. `gate`: the one
        at which its program is held. Raises OSError."""
        reader, writer = os.pipe()
        try:
            self._send(os.fsencode(directory), [writer, *gate])
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return reader

    def close(self) -> None:
        """The shims go on."""
        with self._lock:
            self._end()

    def _send(self, data: bytes, descriptors: list[int]) -> None:
        with self._lock:
            if self._socket is not None:
                with suppress(BrokenPipeError, ConnectionResetError):
                    socket.send_fds(self._socket, [data], descriptors)
                    return
                self._end()
            self._socket = self._begin()
            socket.send_fds(self._socket, [data], descriptors)

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._pid = os.posix_spawn(
                    self._shim,
                    [str(self._shim), "launch", " " * _TITLE],
                    {},
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                        *((os.POSIX_SPAWN_CLOSE, fd) for fd in self._inherited),
                    ],
                )
            except BaseException:
                ours.close()
                raise
        return ours

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            os.waitpid(self._pid, 0)
