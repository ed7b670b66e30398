"""A tree from an application, unpacked as a directory that can be a lower layer.

The archive comes from the application, so nothing of it may touch what lies outside the directory:
no name or hard link leads out, not through links either; devices and set-id bits are left out.
Called by `fs commit --layer`.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from app.domain.errors import Conflict, InvalidSpecification

_PLAIN_BITS = 0o1777


def unpack(parts: Iterator[bytes], layer: Path) -> None:
    """Make the directory `layer`, whole or not at all. Raises Conflict, InvalidSpecification."""
    try:
        layer.mkdir()
    except FileExistsError:
        raise Conflict(f"{layer} is there already", remedy="name a directory that is not") from None
    except OSError as error:
        raise InvalidSpecification(
            f"{layer} cannot be made: {error.strerror}", pointer="/layer"
        ) from error
    try:
        with tarfile.open(fileobj=cast("BinaryIO", _Stream(parts)), mode="r|") as tar:
            tar.extraction_filter = lambda member, _: member
            _extract(tar, layer)
    except (OSError, tarfile.TarError) as error:
        shutil.rmtree(layer, ignore_errors=True)
        raise InvalidSpecification(
            f"{layer} cannot be filled: {error}", pointer="/layer"
        ) from error
    except BaseException:
        shutil.rmtree(layer, ignore_errors=True)
        raise


def _extract(tar: tarfile.TarFile, layer: Path) -> None:
    top = layer.resolve()
    directories: list[tarfile.TarInfo] = []
    for member in tar:
        place = _within(top, member.name)
        if member.islnk():
            _within(top, member.linkname)
        if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
            continue
        member.mode &= _PLAIN_BITS
        if os.path.lexists(place) and (place.is_symlink() or not member.isdir()):
            raise tarfile.ExtractError(f"'{member.name}' comes twice")
        if member.isdir():
            directories.append(member)
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            member.name = str(place.relative_to(top))
            tar.extract(member, top, numeric_owner=True)
    for member in reversed(directories):  # at last: times change with what is put in
        place = _within(top, member.name)
        if os.geteuid() == 0:
            os.lchown(place, member.uid, member.gid)
        place.chmod(member.mode)
        os.utime(place, (member.mtime, member.mtime))


def _within(top: Path, name: str) -> Path:
    """Where the name lies, its directory without links."""
    given = top / name.strip("/")
    place = given.parent.resolve() / given.name if given != top else top
    if given.name == ".." or not place.is_relative_to(top):
        raise tarfile.ExtractError(f"'{name}' leads out of the tree")
    return place


class _Stream:
    """Parts as something to read from."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest = b""

    def read(self, size: int) -> bytes:
        """So many bytes, fewer only at the end."""
        pieces, have = [self._rest], len(self._rest)
        while have < size and (part := next(self._parts, None)) is not None:
            pieces.append(part)
            have += len(part)
        whole = b"".join(pieces)
        self._rest = whole[size:]
        return whole[:size]
