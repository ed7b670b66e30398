"""inotify(7), which Python's standard library does not have: just what this room needs."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from types import TracebackType

from app.domain.errors import HostLacks
from app.runtimes.readable import readable

_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE = 0x2, 0x80, 0x100
OVERFLOWN = -1
"""The watch number of an event that stands for others that were lost (IN_Q_OVERFLOW)."""
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """A descriptor that is readable when a watched directory has changed."""

    def __init__(self) -> None:
        self.fd: int = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise HostLacks(
                f"inotify: {os.strerror(ctypes.get_errno())}",
                remedy="raise the sysctl fs.inotify.max_user_instances",
            )

    def watch(self, directory: Path, *, written: bool = False) -> int:
        """Files renamed into it; with `written`, also files created or written to."""
        mask = _IN_MOVED_TO | (_IN_MODIFY | _IN_CREATE if written else 0)
        number: int = _libc.inotify_add_watch(self.fd, os.fsencode(directory), mask)
        if number < 0:
            raise HostLacks(
                f"inotify on {directory}: {os.strerror(ctypes.get_errno())}",
                remedy="raise the sysctl fs.inotify.max_user_watches",
            )
        return number

    def read(self) -> list[tuple[int, str]]:
        """(watch number, file name) of what happened; never blocks."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return []
        events, at = [], 0
        while at < len(data):
            number, _, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            events.append((number, os.fsdecode(data[at : at + length].rstrip(b"\0"))))
            at += length
        return events

    def wait(self, timeout_s: float) -> None:
        """Until something happened, or the time is over; forgets what it was."""
        readable(self.fd, timeout_s)
        self.read()

    def __enter__(self) -> Inotify:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self.fd)
