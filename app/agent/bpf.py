"""Filters in tcpdump's language, compiled and run by Debian's libpcap. Called by `capturing`.

By ctypes: the Python bindings on PyPI want a compiler and libpcap's headers on every machine, and
four functions of a library whose interface has not changed in twenty years need neither.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable
from functools import cache

from app.agent.pcapng import LINKTYPE
from app.domain.errors import HostLacks, InvalidSpecification

_ANY_NETMASK = 0xFFFFFFFF
_SNAPLEN = 262_144
_compiling = threading.Lock()


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint), ("instructions", ctypes.c_void_p)]


class _Header(ctypes.Structure):
    _fields_ = [
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("captured", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    ]


def compile_filter(text: str) -> Callable[[bytes, int], bool]:
    """Says of a packet (its first bytes, its whole length) whether the filter takes it."""
    library = _library()
    program = _Program()
    with _compiling:
        handle = library.pcap_open_dead(LINKTYPE, _SNAPLEN)
        try:
            failed = library.pcap_compile(
                handle, ctypes.byref(program), text.encode(), 1, _ANY_NETMASK
            )
            if failed:
                said = library.pcap_geterr(handle).decode(errors="replace")
                raise InvalidSpecification(
                    f"'{text}' is not a filter: {said}",
                    pointer="/filter",
                    remedy="write it as for tcpdump, for example 'tcp port 80'",
                )
        finally:
            library.pcap_close(handle)
    header = _Header()

    def accepts(packet: bytes, length: int) -> bool:
        header.captured, header.length = len(packet), length
        return bool(
            library.pcap_offline_filter(ctypes.byref(program), ctypes.byref(header), packet)
        )

    weakref.finalize(accepts, library.pcap_freecode, ctypes.byref(program))
    return accepts


@cache
def _library() -> ctypes.CDLL:
    for name in ("libpcap.so.0.8", "libpcap.so.1"):
        try:
            library = ctypes.CDLL(name)
            break
        except OSError:
            continue
    else:
        raise HostLacks(
            "filters need libpcap, which is not on this host",
            remedy="install Debian's package libpcap0.8, or capture without a filter",
        )
    library.pcap_open_dead.restype = ctypes.c_void_p
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = [ctypes.c_void_p]
    library.pcap_close.argtypes = [ctypes.c_void_p]
    library.pcap_compile.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_uint32,
    ]
    library.pcap_freecode.argtypes = [ctypes.c_void_p]
    library.pcap_offline_filter.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p]
    return library
