"""What an ELF file says about itself: only the fields that decide whether a library can be linked.

Called by `preflight`. Layouts from the System V ABI and elf(5); notes of Go from its linker
(note type 4, name "Go", holds the build ID).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64", 21: "ppc64le"}
_PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 2, 3, 4
_MAX_HEADERS = 1024
_MAX_NOTE = 1 << 16


@dataclass(frozen=True)
class Elf:
    """`interpreter` is None for a program that no dynamic loader starts (static)."""

    machine: str
    bits: int
    interpreter: str | None
    dynamic: bool
    go: bool

    @property
    def libc(self) -> str:
        """glibc, musl or none, by the loader's name."""
        name = (self.interpreter or "").rsplit("/", 1)[-1]
        if name.startswith("ld-musl-"):
            return "musl"
        return "glibc" if name.startswith(("ld-linux", "ld64.so", "ld.so")) else "none"


class NotElf(ValueError):
    """The file is not an ELF file, or is damaged."""


def read(file: BinaryIO) -> Elf:
    """Raises NotElf."""
    try:
        return _read(file)
    except (struct.error, IndexError, OverflowError, OSError) as error:
        raise NotElf(f"damaged ELF headers: {error}") from error


def _read(file: BinaryIO) -> Elf:
    head = file.read(64)
    if head[:4] != b"\x7fELF":
        raise NotElf("no ELF signature")
    wide = head[4] == 2
    order = "<" if head[5] == 1 else ">"
    (machine,) = struct.unpack_from(f"{order}H", head, 18)
    if wide:
        phoff, shoff = struct.unpack_from(f"{order}QQ", head, 32)
        phsize, phcount, shsize, shcount, shnames = struct.unpack_from(f"{order}5H", head, 54)
    else:
        phoff, shoff = struct.unpack_from(f"{order}II", head, 28)
        phsize, phcount, shsize, shcount, shnames = struct.unpack_from(f"{order}5H", head, 42)

    interpreter: str | None = None
    dynamic = go = False
    for number in range(min(phcount, _MAX_HEADERS)):
        file.seek(phoff + number * phsize)
        entry = file.read(phsize)
        (kind,) = struct.unpack_from(f"{order}I", entry)
        if wide:
            offset, size = (struct.unpack_from(f"{order}Q", entry, at)[0] for at in (8, 32))
        else:
            offset, size = (struct.unpack_from(f"{order}I", entry, at)[0] for at in (4, 16))
        if kind == _PT_DYNAMIC:
            dynamic = True
        elif kind == _PT_INTERP:
            file.seek(offset)
            interpreter = file.read(min(size, 4096)).split(b"\0")[0].decode(errors="replace")
        elif kind == _PT_NOTE:
            file.seek(offset)
            go = go or _has_go_note(file.read(min(size, _MAX_NOTE)), order)
    if not go:
        sections = (shoff, shsize, min(shcount, _MAX_HEADERS), shnames)
        go = b".go.buildinfo" in _section_names(file, order, wide, sections)
    return Elf(
        machine=_MACHINES.get(machine, f"machine-{machine}"),
        bits=64 if wide else 32,
        interpreter=interpreter,
        dynamic=dynamic,
        go=go,
    )


def _has_go_note(notes: bytes, order: str) -> bool:
    at = 0
    while at + 12 <= len(notes):
        name_size, data_size, _ = struct.unpack_from(f"{order}III", notes, at)
        if notes[at + 12 : at + 12 + name_size].rstrip(b"\0") == b"Go":
            return True
        at += 12 + (name_size + 3 & ~3) + (data_size + 3 & ~3)
    return False


def _section_names(
    file: BinaryIO, order: str, wide: bool, sections: tuple[int, int, int, int]
) -> list[bytes]:
    """All names of the section name table; empty where it was stripped."""
    offset, size, count, names = sections
    if not offset or names >= count:
        return []
    file.seek(offset + names * size)
    entry = file.read(size)
    if wide:
        at, length = struct.unpack_from(f"{order}QQ", entry, 24)
    else:
        at, length = struct.unpack_from(f"{order}II", entry, 16)
    file.seek(at)
    return file.read(min(length, 1 << 20)).split(b"\0")
