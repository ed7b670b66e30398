"""Has glibc give large blocks back when they are freed. Called by `app/main.py` before it serves.

Python keeps all interned strings (every part of every Path is one) in one table of some 4 MB, which
is made anew whenever strings that have gone have filled it: under load once a minute, by whichever
thread comes to it. glibc takes a block from that thread's own arena once one of its size has been
freed (mallopt(3), M_MMAP_THRESHOLD), and so one arena after the other kept a hole of 4 MB.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE = 2**21
"""Bytes. Of blocks below, such as most answers are, each would cost page faults for nothing."""


def give_back_large_blocks() -> None:
    """From now on, in all threads. Another C library than glibc is left as it is."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, 2 * _LARGE)
