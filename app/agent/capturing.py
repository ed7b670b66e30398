"""Captures: an instance's records become a pcapng file, filtered. Called by `local`.

The instance never waits for us: what finds no room in its ring is counted there, and the counts
close the file (interface statistics). Format of the records: images/network-lwip/lwip/capture.c.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.agent import pcapng
from app.agent.bpf import compile_filter
from app.broker.instruments import Instruments
from app.domain.capture import CaptureRequest, Pcapng

_HEAD = struct.Struct("<IIIBBHQ")
_LAST = 0xFF
_TICK_S = 1.0
"""A part comes at least so often, empty if need be: whoever has gone away is noticed then."""
_READ_BYTES = 1 << 20
_MAX_RECORD = 1 << 19


@dataclass
class _Limits:
    """When to end."""

    left: int | None
    until: float | None

    def over(self) -> bool:
        return self.left == 0 or (self.until is not None and time.monotonic() >= self.until)

    def wait_s(self) -> float:
        left = _TICK_S if self.until is None else self.until - time.monotonic()
        return max(0.0, min(_TICK_S, left))


def start(instruments: Instruments, request: CaptureRequest) -> Iterator[Pcapng]:
    """Begins at once: what is wrong is raised here, not at the first part."""
    accepts = compile_filter(request.filter) if request.filter else None
    number, ours = instruments.open_capture(request.snaplen)
    until = time.monotonic() + request.duration if request.duration else None
    return _parts(instruments, number, ours, accepts, _Limits(request.count, until), request)


def _parts(
    instruments: Instruments,
    number: int,
    ours: socket.socket,
    accepts: Callable[[bytes, int], bool] | None,
    limits: _Limits,
    request: CaptureRequest,
) -> Iterator[Pcapng]:
    pending = bytearray()
    ending = False
    try:
        yield Pcapng(data=pcapng.begin(request.snaplen, request.filter))
        while True:
            readable = select.select([ours], [], [], limits.wait_s())[0]
            data = ours.recv(_READ_BYTES) if readable else b""
            if readable and not data:
                return  # the instance has ended
            pending += data
            blocks, last = _take(pending, accepts, limits)
            yield Pcapng(data=bytes(blocks))
            if last or (ending and not readable):
                return
            if limits.over() and not ending:
                ending = True
                limits.until = time.monotonic() + _TICK_S  # for its last word
                instruments.end_capture(number, close=False)
    finally:
        with contextlib.suppress(OSError):
            ours.close()
        instruments.end_capture(number, close=True)


def _take(
    pending: bytearray, accepts: Callable[[bytes, int], bool] | None, limits: _Limits
) -> tuple[bytearray, bool]:
    """Blocks of all whole records, and whether the last one was among them."""
    blocks, at, last = bytearray(), 0, False
    while len(pending) - at >= _HEAD.size and not last:
        size, captured, original, link, way, _, moment = _HEAD.unpack_from(pending, at)
        if not _HEAD.size <= size <= _MAX_RECORD or captured > size - _HEAD.size:
            last = True  # a stranger's nonsense
            break
        if len(pending) - at < size:
            break
        begin = at + _HEAD.size
        if link == _LAST:
            blocks += pcapng.end(bytes(pending[begin : at + size]))
            last = True
        elif limits.left != 0 and link < pcapng.LINKS and way < 2:
            data = bytes(pending[begin : begin + captured])
            packet = pcapng.cooked(data, link, way)
            if accepts is None or accepts(packet, original + pcapng.COOKED):
                blocks += pcapng.packet(packet, original, link, way, moment)
                limits.left = limits.left - 1 if limits.left is not None else None
        at += size
    del pending[:at]
    return blocks, last
