"""The packet socket of a private stack, as the kernel knows it: its filter and its mapped rings.

Called by `claims`. A copy of the descriptor is taken from the process (pidfd_getfd(2)); the socket
lies in a namespace that no process is in, so that no table of sockets shows it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from app.evidence import proc

_PIDFD_GETFD = 438
_SO_DOMAIN, _SO_GET_FILTER = 39, 26
_INSTRUCTIONS_MAX, _INSTRUCTION_BYTES = 4096, 8
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class PacketSocket:
    """One of a process; `instructions` is 0 where no filter is attached."""

    inode: int
    instructions: int
    mapped_kb: int


def packet_socket(pid: int) -> PacketSocket | None:
    """The first packet socket among the process's descriptors; None where none was found."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            for number, target in proc.descriptors(pid):
                found = _examine(pidfd, number) if target.startswith("socket:[") else None
                if found is not None:
                    return PacketSocket(int(target[8:-1]), found, _mapped_kb(pid, target))
        finally:
            os.close(pidfd)
    return None


def _examine(pidfd: int, number: int) -> int | None:
    """Instructions of the filter, if the descriptor is a packet socket."""
    copy = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
    if copy < 0:
        return None
    try:
        if _int_option(copy, _SO_DOMAIN) != socket.AF_PACKET:
            return None
        # The length is counted in instructions here, both ways.
        code = ctypes.create_string_buffer(_INSTRUCTIONS_MAX * _INSTRUCTION_BYTES)
        count = ctypes.c_uint32(_INSTRUCTIONS_MAX)
        options = (socket.SOL_SOCKET, _SO_GET_FILTER, code, ctypes.byref(count))
        return count.value if _libc.getsockopt(copy, *options) == 0 else 0
    finally:
        os.close(copy)


def _int_option(fd: int, option: int) -> int:
    value, size = ctypes.c_int(-1), ctypes.c_uint32(4)
    _libc.getsockopt(fd, socket.SOL_SOCKET, option, ctypes.byref(value), ctypes.byref(size))
    return value.value


def _mapped_kb(pid: int, name: str) -> int:
    """Shared, writable mappings of the socket."""
    total = 0
    for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
        fields = line.split()
        if fields[-1] == name and fields[1].startswith("rw-s"):
            first, last = (int(part, 16) for part in fields[0].split("-"))
            total += (last - first) // 1024
    return total
