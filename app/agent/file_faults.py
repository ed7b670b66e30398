"""Faults of files, told to an application by a file that all of its processes have mapped.

Layout and theory: images/filesystem/faults.h and faults.c. A fault keeps its row while it holds;
its row counts from the moment that its serial number is there, written last. Nothing here has to
be alive for a fault to end. Called by `connecting` and `looking`.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from app.domain.fault import MAX_FAULTS, FaultOrder
from app.domain.file_fault import FILE_OPERATIONS
from app.domain.launch import Launch
from app.domain.ports import Line

_HEADER = struct.Struct("<II56x")
_ROW = struct.Struct("<QIiIIQQQQQ448s")
_SERIAL = _END = struct.Struct("<Q")
_END_AT = struct.calcsize("<QIiIIQQQQ")
_COUNTED = struct.Struct("<6Q16x")
_VERSION = 1
_NEVER = 2**64 - 1
SIZE = _HEADER.size + MAX_FAULTS * _ROW.size


def concerned(launch: Launch) -> bool:
    """Whether the application has a library that files could meet a fault in."""
    return any(bound.element.manifest.kind == "filesystem" for bound in launch.linked)


def hold(directory: Path, orders: Iterable[FaultOrder]) -> None:
    """Those of files among these, and no others. `directory`: of the application, on the host."""
    wanted = {_serial(order.id): order for order in orders if order.spec.file is not None}
    # Below run/, where the application cannot write: nothing of its making is followed.
    fd = os.open(directory / "run/filesystem.faults", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(fd, 0o644)
        if os.fstat(fd).st_size < SIZE:
            os.ftruncate(fd, SIZE)
        present = [_SERIAL.unpack(os.pread(fd, 8, _place(row)))[0] for row in range(MAX_FAULTS)]
        for row, serial in enumerate(present):
            if serial not in wanted:
                os.pwrite(fd, bytes(_SERIAL.size), _place(row))
        free = [row for row, serial in enumerate(present) if serial not in wanted]
        for serial, order in wanted.items():
            if serial not in present:
                _begin(fd, free.pop(0), serial, order)
            else:  # the clock may have been set, and the end be another moment
                os.pwrite(fd, _END.pack(_ends(order)), _place(present.index(serial)) + _END_AT)
        about = 0
        for order in wanted.values():
            about |= _mask(order)
        os.pwrite(fd, _HEADER.pack(_VERSION, about), 0)
    finally:
        os.close(fd)


def counted(directory: Path, orders: Iterable[FaultOrder]) -> list[Line]:
    """What each has done so far. The application writes this: numbers are all that is taken."""
    files = [order for order in orders if order.spec.file is not None]
    by_serial = {_serial(order.id): order.id for order in files}
    lines: list[Line] = []
    for values in _rows(directory / "data/filesystem.counted"):
        serial, operations, failed, delayed, shortened, written = values
        if serial in by_serial:
            names = {"operations": operations, "failed": failed, "delayed": delayed}
            names |= {"shortened": shortened, "bytes_written": written}
            lines.append({"id": by_serial.pop(serial), **names})
    lines += [{"id": identity, "operations": 0} for identity in by_serial.values()]
    return lines


def _begin(fd: int, row: int, serial: int, order: FaultOrder) -> None:
    file, spec = order.spec.file, order.spec
    assert file is not None
    values = _ROW.pack(
        0,
        _mask(order),
        file.error_number,
        round(file.rate * 10_000),
        int(file.short),
        round(spec.delay * 1e6),
        round(spec.jitter * 1e6),
        _NEVER if file.full_after is None else file.full_after,
        order.seed,
        _ends(order),
        file.path.encode(),
    )
    os.pwrite(fd, values, _place(row))
    os.pwrite(fd, _SERIAL.pack(serial), _place(row))


def _ends(order: FaultOrder) -> int:
    return 0 if order.ends is None else round(order.ends.timestamp() * 1000)


def _mask(order: FaultOrder) -> int:
    assert order.spec.file is not None
    return sum(1 << FILE_OPERATIONS.index(one) for one in set(order.spec.file.operations))


def _place(row: int) -> int:
    return _HEADER.size + row * _ROW.size


def _serial(identity: str) -> int:
    """Of a fault, the same whoever tells it again; never 0 or 1, which mean none and busy."""
    digest = hashlib.sha256(identity.encode()).digest()
    return max(2, int.from_bytes(digest[:8], "little"))


def _rows(path: Path) -> Iterable[tuple[int, ...]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        content = os.pread(fd, _COUNTED.size * MAX_FAULTS, 0)
    except OSError:
        return []
    finally:
        os.close(fd)
    whole = len(content) // _COUNTED.size * _COUNTED.size
    return list(_COUNTED.iter_unpack(content[:whole]))
