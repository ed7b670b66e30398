"""Exit statuses, and how errors are shown: what, where (with the line of a file), what to do."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import IntEnum

from app.client import ProblemError
from app.domain import errors
from app.domain.explain import FieldError, InvalidFields


class ExitStatus(IntEnum):
    """What programs that call `cse` can rely on."""

    OK = 0
    FAILED = 1
    INVALID = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    CONFLICT = 5
    HOST_LACKS = 6
    FORBIDDEN = 7
    NOT_STARTED = 125
    """Of `run` and `exec`: the program itself gives every other status."""


_STATUS: dict[str, ExitStatus] = {
    errors.InvalidSpecification.slug: ExitStatus.INVALID,
    errors.PreflightRefused.slug: ExitStatus.INVALID,
    errors.NotFound.slug: ExitStatus.NOT_FOUND,
    errors.Conflict.slug: ExitStatus.CONFLICT,
    "precondition-failed": ExitStatus.CONFLICT,
    errors.AgentUnavailable.slug: ExitStatus.UNREACHABLE,
    errors.Unauthenticated.slug: ExitStatus.FORBIDDEN,
    errors.Forbidden.slug: ExitStatus.FORBIDDEN,
    errors.HostLacks.slug: ExitStatus.HOST_LACKS,
}


class Failed(Exception):
    """The command has told what went wrong."""

    def __init__(self, status: int = ExitStatus.FAILED) -> None:
        super().__init__(status)
        self.status = status


def status_of(error: errors.CseError) -> ExitStatus:
    """The exit status for an error."""
    slug = error.kind if isinstance(error, ProblemError) else error.slug
    return _STATUS.get(slug, ExitStatus.FAILED)


def fields_of(error: errors.CseError) -> list[FieldError]:
    """The fields that an error is about."""
    if isinstance(error, ProblemError):
        return error.errors
    if isinstance(error, InvalidFields):
        return error.errors
    if error.pointer is not None:
        return [FieldError(pointer=error.pointer, detail=error.detail, remedy=error.remedy)]
    return []


def report(error: errors.CseError, *, places: Mapping[str, str] | None = None) -> int:
    """Write the error to standard error; `places`: pointer → `FILE:LINE`."""
    fields = fields_of(error)
    for field in fields:
        _write(_place(field.pointer, places or {}), field.detail, field.remedy)
    if not fields:
        _write("error", error.detail, error.remedy)
    return status_of(error)


def _place(pointer: str, places: Mapping[str, str]) -> str:
    """The line of the pointer, or of the nearest thing around it."""
    nearest = pointer
    while nearest and nearest not in places:
        nearest = nearest.rpartition("/")[0]
    where = f"{places[nearest]}: " if nearest in places else ""
    return f"{where}{pointer}" if pointer else f"{where}error"


def _write(place: str, detail: str, remedy: str | None) -> None:
    sys.stderr.write(f"{place}: {detail}\n")
    if remedy:
        sys.stderr.write(f"  → {remedy}\n")
