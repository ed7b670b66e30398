"""Blocks as large as Python's table of interned strings leave no holes behind in glibc's arenas."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

REPLACED = """
import ctypes, sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from app.malloc import give_back_large_blocks

class Usage(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]

if sys.argv[1] == "with":
    give_back_large_blocks()
blocks, met = [bytearray(4 << 20)], Barrier(4)
def replace(_):
    met.wait()  # each in a thread of its own, and so in an arena of its own
    for _ in range(50):
        blocks.append(bytearray(4 << 20))
        del blocks[0]
with ThreadPoolExecutor(4) as pool:
    list(pool.map(replace, range(4)))
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Usage
    print(mallinfo2().arena)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no arenas")
def test_a_large_block_that_is_replaced_by_other_threads_is_given_back() -> None:
    def held(how: str) -> int:
        words = [sys.executable, "-c", REPLACED, how]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    assert held("without") > 8 << 20
    assert held("with") < 4 << 20
