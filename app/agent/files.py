"""Asking `cse-files` what an application sees of files. Called by `local`.

The program lies beside the file-system element's libraries where one is linked, and else, static,
is put into the application's run directory when it is first needed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from app.domain.errors import (
    Conflict,
    CseError,
    Forbidden,
    HostLacks,
    InvalidSpecification,
    NotFound,
    RuntimeFailure,
)
from app.domain.files import CommandOutput, FilesPart, FilesRequest, encode, text
from app.domain.launch import Launch
from app.domain.observed import Coverage
from app.runtimes import rundir

_NAME = "cse-files"
_STATIC = Path(__file__).resolve().parents[2] / "build" / "bin" / platform.machine() / _NAME
_TICK_S = 1.0
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def ask(
    state: Path,
    launch: Launch,
    coverage: Coverage | None,
    request: FilesRequest,
    look: Callable[[list[str]], CommandOutput],
) -> Iterator[FilesPart]:
    """The parts of the answer; what goes wrong before the first is raised at once."""
    command = [_program(state, launch, coverage), *request.words]
    output = look(command)
    try:
        first = _next(output)
        while first == b"":
            first = _next(output)
        if first is None:
            _finish(output)
    except BaseException:
        with contextlib.suppress(CseError):
            output.close()
        raise
    more = _about_host(state, launch) if request.what == "explain" else b""
    return _parts(output, more, first)


def _parts(output: CommandOutput, more: bytes, data: bytes | None) -> Iterator[FilesPart]:
    try:
        yield FilesPart(data=more)
        while data is not None:
            yield FilesPart(data=data)
            data = _next(output)
        _finish(output)
    finally:
        output.close()


def _next(output: CommandOutput) -> bytes | None:
    return output.read(_TICK_S)


def _finish(output: CommandOutput) -> None:
    """Raises what the command said was wrong."""
    status, said = output.close()
    if status == 0:
        return
    last = next((one for one in reversed(said.splitlines()) if one.startswith("error ")), None)
    if last is None:
        detail = said.strip()[-300:] or f"it ended with {status}"
        raise RuntimeFailure(f"{_NAME} could not be asked: {detail}")
    words = dict(word.split("=", 1) for word in last.split(" ")[1:] if "=" in word)
    raise _error(int(words.get("errno", "5")), text(words.get("path", "")), words.get("text", ""))


def _error(number: int, path: str, encoded: str) -> CseError:
    said = f"{path}: {text(encoded)}"
    if number in _NOT_THERE:
        return NotFound(said, pointer="/path")
    if number in (errno.EACCES, errno.EPERM):
        return Forbidden(said, pointer="/path", remedy="the application itself may not, either")
    if number == errno.EISDIR:
        return InvalidSpecification(said, pointer="/path", remedy="name a file")
    if number == errno.ENXIO:
        return InvalidSpecification(
            f"{path} is no file", pointer="/path", remedy="devices and FIFOs are not read"
        )
    if number == errno.ENOTSUP:
        return Conflict(
            f"what was changed in {path} cannot be told",
            pointer="/path",
            remedy="changes are known of 'cow' and 'memory' mounts",
        )
    return RuntimeFailure(said, pointer="/path")


def _program(state: Path, launch: Launch, coverage: Coverage | None) -> str:
    """Its path as the application sees it."""
    target = f"{coverage.libc}-{coverage.machine}" if coverage else ""
    for bound in launch.linked:
        suffix = "" if bound.variant == "release" else f"-{bound.variant}"
        beside = Path(bound.element.directory) / "lib" / f"{target}{suffix}" / _NAME
        if beside.is_file():
            return f"{rundir.INSIDE}/lib/{bound.element.manifest.name}/{_NAME}"
    _bring(rundir.application_directory(state, launch.name) / "run" / _NAME)
    return f"{rundir.INSIDE}/{_NAME}"


def _bring(place: Path) -> None:
    """What is bound into the application is its directory, so this appears there."""
    try:
        wanted = _STATIC.stat()
    except FileNotFoundError:
        raise HostLacks(f"{_STATIC} is not built", remedy="run 'make native'") from None
    with contextlib.suppress(FileNotFoundError):
        present = place.stat()
        if (present.st_size, present.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns):
            return
    fresh = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        shutil.copy2(_STATIC, fresh)
        fresh.chmod(0o755)
        fresh.replace(place)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise RuntimeFailure(f"{place} cannot be made: {error.strerror}") from error


def _about_host(state: Path, launch: Launch) -> bytes:
    """Lines for `app.domain.served`."""
    binds, memories = rundir.places(state, launch)
    lines = [f"surroundings runtime={launch.spec.runtime}"]
    lines += [f"bind inside={encode(one.target)} outside={encode(one.source)}" for one in binds]
    lines += [f"memory inside={encode(one.target)}" for one in memories]
    return "".join(f"{line}\n" for line in lines).encode()
