"""The wall clock, which tells when it is set.

Faults end at moments of the wall clock, which the store keeps, users read and libraries compare
with. When that clock is set, the moments have to move with it: `faults.py` is called then. The
kernel tells by a timer that is cancelled when the clock is set (timerfd_create(2),
TFD_TIMER_CANCEL_ON_SET); Python has none before 3.13, hence ctypes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import threading
import time
from collections.abc import Callable

from app.store.clock import WallClock

_ABSOLUTE, _CANCEL_ON_SET = 1, 2
_NEVER_S = 2**40
_libc = ctypes.CDLL(None, use_errno=True)


class _Times(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


class Clock(WallClock):
    """This host's. Tests give one of their own."""

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed`, in a thread of its own, whenever the clock was set; returns what ends
        that. Where the kernel has no such timer, nothing is told."""
        timer = _libc.timerfd_create(time.CLOCK_REALTIME, os.O_CLOEXEC | os.O_NONBLOCK)
        if timer < 0 or not _arm(timer):
            return lambda: None
        ending = os.eventfd(0, os.EFD_CLOEXEC)
        words = (timer, ending, changed)
        thread = threading.Thread(target=_listen, args=words, name="clock", daemon=True)
        thread.start()

        def end() -> None:
            os.eventfd_write(ending, 1)
            thread.join()
            os.close(timer)
            os.close(ending)

        return end


def _arm(timer: int) -> bool:
    never = _Times(0, 0, _NEVER_S, 0)
    flags = _ABSOLUTE | _CANCEL_ON_SET
    return bool(_libc.timerfd_settime(timer, flags, ctypes.byref(never), None) == 0)


def _listen(timer: int, ending: int, changed: Callable[[], None]) -> None:
    poll = select.poll()
    poll.register(timer, select.POLLIN)
    poll.register(ending, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if ending in ready:
            return
        with contextlib.suppress(OSError):  # ECANCELED: it was set
            os.read(timer, 8)
        _arm(timer)
        changed()
