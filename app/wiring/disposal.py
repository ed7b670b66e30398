"""Takes away the devices of applications that have ended, many at once and with nobody waiting.

Why: the kernel waits for everybody who may still use a device before it takes it away, some 30 ms
for one and as long for a hundred; closing the last descriptor of a tap is such an end. So devices
of removed applications are put into a group of their own, and the group is deleted by one message.
Descriptors of an instance that has ended are closed apart from that, and its device is not touched:
somebody may have it still. What a killed agent has not come to ends with its descriptors.

Made by `wiring`; two threads, from the first device or descriptor to `close`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Callable, Sequence

from app.wiring import rtmessages
from app.wiring.netlink import index_of

_AT_ONCE = 100
_log = logging.getLogger(__name__)


class Disposal:
    """`group`: of interfaces that are about to go; nobody else uses it."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._links = _Worker("cse-disposal", self._remove)
        self._descriptors = _Worker("cse-closing", _close)

    def remove(self, port: str) -> None:
        """The interface of this name, where there is one."""
        index = index_of(port)
        if index is not None:
            self._links.take([index])

    def close_later(self, descriptors: Sequence[int]) -> None:
        """They are the caller's no more."""
        self._descriptors.take(descriptors)

    def finish(self) -> None:
        """Wait until all that was taken so far is gone."""
        self._links.finish()
        self._descriptors.finish()

    def close(self) -> None:
        """The same, and no more threads."""
        self._links.close()
        self._descriptors.close()

    def _remove(self, links: list[int]) -> None:
        requests = [rtmessages.link_in_group(index, self._group) for index in links]
        try:
            errors = {*rtmessages.answers(requests)}
            errors |= {*rtmessages.answers([rtmessages.delete_group(self._group)])}
        except OSError as error:
            errors = {error.errno or errno.EIO}
        for number in errors - {0, errno.ENODEV}:  # some end by themselves meanwhile
            _log.warning("interfaces were not taken away: %s", os.strerror(number))


class _Worker:
    """A thread that takes numbers as they come, as many at once as there are."""

    def __init__(self, name: str, work: Callable[[list[int]], None]) -> None:
        self._name = name
        self._work = work
        self._changed = threading.Condition()
        self._waiting: list[int] = []
        self._busy = self._closing = False
        self._thread: threading.Thread | None = None

    def take(self, numbers: Sequence[int]) -> None:
        with self._changed:
            self._waiting += numbers
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def finish(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not (self._busy or self._waiting))

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closing or bool(self._waiting))
                if not self._waiting:
                    return
                self._busy = True
                taken, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            self._work(taken)


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)
